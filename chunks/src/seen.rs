//! Which chunks go to a disk: those that were asked for a second time. Which stay when their
//! block goes: those that were asked for again since. Half of the bytes missed may be written,
//! no more, beyond a part of the disks, once.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Chunks that are remembered, at least. Of 1 MiB each: a terabyte, in some 40 MB.
const SEEN_MIN: usize = 1 << 20;

/// One part in so many of the disks may be written before anything was missed.
const BUDGET_PART: u64 = 5;

/// A chunk's name for the policy. Two that share one pass for each other, once in a long
/// while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkId(u64);

impl ChunkId {
    pub(crate) fn new(body: &[u8; 16], number: u32) -> Self {
        Self(xxh3_64_with_seed(body, u64::from(number)))
    }
}

/// Remembers which chunks were asked for once, and which more often.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    once: Mutex<Set>,
    twice: Mutex<Set>,
    again: Mutex<Set>,
    /// Twice the bytes that may still be written.
    budget: AtomicU64,
}

impl Policy {
    pub(crate) fn new(disk_bytes: u64) -> Self {
        let budget = AtomicU64::new(2 * disk_bytes / BUDGET_PART);
        Self { budget, ..Self::default() }
    }

    pub(crate) fn requested(&self, id: ChunkId, _: u32, _: Duration) {
        if before(&self.once, id.0) && before(&self.twice, id.0) {
            before(&self.again, id.0);
        }
    }

    pub(crate) fn missed(&self, bytes: u32) {
        self.budget.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    pub(crate) fn admit(&self, id: ChunkId, bytes: u32) -> bool {
        lock(&self.twice).contains(id.0) && self.spend(bytes)
    }

    pub(crate) fn keep(&self, id: ChunkId, bytes: u32) -> bool {
        lock(&self.again).contains(id.0) && self.spend(bytes) && lock(&self.again).remove(id.0)
    }

    fn spend(&self, bytes: u32) -> bool {
        let left = |budget: u64| budget.checked_sub(2 * u64::from(bytes));
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets its oldest half when it is full.
#[derive(Debug, Default)]
struct Set {
    new: Hashes,
    old: Hashes,
}

type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

impl Set {
    fn contains(&self, hash: u64) -> bool {
        self.new.contains(&hash) || self.old.contains(&hash)
    }

    fn remove(&mut self, hash: u64) -> bool {
        self.new.remove(&hash) | self.old.remove(&hash)
    }
}

/// Whether it was there before; it is from now on.
fn before(set: &Mutex<Set>, hash: u64) -> bool {
    let mut set = lock(set);
    let seen = set.contains(hash);
    if set.new.insert(hash) && set.new.len() >= SEEN_MIN {
        set.old = mem::take(&mut set.new);
    }
    seen
}

/// For what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_newest_are_not() {
        let seen = Mutex::<Set>::default();
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 0..3 * SEEN_MIN as u64 {
            assert!(!before(&seen, spread(number)));
            assert!(before(&seen, spread(number)));
        }
        assert!(!before(&seen, spread(0)));
        assert!(before(&seen, spread(2 * SEEN_MIN as u64)));
    }
}
