//! What the SSD takes and what it keeps: pure decisions on what was asked for so far.
//!
//! 1. A *stretch* is 64 chunks of a title side by side (of a small object: its one chunk). It
//!    scores the requests per chunk that it saw; a title scores its plays, a play being a run
//!    of requests that begins somewhere. Both halve every [`HALF_LIFE`]; a chunk's score is
//!    the mean of the two. So one viewer makes 1, and the second viewer of a title makes all
//!    that it plays worth writing, chunks never asked for before included.
//! 2. The *threshold* is the score above which everything that was asked for would just fill
//!    the disks: found by going round the scores all the time.
//! 3. A chunk is written when its score says that it was wanted twice and is above the
//!    threshold; when its block's turn to go comes, it is written anew if it still is.
//! 4. No more is written than half of what came from upstream, beyond a fifth of the disks to
//!    begin with. As that budget runs low, the bar rises.
//! 5. A disk that was never full takes what is asked for once, too, beyond the budget: nothing
//!    has to go for it, and a disk is filled for the first time once in its life.
//!
//! Memory: [`TABLE_BYTES_PER_TB`], whatever is asked for; what is least wanted is forgotten
//! first. The policy knows of no time but the one passed in, and of no disk.

mod popularity;

use popularity::Popularity;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// A score halves in this time: long enough to tell two plays a week from one, short enough
/// to follow what is new.
pub const HALF_LIFE: Duration = Duration::from_secs(4 * 86_400);
/// Bytes of tables for a terabyte of disks, about: a record of 32 bytes for each MiB, and one
/// of 40 bytes for every eight of those. (foyer's own index takes 50 to 100 MB.)
pub const TABLE_BYTES_PER_TB: u64 = 36_000_000;
/// Bytes missed for a byte that may be written.
const MISSED_PER_WRITTEN: u64 = 2;
/// The budget saves up for this part of the disks at most.
const BUDGET_PART: u64 = 5;
/// Of the disks, the share that what is above the threshold may fill: the rest is what is
/// waiting for its block's turn.
const FILL_PERCENT: u64 = 95;
/// More than one viewer: what is left of two after a while.
const SECOND_REQUEST: f32 = 1.05;
/// How far an empty budget raises the bar for new chunks, and for those that are there.
const RAISE_NEW: f32 = 1.0;
const RAISE_KEPT: f32 = 0.3;

/// Names a chunk to the policy: 40 bits of its body, 24 of its number, so that neighbours can
/// be told. Bodies that share their 40 bits share their score: one of a million will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkId(u64);

impl ChunkId {
    const NUMBER_BITS: u32 = 24;
    /// Chunks of a stretch, as bits of a number.
    const STRETCH_BITS: u32 = 6;

    /// Chunk `number` of `body`.
    #[must_use]
    pub fn new(body: &[u8; 16], number: u32) -> Self {
        let number = u64::from(number) & ((1 << Self::NUMBER_BITS) - 1);
        Self(xxh3_64(body) >> Self::NUMBER_BITS << Self::NUMBER_BITS | number)
    }

    fn title(self) -> u64 {
        self.0 >> Self::NUMBER_BITS
    }

    fn stretch(self) -> u64 {
        self.0 >> Self::STRETCH_BITS
    }

    fn number(self) -> u32 {
        u32::try_from(self.0 & ((1 << Self::NUMBER_BITS) - 1)).expect("it has 24 bits")
    }

    /// The chunk's bit among those of its stretch.
    fn bit(self) -> u64 {
        1 << (self.0 & ((1 << Self::STRETCH_BITS) - 1))
    }
}

/// What the policy decided so far, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// The score that a chunk needs.
    pub threshold: f32,
    /// Bytes that may be written now.
    pub budget_bytes: u64,
    /// Bytes admitted, into room or not.
    pub admitted_bytes: u64,
    /// Bytes of these that the budget was not asked for: there was room.
    pub filled_bytes: u64,
    /// Bytes kept when their block's turn came.
    pub kept_bytes: u64,
    /// Bytes above the threshold that the budget refused.
    pub refused_bytes: u64,
}

/// The policy of all disks. Every call takes well under a microsecond.
#[derive(Debug)]
pub struct Policy {
    popularity: Popularity,
    /// Of all disks.
    disk_bytes: AtomicU64,
    budget: Mutex<Stats>,
    threshold: AtomicU32,
    now: AtomicU64,
}

impl Policy {
    /// For disks of `disk_bytes` in all. The budget is full, so that a small working set gets
    /// to the disks though little of it is ever missed.
    #[must_use]
    pub fn new(disk_bytes: u64) -> Self {
        let budget_bytes = disk_bytes / BUDGET_PART;
        Self {
            popularity: Popularity::new(disk_bytes),
            disk_bytes: AtomicU64::new(disk_bytes),
            budget: Mutex::new(Stats { budget_bytes, ..Stats::default() }),
            threshold: AtomicU32::new(0),
            now: AtomicU64::new(0),
        }
    }

    /// A disk that was reckoned with as `before` bytes has `now`.
    pub fn resized(&self, before: u64, now: u64) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (self.disk_bytes() + now).saturating_sub(before);
        self.disk_bytes.store(bytes, Ordering::Relaxed);
        budget.budget_bytes = budget.budget_bytes.min(self.budget_max());
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that chunks above the threshold may take.
    fn fill_bytes(&self) -> u64 {
        self.disk_bytes() / 100 * FILL_PERCENT
    }

    fn budget_max(&self) -> u64 {
        self.disk_bytes() / BUDGET_PART
    }

    /// A client asked for the chunk, of `bytes` bytes, wherever it came from then. `now` is
    /// the time since any start.
    pub fn requested(&self, id: ChunkId, bytes: u32, now: Duration) {
        self.now.fetch_max(now.as_secs(), Ordering::Relaxed);
        self.popularity.requested(id, bytes, self.seconds());
    }

    /// What was asked for as one chunk, which is gone, has come again as another: that, its
    /// neighbours and its body are as much wanted. Of no other stretch anything is handed on.
    pub fn inherit(&self, id: ChunkId, from: ChunkId) {
        self.popularity.inherit(id, from, self.seconds());
    }

    /// So many bytes came from upstream.
    pub fn missed(&self, bytes: u32) {
        {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            let earned = u64::from(bytes) / MISSED_PER_WRITTEN;
            budget.budget_bytes = (budget.budget_bytes + earned).min(self.budget_max());
        }
        if let Some(threshold) = self.popularity.sweep(self.fill_bytes(), self.seconds()) {
            self.threshold.store(threshold.to_bits(), Ordering::Relaxed);
        }
    }

    /// Whether to write the chunk, which no disk has; `room` says that its disk has blocks that
    /// hold nothing. What is granted counts as written.
    #[must_use]
    pub fn admit(&self, id: ChunkId, bytes: u32, room: bool) -> bool {
        let score = self.score(id);
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = u64::from(bytes);
        let granted = if room {
            budget.filled_bytes += if score > 0.0 { bytes } else { 0 };
            score > 0.0
        } else {
            score >= self.bar_new(budget.budget_bytes) && spend(&mut budget, bytes)
        };
        if granted {
            budget.admitted_bytes += bytes;
        }
        granted
    }

    /// What [`Self::admit`] would say; nothing is counted.
    #[must_use]
    pub fn would_admit(&self, id: ChunkId, bytes: u32, room: bool) -> bool {
        let score = self.score(id);
        if room {
            return score > 0.0;
        }
        let left = self.budget.lock().unwrap_or_else(PoisonError::into_inner).budget_bytes;
        score >= self.bar_new(left) && left >= u64::from(bytes)
    }

    /// Whether to write the chunk anew, now that the block that holds it is about to go. What
    /// is granted counts as written.
    #[must_use]
    pub fn keep(&self, id: ChunkId, bytes: u32) -> bool {
        let score = self.score(id);
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = u64::from(bytes);
        let bar = self.bar(RAISE_KEPT, budget.budget_bytes);
        let granted = score > 0.0 && score >= bar && spend(&mut budget, bytes);
        if granted {
            budget.kept_bytes += bytes;
        }
        granted
    }

    /// Where it stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = *self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        Stats { threshold: self.threshold(), ..stats }
    }

    fn seconds(&self) -> u32 {
        u32::try_from(self.now.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    fn score(&self, id: ChunkId) -> f32 {
        self.popularity.score(id, self.seconds())
    }

    fn threshold(&self) -> f32 {
        f32::from_bits(self.threshold.load(Ordering::Relaxed))
    }

    /// The score asked of a chunk that no disk has.
    fn bar_new(&self, budget_bytes: u64) -> f32 {
        self.bar(RAISE_NEW, budget_bytes).max(SECOND_REQUEST)
    }

    /// The score asked for with this much budget left; `raise` applies to the part spent.
    #[expect(clippy::cast_precision_loss)]
    fn bar(&self, raise: f32, budget_bytes: u64) -> f32 {
        let left = budget_bytes as f32 / self.budget_max().max(1) as f32;
        self.threshold() * (1.0 + raise * (1.0 - left))
    }
}

/// Takes `bytes` off the budget, or counts them as refused.
fn spend(budget: &mut Stats, bytes: u64) -> bool {
    let enough = budget.budget_bytes >= bytes;
    if enough {
        budget.budget_bytes -= bytes;
    } else {
        budget.refused_bytes += bytes;
    }
    enough
}

#[cfg(test)]
mod tests;
