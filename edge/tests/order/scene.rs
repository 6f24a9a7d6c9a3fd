//! The parts of a world that its clients share.

use super::THING_BYTES;
use super::client::Ask;
use super::excuse::{Circumstances, Failed, awaited, excused};
use super::judge::own_member;
use super::node::Node;
use super::process::Place;
use super::tally::Tally;
use crate::versions::{CAPPED, Origin};
use futures::future::join_all;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The least of the edge's own time limits.
const LIMIT_MIN: Duration = Duration::from_secs(1);

/// What was known when a thing was asked for.
pub struct Asked {
    pub number: usize,
    /// The version below which no answer may be.
    pub floor: u64,
    pub began: Instant,
}

/// What may happen in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Requests, slow ones and such that leave; evictions, restarts.
    Quiet,
    /// And new versions, purges.
    Changing,
    /// And an origin that fails.
    Wild,
}

pub struct Scene {
    pub origin: Origin,
    /// The nodes that clients ask: first the one below all others.
    pub nodes: Vec<Node>,
    /// Slow clients go on when this changes.
    pub paused: watch::Sender<u64>,
    pub mood: Mood,
    /// Nothing happens any more but that everything is asked for once more.
    pub is_over: AtomicBool,
    /// What each client does now.
    pub doing: Mutex<BTreeMap<u64, String>>,
    pub tally: Tally,
    /// By what a version of a thing came, if it was not there at the begin.
    comings: Mutex<HashMap<(usize, u64), &'static str>>,
}

impl Scene {
    pub fn new(nodes: Vec<Node>, origin: Origin, mood: Mood) -> Self {
        Self {
            origin,
            nodes,
            paused: watch::channel(0).0,
            mood,
            is_over: AtomicBool::new(false),
            doing: Mutex::default(),
            tally: Tally::default(),
            comings: Mutex::default(),
        }
    }

    /// Whoever waits goes on.
    pub fn go_on(&self) {
        self.origin.release();
        self.paused.send_modify(|paused| *paused += 1);
    }

    /// Whether an answer may end before all that the thing has, if the origin said so.
    pub fn may_be_short(&self, number: usize) -> bool {
        self.mood != Mood::Quiet || !self.origin.thing(number).is_strong()
    }

    /// Why an answer failed, with the floor of when it was asked for.
    ///
    /// # Panics
    /// If it is the edge's fault.
    pub async fn excuse(&self, place: &Arc<Place>, failed: Failed, asked: &Asked, seen: String) {
        let is_late = asked.began.elapsed() >= LIMIT_MIN;
        let was_full = !place.is_ending() && self.was_full().await;
        let (number, deeds) = (asked.number, self.origin.deeds());
        let circumstances = Circumstances {
            is_ending: place.is_ending(),
            was_full,
            is_strong: self.origin.thing(number).is_strong(),
            has_changed: self.origin.version(number) > asked.floor.max(1),
            origin_failed: deeds.keys().any(|deed| *deed != CAPPED),
            is_late,
        };
        let why = circumstances.excuse(failed);
        let why = why.unwrap_or_else(|| panic!("{failed:?}, {circumstances:?}: {seen}"));
        self.tally.add(self.in_mood(&excused(self.mood, why)), 1);
    }

    /// Whether one of the nodes was.
    async fn was_full(&self) -> bool {
        let places = self.nodes.iter().map(Node::place).filter(|place| !place.is_ending());
        join_all(places.map(|place| async move { place.was_full().await })).await.contains(&true)
    }

    /// The name for what is counted, which is another once the history is over: then the origin is
    /// asked again and again.
    fn in_mood(&self, name: &str) -> String {
        match self.is_over.load(Ordering::SeqCst) {
            true => format!("{name}, at the end"),
            false => name.to_owned(),
        }
    }

    /// Counts an answer that was waited for to its end, however that was.
    pub fn count_awaited(&self) {
        self.tally.add(self.in_mood(&awaited(self.mood)), 1);
    }

    /// The versions that may answer, from the oldest.
    pub fn versions(&self, number: usize, oldest: u64) -> std::ops::RangeInclusive<u64> {
        oldest.max(1)..=self.origin.version(number)
    }

    /// There is a new version from now on.
    pub fn change(&self, number: usize) {
        self.origin.change(number);
        self.came(number, "with time");
    }

    /// A `POST` to a node was answered: what was before it is over there.
    pub fn changed_by_post(&self, node: usize, number: usize) {
        self.nodes[node].invalidated(number, self.origin.version(number));
        self.came(number, "by POST");
        self.tally.add("changes by POST", 1);
    }

    fn came(&self, number: usize, how: &'static str) {
        self.comings.lock().unwrap().insert((number, self.origin.version(number)), how);
    }

    /// Bytes of each thing that the origin has sent by now.
    pub fn sent(&self) -> Vec<u64> {
        (0..=THING_BYTES.len()).map(|number| self.origin.body_bytes_of(number)).collect()
    }

    /// Counts an answer that ended cleanly, by where it came from.
    pub fn count(&self, place: &Place, ask: &Ask, head: &Parts, version: u64) {
        self.tally.add(format!("answers over {:?}", ask.protocol), 1);
        if let Some(how) = self.comings.lock().unwrap().get(&(ask.number, version)) {
            self.tally.add(format!("answers of a version that came {how}"), 1);
        }
        if head.status == StatusCode::PARTIAL_CONTENT && !ask.is_head {
            let is_one = head.headers.contains_key("content-range");
            self.tally
                .add(if is_one { "answers of one part" } else { "answers of several parts" }, 1);
        }
        self.count_way(ask.node, &head.headers);
        let told = own_member(&head.headers);
        let is_from_ssd = told.contains("detail=\"hit-ssd\"");
        let is_from_memory = told.contains("detail=\"hit-memory\"");
        if ask.is_head || !(is_from_ssd || is_from_memory) {
            return;
        }
        self.tally.add(if is_from_ssd { "answers from the SSD" } else { "answers from memory" }, 1);
        // Nothing of it came since.
        let sent = self.origin.body_bytes_of(ask.number);
        if place.sent_before.as_ref().is_some_and(|before| before[ask.number] == sent) {
            self.tally.add("answers from before a restart", 1);
        }
    }

    /// Counts an answer by the nodes that it came through, where there are several.
    fn count_way(&self, node: usize, fields: &HeaderMap) {
        if self.nodes.len() == 1 {
            return;
        }
        self.tally.add(if node == 0 { "answers by the edge" } else { "answers by a parent" }, 1);
        let members = fields.get_all("cache-status").iter();
        let told: Vec<&str> = members.map(|value| value.to_str().unwrap()).collect();
        let told = told.join(",");
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        let is_through = |id: &str| told.split(',').any(|member| member.trim().starts_with(id));
        if others.map(|(_, other)| other).any(|other| is_through(&other.id)) {
            let way = if node == 0 { "answers through a parent" } else { "answers by a sibling's" };
            self.tally.add(way, 1);
        }
        if node == 0 && self.nodes.iter().any(|node| node.place().is_ending()) {
            self.tally.add("answers while a parent was down", 1);
        }
    }

    /// Counts what an edge evicted, before it ends.
    pub async fn count_evictions(&self, place: &Place) {
        for (name, metric) in [
            ("chunks evicted from memory", "nearcast_edge_memory_evictions_total "),
            ("blocks evicted from the SSD", "nearcast_edge_ssd_evicted_blocks_total "),
        ] {
            let count = place.metric(metric).await;
            self.tally.add(name, count as u64);
        }
    }
}
