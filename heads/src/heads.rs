//! The heads of everything stored: the most recently used in memory, all of them in SQLite.
//!
//! Nobody who asks waits for a write, and for a read [`Limits::read_max`] at most; no thread of a
//! connection touches the disk. What is lost, damaged, late or refused is a miss.

use crate::error::Error;
use crate::head::{Head, KeyId, Variants};
use crate::metrics::Metrics;
use crate::shard::{Dropped, Shard};
use crate::wake::Wake;
use crate::writer::Writer;
use prometheus::Registry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// Locks that keys are spread over.
const SHARDS: usize = 16;
/// Threads that read.
const READERS: usize = 2;
/// Keys that wait for one of them; one more is a miss.
const READS_MAX: usize = 512;
/// Requests that wait for one key; one more is a miss.
const WAITERS_MAX: usize = 20_000;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of heads in memory.
    pub memory_bytes: usize,
    /// Rows on disk; those longest unused go first.
    pub rows: u64,
    /// Bytes of changes that wait for the disk; past that a head stays in memory only.
    pub waiting_bytes: usize,
    /// How long a lookup waits for the disk; then it is a miss.
    pub read_max: Duration,
    /// How long an invalidation waits for the disk.
    pub flush_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // About 28,000 heads of ten fields: the working set of an edge whose objects are videos.
            memory_bytes: 64 << 20,
            // About 10 GB of disk, and a row for every 1 MiB of a 10 TB SSD.
            rows: 10_000_000,
            waiting_bytes: 32 << 20,
            // Far above what a disk takes that works, far below what a viewer notices.
            read_max: Duration::from_millis(250),
            // A batch and a sync take some milliseconds; who asked is to be answered all the same.
            flush_max: Duration::from_secs(1),
        }
    }
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) shards: Vec<Mutex<Shard>>,
    pub(crate) wake: Wake,
    pub(crate) path: PathBuf,
    pub(crate) rows_max: u64,
    /// Counts the databases opened; 0: there is none to read.
    pub(crate) generation: AtomicU64,
    /// The generation that was found damaged; 0: none.
    pub(crate) damaged: AtomicU64,
    /// Removals were lost: nothing is read until the database is begun anew.
    pub(crate) distrusted: AtomicBool,
    /// A read was late, and none has ended since.
    pub(crate) stalled: AtomicBool,
    pub(crate) metrics: Metrics,
}

/// The heads of everything stored. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Heads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    readers: Vec<SyncSender<KeyId>>,
    read_max: Duration,
    flush_max: Duration,
    /// True once the writer has ended.
    written: watch::Receiver<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.wake.end();
    }
}

impl Heads {
    /// Opens the database at `path`, or makes it. One that can't be opened is tried again every
    /// second, one that is damaged is put aside (`.damaged`): heads are in memory until then.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open(path: &Path, limits: Limits, registry: &Registry) -> Result<Self, Error> {
        let shard =
            || Mutex::new(Shard::new(limits.memory_bytes / SHARDS, limits.waiting_bytes / SHARDS));
        let shared = Arc::new(Shared {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            wake: Wake::default(),
            path: path.to_owned(),
            rows_max: limits.rows,
            generation: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            distrusted: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            metrics: Metrics::new(registry)?,
        });
        let (done, written) = watch::channel(false);
        let writer = Writer::new(Arc::clone(&shared));
        spawn("heads-write", move || {
            writer.run();
            done.send_replace(true);
        })?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let (sender, asked) = sync_channel(READS_MAX);
            let shared = Arc::clone(&shared);
            spawn("heads-read", move || shared.read_all(&asked))?;
            readers.push(sender);
        }
        let Limits { read_max, flush_max, .. } = limits;
        Ok(Self(Arc::new(Inner { shared, readers, read_max, flush_max, written })))
    }

    /// All that is stored of `key`, if memory knows; `None` says nothing about the disk.
    #[must_use]
    pub fn in_memory(&self, key: &KeyId) -> Option<Variants> {
        self.0.shared.shard(key).in_memory(key, hour_now())
    }

    /// [`Self::in_memory`] for who knows what time it is, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn in_memory_at(&self, key: &KeyId, now_ms: i64) -> Option<Variants> {
        let hour = u32::try_from(now_ms / 3_600_000).unwrap_or(0);
        self.0.shared.shard(key).in_memory(key, hour)
    }

    /// All that is stored of `key`. Reads of one key that are asked for together are one.
    pub async fn get(&self, key: &KeyId) -> Variants {
        let shared = &self.0.shared;
        let end = |how: &str| shared.metrics.reads.with_label_values(&[how]).inc();
        let told = {
            let mut shard = shared.shard(key);
            if let Some(variants) = shard.in_memory(key, hour_now()) {
                return variants;
            }
            if shared.is_off() {
                end("off");
                return shard.known(key);
            }
            let Some(told) = self.ask(&mut shard, key) else {
                end("busy");
                return shard.known(key);
            };
            told
        };
        // A disk that hangs costs one wait, not one a request.
        let limit = match shared.stalled.load(Ordering::Acquire) {
            true => Duration::ZERO,
            false => self.0.read_max,
        };
        match tokio::time::timeout(limit, told).await {
            Ok(Ok(variants)) => {
                end(if variants.is_empty() { "none" } else { "found" });
                variants
            }
            Ok(Err(_)) => shared.shard(key).known(key),
            Err(_) => {
                shared.stalled.store(true, Ordering::Release);
                end("slow");
                shared.shard(key).known(key)
            }
        }
    }

    /// Joins the read of `key` that is under way, or begins one; `None` at a limit.
    fn ask(&self, shard: &mut Shard, key: &KeyId) -> Option<oneshot::Receiver<Variants>> {
        let (tell, told) = oneshot::channel();
        if let Some(waiters) = shard.reading.get_mut(key) {
            if waiters.len() >= WAITERS_MAX {
                waiters.retain(|waiter| !waiter.is_closed());
            }
            if waiters.len() >= WAITERS_MAX {
                return None;
            }
            waiters.push(tell);
            return Some(told);
        }
        let reader = &self.0.readers[usize::from(key.0[1]) % self.0.readers.len()];
        match reader.try_send(*key) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return None,
        }
        shard.reading.insert(*key, vec![tell]);
        Some(told)
    }

    /// Keeps `head` as the newest of `key`, in place of one selected by the same: in memory now,
    /// on disk soon.
    pub fn put(&self, key: KeyId, head: Arc<Head>) {
        let own = Arc::new(head.compacted());
        self.change(&key, |shard| shard.put(key, own, hour_now()));
    }

    /// Keeps `head` in place of the one of `key` with the same body, selected by the same (after
    /// a 304); nothing happens if that has gone meanwhile.
    pub fn update(&self, key: KeyId, head: &Head) {
        let head = Arc::new(head.compacted());
        self.change(&key, |shard| shard.refresh(key, &head));
    }

    /// Lets go of `head`, if it is still kept with that body. A crash within the next tenth of a
    /// second may bring it back: what must not come back is ended by [`Heads::invalidate`], or by
    /// the purge log.
    pub fn remove(&self, key: KeyId, head: &Head) {
        self.change(&key, |shard| shard.remove(key, head));
    }

    /// Lets go of all that is stored of `keys`, at once, and waits until no crash can bring it
    /// back: until it is written and synced, together with what others wait for.
    ///
    /// # Errors
    /// [`Error::NotWritten`] after [`Limits::flush_max`] or when the disk fails, [`Error::Busy`],
    /// [`Error::Closed`]. It has gone all the same, and is written as soon as may be.
    pub async fn invalidate(&self, keys: &[KeyId]) -> Result<(), Error> {
        let mut waits = false;
        for key in keys {
            if !self.0.shared.shard(key).has_nothing(key) {
                self.change(key, |shard| shard.remove_all(*key, hour_now()));
                waits = true;
            }
        }
        let outcome = if waits { self.flushed().await } else { Ok(()) };
        let end = match &outcome {
            Ok(()) if !waits => "nothing",
            Ok(()) => "written",
            Err(Error::Busy { .. }) => "busy",
            Err(_) => "failed",
        };
        self.0.shared.metrics.invalidations.with_label_values(&[end]).inc();
        outcome
    }

    /// Waits until all that was changed before is on disk for good.
    async fn flushed(&self) -> Result<(), Error> {
        let shared = &self.0.shared;
        let told = shared.wake.flush()?;
        let failed = |reason| Err(Error::NotWritten { path: shared.path.clone(), reason });
        match tokio::time::timeout(self.0.flush_max, told).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => failed("the disk fails"),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => failed("the disk is too slow"),
        }
    }

    fn change(&self, key: &KeyId, change: impl FnOnce(&mut Shard) -> Dropped) {
        let shared = &self.0.shared;
        let dropped = change(&mut shared.shard(key));
        shared.metrics.evicted.with_label_values(&["memory"]).inc_by(dropped.evicted);
        if dropped.unwritten > 0 {
            shared.metrics.unwritten.with_label_values(&["busy"]).inc_by(dropped.unwritten);
        }
        if dropped.removal_lost {
            shared.distrusted.store(true, Ordering::Release);
        }
        shared.wake.work();
    }

    /// Writes what waits, for `limit` at most. Nothing is written after that.
    pub async fn close(&self, limit: Duration) {
        self.0.shared.wake.end();
        let mut written = self.0.written.clone();
        if tokio::time::timeout(limit, written.wait_for(|done| *done)).await.is_err() {
            tracing::warn!(?limit, "heads were not all written in time");
        }
    }
}

impl Shared {
    pub(crate) fn shard(&self, key: &KeyId) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(key.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing can be read, or may be.
    pub(crate) fn is_off(&self) -> bool {
        self.generation.load(Ordering::Acquire) == 0 || self.distrusted.load(Ordering::Acquire)
    }

    /// Sets the gauges.
    pub(crate) fn measure(&self, rows: Option<u64>) {
        let bytes = |shard: &Mutex<Shard>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).memory_bytes()
        };
        let bytes: usize = self.shards.iter().map(bytes).sum();
        self.metrics.memory_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if let Some(rows) = rows {
            self.metrics.rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
        }
    }
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| Error::Start { what: name, reason: error.to_string() })
}

/// Hours since 1970: fine enough to tell what is in use.
pub(crate) fn hour_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 3600).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db;
    use crate::head::VARIANTS_MAX;
    use crate::row::tests::{head, selected};
    use rand::{Rng, SeedableRng};
    use rusqlite::Connection;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn limits() -> Limits {
        Limits { read_max: PATIENCE, ..Limits::default() }
    }

    fn open(path: &Path, limits: Limits) -> Heads {
        Heads::open(path, limits, &Registry::new()).unwrap()
    }

    fn of(url: &str, body: u8) -> (KeyId, Arc<Head>) {
        (KeyId::of("s", url), Arc::new(head("s", url, body)))
    }

    fn bodies(variants: &Variants) -> Vec<u8> {
        variants.iter().map(|head| head.body[0]).collect()
    }

    #[tokio::test]
    async fn heads_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let (key, first) = of("h.test/a", 1);
        assert!(heads.get(&key).await.is_empty());
        heads.put(key, Arc::clone(&first));
        heads.put(key, Arc::new(selected((*first).clone(), "br")));
        assert_eq!(heads.in_memory(&key).unwrap().len(), 2);
        let (gone, head) = of("h.test/gone", 2);
        heads.put(gone, Arc::clone(&head));
        heads.remove(gone, &head);
        let (all_gone, head) = of("h.test/all-gone", 3);
        heads.put(all_gone, head);
        heads.invalidate(&[all_gone]).await.unwrap();
        heads.close(PATIENCE).await;

        let heads = open(&path, limits());
        assert!(heads.in_memory(&key).is_none());
        let back = heads.get(&key).await;
        assert_eq!(back.len(), 2);
        assert!(back.iter().any(|head| format!("{head:?}") == format!("{first:?}")));
        assert!(heads.in_memory(&key).is_some());
        assert!(heads.get(&gone).await.is_empty() && heads.get(&all_gone).await.is_empty());
        heads.close(PATIENCE).await;
    }

    /// As a kill would leave the files: what is there when the future ends, not what is written
    /// in the tenth of a second after.
    #[tokio::test]
    async fn what_was_invalidated_is_gone_from_disk_when_that_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, Limits { flush_max: PATIENCE, ..limits() });
        let put: Vec<_> = (0..100).map(|number| of(&format!("h.test/{number}"), 1)).collect();
        put.iter().for_each(|(key, head)| heads.put(*key, Arc::clone(head)));
        heads.flushed().await.unwrap();
        let reader = db::open_reader(&path).unwrap();
        let rows = |key: &KeyId| db::read(&reader, key, &heads.0.shared.metrics).unwrap().0.len();
        assert!(put.iter().all(|(key, _)| rows(key) == 1));
        // Half of them by as many at a time.
        let ending = put[..50].iter().map(|(key, _)| heads.invalidate(std::slice::from_ref(key)));
        let ended = futures::future::join_all(ending).await;
        assert!(ended.into_iter().all(|ended| ended.is_ok()));
        assert!(put.iter().zip(0..).all(|((key, _), place)| rows(key) == usize::from(place >= 50)));
        // Now that this is known, there is nothing to wait for.
        let nothing = heads.0.shared.metrics.invalidations.with_label_values(&["nothing"]);
        assert_eq!(nothing.get(), 0);
        heads.invalidate(&[put[0].0, put[1].0]).await.unwrap();
        assert_eq!(nothing.get(), 1);
        heads.put(put[0].0, Arc::clone(&put[0].1));
        heads.invalidate(&[put[0].0]).await.unwrap();
        assert_eq!((rows(&put[0].0), nothing.get()), (0, 1));
        heads.close(PATIENCE).await;
        assert!(matches!(heads.invalidate(&[put[60].0]).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn an_invalidation_that_the_disk_refuses_says_so_and_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("later");
        let path = dir.join("heads.db");
        let heads = open(&path, limits());
        let (key, head) = of("h.test/a", 1);
        heads.put(key, Arc::clone(&head));
        let error = heads.invalidate(&[key]).await.unwrap_err().to_string();
        assert!(error.contains("heads.db is not on disk: the disk"), "{error}");
        assert!(heads.get(&key).await.is_empty());
    }

    #[tokio::test]
    async fn what_a_304_refreshed_is_kept_and_what_went_meanwhile_is_not_brought_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let (key, old) = of("h.test/a", 1);
        heads.put(key, Arc::clone(&old));
        heads.update(key, &Arc::new(Head { epoch: 99, ..(*old).clone() }));
        assert_eq!(heads.get(&key).await[0].epoch, 99);
        // The origin has another version since: the 304 for the old one comes late.
        heads.put(key, of("h.test/a", 2).1);
        heads.update(key, &Arc::new(Head { epoch: 100, ..(*old).clone() }));
        assert_eq!(bodies(&heads.get(&key).await), [2]);
        heads.close(PATIENCE).await;
        assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
    }

    /// With hardly any memory every lookup goes by the disk and what waits for it.
    #[tokio::test]
    async fn a_head_that_left_memory_is_as_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let small = Limits { memory_bytes: 0, ..limits() };
        let heads = open(&folder.path().join("heads.db"), small);
        for round in 0..40u8 {
            for number in 0..10u8 {
                let (key, head) = of(&format!("h.test/{number}"), round * 5 + number % 5);
                match (round + number) % 3 {
                    0 => {
                        heads.put(key, Arc::clone(&head));
                        assert_eq!(bodies(&heads.get(&key).await), [head.body[0]]);
                    }
                    1 => {
                        heads.invalidate(&[key]).await.unwrap();
                        assert!(heads.get(&key).await.is_empty());
                    }
                    _ => {
                        let before = bodies(&heads.get(&key).await);
                        heads.remove(key, &head);
                        heads.update(key, &head);
                        assert_eq!(bodies(&heads.get(&key).await), before);
                    }
                }
                assert!(heads.in_memory(&key).is_none());
            }
        }
    }

    #[tokio::test]
    async fn variants_are_few_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let heads = open(&folder.path().join("heads.db"), limits());
        let (key, head) = of("h.test/a", 0);
        for number in 0..VARIANTS_MAX + 3 {
            heads.put(key, Arc::new(selected((*head).clone(), &number.to_string())));
        }
        let kept = heads.get(&key).await;
        assert_eq!(kept.len(), VARIANTS_MAX);
        assert_eq!(kept[0].selecting[0].1.as_deref(), Some("34"));
    }

    #[tokio::test]
    async fn many_that_ask_for_one_key_share_a_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let (key, head) = of("h.test/a", 1);
        heads.put(key, head);
        heads.close(PATIENCE).await;
        let heads = open(&path, limits());
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..2_000 {
            let heads = heads.clone();
            asking.spawn(async move { heads.get(&key).await.len() });
        }
        assert!(asking.join_all().await.into_iter().all(|found| found == 1));
    }

    #[tokio::test]
    async fn keys_that_have_nothing_push_none_out_that_has_something() {
        let folder = tempfile::tempdir().unwrap();
        let small = Limits { memory_bytes: 256 << 10, ..limits() };
        let heads = open(&folder.path().join("heads.db"), small);
        let (key, head) = of("h.test/a", 1);
        heads.put(key, head);
        assert_eq!(heads.get(&key).await.len(), 1);
        for number in 0..3_000 {
            assert!(heads.get(&KeyId::of("s", &number.to_string())).await.is_empty());
        }
        assert!(heads.in_memory(&key).is_some());
        assert!(heads.0.shared.metrics.evicted.with_label_values(&["memory"]).get() > 0);
    }

    #[tokio::test]
    async fn rows_are_bounded_and_the_longest_unused_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let few = Limits { rows: 100, ..limits() };
        let heads = open(&path, few);
        for number in 0..1_500 {
            let (key, head) = of(&format!("h.test/{number}"), 1);
            heads.put(key, head);
        }
        let rows = &heads.0.shared.metrics.rows;
        let end = std::time::Instant::now() + PATIENCE;
        while rows.get() != 100 {
            assert!(std::time::Instant::now() < end, "{} rows", rows.get());
            tokio::task::yield_now().await;
        }
        assert_eq!(heads.0.shared.metrics.evicted.with_label_values(&["disk"]).get(), 1_400);
        heads.close(PATIENCE).await;
        // After a restart the number is known at once: nobody waits until all are counted.
        let connection = Connection::open(&path).unwrap();
        let count = "SELECT count(*) FROM heads";
        assert_eq!(connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 100);
        connection.execute_batch("DROP TABLE heads").unwrap();
        assert_eq!(db::count(&connection).unwrap(), 100);
    }

    #[tokio::test]
    async fn a_damaged_row_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let (key, head) = of("h.test/a", 1);
        heads.put(key, head);
        heads.close(PATIENCE).await;
        let connection = Connection::open(&path).unwrap();
        connection.execute("UPDATE heads SET row = zeroblob(300)", []).unwrap();
        drop(connection);
        let heads = open(&path, limits());
        assert!(heads.get(&key).await.is_empty());
        assert_eq!(heads.0.shared.metrics.damaged.with_label_values(&["row"]).get(), 1);
        heads.put(key, of("h.test/a", 2).1);
        heads.close(PATIENCE).await;
        assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
    }

    #[tokio::test]
    async fn what_is_no_database_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        for damage in ["not a database, but long enough to be looked at as one", "newer"] {
            if damage == "newer" {
                std::fs::remove_file(&path).unwrap();
                let connection = Connection::open(&path).unwrap();
                connection.pragma_update(None, "user_version", 99).unwrap();
            } else {
                std::fs::write(&path, damage.repeat(50)).unwrap();
            }
            let heads = open(&path, limits());
            let (key, head) = of("h.test/a", 1);
            heads.put(key, head);
            heads.close(PATIENCE).await;
            assert!(path.with_extension("damaged").exists());
            assert_eq!(open(&path, limits()).get(&key).await.len(), 1);
        }
    }

    /// The pages are overwritten while it runs: found by a read, replaced, and used again.
    #[tokio::test]
    async fn a_database_that_is_damaged_while_it_runs_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        for number in 0..200 {
            let (key, head) = of(&format!("h.test/{number}"), 1);
            heads.put(key, head);
        }
        heads.close(PATIENCE).await;
        let bytes = std::fs::read(&path).unwrap();
        let mut damaged = bytes[..4096].to_vec();
        damaged.resize(bytes.len(), 0xaa);
        std::fs::write(&path, damaged).unwrap();

        let heads = open(&path, limits());
        let (key, head) = of("h.test/7", 2);
        let end = std::time::Instant::now() + PATIENCE;
        while heads.0.shared.metrics.damaged.with_label_values(&["database"]).get() == 0 {
            assert!(heads.get(&key).await.is_empty());
            assert!(std::time::Instant::now() < end, "the damage was not found");
            tokio::task::yield_now().await;
        }
        heads.put(key, head);
        assert_eq!(bodies(&heads.get(&key).await), [2]);
        heads.close(PATIENCE).await;
        assert_eq!(bodies(&open(&path, limits()).get(&key).await), [2]);
    }

    /// Bits flipped and ends cut off anywhere: heads are missing, none is another than was put.
    #[tokio::test]
    async fn no_damage_makes_another_head() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let put: Vec<_> = (0..100).map(|number| of(&format!("h.test/{number}"), number)).collect();
        put.iter().for_each(|(key, head)| heads.put(*key, Arc::clone(head)));
        heads.close(PATIENCE).await;
        let whole = std::fs::read(&path).unwrap();
        let mut random = rand::rngs::StdRng::seed_from_u64(4);
        let mut found = 0;
        for round in 0..60 {
            let mut damaged = whole.clone();
            for _ in 0..1 << (round % 6) {
                let bit = random.random_range(0..whole.len() * 8);
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            if round % 10 == 9 {
                damaged.truncate(random.random_range(0..whole.len()));
            }
            std::fs::write(&path, damaged).unwrap();
            let heads = open(&path, limits());
            for (key, head) in &put {
                for back in heads.get(key).await.iter() {
                    assert_eq!(format!("{back:?}"), format!("{head:?}"), "round {round}");
                    found += 1;
                }
            }
            heads.close(PATIENCE).await;
        }
        assert!(found > 1_000, "{found} of 6,000 heads came back");
    }

    #[tokio::test]
    async fn a_disk_that_fails_leaves_heads_in_memory_until_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("later");
        let path = dir.join("heads.db");
        let heads = open(&path, limits());
        let (key, head) = of("h.test/a", 1);
        heads.put(key, head);
        assert_eq!(bodies(&heads.get(&key).await), [1]);
        assert!(heads.0.shared.metrics.failures.with_label_values(&["open"]).get() > 0);
        std::fs::create_dir(&dir).unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        while heads.0.shared.metrics.rows.get() == 0 {
            assert!(std::time::Instant::now() < end, "the disk is not tried again");
            tokio::task::yield_now().await;
        }
        heads.close(PATIENCE).await;
        assert_eq!(bodies(&open(&path, limits()).get(&key).await), [1]);
    }

    /// Past the bound on what waits, heads stay in memory and the disk is emptied rather than
    /// left to say what was removed.
    #[tokio::test]
    async fn removals_lost_while_the_disk_fails_empty_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.db");
        let heads = open(&path, limits());
        let (key, head) = of("h.test/removed", 1);
        heads.put(key, Arc::clone(&head));
        heads.close(PATIENCE).await;

        // Held by another process, the database takes no change.
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let heads = open(&path, Limits { waiting_bytes: 64 << 10, ..limits() });
        assert_eq!(heads.get(&key).await.len(), 1);
        for number in 0..4_000 {
            let (other, head) = of(&format!("h.test/{number}"), 2);
            heads.put(other, Arc::clone(&head));
            heads.remove(other, &head);
        }
        heads.remove(key, &head);
        assert!(heads.0.shared.metrics.unwritten.with_label_values(&["busy"]).get() > 0);
        assert!(heads.get(&key).await.is_empty());
        holder.execute_batch("ROLLBACK").unwrap();
        drop(holder);
        let end = std::time::Instant::now() + PATIENCE;
        while heads.0.shared.metrics.restarted.get() == 0 {
            assert!(std::time::Instant::now() < end, "the database says too much");
            tokio::task::yield_now().await;
        }
        heads.close(PATIENCE).await;
        assert!(open(&path, limits()).get(&key).await.is_empty());
    }
}
