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
    /// Bytes of rows on disk, with their indexes; those longest unused go first.
    pub disk_bytes: u64,
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
            // A million rows or more: little beside what an SSD has, and one for every 1 MiB of a TB.
            disk_bytes: 1 << 30,
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
    pub(crate) disk_bytes_max: u64,
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
            disk_bytes_max: limits.disk_bytes,
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
        self.change(&key, |shard| shard.put(key, shard.earliest(&key, &own), hour_now()));
    }

    /// Keeps `head` in place of the one of `key` with the same body, selected by the same (after
    /// a 304); nothing is kept if that has gone meanwhile. Gives it with bytes from the earlier moment
    /// of both.
    pub fn update(&self, key: KeyId, head: &Head) -> Arc<Head> {
        let mut head = Arc::new(head.compacted());
        self.change(&key, |shard| {
            head = shard.earliest(&key, &head);
            shard.refresh(key, &head)
        });
        head
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
    pub(crate) fn measure(&self, disk: Option<(u64, u64)>) {
        let bytes = |shard: &Mutex<Shard>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).memory_bytes()
        };
        let bytes: usize = self.shards.iter().map(bytes).sum();
        self.metrics.memory_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if let Some((rows, bytes)) = disk {
            self.metrics.rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
            self.metrics.disk_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
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
mod tests;
