//! How often what was asked for: records of stretches and titles in tables of fixed size, and
//! the score above which they fill the disks.
//!
//! Each table is a row of sets of [`WAYS`] records; a newcomer takes the place of the one of
//! its set that scores least. Scores halve with time when they are read, not by a clock.

use super::{ChunkId, HALF_LIFE};
use std::sync::{Mutex, PoisonError};

/// Locks of the tables. A title's records are all behind one.
const SHARDS: usize = 64;
/// Records of a set.
const WAYS: usize = 8;
/// A stretch's record for each so many bytes of disk.
const DISK_BYTES_PER_STRETCH: u64 = 1 << 20;
/// Stretches' records for each title's.
const STRETCHES_PER_TITLE: usize = 8;
/// Records of stretches at least, of a shard.
const STRETCHES_MIN: usize = 256;
/// Viewers of a title that are followed at a time.
const HEADS: usize = 4;
/// A player that skips so many chunks, or asks for as many again, still plays on.
const SKIP_MAX: u32 = 4;
/// Past [`HEADS`] viewers at a time, plays are counted too often: never more than so many per
/// request for a chunk of the title's most watched stretch.
const PLAYS_PER_PASS: f32 = 4.0;
/// Records that one step of the sweep looks at.
const SWEEP_STEP: usize = 64;
/// Classes of scores, from 2^-8 up, this many to an octave.
const CLASSES: usize = 512;
const CLASSES_PER_OCTAVE: f32 = 16.0;
const OCTAVES_BELOW_ONE: f32 = 8.0;

/// A score as of a time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    value: f32,
    at: u32,
}

impl Score {
    #[expect(clippy::cast_precision_loss)]
    fn now(self, now: u32) -> f32 {
        let age = now.saturating_sub(self.at) as f32;
        self.value * (-age / HALF_LIFE.as_secs_f32()).exp2()
    }

    fn add_one(&mut self, now: u32) {
        *self = Self { value: self.now(now) + 1.0, at: now };
    }
}

/// Sixty-four chunks side by side.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    tag: u64,
    /// A bit for each chunk that was ever asked for; 0 for a free record.
    seen: u64,
    /// Requests for any of them.
    requests: Score,
    /// Bytes of the largest of them.
    chunk_bytes: u32,
}

impl Stretch {
    #[expect(clippy::cast_precision_loss)]
    fn per_chunk(&self, now: u32) -> f32 {
        self.requests.now(now) / self.seen.count_ones().max(1) as f32
    }
}

/// A body's runs of requests.
#[derive(Debug, Clone, Copy, Default)]
struct Title {
    tag: u64,
    plays: Score,
    /// Requests per chunk of its most watched stretch.
    top: Score,
    /// The chunks that its latest viewers asked for last, plus one; 0 for none.
    heads: [u32; HEADS],
}

impl Title {
    fn score(&self, now: u32) -> f32 {
        self.plays.now(now).min(PLAYS_PER_PASS * self.top.now(now))
    }

    /// Follows the viewer that asked for this chunk.
    fn follow(&mut self, number: u32, now: u32) {
        let next = number + 1;
        let near = |head: &u32| *head > 0 && next.wrapping_sub(*head) <= SKIP_MAX;
        if let Some(viewer) = self.heads.iter().position(near) {
            self.heads[viewer] = next;
        } else {
            self.heads.rotate_right(1);
            self.heads[0] = next;
            self.plays.add_one(now);
        }
    }
}

#[derive(Debug)]
struct Shard {
    stretches: Box<[Stretch]>,
    titles: Box<[Title]>,
}

/// All records.
#[derive(Debug)]
pub(super) struct Popularity {
    shards: Box<[Mutex<Shard>]>,
    sweep: Mutex<Sweep>,
}

/// A round over all stretches: bytes by class of score.
#[derive(Debug)]
struct Sweep {
    shard: usize,
    next: usize,
    bytes: Box<[u64]>,
}

impl Popularity {
    /// Tables for disks of this size.
    pub(super) fn new(disk_bytes: u64) -> Self {
        let (stretches, titles) = records(disk_bytes);
        let shard = || Shard {
            stretches: vec![Stretch::default(); stretches].into(),
            titles: vec![Title::default(); titles].into(),
        };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        let sweep = Sweep { shard: 0, next: 0, bytes: vec![0; CLASSES].into() };
        Self { shards, sweep: Mutex::new(sweep) }
    }

    /// Bytes of the tables for disks of this size.
    #[cfg(test)]
    pub(super) fn table_bytes(disk_bytes: u64) -> u64 {
        let (stretches, titles) = records(disk_bytes);
        let shard = stretches * size_of::<Stretch>() + titles * size_of::<Title>();
        (SHARDS * shard) as u64
    }

    fn shard(&self, id: ChunkId) -> std::sync::MutexGuard<'_, Shard> {
        let shard = &self.shards[id.title() as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request.
    pub(super) fn requested(&self, id: ChunkId, bytes: u32, now: u32) {
        let mut shard = self.shard(id);
        let stretch = shard.stretch_mut(id, now);
        stretch.requests.add_one(now);
        stretch.seen |= id.bit();
        stretch.chunk_bytes = stretch.chunk_bytes.max(bytes);
        let passes = stretch.per_chunk(now);
        let title = shard.title_mut(id, now);
        if passes > title.top.now(now) {
            title.top = Score { value: passes, at: now };
        }
        title.follow(id.number(), now);
    }

    /// What is known of the stretch of one chunk, and of its title, becomes another's.
    pub(super) fn inherit(&self, id: ChunkId, from: ChunkId, now: u32) {
        let (stretch, title) = self.shard(from).take(from);
        let mut shard = self.shard(id);
        if let Some(stretch) = stretch {
            *shard.stretch_mut(id, now) = Stretch { tag: id.stretch(), ..stretch };
        }
        if let Some(title) = title {
            *shard.title_mut(id, now) = Title { tag: id.title(), ..title };
        }
    }

    /// The chunk's score: 0 if nothing is known of its stretch.
    pub(super) fn score(&self, id: ChunkId, now: u32) -> f32 {
        let shard = self.shard(id);
        let set = set(&shard.stretches, id.stretch());
        let known = shard.stretches[set].iter().find(|one| one.tag == id.stretch() && one.seen > 0);
        known.map_or(0.0, |stretch| shard.score(stretch, now))
    }

    /// One step of the round. At its end: the score above which chunks of `fill_bytes` were
    /// asked for, 0 if there are not so many.
    pub(super) fn sweep(&self, fill_bytes: u64, now: u32) -> Option<f32> {
        // Whoever comes while another sweeps leaves it to that one.
        let mut sweep = self.sweep.try_lock().ok()?;
        let Sweep { shard, next, bytes } = &mut *sweep;
        {
            let shard = self.shards[*shard].lock().unwrap_or_else(PoisonError::into_inner);
            let end = (*next + SWEEP_STEP).min(shard.stretches.len());
            for stretch in shard.stretches[*next..end].iter().filter(|one| one.seen > 0) {
                let all = u64::from(stretch.seen.count_ones()) * u64::from(stretch.chunk_bytes);
                bytes[class(shard.score(stretch, now))] += all;
            }
            *next = end;
            if end < shard.stretches.len() {
                return None;
            }
        }
        (*next, *shard) = (0, *shard + 1);
        if *shard < SHARDS {
            return None;
        }
        *shard = 0;
        let threshold = threshold(bytes, fill_bytes);
        bytes.fill(0);
        Some(threshold)
    }
}

impl Shard {
    fn score(&self, stretch: &Stretch, now: u32) -> f32 {
        let tag = stretch.tag >> (ChunkId::NUMBER_BITS - ChunkId::STRETCH_BITS);
        let passes = stretch.per_chunk(now);
        let title = self.titles[set(&self.titles, tag)].iter().find(|title| title.tag == tag);
        f32::midpoint(passes, title.map_or(passes, |title| title.score(now)))
    }

    /// Forgets a chunk's stretch, and its title.
    fn take(&mut self, id: ChunkId) -> (Option<Stretch>, Option<Title>) {
        let stretches = set(&self.stretches, id.stretch());
        let is = |one: &&mut Stretch| one.tag == id.stretch() && one.seen > 0;
        let stretch = self.stretches[stretches].iter_mut().find(is).map(std::mem::take);
        let titles = set(&self.titles, id.title());
        let is = |one: &&mut Title| one.tag == id.title();
        let title = self.titles[titles].iter_mut().find(is).map(std::mem::take);
        (stretch, title)
    }

    fn stretch_mut(&mut self, id: ChunkId, now: u32) -> &mut Stretch {
        let set = set(&self.stretches, id.stretch());
        let fresh = Stretch { tag: id.stretch(), ..Stretch::default() };
        let is = |one: &Stretch| one.tag == id.stretch() && one.seen > 0;
        place(&mut self.stretches[set], fresh, is, |one| one.per_chunk(now))
    }

    fn title_mut(&mut self, id: ChunkId, now: u32) -> &mut Title {
        let set = set(&self.titles, id.title());
        let fresh = Title { tag: id.title(), ..Title::default() };
        let is = |one: &Title| one.tag == id.title();
        place(&mut self.titles[set], fresh, is, |one| one.plays.now(now))
    }
}

/// Records of stretches and of titles in each shard.
fn records(disk_bytes: u64) -> (usize, usize) {
    let stretches = usize::try_from(disk_bytes / DISK_BYTES_PER_STRETCH).unwrap_or(usize::MAX);
    let stretches = (stretches / SHARDS).max(STRETCHES_MIN).next_multiple_of(WAYS);
    (stretches, (stretches / STRETCHES_PER_TITLE).next_multiple_of(WAYS))
}

/// The record, or the least of its set made a fresh one.
fn place<T>(set: &mut [T], fresh: T, is: impl Fn(&T) -> bool, score: impl Fn(&T) -> f32) -> &mut T {
    if let Some(found) = set.iter().position(is) {
        return &mut set[found];
    }
    let mut least = 0;
    for other in 1..set.len() {
        if score(&set[other]) < score(&set[least]) {
            least = other;
        }
    }
    set[least] = fresh;
    &mut set[least]
}

/// Where the records of `tag` may be.
fn set<T>(records: &[T], tag: u64) -> std::ops::Range<usize> {
    let mixed = (tag ^ tag >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sets = (records.len() / WAYS) as u128;
    let first = ((u128::from(mixed) * sets) >> 64) as usize * WAYS;
    first..first + WAYS
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn class(score: f32) -> usize {
    // Below the least class, or no number: the least.
    (((score.log2() + OCTAVES_BELOW_ONE) * CLASSES_PER_OCTAVE) as usize).min(CLASSES - 1)
}

/// The upper end of the first class, from the top, with which `fill_bytes` are exceeded.
#[expect(clippy::cast_precision_loss)]
fn threshold(bytes: &[u64], fill_bytes: u64) -> f32 {
    let mut above = 0;
    for (class, bytes) in bytes.iter().enumerate().rev() {
        above += bytes;
        if above > fill_bytes {
            return ((class + 1) as f32 / CLASSES_PER_OCTAVE - OCTAVES_BELOW_ONE).exp2();
        }
    }
    0.0
}
