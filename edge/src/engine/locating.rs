//! Where chunks are now: asked before anything is fetched. Nothing here waits or changes anything.

use super::asking::source;
use super::owned::run_until;
use super::{Engine, FORESEEN_MAX, OWNED_RUN_BYTES};
use crate::object::{Kind, Object};
use crate::verdict::Verdict;
use model::admin::ChunkPlace;

impl Engine {
    /// Whether the chunk is here, or known to be.
    pub(super) fn is_here(&self, object: &Object, number: u64) -> bool {
        object.key(number).is_some_and(|key| self.chunks.is_in_memory(&key))
            || self.is_on_disk(object, number)
    }

    pub(super) fn is_on_disk(&self, object: &Object, number: u64) -> bool {
        self.is_planned(object, number)
            || object.key(number).is_some_and(|key| self.chunks.may_be_on_disk(&key))
    }

    /// Whether the chunk is in the plan's files, or about to be.
    fn is_planned(&self, object: &Object, number: u64) -> bool {
        let Kind::Track { title, track, .. } = &object.kind else { return false };
        self.planned.holds(title, *track, number)
            || object.key(number).is_some_and(|key| self.unwritten.has(&key))
    }

    /// The first of `numbers` from which on a chunk is here or on its way.
    pub fn missing_until(&self, object: &Object, numbers: std::ops::Range<u64>) -> u64 {
        let end = run_until(numbers.start, numbers.end);
        let here = |number: &u64| self.is_here(object, *number);
        (numbers.start + 1..end).find(here).unwrap_or(end)
    }

    /// Whether every chunk of the object is here: such an object can be served though it could
    /// not be fetched again in parts.
    pub fn is_whole(&self, object: &Object) -> bool {
        self.are_here(object, 0..object.chunks())
    }

    /// Whether all of these are here.
    pub fn are_here(&self, object: &Object, mut numbers: std::ops::Range<u64>) -> bool {
        numbers.all(|number| self.is_here(object, number))
    }

    /// The costliest source that `chunks` would have now.
    #[must_use]
    pub fn foresee(&self, object: &Object, chunks: std::ops::Range<u64>) -> Verdict {
        let end = chunks.end.min(chunks.start.saturating_add(FORESEEN_MAX));
        // All that is missing of a run is asked of the same hop.
        let mut last = None;
        let sources = (chunks.start..end).map(|number| {
            self.at_hand(object, number).unwrap_or_else(|| {
                let run = object.chunk(number).start / OWNED_RUN_BYTES;
                match last {
                    Some((known, source)) if known == run => source,
                    _ => last.insert((run, self.foreseen_source(object, run))).1,
                }
            })
        });
        sources.max().unwrap_or(Verdict::HitMemory)
    }

    /// Where a chunk is, or what brings it already; none if it is missing.
    pub fn at_hand(&self, object: &Object, number: u64) -> Option<Verdict> {
        let key = object.key(number)?;
        if self.chunks.is_in_memory(&key) {
            return Some(Verdict::HitMemory);
        }
        match self.is_planned(object, number) {
            true => Some(Verdict::HitPlan),
            false if self.chunks.may_be_on_disk(&key) => Some(Verdict::HitSsd),
            false if self.inflight.has(&key) => Some(Verdict::Filling),
            // It may have landed between the looks.
            false => self.chunks.is_in_memory(&key).then_some(Verdict::HitMemory),
        }
    }

    /// Which kind of hop is asked first for what is missing of a run.
    fn foreseen_source(&self, object: &Object, run: u64) -> Verdict {
        let Some(upstream) = self.upstream_of(object) else { return Verdict::Origin };
        source(upstream.foreseen(object.asked_as(), run, object.is_for_peer()))
    }

    /// Where a chunk is now.
    pub fn place(&self, key: &chunks::Key) -> ChunkPlace {
        if self.chunks.is_in_memory(key) {
            ChunkPlace::Memory
        } else if self.chunks.may_be_on_disk(key) {
            ChunkPlace::Disk
        } else if self.inflight.has(key) {
            ChunkPlace::Filling
        } else {
            ChunkPlace::Absent
        }
    }
}
