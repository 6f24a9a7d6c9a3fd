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
/// Chunks that are here before their readers may have one part in so many of the arena: what
/// responses may hold, which is where they go.
const AHEAD_SHARE: u64 = 4;
/// What one of them is taken for, in bytes.
const AHEAD_BYTES: u64 = 1 << 20;
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
        let held = Arc::new(Held { bytes: AtomicU64::new(0), metrics: metrics.clone() });
        // Mapped, so it fits.
        let capacity = usize::try_from(capacity / count).unwrap_or(usize::MAX);
        let shards = (0..count).map(|_| Shard::new(capacity, &held)).collect();
        let most = arena.bytes_max() / AHEAD_SHARE / AHEAD_BYTES;
        let places = Places::new(usize::try_from(most).unwrap_or(usize::MAX));
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

    /// Whether others than the caches hold so much that evicting helps little. What is here before
    /// its readers has a limit of its own.
    pub(crate) fn under_pressure(&self) -> bool {
        let (_, held) = self.bytes_kept_and_held();
        let ahead = self.inner.places.taken() as u64 * AHEAD_BYTES;
        held > self.inner.arena.bytes_max() / PRESSURE_SHARE + ahead
    }

    /// A place for the chunk that is so many after the one that is read.
    pub(crate) fn ahead(&self, by: u64) -> Option<Ahead> {
        let place = self.inner.places.take(by);
        if place.is_none() {
            self.inner.metrics.memory_ahead_refused.inc();
        }
        place
    }

    /// The places for chunks that are here before their readers.
    pub(crate) fn places(&self) -> &Places {
        &self.inner.places
    }

    /// Whether the caches have so much room that nothing will leave them soon: as much as may be
    /// in [`Self::places`].
    pub(crate) fn has_room(&self) -> bool {
        self.bytes_free() >= self.inner.arena.bytes_max() / AHEAD_SHARE
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
mod tests {
    use super::*;
    use crate::value::Copy;
    use bytes::Bytes;
    use prometheus::Registry;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::VecDeque;

    const MIB: usize = 1 << 20;

    fn memory(bytes: u64) -> Memory {
        Memory::new(bytes, Metrics::new(&Registry::new()).unwrap()).unwrap()
    }

    fn key(number: u32) -> Key {
        Key { body: [1; 16], number }
    }

    /// What chunk `number` holds.
    fn content(number: u32, length: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes().repeat(length / 4 + 1);
        bytes.truncate(length);
        bytes
    }

    fn insert(memory: &Memory, number: u32, length: usize) {
        let mut slot = memory.slot(length).unwrap();
        slot.write(&content(number, length));
        memory.insert(Chunk::new(key(number), slot.freeze(), Copy::None));
    }

    fn get(memory: &Memory, number: u32) -> Option<Bytes> {
        memory.get(&key(number), |chunk| chunk.bytes().clone())
    }

    #[test]
    fn what_is_hit_leaves_a_huge_page_that_is_spent_but_for_it() {
        let arena = Arena::of(arena::Pages::Huge, 64 << 20).unwrap();
        let memory = Memory::over(arena.clone(), Metrics::new(&Registry::new()).unwrap());
        for number in 0..32 {
            insert(&memory, number, MIB);
            let bytes = get(&memory, number).unwrap();
            arena.sent(&bytes);
            let lent = arena.lend(&bytes, &mut arena::Queued::default());
            assert!(lent.is_some());
        }
        for number in (0..32).step_by(2) {
            memory.shard(&key(number)).cache.remove(&key(number));
        }
        assert_eq!((arena.bytes_used(), arena.bytes_spent()), (32 << 20, 16 << 20));
        assert_eq!(memory.bytes_kept_and_held(), (16 << 20, 0));
        for number in (1..32).step_by(2) {
            assert_eq!(get(&memory, number).unwrap(), content(number, MIB));
        }
        // As many as it took until little enough is spent.
        assert_eq!(memory.inner.metrics.memory_moved.get(), 12);
        assert_eq!((arena.bytes_used(), arena.bytes_spent()), (20 << 20, 4 << 20));
        assert_eq!(memory.bytes_kept_and_held(), (16 << 20, 0));
        for number in (1..32).step_by(2) {
            assert_eq!(get(&memory, number).unwrap(), content(number, MIB));
        }
    }

    #[test]
    fn the_setting_is_a_ceiling_and_an_eighth_is_spare() {
        let memory = memory(32 << 20);
        for number in 0..100 {
            insert(&memory, number, MIB);
        }
        assert!(memory.inner.arena.bytes_used() <= 28 << 20);
        assert_eq!(memory.bytes(), memory.inner.arena.bytes_used());
        // One less than fits the arena's share: what is kept beside each chunk counts.
        assert_eq!(memory.inner.metrics.memory_evictions.get(), 100 - 27);
        for number in 0..100 {
            let bytes = get(&memory, number);
            assert!(bytes.is_none_or(|bytes| bytes == content(number, MIB)));
        }
    }

    #[test]
    fn fetches_past_the_spare_room_evict_and_none_is_refused_while_a_chunk_is_left() {
        let memory = memory(32 << 20);
        for number in 0..100 {
            insert(&memory, number, MIB);
        }
        assert!(!memory.under_pressure());
        let fetches: Vec<_> = (0..32).map(|_| memory.slot(MIB).unwrap()).collect();
        assert!(memory.under_pressure());
        assert_eq!(memory.bytes(), 0);
        assert!(memory.slot(1).is_none());
        assert_eq!(memory.inner.metrics.memory_full.get(), 1);
        drop(fetches);
        assert!(!memory.under_pressure());
        assert_eq!(memory.inner.arena.bytes_used(), 0);
    }

    #[test]
    fn one_fetch_evicts_no_more_than_it_needs() {
        let memory = memory(32 << 20);
        for number in 0..27 {
            insert(&memory, number, MIB);
        }
        let fetches: Vec<_> = (0..6).map(|_| memory.slot(MIB).unwrap()).collect();
        assert_eq!(memory.inner.metrics.memory_evictions.get(), 1);
        drop(fetches);
    }

    #[test]
    fn a_chunk_that_a_response_sends_outlives_its_eviction() {
        let memory = memory(16 << 20);
        insert(&memory, 0, MIB);
        let sent = get(&memory, 0).unwrap();
        let fetches: Vec<_> = std::iter::from_fn(|| memory.slot(MIB)).collect();
        assert_eq!(fetches.len(), 15);
        assert!(get(&memory, 0).is_none());
        assert_eq!(sent, content(0, MIB));
    }

    #[test]
    fn small_objects_do_not_keep_large_ones_out() {
        let memory = memory(16 << 20);
        for number in 0..20_000 {
            insert(&memory, number, 1 + number as usize % 9000);
            let _ = get(&memory, number / 2);
        }
        assert!(memory.inner.arena.bytes_used() <= 14 << 20);
        let fetches: Vec<_> = (0..16).map(|_| memory.slot(MIB).unwrap()).collect();
        drop(fetches);
        assert_eq!(memory.inner.arena.bytes_used(), memory.bytes());
    }

    #[test]
    fn foreign_bytes_are_copied_in_and_the_first_copy_stays() {
        let memory = memory(16 << 20);
        let chunk = |bytes| Chunk::new(key(1), bytes, Copy::Never);
        memory.insert(chunk(Bytes::from_static(b"media")));
        assert_eq!(memory.bytes(), 4096);
        let bytes = get(&memory, 1).unwrap();
        assert!(memory.inner.arena.contains(&bytes));
        memory.insert(chunk(Bytes::from_static(b"media")));
        assert_eq!(get(&memory, 1).unwrap().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn mixed_sizes_leave_the_caches_nearly_full() {
        let memory = memory(64 << 20);
        let mut random = StdRng::seed_from_u64(1);
        let (mut least, mut fetching) = (u64::MAX, VecDeque::new());
        for number in 0..20_000u32 {
            let length = match random.random_range(0..10) {
                0..7 => random.random_range(100..30_000),
                7 => random.random_range(100_000..500_000),
                _ => MIB,
            };
            // Three fetches are under way at any time.
            fetching.push_back((number, memory.slot(length).unwrap()));
            if fetching.len() > 3 {
                let (number, mut slot) = fetching.pop_front().unwrap();
                slot.write(&content(number, slot.capacity()));
                memory.insert(Chunk::new(key(number), slot.freeze(), Copy::None));
            }
            let _ = get(&memory, number.saturating_sub(random.random_range(0..400)));
            if number > 5000 {
                least = least.min(memory.bytes());
            }
        }
        // Of 56 MiB: what small blocks scatter costs a tenth at worst.
        assert!(least > 48 << 20, "{least}");
    }
}
