//! The memory tier and the reactive SSD tiers of an edge: chunks by key, checked whenever a
//! disk gave them.
//!
//! The promise: what comes out under a key is what went in under it, or nothing. At worst a
//! hit becomes a miss. foyer is named in this crate only.

mod ahead;
mod disk;
mod disks;
mod memory;
mod metrics;
pub mod policy;
mod sealed;
mod value;
mod warm;

pub use ahead::Ahead;
pub use disk::{KeptFree, SSD_BYTES_MIN, bytes_free, health};
pub use memory::MEMORY_BYTES_MIN;
pub use value::Key;

use bytes::Bytes;
use disk::Owner;
use disks::Disks;
use memory::Memory;
use metrics::Metrics;
use policy::{ChunkId, Policy};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use value::{Chunk, Copy};
use warm::{Listed, Warmed};

/// How long a request waits for a disk, then it goes to the next source. A sound SSD gives a
/// chunk within a few milliseconds, an origin rarely one within fifty.
pub const READ_MAX: Duration = Duration::from_millis(50);
/// A chunk that memory keeps for so many more uses is offered to a disk again if its copy
/// there is gone.
const USES_PER_LOOK: u32 = 64;
/// Of the time to close, this share is left for the list and the disks' last words.
const CLOSE_SHARE: u32 = 4;
/// What is written at the end may evict what is in memory, too: that is written then, so often at
/// most.
const FLUSHES_MAX: usize = 5;

/// Why the tiers can't be opened. A disk's trouble is none: an edge without it still serves.
#[derive(Debug, Error)]
pub enum Error {
    /// The memory can't be had.
    #[error("the memory tier")]
    Memory(#[from] arena::Error),
    /// The disks' own thread can't be had.
    #[error("a thread for the disks")]
    Threads(#[from] std::io::Error),
    /// A metric's name is taken.
    #[error("the metrics of the tiers")]
    Metrics(#[from] prometheus::Error),
}

/// A disk, or the part of one, for the reactive SSD tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its folder, made if need be; nothing else lives there.
    pub dir: PathBuf,
    /// Bytes that may be used there; [`SSD_BYTES_MIN`] or more.
    pub bytes: u64,
    /// Whether it is read and written past the page cache (`O_DIRECT`), where its filesystem can.
    pub direct: bool,
}

/// Where the tiers are and how large they may grow.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Bytes of chunks in memory, those being fetched included; [`MEMORY_BYTES_MIN`] or more.
    pub memory_bytes: u64,
    /// The disks of the reactive SSD tier; none is fine.
    pub disks: Vec<Disk>,
    /// Where the list of the hottest chunks is kept over a restart.
    pub data_dir: PathBuf,
    /// How long a read of a disk may take: [`READ_MAX`].
    pub read_max: Duration,
    /// What the disks' folders leave to others.
    pub kept_free: KeptFree,
}

/// All tiers. Clones share them.
#[derive(Clone)]
pub struct Chunks {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Memory,
    disks: Disks,
    policy: Arc<Policy>,
    /// Where the policy's time begins.
    began: Instant,
    warm: PathBuf,
    warmed: Warmed,
}

impl Chunks {
    /// Opens the tiers, at once: the disks join in the background, then memory becomes as
    /// warm as it was before a clean restart.
    ///
    /// # Errors
    /// [`enum@Error`] when the memory can't be had.
    pub fn open(sizes: &Sizes, registry: &prometheus::Registry) -> Result<Self, Error> {
        let metrics = Metrics::new(registry)?;
        let memory = Memory::new(sizes.memory_bytes, metrics.clone())?;
        let policy = Arc::new(Policy::new(sizes.disks.iter().map(|disk| disk.bytes).sum()));
        let owner = Owner::of(&sizes.data_dir).unwrap_or_else(|error| {
            let dir = sizes.data_dir.display();
            tracing::warn!(%dir, %error, "the SSD's folders are not known again after a restart");
            Owner::new()
        });
        let disks = Disks::open(sizes, &owner, &memory, &metrics, &policy)?;
        let warm = warm::path(&sizes.data_dir);
        let warmed = Warmed::default();
        disks.spawn(warm::up(warm.clone(), disks.all(), memory.clone(), warmed.clone()));
        let inner = Inner { memory, disks, policy, began: Instant::now(), warm, warmed };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Room to write a chunk of up to `bytes` bytes (1 MiB at most). Evicts from memory for
    /// it; `None` only when that does not suffice.
    #[must_use]
    pub fn slot(&self, bytes: usize) -> Option<arena::Slot> {
        self.inner.memory.slot(bytes)
    }

    /// Bytes that files of the disks in use may still grow by on the filesystem of this number
    /// (`st_dev`), at most.
    #[must_use]
    pub fn bytes_to_come(&self, device: u64) -> u64 {
        self.inner.disks.all().iter().map(|disk| disk.bytes_to_come(device)).sum()
    }

    /// Where the chunks in memory lie.
    #[must_use]
    pub fn arena(&self) -> &arena::Arena {
        self.inner.memory.arena()
    }

    /// Whether so much of memory is held by fetches and responses that responses had better
    /// copy small pieces than hold on to whole chunks.
    #[must_use]
    pub fn under_pressure(&self) -> bool {
        self.inner.memory.under_pressure()
    }

    /// Arena bytes of the chunks that memory keeps, and of those that only fetches and responses
    /// hold: the latter go back to none when nothing is under way.
    #[must_use]
    pub fn memory_bytes(&self) -> (u64, u64) {
        self.inner.memory.bytes_kept_and_held()
    }

    /// A place for a chunk that is fetched for a reader, `by` so many chunks ahead of the one that
    /// is read: there it stays in memory. `None` when three eighths of memory are taken by such
    /// chunks; for the next one when half of that is, and beyond that when a quarter of it is.
    #[must_use]
    pub fn ahead(&self, by: u64) -> Option<Ahead> {
        self.inner.memory.ahead(by)
    }

    /// Has a chunk that is in memory stay there for as long as the place is kept: it can't be had
    /// again. `None` when half of the places are taken by such chunks, or all, or it has left.
    #[must_use]
    pub fn stay(&self, key: &Key) -> Option<Ahead> {
        self.inner.memory.stay(key)
    }

    /// Whether memory has so much room that no chunk will leave it soon.
    #[must_use]
    pub fn have_room(&self) -> bool {
        self.inner.memory.has_room()
    }

    /// How many places for chunks that are fetched for their readers are taken.
    #[must_use]
    pub fn count_ahead(&self) -> usize {
        self.inner.memory.places().taken()
    }

    /// A response wants a chunk, of so many bytes, from its first byte on, wherever it will
    /// come from. Not to be told of a response that begins inside the chunk: a player's next
    /// request often does, and would count as another player's. This alone decides what is
    /// worth a disk.
    pub fn requested(&self, key: &Key, bytes: usize) {
        self.inner.requested(key, bytes);
    }

    /// A body whose chunks are gone, and could only be had anew as a whole, has come again under
    /// another name: that is as much wanted as the first was. Of its first 64 chunks.
    pub fn inherit(&self, body: &[u8; 16], from: &[u8; 16]) {
        self.inner.policy.inherit(ChunkId::new(body, 0), ChunkId::new(from, 0));
    }

    /// The chunk, if it is in memory. Goes to a disk if it has become worth one and is on none.
    #[must_use]
    pub fn in_memory(&self, key: &Key) -> Option<Bytes> {
        self.found(key, |_| ())
    }

    /// [`Self::requested`] and [`Self::in_memory`] at once; if it is not in memory, nothing is
    /// counted.
    #[must_use]
    pub fn requested_in_memory(&self, key: &Key) -> Option<Bytes> {
        self.found(key, |chunk| self.inner.requested(key, chunk.bytes().len()))
    }

    fn found(&self, key: &Key, count: impl FnOnce(&Chunk)) -> Option<Bytes> {
        let inner = &self.inner;
        let on_disk = || inner.disks.may_hold(key);
        let (bytes, goes) = inner.memory.get(key, |chunk| {
            count(chunk);
            if chunk.count_use() % USES_PER_LOOK == USES_PER_LOOK - 1 && !on_disk() {
                chunk.unkeep();
            }
            let goes = chunk.copy() == Copy::None && inner.admit(key, chunk.bytes(), on_disk);
            (chunk.bytes().clone(), goes && chunk.keep())
        })?;
        if goes {
            inner.disks.offer(*key, bytes.clone());
        }
        Some(bytes)
    }

    /// The chunk, if it is in memory, for who keeps it elsewhere: a use for what stays in memory, and no
    /// reason to write it to a disk here.
    #[must_use]
    pub fn copy_in_memory(&self, key: &Key) -> Option<Bytes> {
        self.inner.memory.get(key, |chunk| chunk.bytes().clone())
    }

    /// The chunk from a disk, as [`Self::read_disk`], for who keeps it elsewhere: it does not enter memory.
    pub async fn copy_on_disk(&self, key: &Key) -> Option<Bytes> {
        self.inner.disks.read(key, false).await
    }

    /// Whether the chunk is in memory, without counting as a use of it.
    #[must_use]
    pub fn is_in_memory(&self, key: &Key) -> bool {
        self.inner.memory.contains(key)
    }

    /// Whether a disk may hold the chunk (their indexes keep hashes: a stranger's may match).
    #[must_use]
    pub fn may_be_on_disk(&self, key: &Key) -> bool {
        self.inner.disks.may_hold(key)
    }

    /// Whether a disk would take the chunk, of so many bytes, if it were fetched now.
    #[must_use]
    pub fn is_worth_disk(&self, key: &Key, bytes: usize) -> bool {
        let inner = &self.inner;
        let (size, room) = (disk::stored_bytes(bytes), || inner.has_room(key));
        !inner.disks.is_empty() && inner.policy.would_admit(id(key), size, room())
    }

    /// The chunk from a disk, checked; it is in memory from then on. `None` when no disk has
    /// it, or not within [`Sizes::read_max`], or damaged, or when memory has no room for it.
    pub async fn read_disk(&self, key: &Key) -> Option<Bytes> {
        self.inner.disks.read(key, true).await
    }

    /// Takes a verified chunk that was fetched (a whole frozen slot): into memory, and to a
    /// disk if it is worth one already.
    pub fn insert(&self, key: Key, bytes: Bytes) {
        self.insert_ahead(key, bytes, None);
    }

    /// [`Self::insert`]; the chunk stays in memory for as long as the place is kept.
    pub fn insert_ahead(&self, key: Key, bytes: Bytes, ahead: Option<&mut Ahead>) {
        let inner = &self.inner;
        inner.policy.missed(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let goes = inner.admit(&key, &bytes, || inner.disks.may_hold(&key));
        let copy = if goes { Copy::Kept } else { Copy::None };
        if let Some(ahead) = ahead {
            ahead.keep(Chunk::new(key, bytes.clone(), copy), true);
        }
        inner.memory.insert(Chunk::new(key, bytes.clone(), copy));
        if goes {
            inner.disks.offer(key, bytes);
        }
    }

    /// Takes a verified chunk that was derived, or lies on a disk by other means: into memory
    /// alone.
    pub fn insert_in_memory(&self, key: Key, bytes: Bytes) {
        self.inner.memory.insert(Chunk::new(key, bytes, Copy::Never));
    }

    /// Ends the tiers, within `limit`: what memory holds is written to the disks, the hottest
    /// first, and listed for the next start. What was asked for once is left out where a disk is
    /// full, as far as that is known by then.
    pub async fn close(&self, limit: Duration) {
        let end = Instant::now() + limit;
        // Before memory is looked at: what comes in meanwhile is on one list or on both.
        let rest = self.inner.warmed.rest();
        let hottest = self.hottest().await;
        if timeout_at(end - limit / CLOSE_SHARE, self.flush_all(&hottest)).await.is_err() {
            tracing::warn!(?limit, "not all of memory could be written to disk in time");
        }
        // The list that was not read yet stays: its disks have not been there.
        if let Some(rest) = rest {
            self.list(hottest, rest, end).await;
        }
        if timeout_at(end, self.inner.disks.close()).await.is_err() {
            tracing::warn!(?limit, "the disks could not be closed in time");
        }
    }

    /// Lists what of memory is on a disk, and the rest of a list that it was being warmed by.
    async fn list(&self, hottest: Vec<(u32, Key)>, rest: Listed, end: Instant) {
        let on_disk = hottest.into_iter().filter(|(_, key)| self.may_be_on_disk(key));
        let (uses, keys): (Vec<_>, Vec<_>) = on_disk.unzip();
        let listed = Listed { keys, used: uses.partition_point(|uses| *uses > 0) }.and(&rest);
        let path = self.inner.warm.clone();
        let saving = tokio::task::spawn_blocking(move || warm::save(&path, &listed));
        match timeout_at(end, saving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the list of warm chunks is not saved"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the list of warm chunks is not saved"),
        }
    }

    /// Chunks in memory that may be on disk, the most used first, up to [`warm::KEYS_MAX`], with how
    /// often each was used.
    async fn hottest(&self) -> Vec<(u32, Key)> {
        let mut chunks = Vec::new();
        let visit = |chunk: &Chunk| {
            if chunk.copy() != Copy::Never {
                chunks.push((chunk.uses(), *chunk.key()));
            }
        };
        self.inner.memory.visit(visit).await;
        chunks.sort_unstable_by(|a, b| b.cmp(a));
        chunks.truncate(warm::KEYS_MAX);
        chunks
    }

    /// Writes those of the chunks that are on no disk, until all that were used are on one.
    async fn flush_all(&self, hottest: &[(u32, Key)]) {
        let used = hottest.partition_point(|(uses, _)| *uses > 0);
        let mut missing = 0;
        for _ in 0..FLUSHES_MAX {
            self.flush(hottest).await;
            let is_missing = |(_, key): &&(u32, Key)| !self.may_be_on_disk(key);
            missing = hottest[..used].iter().filter(is_missing).count();
            // Where most of it is missing still, there is more of it than the disks hold.
            if missing == 0 || missing * 4 > used * 3 {
                break;
            }
        }
        if missing > 0 && self.inner.disks.all().iter().any(|disk| disk.is_up()) {
            tracing::warn!(missing, used, "disks had no room for all chunks of memory in use");
        }
    }

    /// Writes those of the chunks that are on no disk.
    async fn flush(&self, chunks: &[(u32, Key)]) {
        for (uses, key) in chunks {
            let Some(disk) = self.inner.disks.home(key).filter(|disk| disk.is_up()) else {
                return;
            };
            if self.may_be_on_disk(key) || (*uses == 0 && !disk.has_empty_blocks()) {
                continue;
            }
            if let Some(bytes) = self.inner.memory.get(key, |chunk| chunk.bytes().clone()) {
                disk.room().await;
                disk.offer(*key, bytes);
            }
        }
        for disk in self.inner.disks.all() {
            disk.flushed().await;
        }
    }
}

impl Inner {
    fn requested(&self, key: &Key, bytes: usize) {
        // Without a disk nothing is to be decided.
        if !self.disks.is_empty() {
            self.policy.requested(id(key), disk::stored_bytes(bytes), self.began.elapsed());
        }
    }

    /// Whether a chunk is worth a disk; without disks none is.
    fn admit(&self, key: &Key, bytes: &Bytes, on_disk: impl FnOnce() -> bool) -> bool {
        let size = disk::stored_bytes(bytes.len());
        !self.disks.is_empty() && !on_disk() && self.policy.admit(id(key), size, self.has_room(key))
    }

    fn has_room(&self, key: &Key) -> bool {
        self.disks.home(key).is_some_and(|disk| disk.has_room())
    }
}

fn id(key: &Key) -> ChunkId {
    ChunkId::new(&key.body, key.number)
}
