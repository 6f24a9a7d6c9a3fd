//! What the edge knows of the whole: heartbeats out, the view of the fleet in.
//!
//! Invariant: a view is put in force whole and checked, or not at all; the last good one is
//! kept on disk and used at start. Nothing on a request's path waits for the control plane.

use crate::gate::Gate;
use arc_swap::ArcSwapOption;
use model::EdgeId;
use model::fleet::{EdgeView, HEARTBEAT_MS, Heartbeat, HeartbeatReply};
use service::client::Error as Unanswered;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// More edges than this in a view are refused.
const EDGES_MAX: usize = 100_000;
/// More keys than this in a view are refused.
const KEYS_MAX: usize = 64;

/// A view in force, and the gate made from its keys.
pub struct Known {
    /// The view.
    pub view: EdgeView,
    /// Checks tokens by its keys.
    pub gate: Gate,
}

/// How long a heartbeat waits for its new view to be on disk; a disk that hangs stops none.
const KEPT_MAX: Duration = Duration::from_millis(HEARTBEAT_MS);

/// The view in force, if there is one yet.
pub struct Views {
    path: PathBuf,
    known: ArcSwapOption<Known>,
    keeping: Mutex<Keeping>,
}

/// What is being kept for the next start.
#[derive(Default)]
struct Keeping {
    /// What waits for the disk: only the newest counts.
    newest: Option<Vec<u8>>,
    /// A thread is at it.
    is_writing: bool,
}

/// Why a view was refused.
#[derive(Debug, thiserror::Error)]
pub enum BadView {
    /// Out of proportion.
    #[error("{edges} edges and {keys} keys: at most {EDGES_MAX} and {KEYS_MAX} are taken")]
    TooLarge {
        /// How many edges.
        edges: usize,
        /// How many keys.
        keys: usize,
    },
    /// A key that is not one.
    #[error(transparent)]
    Key(#[from] token::KeyError),
    /// A control plane that players could not be sent to.
    #[error("control_plane_url {0:?} is not a URL")]
    Url(String),
}

fn check(view: EdgeView) -> Result<Known, BadView> {
    let (edges, keys) = (view.edges.len(), view.keys.len());
    if edges > EDGES_MAX || keys > KEYS_MAX {
        return Err(BadView::TooLarge { edges, keys });
    }
    if url::Url::parse(&view.control_plane_url).is_err() {
        return Err(BadView::Url(view.control_plane_url));
    }
    let gate = Gate::new(token::Verifier::new(&view.keys)?);
    Ok(Known { view, gate })
}

impl Views {
    /// With the last good view from `path`, if it is there and good.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let known = read(&path);
        let known = ArcSwapOption::new(known.map(Arc::new));
        Self { path, known, keeping: Mutex::default() }
    }

    /// The view in force.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.known.load_full()
    }

    /// Checks a view, puts it in force and has it kept on disk, by a thread of its own that may be
    /// waited for. A view that can't be kept is in force all the same: a full disk, or one that
    /// hangs, must not stop key rotation. `None`: the thread is at an older one still, and writes
    /// this one next.
    ///
    /// # Errors
    /// [`BadView`]: the old view stays.
    pub fn accept(self: &Arc<Self>, view: EdgeView) -> Result<Option<JoinHandle<()>>, BadView> {
        let text = serde_json::to_vec_pretty(&view).unwrap_or_default();
        self.known.store(Some(Arc::new(check(view)?)));
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        keeping.newest = Some(text);
        if std::mem::replace(&mut keeping.is_writing, true) {
            return Ok(None);
        }
        let views = Arc::clone(self);
        Ok(Some(tokio::task::spawn_blocking(move || views.write())))
    }

    /// Writes what waits, until nothing does.
    fn write(&self) {
        while let Some(text) = self.next() {
            if let Err(error) = crate::disk::replace(&self.path, &text) {
                tracing::error!(path = %self.path.display(), %error, "the new view is not kept");
            }
        }
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = keeping.newest.take();
        keeping.is_writing = newest.is_some();
        newest
    }
}

fn read(path: &std::path::Path) -> Option<Known> {
    let bytes = std::fs::read(path).ok()?;
    let view = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
    match view.and_then(|view: EdgeView| check(view).map_err(|error| error.to_string())) {
        Ok(known) => Some(known),
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "the stored view is damaged: ignored");
            None
        }
    }
}

/// How it stands with the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It answers.
    Heard,
    /// It answers that this edge's secret is wrong: waiting does not help.
    Refused,
    /// It does not answer.
    Unheard,
}

impl Hearing {
    fn of(beaten: &Result<(), Unanswered>) -> Self {
        match beaten {
            Ok(()) => Self::Heard,
            Err(Unanswered::Status { status, .. }) if matches!(status.as_u16(), 401 | 403) => {
                Self::Refused
            }
            Err(_) => Self::Unheard,
        }
    }

    /// How it stands after a heartbeat. Each change is said once, not every second.
    fn then(self, beaten: &Result<(), Unanswered>) -> Self {
        let now = Self::of(beaten);
        match beaten {
            _ if now == self => {}
            Ok(()) => tracing::info!("the control plane is heard again"),
            Err(error) if now == Self::Refused => tracing::error!(
                %error,
                "the control plane refuses this edge's secret: edge.join-secret-file must hold \
                 its edge credential; serving by the last view"
            ),
            Err(error) => {
                tracing::warn!(%error, "the control plane is not heard: serving by the last view");
            }
        }
        now
    }
}

/// Talks to the control plane.
pub struct Reporter {
    /// This edge.
    pub id: EdgeId,
    /// The control plane.
    pub control: service::client::Client,
    /// Its base URL, without a trailing slash.
    pub control_url: String,
    /// What it tells.
    pub views: Arc<Views>,
    /// Told the number of the newest plan.
    pub plan: watch::Sender<Option<u64>>,
    /// Told once a view is in force.
    pub ready: service::admin::Ready,
}

impl Reporter {
    /// Sends a heartbeat every [`HEARTBEAT_MS`] until dropped; at once when `nudge` is notified.
    pub async fn run(
        self,
        beat: impl Fn() -> Heartbeat,
        nudge: Arc<tokio::sync::Notify>,
        metrics: crate::metrics::Metrics,
    ) {
        let mut clock = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut hearing = Hearing::Heard;
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = nudge.notified() => {}
            }
            let beaten = self.beat(&beat()).await;
            metrics.heartbeat(beaten.is_ok());
            hearing = hearing.then(&beaten);
        }
    }

    async fn beat(&self, beat: &Heartbeat) -> Result<(), Unanswered> {
        let url = format!("{}/v1/edges/{}/heartbeat", self.control_url, self.id);
        let reply: HeartbeatReply = self.control.post_json(&url, beat).await?;
        let version = self.views.known().map(|known| known.view.version);
        if version != Some(reply.view) {
            let view = self.control.get_json(&format!("{}/v1/edge-view", self.control_url)).await?;
            match self.views.accept(view) {
                Ok(Some(kept)) => drop(tokio::time::timeout(KEPT_MAX, kept).await),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the new view"),
            }
        }
        // Not while it drains: whoever watches shall see that it takes nothing new.
        self.ready.set(beat.serving && self.views.known().is_some());
        self.plan.send_if_modified(|plan| {
            let newer = reply.plan.is_some() && *plan != reply.plan;
            if newer {
                *plan = reply.plan;
            }
            newer
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(version: u64) -> EdgeView {
        let view = serde_json::json!({
            "version": version, "keys": [], "edges": [], "control_plane_url": "http://c.test"
        });
        serde_json::from_value(view).unwrap()
    }

    /// One that can't be written at once is in force, and the newest is written when it can be.
    #[tokio::test]
    async fn a_view_is_in_force_before_it_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("view.json");
        let views = Arc::new(Views::open(path.clone()));
        // A disk that is at an older one.
        views.keeping.lock().unwrap().is_writing = true;
        for version in [1, 2] {
            assert!(views.accept(view(version)).unwrap().is_none());
            assert_eq!(views.known().unwrap().view.version, version);
        }
        assert!(!path.exists());
        views.write();
        assert_eq!(Views::open(path.clone()).known().unwrap().view.version, 2);
        views.accept(view(3)).unwrap().unwrap().await.unwrap();
        assert_eq!(Views::open(path).known().unwrap().view.version, 3);
    }

    #[test]
    fn a_wrong_secret_is_told_from_silence() {
        let answered = |status: http::StatusCode| {
            Err(Unanswered::Status { url: "http://c".into(), status, body: String::new() })
        };
        let silent =
            || Err(Unanswered::Unavailable { url: "http://c".into(), reason: "refused".into() });
        let heard = Hearing::Heard;
        assert_eq!(heard.then(&Ok(())), Hearing::Heard);
        assert_eq!(heard.then(&answered(http::StatusCode::UNAUTHORIZED)), Hearing::Refused);
        assert_eq!(heard.then(&answered(http::StatusCode::FORBIDDEN)), Hearing::Refused);
        assert_eq!(heard.then(&answered(http::StatusCode::BAD_GATEWAY)), Hearing::Unheard);
        assert_eq!(Hearing::Refused.then(&silent()), Hearing::Unheard);
        assert_eq!(
            Hearing::Unheard.then(&answered(http::StatusCode::UNAUTHORIZED)),
            Hearing::Refused
        );
    }
}
