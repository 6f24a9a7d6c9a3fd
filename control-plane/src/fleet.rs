//! The fleet, as its heartbeats tell it. Nothing of it is stored: a restart hears every edge
//! again within a heartbeat.

use model::api::EdgeOverview;
use model::fleet::{EdgeState, Heartbeat, SILENT_MS_MAX};
use model::publish::PublishRecord;
use model::rank::LOAD_MAX;
use model::{EdgeId, TitleId, Version};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

/// Edges known at a time.
pub(crate) const EDGES_MAX: usize = 10_000;
/// An edge that was not heard for this long is forgotten, in milliseconds.
const FORGOTTEN_MS: u64 = 24 * 3_600_000;
/// URLs of one edge.
const URLS_MAX: usize = 8;

/// What the console and the ranking see of an edge.
struct Edge {
    beat: Heartbeat,
    heard_ms: u64,
    /// Names of the files held, by title and version.
    files: HashMap<(TitleId, Version), HashSet<String>>,
}

/// Everything that an edge view changes with.
type Shape = Vec<(EdgeId, Vec<String>, bool, bool)>;

#[derive(Default)]
struct State {
    edges: BTreeMap<EdgeId, Edge>,
    version: u64,
    shape: Shape,
}

/// The fleet. Its lock is held for lookups only, never across I/O.
pub(crate) struct Fleet(Mutex<State>);

impl Edge {
    fn healthy(&self, now_ms: u64) -> bool {
        self.beat.serving && self.silent_ms(now_ms) <= SILENT_MS_MAX
    }

    fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    fn state(&self, id: &EdgeId, now_ms: u64) -> EdgeState {
        EdgeState {
            id: id.clone(),
            urls: self.beat.urls.clone(),
            healthy: self.healthy(now_ms),
            load: self.beat.load,
        }
    }

    fn holds(&self, record: &PublishRecord) -> bool {
        let files = self.files.get(&(record.title.clone(), record.version));
        let held = |name: &String| files.is_some_and(|files| files.contains(name));
        !record.files.is_empty() && record.files.iter().all(|file| held(&file.name))
    }
}

impl Fleet {
    /// View versions begin at `now_ms`, so that they grow across restarts too.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self(Mutex::new(State { version: now_ms, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, the fleet is rebuilt by heartbeats.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes a heartbeat and returns the version of the view with it; none if there are
    /// [`EDGES_MAX`] others.
    pub(crate) fn heard(&self, id: EdgeId, beat: Heartbeat, now_ms: u64) -> Option<u64> {
        let mut files: HashMap<_, HashSet<String>> = HashMap::new();
        for held in &beat.holdings {
            files.entry((held.title.clone(), held.version)).or_default().insert(held.file.clone());
        }
        let mut state = self.state();
        state.edges.retain(|_, edge| edge.silent_ms(now_ms) <= FORGOTTEN_MS);
        if state.edges.len() >= EDGES_MAX && !state.edges.contains_key(&id) {
            return None;
        }
        state.edges.insert(id, Edge { beat, heard_ms: now_ms, files });
        Some(state.version_now(now_ms))
    }

    /// Version of the view, and the fleet by id.
    pub(crate) fn view(&self, now_ms: u64) -> (u64, Vec<EdgeState>) {
        let mut state = self.state();
        let version = state.version_now(now_ms);
        (version, state.edges.iter().map(|(id, edge)| edge.state(id, now_ms)).collect())
    }

    /// The fleet by id, and who holds every file of a version.
    pub(crate) fn holders(
        &self,
        record: Option<&PublishRecord>,
        now_ms: u64,
    ) -> (Vec<EdgeState>, HashSet<EdgeId>) {
        let state = self.state();
        let edges = state.edges.iter().map(|(id, edge)| edge.state(id, now_ms)).collect();
        let holds = |edge: &Edge| record.is_some_and(|record| edge.holds(record));
        let holders = state.edges.iter().filter(|(_, edge)| holds(edge)).map(|(id, _)| id.clone());
        (edges, holders.collect())
    }

    /// Edges that are healthy now.
    pub(crate) fn healthy(&self, now_ms: u64) -> usize {
        self.state().edges.values().filter(|edge| edge.healthy(now_ms)).count()
    }

    /// Edges with their planned budget, and who of them holds what, by id.
    pub(crate) fn budgets<'a>(
        &self,
        records: impl Iterator<Item = &'a PublishRecord> + Clone,
    ) -> Vec<(EdgeId, u64, Vec<TitleId>)> {
        let state = self.state();
        let held = |edge: &Edge| {
            let held = records.clone().filter(|record| edge.holds(record));
            held.map(|record| record.title.clone()).collect()
        };
        let edges = state.edges.iter();
        edges.map(|(id, edge)| (id.clone(), edge.beat.planned_bytes_max, held(edge))).collect()
    }

    /// What the console shows. `bytes_of` tells the size of a held file.
    pub(crate) fn overview(
        &self,
        now_ms: u64,
        bytes_of: impl Fn(&TitleId, &Version, &str) -> u64,
    ) -> Vec<EdgeOverview> {
        let state = self.state();
        let overview = |(id, edge): (&EdgeId, &Edge)| {
            let beat = &edge.beat;
            let held = beat.holdings.iter();
            EdgeOverview {
                state: edge.state(id, now_ms),
                silent_ms: edge.silent_ms(now_ms),
                serving: beat.serving,
                counters: beat.counters,
                hit_ratio: hit_ratio(beat.counters.hit_bytes, beat.counters.bytes),
                planned_bytes_max: beat.planned_bytes_max,
                planned_bytes: held
                    .map(|held| bytes_of(&held.title, &held.version, &held.file))
                    .sum(),
                planned_files: beat.holdings.len() as u64,
                plan_complete: beat.plan_complete,
            }
        };
        state.edges.iter().map(overview).collect()
    }
}

impl State {
    /// The view's version: one more whenever edges, their URLs, health or room have changed
    /// since it was last asked for.
    fn version_now(&mut self, now_ms: u64) -> u64 {
        let shape = |(id, edge): (&EdgeId, &Edge)| {
            let full = edge.beat.load >= LOAD_MAX;
            (id.clone(), edge.beat.urls.clone(), edge.healthy(now_ms), full)
        };
        let shape: Shape = self.edges.iter().map(shape).collect();
        if shape != self.shape {
            self.shape = shape;
            self.version += 1;
        }
        self.version
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn hit_ratio(hit_bytes: u64, bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| (hit_bytes as f64 / bytes as f64).min(1.0))
}

/// What is wrong with a heartbeat: names the field and what was expected.
pub(crate) fn fault(beat: &Heartbeat) -> Option<String> {
    if beat.urls.is_empty() || beat.urls.len() > URLS_MAX {
        return Some(format!("urls: expected 1 to {URLS_MAX} URLs"));
    }
    if let Some(bad) = beat.urls.iter().find(|url| !is_base_url(url)) {
        let shown: String = bad.chars().take(80).collect();
        return Some(format!(
            "urls: {shown:?}: expected http:// or https:// with host and port, without a path"
        ));
    }
    // Also refuses what is not a number.
    if !(0.0..=f64::MAX).contains(&beat.load) {
        return Some("load: expected a number from 0.0".to_owned());
    }
    None
}

/// A URL with nothing below its host, spelled as players will see it.
pub(crate) fn is_base_url(text: &str) -> bool {
    let Ok(url) = text.parse::<url::Url>() else { return false };
    let scheme = matches!(url.scheme(), "http" | "https");
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    scheme && bare && nobody && url.has_host() && !text.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fleet::EdgeCounters;

    fn beat(url: &str) -> Heartbeat {
        Heartbeat {
            urls: vec![url.to_owned()],
            boot: 1,
            serving: true,
            load: 0.1,
            counters: EdgeCounters::default(),
            planned_bytes_max: 0,
            plan_complete: None,
            holdings: vec![],
        }
    }

    #[test]
    fn the_view_grows_with_each_change_and_only_then() {
        let fleet = Fleet::new(1000);
        let id: EdgeId = "a".parse().unwrap();
        let first = fleet.heard(id.clone(), beat("http://a:1"), 1000).unwrap();
        assert!(first > 1000);
        assert_eq!(fleet.heard(id.clone(), beat("http://a:1"), 2000), Some(first));
        let busier = Heartbeat { load: 0.2, ..beat("http://a:1") };
        assert_eq!(fleet.heard(id.clone(), busier, 2000), Some(first));
        assert_eq!(fleet.heard(id.clone(), beat("http://a:2"), 2000), Some(first + 1));
        assert_eq!(fleet.view(2000 + SILENT_MS_MAX).0, first + 1);
        let (version, edges) = fleet.view(2001 + SILENT_MS_MAX);
        assert_eq!((version, edges[0].healthy), (first + 2, false));
        let draining = Heartbeat { serving: false, ..beat("http://a:2") };
        assert_eq!(fleet.heard(id, draining, 9000), Some(first + 2));
        assert_eq!(fleet.healthy(9000), 0);
        fleet.heard("b".parse().unwrap(), beat("http://b:1"), 9000 + FORGOTTEN_MS + 1);
        assert_eq!(fleet.view(9000).1.len(), 1, "the long silent one is forgotten");
    }

    #[test]
    fn a_bad_heartbeat_is_named() {
        assert_eq!(fault(&beat("http://127.0.0.2:8080")), None);
        for bad in
            ["", "127.0.0.2:80", "ftp://a", "http://a/", "http://a/x", "http://a?x", "http://u@a"]
        {
            let named = fault(&beat(bad)).unwrap();
            assert!(named.starts_with("urls: "), "{named}");
        }
        assert!(fault(&Heartbeat { load: f64::NAN, ..beat("http://a") }).is_some());
        assert!(fault(&Heartbeat { load: -0.1, ..beat("http://a") }).is_some());
        assert!(fault(&Heartbeat { urls: vec![], ..beat("http://a") }).is_some());
    }
}
