//! One disk of the reactive SSD tier: reads from it, what waits to be written, whether it
//! may be used. [`watch`] opens it, looks after it and brings it back.
//!
//! No request waits for a disk longer than `read_max`, and none for a write. A disk's trouble
//! is a miss.

mod beside;
mod contents;
mod fifo;
mod folder;
pub mod health;
mod layout;
mod place;
mod queue;
mod store;
mod watch;

pub(crate) use beside::Folders;
pub use folder::{KeptFree, SSD_BYTES_MIN, bytes_free};
pub(crate) use place::Owner;
pub(crate) use watch::run;

use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::value::{Chunk, Key};
use bytes::Bytes;
use counting::Untold;
pub(crate) use health::Trouble;
use health::UnderWay;
use queue::Queue;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Read, Store};
use tokio::sync::{mpsc, watch as watching};

/// Reads under way on one disk at most; more are bypassed. Enough to keep an SSD busy with
/// chunks of 1 MiB, few enough to be read within their time.
const READS_MAX: usize = 64;

/// Bytes on disk of a chunk of so many bytes: at most a page more than 1 MiB.
pub(crate) fn stored_bytes(bytes: usize) -> u32 {
    u32::try_from(store::stored_bytes(bytes)).unwrap_or(u32::MAX)
}

/// A disk and what is known of it.
pub(crate) struct Disk {
    /// How metrics and logs call it: its folder.
    name: String,
    dir: PathBuf,
    bytes: u64,
    /// Of these, what its filesystem has: known when it was opened.
    usable: AtomicU64,
    /// Its filesystem's number: likewise.
    device: AtomicU64,
    /// Of which others may have a share,
    folders: Folders,
    /// and so much is left free.
    kept: KeptFree,
    direct: bool,
    owner: Owner,
    read_max: Duration,
    memory: Memory,
    metrics: Metrics,
    policy: Arc<Policy>,
    store: RwLock<Option<Arc<Store>>>,
    queue: Queue,
    reads: Arc<UnderWay>,
    /// Wakes the watch: see [`Disk::fail`].
    troubles: mpsc::Sender<Trouble>,
    troubled: tokio::sync::Mutex<mpsc::Receiver<Trouble>>,
    /// Chunks that were not written: there may be thousands a second.
    drops: Mutex<Untold>,
    damaged: Mutex<Untold>,
    /// Whether opening it has been tried.
    tried: watching::Sender<bool>,
}

impl Disk {
    /// A disk that is not open yet. What waits to be written is at most `queue_bytes_max`.
    pub(crate) fn new(
        disk: &crate::Disk,
        sizes: &crate::Sizes,
        (owner, folders): (Owner, Folders),
        queue_bytes_max: usize,
        memory: Memory,
        metrics: Metrics,
        policy: Arc<Policy>,
    ) -> Self {
        let name = disk.dir.display().to_string();
        metrics.disk(&name);
        let (troubles, troubled) = mpsc::channel(1);
        let queued = metrics.ssd_queue_bytes.clone();
        Self {
            name,
            dir: disk.dir.clone(),
            bytes: disk.bytes,
            usable: AtomicU64::new(disk.bytes),
            device: AtomicU64::new(0),
            folders,
            kept: sizes.kept_free.clone(),
            direct: disk.direct,
            owner,
            read_max: sizes.read_max,
            memory,
            metrics,
            policy,
            store: RwLock::default(),
            queue: Queue::new(queue_bytes_max, queued),
            reads: Arc::default(),
            troubles,
            troubled: tokio::sync::Mutex::new(troubled),
            drops: Mutex::default(),
            damaged: Mutex::default(),
            tried: watching::Sender::new(false),
        }
    }

    /// Tells this disk from others, for ever.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The policy reckons with what there is.
    fn is_usable(&self, bytes: u64) {
        self.policy.resized(self.usable.swap(bytes, Ordering::Relaxed), bytes);
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that its files may still grow by while it is in use, if they lie on this filesystem.
    pub(crate) fn bytes_to_come(&self, device: u64) -> u64 {
        let store = self.store().filter(|_| self.device.load(Ordering::Relaxed) == device);
        store.map_or(0, |store| store.bytes_to_come())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.store.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether it may hold the chunk, or is about to.
    pub(crate) fn may_hold(&self, key: &Key) -> bool {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().is_some_and(|store| self.queue.contains(key) || store.may_hold(key))
    }

    /// Whether it has blocks that hold nothing, and keeps up with what it is offered.
    pub(crate) fn has_room(&self) -> bool {
        self.has_empty_blocks() && self.queue.is_short()
    }

    /// Whether it has blocks that hold nothing.
    pub(crate) fn has_empty_blocks(&self) -> bool {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().is_some_and(|store| store.has_room())
    }

    /// The chunk, checked, and if so wished in memory from then on; `None` once `read_max` is over.
    pub(crate) async fn read(self: &Arc<Self>, key: &Key, into_memory: bool) -> Option<Bytes> {
        if let Some(bytes) = self.queue.get(key) {
            return Some(bytes);
        }
        let store = self.store().filter(|store| store.may_hold(key))?;
        let Some(turn) = UnderWay::begin(&self.reads, READS_MAX) else {
            self.metrics.ssd_reads("busy");
            return None;
        };
        let (disk, key, owned) = (Arc::clone(self), *key, Arc::clone(&store));
        // A task of its own: a read that is late still comes to something, and what blocks or
        // hashes does so on the disk's threads.
        let reading = store.spawn(async move {
            let read = owned.read(&key, into_memory).await;
            drop(turn);
            disk.take(read, &key, &owned)
        });
        if let Ok(read) = tokio::time::timeout(self.read_max, reading).await {
            self.reads.was_quick();
            return read.ok().flatten();
        }
        self.reads.was_slow();
        self.metrics.ssd_reads("slow");
        None
    }

    fn take(&self, read: Read, key: &Key, store: &Arc<Store>) -> Option<Bytes> {
        match read {
            Read::Chunk(bytes) => {
                self.metrics.ssd_reads("hit");
                self.metrics.ssd_read_bytes.inc_by(bytes.len() as u64);
                return Some(bytes);
            }
            Read::Absent => self.metrics.ssd_reads("miss"),
            Read::NoRoom => self.metrics.ssd_reads("no-room"),
            Read::Damaged => {
                self.metrics.ssd_reads("damaged");
                self.metrics.ssd_mismatches.inc();
                if let Some(chunks) = untold(&self.damaged, 1) {
                    // As `explain` names it.
                    let body = format_args!("{:032x}", u128::from_be_bytes(key.body));
                    let (disk, chunk) = (&self.name, key.number);
                    tracing::warn!(disk, chunks, %body, chunk, "damaged on disk, and forgotten");
                }
            }
            Read::Failed(error) => {
                self.metrics.ssd_reads("failed");
                self.fail(store, Trouble::Failed(error));
            }
        }
        None
    }

    /// Takes a chunk to be written, or drops and counts it.
    pub(crate) fn offer(&self, key: Key, bytes: Bytes) {
        if !self.is_up() {
            let is_tried = *self.tried.borrow();
            // Before it is there at all, nothing is wrong.
            if is_tried { self.dropped("off", 1) } else { self.count_drops("off", 1) }
        } else if !self.queue.put(key, bytes) {
            self.dropped("queue", 1);
            // Its next use is another chance.
            self.memory.get(&key, Chunk::unkeep);
        }
    }

    fn count_drops(&self, reason: &str, count: usize) {
        self.metrics.ssd_drops.with_label_values(&[reason]).inc_by(count as u64);
    }

    fn dropped(&self, reason: &str, count: usize) {
        self.count_drops(reason, count);
        if let Some(chunks) = untold(&self.drops, count) {
            tracing::warn!(disk = self.name, chunks, reason, "chunks were not written");
        }
    }

    /// Stops using the disk, from now on.
    fn fail(&self, store: &Arc<Store>, trouble: Trouble) {
        let mut current = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, store)) {
            *current = None;
            // One trouble is enough.
            let _ = self.troubles.try_send(trouble);
        }
    }

    /// Waits until opening the disk has been tried.
    pub(crate) async fn tried(&self) {
        // Its sender is here.
        let _ = self.tried.subscribe().wait_for(|tried| *tried).await;
    }

    /// Waits until there is room to offer some more.
    pub(crate) async fn room(&self) {
        self.queue.room().await;
    }

    /// Waits until all that was offered is written.
    pub(crate) async fn flushed(&self) {
        self.queue.empty().await;
    }

    /// Ends the use of the disk; its watch has ended.
    pub(crate) async fn close(&self) {
        let store = self.store.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(store) = store
            && let Err(error) = store.close().await
        {
            tracing::warn!(disk = self.name, error, "can't be closed");
        }
    }
}

/// How many to tell of now, of what goes wrong many times.
fn untold(of: &Mutex<Untold>, count: usize) -> Option<u64> {
    of.lock().unwrap_or_else(PoisonError::into_inner).add(count as u64, Instant::now())
}
