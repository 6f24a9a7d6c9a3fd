//! The memory tier: foyer caches under S3-FIFO whose values lie in one arena.
//!
//! The arena is the ceiling. The caches may fill all of it but [`SPARE_SHARE`]; what is left
//! is for chunks being fetched, and for chunks that left the caches while a response still
//! sends them. When that does not suffice, [`Memory::slot`] evicts until there is room.

use crate::ahead::{Ahead, Places};
use crate::metrics::Metrics;
use crate::value::{Chunk, Key};
use arena::{Arena, Slot};
use foyer::{Cache, CacheBuilder, Event, EventListener, S3FifoConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Smallest memory tier, in bytes: a few chunks, and room to fetch a few more.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// One part in so many of the arena is not the caches'. An eighth: at 10 Gbit/s, fetches that
/// take 100 ms have 125 MB in flight, which is what 1 GiB leaves.
const SPARE_SHARE: u64 = 8;
/// Under pressure from here on: one part in so many of the arena is held by others than the
/// caches, twice what is set aside for them.
const PRESSURE_SHARE: u64 = 4;
/// Chunks that are here for their readers may have three parts in so many of the arena. What
/// responses hold may be a quarter more and what is being fetched another, and then some is left.
const PLACES_SHARE: u64 = 8;
/// What one of them is taken for, in bytes.
const PLACE_BYTES: u64 = 1 << 20;
/// With one part in so many of the arena free, nothing leaves the caches soon.
const ROOM_SHARE: u64 = 4;
/// A cache of its own has at least this much: hundreds of chunks, so that each cache's
/// S3-FIFO sees enough to tell hot from cold.
const SHARD_BYTES_MIN: u64 = 256 << 20;
/// Locks of the memory tier at most: several a core.
const SHARDS_MAX: u64 = 16;
/// What is kept beside each chunk outside the arena, in bytes: foyer's record, its hash table
/// and ghost slots, the owner of the bytes. Part of a chunk's weight, so that many small
/// objects do not grow past the setting.
const ENTRY_BYTES: usize = 512;

/// Chunks in memory.
#[derive(Clone)]
pub(crate) struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    arena: Arena,
    /// Caches of one foyer shard each: foyer tells (and changes) usage by the cache alone.
    shards: Box<[Shard]>,
    held: Arc<Held>,
    places: Places,
    /// One eviction at a time: see [`Shard::evict`].
    evicting: Mutex<()>,
    metrics: Metrics,
}

struct Shard {
    cache: Cache<Key, Chunk>,
    capacity: usize,
}

/// Arena bytes of the chunks that are in the caches; counts evictions.
struct Held {
    bytes: AtomicU64,
    places: Places,
    metrics: Metrics,
}

impl EventListener for Held {
    type Key = Key;
    type Value = Chunk;

    fn on_leave(&self, reason: Event, _: &Key, chunk: &Chunk) {
        if chunk.is_ballast() {
            return;
        }
        self.bytes.fetch_sub(chunk.block_bytes() as u64, Ordering::Relaxed);
        // What is replaced is still there.
        if !matches!(reason, Event::Replace) {
            self.places.leaves(chunk.key());
        }
        if matches!(reason, Event::Evict) {
            self.metrics.memory_evictions.inc();
        }
    }
}

impl Memory {
    pub(crate) fn new(bytes_max: u64, metrics: Metrics) -> Result<Self, arena::Error> {
        Ok(Self::over(Arena::new(bytes_max)?, metrics))
    }

    fn over(arena: Arena, metrics: Metrics) -> Self {
        let capacity = arena.bytes_max() - arena.bytes_max() / SPARE_SHARE;
        let count = (capacity / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let most = arena.bytes_max() / PLACES_SHARE * 3 / PLACE_BYTES;
        let places = Places::new(usize::try_from(most).unwrap_or(usize::MAX));
        let bytes = AtomicU64::new(0);
        let held = Arc::new(Held { bytes, places: places.clone(), metrics: metrics.clone() });
        // Mapped, so it fits.
        let capacity = usize::try_from(capacity / count).unwrap_or(usize::MAX);
        let shards = (0..count).map(|_| Shard::new(capacity, &held)).collect();
        let evicting = Mutex::new(());
        Self { inner: Arc::new(Inner { arena, shards, held, places, evicting, metrics }) }
    }

    fn shard(&self, key: &Key) -> &Shard {
        let shards = &self.inner.shards;
        // Other bits than those that a shard's table goes by.
        &shards[(key.hash() >> 40) as usize % shards.len()]
    }

    /// Room for a chunk; `None` only when all that could be evicted was, and did not suffice.
    pub(crate) fn slot(&self, bytes: usize) -> Option<Slot> {
        if let Some(slot) = self.inner.arena.slot(bytes) {
            return Some(slot);
        }
        let block = arena::block_bytes(bytes)?;
        let _turn = self.inner.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(slot) = self.inner.arena.slot(bytes) {
                return Some(slot);
            }
            let usage = |shard: &&Shard| shard.cache.usage();
            let fullest = self.inner.shards.iter().max_by_key(usage)?;
            if fullest.cache.usage() == 0 {
                self.inner.metrics.memory_full.inc();
                return None;
            }
            fullest.evict(block);
        }
    }

    /// Whether others than the caches hold so much that evicting helps little. What is held by its
    /// place alone counts half: it has a limit of its own, but once that is reached, nothing is to
    /// be held that can be copied, or there would be no room left to fetch into.
    pub(crate) fn under_pressure(&self) -> bool {
        let (_, held) = self.bytes_kept_and_held();
        let by_place = self.inner.places.bytes_outside();
        held > self.inner.arena.bytes_max() / PRESSURE_SHARE + by_place / 2
    }

    /// A place for the chunk that is so many after the one that is read.
    pub(crate) fn ahead(&self, by: u64) -> Option<Ahead> {
        let place = self.inner.places.take(by);
        if place.is_none() {
            self.inner.metrics.memory_ahead_refused.inc();
        }
        place
    }

    /// A place for a chunk that is here and can't be had again.
    pub(crate) fn stay(&self, key: &Key) -> Option<Ahead> {
        let Inner { places, metrics, .. } = &*self.inner;
        let Some(mut place) = places.take_last() else {
            metrics.memory_stay_refused.inc();
            return None;
        };
        let cache = &self.shard(key).cache;
        if let Some(entry) = cache.get(key) {
            let chunk = entry.value();
            place.keep(chunk.moved_to(chunk.bytes().clone()), false);
            // It may have left the cache meanwhile, when the place did not know of it.
            if !cache.contains(key) {
                places.leaves(key);
            }
        } else {
            let chunk = places.get(key)?;
            place.keep(chunk.moved_to(chunk.bytes().clone()), true);
        }
        Some(place)
    }

    /// The places for chunks that are here for their readers.
    pub(crate) fn places(&self) -> &Places {
        &self.inner.places
    }

    /// Whether the caches have so much room that nothing will leave them soon: of their own, and
    /// such that others do not hold.
    pub(crate) fn has_room(&self) -> bool {
        let arena = &self.inner.arena;
        let unused = arena.bytes_max().saturating_sub(arena.bytes_used());
        self.bytes_free().min(unused) >= arena.bytes_max() / ROOM_SHARE
    }

    /// Arena bytes of the chunks in the caches, and of all others that somebody holds.
    pub(crate) fn bytes_kept_and_held(&self) -> (u64, u64) {
        let (kept, arena) = (self.bytes(), &self.inner.arena);
        (kept, arena.bytes_used().saturating_sub(kept + arena.bytes_spent()))
    }

    /// Arena bytes of the chunks in the caches.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.held.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the caches may still take without evicting, about.
    pub(crate) fn bytes_free(&self) -> u64 {
        let shards = self.inner.shards.iter();
        shards.map(|shard| shard.capacity.saturating_sub(shard.cache.usage()) as u64).sum()
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.inner.arena.bytes_max()
    }

    /// What `hit` makes of the chunk, if it is here.
    pub(crate) fn get<T>(&self, key: &Key, hit: impl FnOnce(&Chunk) -> T) -> Option<T> {
        let Some(entry) = self.shard(key).cache.get(key) else {
            let chunk = self.inner.places.get(key)?;
            // It is read now: those who follow find it though its place is let go of.
            self.insert(chunk.moved_to(chunk.bytes().clone()));
            return Some(hit(&chunk));
        };
        let (chunk, arena) = (entry.value(), &self.inner.arena);
        let made = hit(chunk);
        if arena.is_crowded_by(chunk.bytes()) {
            self.move_over(chunk);
        }
        Some(made)
    }

    /// Moves a chunk that is alone on a huge page, all else of which waits for it to leave, to
    /// where there is room; if there is none, it stays.
    fn move_over(&self, chunk: &Chunk) {
        let slot = self.inner.arena.slot(chunk.bytes().len());
        // No better place would be left again with the next hit.
        let Some(mut slot) = slot.filter(|slot| !slot.is_beside_spent()) else { return };
        slot.write(chunk.bytes());
        let moved = chunk.moved_to(slot.freeze());
        self.inner.metrics.memory_moved.inc();
        self.inner.held.bytes.fetch_add(moved.block_bytes() as u64, Ordering::Relaxed);
        self.shard(chunk.key()).cache.insert(*chunk.key(), moved);
    }

    /// Counts uses of a chunk from before it came back. S3-FIFO knows them by its queue alone, and
    /// puts all that comes into the small one, from where what is not used is evicted first. The chunk
    /// knows them for the next restart.
    pub(crate) fn used_before(&self, key: &Key, uses: u32) {
        for _ in 0..uses {
            if let Some(chunk) = self.shard(key).cache.get(key) {
                chunk.value().count_use();
            }
        }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.shard(key).cache.contains(key) || self.inner.places.contains(key)
    }

    /// Where the chunks lie.
    pub(crate) fn arena(&self) -> &Arena {
        &self.inner.arena
    }

    /// Takes a chunk. Bytes from elsewhere are copied into the arena; if it has no room, they
    /// are not kept.
    pub(crate) fn insert(&self, chunk: Chunk) {
        let Some(chunk) = self.in_arena(chunk) else { return };
        let cache = &self.shard(chunk.key()).cache;
        // Before it is: an eviction comes after that.
        self.inner.places.enters(chunk.key());
        // Under one key are always the same bytes: the older copy knows how hot it is.
        if !cache.contains(chunk.key()) {
            self.inner.held.bytes.fetch_add(chunk.block_bytes() as u64, Ordering::Relaxed);
            cache.insert(*chunk.key(), chunk);
        }
    }

    fn in_arena(&self, chunk: Chunk) -> Option<Chunk> {
        if self.inner.arena.contains(chunk.bytes()) {
            return Some(chunk);
        }
        let mut slot = self.slot(chunk.bytes().len())?;
        slot.write(chunk.bytes());
        Some(chunk.with_bytes(slot.freeze()))
    }

    /// Shows every chunk to `visit`. Holds each cache's lock meanwhile: for the end only.
    pub(crate) async fn visit(&self, mut visit: impl FnMut(&Chunk) + Send) {
        for shard in &self.inner.shards {
            // foyer has no iterator; what a predicate refuses to evict, it has at least seen.
            let see = |_: &Key, chunk: &Chunk| {
                visit(chunk);
                false
            };
            shard.cache.flush_if(see).await;
        }
    }
}

impl Shard {
    fn new(capacity: usize, held: &Arc<Held>) -> Self {
        let cache = CacheBuilder::new(capacity)
            .with_name("chunks")
            .with_shards(1)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &Key, chunk: &Chunk| chunk.weight() + ENTRY_BYTES)
            .with_event_listener(Arc::clone(held) as Arc<_>)
            .build();
        Self { cache, capacity }
    }

    /// Evicts at least `bytes`, or all. foyer evicts only to make room, so something is put in
    /// that needs as much room as that, and taken out again. Two at a time would evict for
    /// each other's.
    fn evict(&self, bytes: usize) {
        let free = self.capacity.saturating_sub(self.cache.usage());
        let ballast = Chunk::ballast((free + bytes).saturating_sub(ENTRY_BYTES));
        let key = *ballast.key();
        self.cache.insert(key, ballast);
        self.cache.remove(&key);
    }
}

#[cfg(test)]
mod tests;
