//! The durable, numbered list of purges: appended to by one thread, asked by everybody.
//!
//! Invariants: an append returns once its record is on disk and in force; appends that wait
//! together share one `fdatasync`. A number is never given twice. A log that is new, damaged or
//! unreadable starts with a purge of everything below the present time in ms, as numbers do: so
//! heads that a lost log had ended stay ended.

use super::file::{self, Header, State};
use super::rules::{PURGES_MAX, Rules};
use super::{Purge, Purged, Verdict, What};
use crate::error::Error;
use crate::head::Head;
use crate::metrics::PurgeMetrics;
use prometheus::Registry;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Purges that wait for the disk; one more is refused.
const WAITING_MAX: usize = 1_024;
/// Of these, so many are written together.
const GROUP_MAX: usize = 256;
/// Purges remembered in full, for those who ask what was purged.
const RECENT_MAX: usize = 1_000;
/// Purges dropped under one lock, which verdicts wait for.
const DROPPED_AT_ONCE: usize = 1_000;
/// A file is not rewritten below this.
const COMPACT_BYTES_MIN: u64 = 256 << 10;

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
}

impl PurgeLog {
    /// Opens the log at `path`, or begins it. What a crash left half written is cut off; where
    /// acknowledged purges may be lost, everything stored so far is purged. A disk that fails
    /// stops nobody: purges are refused until it works.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open(path: &Path, registry: &Registry) -> Result<Self, Error> {
        Self::open_for(path, registry, PURGES_MAX)
    }

    /// The same for `max` purges at most that are kept one by one.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open_for(path: &Path, registry: &Registry, max: usize) -> Result<Self, Error> {
        let metrics = PurgeMetrics::new(registry)?;
        let (writer, rules, recent) = Writer::open(path, max, &metrics);
        let state = Arc::new(InForce {
            number: AtomicU64::new(writer.number),
            rules: RwLock::new(rules),
            recent: RwLock::new(recent),
            metrics,
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

    /// When the last purge of what has this URL and these tags was taken, in milliseconds since
    /// 1970 UTC: an answer made before that moment, which another cache has kept, says nothing any
    /// more.
    #[must_use]
    pub fn last(&self, site: &str, url: &str, tags: &[Box<str>]) -> Option<i64> {
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

/// The file, in its thread's hands.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    /// `None`: what is on disk is not known (a write failed, or none was read). It is written
    /// anew before anything is appended.
    file: Option<File>,
    bytes: u64,
    /// The highest number given, acknowledged or not.
    number: u64,
    /// Size from which the file is rewritten.
    compact_at: u64,
}

impl Writer {
    /// Reads the log, or begins one.
    fn open(
        path: &Path,
        max: usize,
        metrics: &PurgeMetrics,
    ) -> (Self, Rules, VecDeque<Arc<Purged>>) {
        let mut rules = Rules::new(0, max);
        let mut recent = VecDeque::new();
        let mut writer =
            Self { path: path.to_owned(), file: None, bytes: 0, number: 0, compact_at: 0 };
        let shown = path.display();
        match writer.read(&mut rules, &mut recent) {
            Ok(State::Whole) => {}
            Ok(State::Torn(bytes)) => {
                tracing::warn!(path = %shown, bytes, "the purge log ends in what was never acknowledged: cut off");
                metrics.damaged.with_label_values(&["torn"]).inc();
            }
            Ok(State::Damaged(reason)) => {
                tracing::error!(path = %shown, reason, "the purge log is damaged: all from before now counts as purged");
                metrics.damaged.with_label_values(&["damaged"]).inc();
                if let Err(error) = std::fs::rename(path, path.with_extension("damaged")) {
                    tracing::warn!(path = %shown, %error, "the damaged purge log is not kept");
                }
                writer.begin_lost(&mut rules, max);
            }
            Err(error) => {
                tracing::error!(path = %shown, %error, "the purge log can't be read: all from before now counts as purged");
                metrics.damaged.with_label_values(&["unreadable"]).inc();
                writer.begin_lost(&mut rules, max);
            }
        }
        if writer.file.is_none()
            && let Err(error) = writer.rewrite(&rules)
        {
            tracing::error!(path = %shown, %error, "the purge log can't be written: purges are refused");
        }
        writer.compact_at = writer.compact_at.max(compact_at(&rules));
        (writer, rules, recent)
    }

    fn read(
        &mut self,
        rules: &mut Rules,
        recent: &mut VecDeque<Arc<Purged>>,
    ) -> std::io::Result<State> {
        let max = rules.max();
        let Some(mut file) = file::open(&self.path)? else {
            self.begin_anew(rules, max);
            return Ok(State::Whole);
        };
        let rules = std::cell::RefCell::new(rules);
        let found = file::read(
            &file,
            |header| **rules.borrow_mut() = Rules::new(header.floor, max),
            |purged| {
                let purged = Arc::new(purged);
                remember(recent, &purged);
                drop(rules.borrow_mut().apply(purged));
                rules.borrow_mut().fold();
            },
        )?;
        // Above what the lost records can have had: each took bytes.
        let lost = file.metadata()?.len() - found.bytes;
        self.number = match found.state {
            State::Damaged(_) => found.number + lost,
            _ => found.number,
        };
        self.bytes = found.bytes;
        if let State::Torn(_) = found.state {
            file.set_len(found.bytes)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(found.bytes))?;
        self.file = Some(file);
        Ok(found.state)
    }

    /// Purges everything, and takes numbers up above all that may have been given.
    fn begin_anew(&mut self, rules: &mut Rules, max: usize) {
        self.number = (self.number + 1).max(u64::try_from(unix_ms()).unwrap_or(1));
        *rules = Rules::new(self.number, max);
        self.file = None;
    }

    /// The same where purges may have been lost: those were taken before now, so what another node
    /// has kept until now is not to be had again, either. A log that was never there has lost none.
    fn begin_lost(&mut self, rules: &mut Rules, max: usize) {
        self.begin_anew(rules, max);
        let note = "the purge log was lost".to_owned();
        let purge = Purge { what: What::All, site: None, soft: false, note };
        self.number_them(vec![purge]).into_iter().for_each(|purged| drop(rules.apply(purged)));
    }

    fn run(mut self, state: &InForce, mut asked: mpsc::Receiver<Asked>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while asked.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let (purges, callers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
            let purges = self.number_them(purges);
            let outcome = self.append(&purges, state).map_err(|error| {
                tracing::error!(path = %self.path.display(), %error, "purges are refused");
                let count = callers.len() as u64;
                state.metrics.failures.with_label_values(&["disk"]).inc_by(count);
                Error::NotDurable { path: self.path.clone(), reason: error.to_string() }
            });
            if outcome.is_ok() {
                state.apply(purges.clone());
            }
            // Who is answered finds it counted.
            state.measure(&self);
            for (purged, caller) in purges.iter().zip(callers) {
                // In force, whether or not its caller has waited for it.
                let _ = caller.send(outcome.clone().map(|()| purged.number));
            }
            state.fold();
            self.compact(state);
            state.measure(&self);
        }
    }

    fn number_them(&mut self, purges: Vec<Purge>) -> Vec<Arc<Purged>> {
        let unix_ms = unix_ms();
        let numbered = purges.into_iter().map(|purge| {
            self.number += 1;
            Arc::new(Purged { number: self.number, unix_ms, purge })
        });
        numbered.collect()
    }

    /// On disk when it returns.
    fn append(&mut self, purges: &[Arc<Purged>], state: &InForce) -> std::io::Result<()> {
        if self.file.is_none() {
            self.rewrite(&state.rules.read().unwrap_or_else(PoisonError::into_inner))?;
        }
        let Some(file) = &mut self.file else { return Err(std::io::ErrorKind::NotFound.into()) };
        let records: Vec<u8> = purges.iter().flat_map(|purged| file::encode(purged)).collect();
        let written = file.write_all(&records).and_then(|()| file.sync_data());
        match written {
            Ok(()) => self.bytes += records.len() as u64,
            // After a failed sync nobody knows what the disk has: no more on top of it.
            Err(_) => self.file = None,
        }
        written
    }

    /// Rewrites a file that has grown to twice what still counts.
    fn compact(&mut self, state: &InForce) {
        if self.file.is_none() || self.bytes < self.compact_at {
            return;
        }
        // This thread alone changes the rules: verdicts go on while it reads them.
        let covered = state.rules.read().unwrap_or_else(PoisonError::into_inner).covered();
        state.drop_in_steps(&covered);
        let rules = state.rules.read().unwrap_or_else(PoisonError::into_inner);
        match self.rewrite(&rules) {
            Ok(()) => state.metrics.compactions.inc(),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the purge log can't be rewritten");
                self.compact_at = self.bytes.saturating_mul(2);
            }
        }
    }

    /// Replaces the file by one of what still counts.
    fn rewrite(&mut self, rules: &Rules) -> std::io::Result<()> {
        let header = Header { number: self.number, floor: rules.floor() };
        let (file, bytes) = file::replace(&self.path, header, rules.kept().map(|kept| &**kept))?;
        (self.file, self.bytes) = (Some(file), bytes);
        self.compact_at = compact_at(rules);
        Ok(())
    }
}

fn compact_at(rules: &Rules) -> u64 {
    (2 * (file::HEADER_BYTES + rules.bytes())).max(COMPACT_BYTES_MIN)
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::{any_head, by_the_list, numbered, purge};
    use super::*;
    use crate::row::tests::head;
    use proptest::prelude::*;

    fn open(path: &Path) -> PurgeLog {
        PurgeLog::open(path, &Registry::new()).unwrap()
    }

    fn of(what: What) -> Purge {
        Purge { what, site: None, soft: false, note: "test".to_owned() }
    }

    fn url(text: &str) -> Purge {
        of(What::Url(text.to_owned()))
    }

    /// A head fetched when the log stood at `epoch`.
    fn at(epoch: u64, url: &str) -> Head {
        Head { epoch, ..head("s", url, 1) }
    }

    #[tokio::test]
    async fn a_purge_outlives_a_restart_and_reaches_what_is_being_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let log = open(&path);
        let before = at(log.number(), "h.test/a");
        assert_eq!(log.verdict(&before), Verdict::Valid);
        let number = log.append(url("h.test/a")).await.unwrap();
        // The fetch of `before` may still run: its epoch is from when it began.
        assert_eq!(log.verdict(&before), Verdict::Hard);
        let after = at(log.number(), "h.test/a");
        assert_eq!(log.verdict(&after), Verdict::Valid);
        let soft = Purge { soft: true, ..of(What::Tag("film".into())) };
        log.append(soft).await.unwrap();
        assert_eq!(log.verdict(&after), Verdict::Soft);
        let at_last = log.number();
        drop(log);

        let log = open(&path);
        assert_eq!(log.number(), at_last);
        // Heads as they come back from disk.
        let (before, after) = (before.clone(), after.clone());
        assert_eq!(log.verdict(&before), Verdict::Hard);
        assert_eq!(log.verdict(&after), Verdict::Soft);
        assert_eq!(log.recent(9).last().unwrap().number, number);
        assert!(log.append(url("h.test/b")).await.unwrap() > at_last);
    }

    #[tokio::test]
    async fn a_bad_purge_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("purges"));
        let number = log.number();
        let site = Purge { site: Some(String::new()), ..of(What::All) };
        for (purge, wanted) in [
            (of(What::Prefix(String::new())), "prefix: is empty"),
            (of(What::Tag("x".repeat(9_000))), "tag: has 9000 bytes: expected at most 8192"),
            (site, "site: is empty"),
        ] {
            let error = log.append(purge).await.unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert_eq!(log.number(), number);
        let long = Purge { note: "é".repeat(400), ..url("h.test/a") };
        log.append(long).await.unwrap();
        assert_eq!(log.recent(1)[0].purge.note, "é".repeat(256));
    }

    #[tokio::test]
    async fn purges_that_wait_together_are_all_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let log = open(&path);
        let mut appends = tokio::task::JoinSet::new();
        for number in 0..500 {
            let log = log.clone();
            appends.spawn(async move { log.append(url(&format!("h.test/{number}"))).await });
        }
        let mut numbers: Vec<u64> =
            appends.join_all().await.into_iter().map(Result::unwrap).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 500, "a number was given twice");
        let epoch = numbers[0] - 1;
        drop(log);
        let log = open(&path);
        for number in 0..500 {
            assert_eq!(log.verdict(&at(epoch, &format!("h.test/{number}"))), Verdict::Hard);
        }
    }

    #[tokio::test]
    async fn the_file_stays_within_twice_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let log = open(&path);
        let epoch = log.number();
        let text = "h.test/".to_owned() + &"a".repeat(1_000);
        for _ in 0..8 {
            let mut appends = tokio::task::JoinSet::new();
            for _ in 0..250 {
                let (log, purge) = (log.clone(), url(&text));
                appends.spawn(async move { log.append(purge).await });
            }
            assert!(appends.join_all().await.iter().all(Result::is_ok));
        }
        assert!(log.state.metrics.compactions.get() > 0);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes < 2 * COMPACT_BYTES_MIN, "{bytes}");
        let number = log.number();
        drop(log);
        let log = open(&path);
        assert_eq!((log.number(), log.verdict(&at(epoch, &text))), (number, Verdict::Hard));
    }

    #[tokio::test]
    async fn what_is_folded_holds_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let few = || PurgeLog::open_for(&path, &Registry::new(), 3_000).unwrap();
        let log = few();
        let epoch = log.number();
        for hundreds in 0..7 {
            let mut appends = tokio::task::JoinSet::new();
            for number in hundreds * 500..(hundreds + 1) * 500 {
                let purge = Purge { site: Some("s".into()), ..url(&format!("h.test/{number}")) };
                let log = log.clone();
                appends.spawn(async move { log.append(purge).await });
            }
            assert!(appends.join_all().await.iter().all(Result::is_ok));
        }
        let is_ended = |log: &PurgeLog, number: usize| {
            log.verdict(&at(epoch, &format!("h.test/{number}"))) == Verdict::Hard
        };
        assert!((0..3_500).all(|number| is_ended(&log, number)));
        // Its thread has ended once another purge is answered.
        log.append(url("h.test/last")).await.unwrap();
        let kept = log.state.rules.read().unwrap().len();
        assert!((1_500..2_600).contains(&kept), "{kept}");
        assert_eq!(log.state.metrics.folded.get() as usize, 3_501 + 1 - kept);
        drop(log);
        let log = few();
        assert!((0..3_500).all(|number| is_ended(&log, number)));
    }

    #[tokio::test]
    async fn a_disk_that_fails_refuses_purges_until_it_works() {
        let folder = tempfile::tempdir().unwrap();
        // A folder stands where the file should be: nothing can be opened, read or renamed.
        let path = folder.path().join("purges");
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        let log = open(&path);
        let stored = at(5, "h.test/b");
        assert_eq!(log.verdict(&stored), Verdict::Hard, "an unknown log's head was trusted");
        let fresh = at(log.number(), "h.test/a");
        let error = log.append(url("h.test/a")).await.unwrap_err();
        assert!(matches!(error, Error::NotDurable { .. }), "{error}");
        assert!(error.to_string().contains("purges can't be written"), "{error}");
        assert_eq!(log.verdict(&fresh), Verdict::Valid, "a purge in force that is not durable");
        std::fs::remove_dir_all(&path).unwrap();
        log.append(url("h.test/a")).await.unwrap();
        assert_eq!(log.verdict(&fresh), Verdict::Hard);
        drop(log);
        assert_eq!(open(&path).verdict(&fresh.clone()), Verdict::Hard);
    }

    #[test]
    fn a_failed_write_is_followed_by_a_whole_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
        let (mut writer, rules, recent) = Writer::open(&path, PURGES_MAX, &metrics);
        let number = AtomicU64::new(writer.number);
        let state =
            InForce { number, rules: RwLock::new(rules), recent: RwLock::new(recent), metrics };
        // Open for reading alone, so the kernel refuses to write.
        writer.file = Some(File::open(&path).unwrap());
        let lost = writer.number_them(vec![url("h.test/a")]);
        assert!(writer.append(&lost, &state).is_err());
        let kept = writer.number_them(vec![url("h.test/b")]);
        writer.append(&kept, &state).unwrap();
        assert!(kept[0].number > lost[0].number);
        let (again, rules, _) = Writer::open(&path, PURGES_MAX, &state.metrics);
        assert_eq!(again.number, kept[0].number);
        assert_eq!(rules.kept().map(|kept| kept.number).collect::<Vec<_>>(), [kept[0].number]);
    }

    /// What another node has kept since before it must not be had again.
    #[test]
    fn a_purge_of_everything_is_known_with_its_time_after_a_rewrite_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
        let last = |rules: &Rules| rules.last("s", "h.test/a", &[]);
        let (mut writer, mut rules, _) = Writer::open(&path, PURGES_MAX, &metrics);
        assert_eq!(last(&rules), None, "a log that was never there has lost nothing");
        for purged in writer.number_them(vec![url("h.test/b"), of(What::All)]) {
            drop(rules.apply(purged));
        }
        writer.rewrite(&rules).unwrap();
        let (again, read, _) = Writer::open(&path, PURGES_MAX, &metrics);
        assert_eq!((again.number, last(&read)), (writer.number, last(&rules)));
        assert!(last(&read).is_some());
        assert_eq!(metrics.damaged.with_label_values(&["damaged"]).get(), 0);
    }

    #[test]
    fn where_purges_are_lost_everything_was_purged_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
        let before = unix_ms();
        std::fs::write(&path, b"no log").unwrap();
        let last = |rules: &Rules| rules.last("s", "h.test/a", &[]);
        let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics);
        assert!(last(&rules) >= Some(before));
        let ended = at(writer.number - 1, "h.test/a");
        assert_eq!(rules.verdict(&ended, writer.number), Verdict::Hard);
        assert_eq!(rules.verdict(&at(writer.number, "h.test/a"), writer.number), Verdict::Valid);
        let (again, read, _) = Writer::open(&path, PURGES_MAX, &metrics);
        assert_eq!((again.number, last(&read)), (writer.number, last(&rules)));
        assert_eq!(metrics.damaged.with_label_values(&["damaged"]).get(), 1, "once");
    }

    /// A log of few purges as a file, and where each ends.
    fn small_log(path: &Path, purges: Vec<Purge>) -> (Vec<Purged>, Vec<u64>) {
        let purges = numbered(purges, 101);
        let header = Header { number: 100, floor: 100 };
        let (_, bytes) = file::replace(path, header, purges.iter()).unwrap();
        let mut ends: Vec<u64> = purges.iter().map(file::record_bytes).collect();
        ends.iter_mut().fold(file::HEADER_BYTES, |start, end| {
            *end += start;
            *end
        });
        assert_eq!(ends.last().copied().unwrap_or(file::HEADER_BYTES), bytes);
        (purges, ends)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2))]

        /// Wherever a crash cuts the file, the purges before the cut hold, and the next ones
        /// are appended as though nothing had been.
        #[test]
        fn a_file_cut_anywhere_loses_no_whole_record(
            purges in proptest::collection::vec(purge(), 1..4),
            heads in proptest::collection::vec(any_head(100..104), 1..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("purges");
            let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
            let (purges, ends) = small_log(&path, purges);
            let whole = std::fs::read(&path).unwrap();
            for cut in 0..=whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics);
                let kept = ends.iter().filter(|end| **end <= cut as u64).count();
                for head in &heads {
                    let got = rules.verdict(head, writer.number.max(head.epoch));
                    if cut < file::HEADER_BYTES as usize {
                        prop_assert_eq!(got, Verdict::Hard, "cut at {}", cut);
                    } else {
                        prop_assert_eq!(got, by_the_list(&purges[..kept], head), "cut at {}", cut);
                    }
                }
                let again = Writer::open(&path, PURGES_MAX, &metrics);
                prop_assert_eq!(again.0.number, writer.number);
                prop_assert_eq!(again.1.len(), rules.len());
            }
        }

        /// Whatever bit a disk flips, no head comes back that was purged.
        #[test]
        fn a_flipped_bit_resurrects_nothing(
            purges in proptest::collection::vec(purge(), 1..4),
            heads in proptest::collection::vec(any_head(100..104), 1..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("purges");
            let metrics = PurgeMetrics::new(&Registry::new()).unwrap();
            let (purges, _) = small_log(&path, purges);
            let whole = std::fs::read(&path).unwrap();
            // One bit of each byte, another one in each.
            for bit in (0..whole.len()).map(|byte| byte * 8 + byte % 8) {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &flipped).unwrap();
                let (writer, rules, _) = Writer::open(&path, PURGES_MAX, &metrics);
                prop_assert!(writer.number > 104, "bit {bit}: numbers are given again");
                for head in &heads {
                    let got = rules.verdict(head, writer.number);
                    prop_assert!(got >= by_the_list(&purges, head), "bit {bit}");
                }
            }
        }
    }
}
