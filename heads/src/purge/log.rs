//! The durable, numbered list of purges: appended to by one thread, asked by everybody.
//!
//! Invariants: an append returns once its record is on disk and in force; appends that wait
//! together share one `fdatasync`. A number is never given twice. A log that is new, damaged or
//! unreadable starts with a purge of everything below the present time in ms, as numbers do: so
//! heads that a lost log had ended stay ended.

mod words;
mod writer;

use super::rules::{PURGES_MAX, Rules};
use super::{Last, Purge, Purged, Verdict};
use crate::error::Error;
use crate::head::Head;
use crate::metrics::PurgeMetrics;
use prometheus::Registry;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};
pub use words::Words;
use writer::Writer;

/// Purges that wait for the disk; one more is refused.
const WAITING_MAX: usize = 1_024;
/// Purges remembered in full, for those who ask what was purged.
const RECENT_MAX: usize = 1_000;
/// Purges dropped under one lock, which verdicts wait for.
const DROPPED_AT_ONCE: usize = 1_000;

type Asked = (Purge, oneshot::Sender<Result<u64, Error>>);

/// The purge log. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct PurgeLog {
    state: Arc<InForce>,
    queue: mpsc::Sender<Asked>,
}

/// What is in force.
#[derive(Debug)]
struct InForce {
    number: AtomicU64,
    rules: RwLock<Rules>,
    recent: RwLock<VecDeque<Arc<Purged>>>,
    metrics: PurgeMetrics,
    words: Words,
}

impl PurgeLog {
    /// Opens the log at `path`, or begins it. What a crash left half written is cut off; where
    /// acknowledged purges may be lost, everything stored so far is purged. A disk that fails
    /// stops nobody: purges are refused until it works.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open(path: &Path, registry: &Registry) -> Result<Self, Error> {
        Self::open_for(path, registry, PURGES_MAX, Words::PURGES)
    }

    /// The same for `max` purges at most that are kept one by one, of a log that is called by these
    /// `words`.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open_for(
        path: &Path,
        registry: &Registry,
        max: usize,
        words: Words,
    ) -> Result<Self, Error> {
        let metrics = PurgeMetrics::new(registry)?;
        let (writer, rules, recent) = Writer::open(path, max, &metrics, words);
        let state = Arc::new(InForce {
            number: AtomicU64::new(writer.number),
            rules: RwLock::new(rules),
            recent: RwLock::new(recent),
            metrics,
            words,
        });
        state.measure(&writer);
        let (queue, asked) = mpsc::channel(WAITING_MAX);
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("purge-log".to_owned());
        thread
            .spawn(move || writer.run(&shared, asked))
            .map_err(|error| Error::Start { what: "purge-log", reason: error.to_string() })?;
        Ok(Self { state, queue })
    }

    /// Number of the last purge in force: the epoch of a head whose fetch begins now.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state.number.load(Ordering::Acquire)
    }

    /// What the purges say of `head`: found in the head itself unless there were purges since
    /// it was asked about last.
    #[must_use]
    pub fn verdict(&self, head: &Head) -> Verdict {
        let number = self.number();
        if let Some(verdict) = head.seen.at(number) {
            return verdict;
        }
        let rules = self.state.rules.read().unwrap_or_else(PoisonError::into_inner);
        // Read again: the rules may be further than `number` by now.
        let number = self.number();
        let verdict = rules.verdict(head, number);
        head.seen.set(number, verdict);
        verdict
    }

    /// Since when soft purges have made `head` stale, in milliseconds since 1970 UTC: the time of
    /// the first of them, of those by one name of the last. `None`: none has.
    #[must_use]
    pub fn stale_since(&self, head: &Head) -> Option<i64> {
        if self.verdict(head) != Verdict::Soft {
            return None;
        }
        let rules = self.state.rules.read().unwrap_or_else(PoisonError::into_inner);
        // A harder one may have come in between: what was stale then was so for ever.
        Some(rules.stale_since(head).unwrap_or(i64::MIN))
    }

    /// When the last purge of what has this URL and these tags was taken, and the last hard one, in
    /// milliseconds since 1970 UTC: an answer made before the former, or with bytes from before the
    /// latter, which another cache has kept, says nothing any more.
    #[must_use]
    pub fn last(&self, site: &str, url: &str, tags: &[Box<str>]) -> Last {
        let rules = self.state.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.last(site, url, tags)
    }

    /// Appends a purge. It is on disk and in force when its number is returned; should the
    /// caller go away, it is all the same.
    ///
    /// # Errors
    /// [`Error::BadPurge`], [`Error::Busy`], [`Error::NotDurable`], [`Error::Closed`]. It is in
    /// force only if none is returned.
    pub async fn append(&self, purge: Purge) -> Result<u64, Error> {
        let purge = purge.checked()?;
        let (tell, told) = oneshot::channel();
        match self.queue.try_send((purge, tell)) {
            Ok(()) => told.await.unwrap_or(Err(Error::Closed)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::Closed),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.state.metrics.failures.with_label_values(&["busy"]).inc();
                Err(Error::Busy { waiting: WAITING_MAX })
            }
        }
    }

    /// The last `count` purges that are remembered, newest first.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Arc<Purged>> {
        let recent = self.state.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().take(count).cloned().collect()
    }
}

impl InForce {
    /// Puts purges that are on disk in force.
    fn apply(&self, purges: Vec<Arc<Purged>>) {
        let mut ended = Vec::new();
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for purged in purges {
            let strength = if purged.purge.soft { "soft" } else { "hard" };
            let kind = purged.purge.what.kind();
            self.metrics.purges.with_label_values(&[kind, strength]).inc();
            remember(&mut recent, &purged);
            let number = purged.number;
            ended.push(rules.apply(purged));
            // Within the lock: a verdict is never older than the number it is kept under.
            self.number.store(number, Ordering::Release);
        }
        drop((rules, recent));
        drop(ended);
    }

    /// Gives up the oldest where there are too many. Only the log's thread changes the rules, so
    /// they are looked through while verdicts go on.
    fn fold(&self) {
        let rules = || self.rules.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fold = self.rules.read().unwrap_or_else(PoisonError::into_inner).surplus();
            let Some(fold) = fold else { return };
            rules().begin_fold(&fold);
            self.drop_in_steps(fold.numbers());
            self.metrics.folded.inc_by(fold.count() as u64);
            let (names, site) = (fold.count(), fold.site());
            tracing::warn!(names, site, "{}", self.words.folded);
        }
    }

    /// Drops what says nothing any more.
    fn drop_in_steps(&self, numbers: &[u64]) {
        for some in numbers.chunks(DROPPED_AT_ONCE) {
            self.rules.write().unwrap_or_else(PoisonError::into_inner).drop_some(some);
        }
    }

    fn measure(&self, writer: &Writer) {
        let kept = self.rules.read().unwrap_or_else(PoisonError::into_inner).len();
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.kept.set(gauge(kept as u64));
        self.metrics.number.set(gauge(self.number.load(Ordering::Acquire)));
        self.metrics.file_bytes.set(gauge(writer.bytes));
    }
}

fn remember(recent: &mut VecDeque<Arc<Purged>>, purged: &Arc<Purged>) {
    if recent.len() == RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(Arc::clone(purged));
}

#[cfg(test)]
mod tests;
