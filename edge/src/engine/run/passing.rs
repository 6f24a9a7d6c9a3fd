//! Chunks that memory has no place for until their reader has taken them. One with a single reader
//! is written no faster than that takes it. If the reader keeps up, it is kept like any other; if
//! not, the rest of it, and what follows, goes past memory: byte by byte, by the answer that is
//! open, which the reader's pace holds back (TCP, or the stream's window of HTTP/2). Were such a chunk fetched at once, it would have
//! left memory before it is read to its end, and be fetched again, each time somewhat further on.
//!
//! Invariant: nothing of a chunk that goes past memory is asked for twice for its reader, and
//! nothing goes past memory that several read, or that a disk takes. A title's chunk goes past it leaf
//! by leaf, each verified before anyone has it; where its leaves are not known, it has to be whole.

use super::taking::{HELD_MAX, PAUSE_MAX};
use super::{Begun, Run, Writing};
use crate::engine::Engine;
use crate::engine::left::Left;
use crate::engine::passage::{Entrance, Unread, passage};
use crate::error::Fault;
use crate::object::Kind;
use bytes::Bytes;
use model::chunk::CHUNK_BYTES;
use model::tree::Leaves;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use upstream::UpstreamBody;

/// How far before its reader a chunk without a place is written, beside what was read from the
/// connection at once (64 KiB at most): so much is copied for the reader when the chunk is given up.
const PACED_BYTES: usize = 64 << 10;
/// A reader that is waited for this long in all, of one chunk, is slow: at 4 MiB/s it is not.
const PACED_WAIT_MAX: Duration = Duration::from_millis(250);
/// The same where others wait for their turn to write a chunk.
const PACED_WAIT_MIN: Duration = Duration::from_millis(50);

impl Run {
    /// An answer begins. One that brings all of an object is for all who want of it.
    pub(super) fn begin_answer(&mut self) {
        (self.answered, self.left, self.extended_until) = (Instant::now(), Left::default(), 0);
        self.is_passable = self.object.can_be_fetched() && !self.is_unranged;
    }

    /// The reader that begins it has so many bytes of the first chunk.
    pub fn go_on_after(&mut self, taken: usize) {
        self.taken = taken;
    }

    /// Where its first chunk was here and left memory before its reader had all of it, the rest
    /// goes past memory: the chunk would leave again. Not so where the origin would send all of the
    /// object: then it would be taken back, again and again.
    pub async fn begin_past_memory(&mut self, engine: &Engine) {
        let is_unranged = self.is_unranged || engine.unranged.knows(&self.object.body);
        if self.taken == 0 || is_unranged || !self.is_short_of_memory(engine) {
            return;
        }
        if self.comes_in_parts(engine).await {
            let leaves = self.leaves_of_front();
            let from = leaves.map_or(self.taken, |leaves| leaves.around(self.taken).start);
            self.lags = self.pass_from(from, None);
        }
    }

    /// Whether parts of the front chunk may be had before it is whole. Those of a title's are verified
    /// by its leaves, which are asked for.
    async fn comes_in_parts(&mut self, engine: &Engine) -> bool {
        let (Kind::Track { .. }, Some(front)) = (&self.object.kind, self.front()) else {
            return true;
        };
        if self.leaves_of_front().is_none() {
            let (place, urgency) = (self.place.clone(), self.readers.urgency());
            let leaves = engine.leaves(&self.object, front, place, urgency).await;
            self.leaves = leaves.map(|leaves| (front, leaves));
        }
        self.leaves.is_some()
    }

    fn leaves_of_front(&self) -> Option<&Arc<Leaves>> {
        let (of, leaves) = self.leaves.as_ref()?;
        (Some(*of) == self.front()).then_some(leaves)
    }

    /// Whether the front chunk is to go past memory, should it be begun now.
    pub(super) fn goes_past_memory(&self, engine: &Engine) -> bool {
        let is_whole = matches!(self.object.kind, Kind::Track { .. })
            && !self.claims.front().is_some_and(|claim| engine.trees.may_tell(&claim.key()));
        self.lags && self.is_passable && !is_whole && self.is_short_of_memory(engine)
    }

    /// Whether what is fetched now for one reader would soon leave memory, and for good.
    fn is_short_of_memory(&self, engine: &Engine) -> bool {
        let front = self.claims.front().map(|claim| claim.key());
        let bytes = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        let disk_takes = |key| engine.chunks.is_worth_disk(&key, bytes);
        self.readers.is_one() && !engine.chunks.have_room() && !front.is_some_and(disk_takes)
    }

    /// Begins the front chunk, of so many bytes.
    pub(super) async fn begin_chunk(
        &mut self,
        engine: &Engine,
        bytes: usize,
        rest: u64,
    ) -> Result<(), Fault> {
        let has_no_place = self.ahead.is_none() && self.is_passable;
        let may_pass =
            has_no_place && self.is_short_of_memory(engine) && self.comes_in_parts(engine).await;
        if may_pass && self.goes_past_memory(engine) && self.pass_from(0, None) {
            return Ok(());
        }
        let mut writing = self.room(engine, bytes, rest).await?;
        if may_pass && self.is_short_of_memory(engine) {
            writing.verified = self.leaves_of_front().map(|leaves| (Arc::clone(leaves), 0));
            writing.waited = Some(Duration::ZERO);
            self.readers.pace(true);
        }
        // It may have waited for its turn for longer than a MiB has.
        (self.begun, self.left) = (Some(Begun::Kept(writing)), Left::default());
        Ok(())
    }

    /// Has the front chunk go past memory from byte `from` of it on, of which `tail` is here. False
    /// if it has several readers by now.
    fn pass_from(&mut self, from: usize, tail: Option<Bytes>) -> bool {
        let Some(entrance) = self.way_past(from, tail) else { return false };
        self.begun = Some(Begun::Passed(entrance));
        // Who joined it would wait for this reader.
        self.listed = None;
        true
    }

    fn way_past(&mut self, from: usize, tail: Option<Bytes>) -> Option<Entrance> {
        let start = self.object.chunk(self.front()?).start;
        let leaves = self.leaves_of_front().cloned();
        let (mut entrance, exit) = passage(start + from as u64, from, self.source, leaves);
        if let Some(tail) = tail {
            let verified = match &self.begun {
                Some(Begun::Kept(Writing { verified: Some((_, verified)), .. })) => *verified,
                _ => from + tail.len(),
            };
            entrance.put_first(tail, verified.saturating_sub(from));
        }
        self.claims.front_mut()?.pass(exit).then_some(entrance)
    }

    /// What has come of the front chunk, and its reader has not taken, copied; and where in the
    /// chunk that begins. None but for a chunk that keeps pace with its reader.
    fn untaken(&self) -> Option<(usize, Bytes)> {
        let Some(Begun::Kept(Writing { slot, waited: Some(_), .. })) = &self.begun else {
            return None;
        };
        let taken = self.taken_of_front().min(slot.filled());
        let untaken = slot.reader().bytes(taken..slot.filled())?;
        Some((taken, Bytes::copy_from_slice(&untaken)))
    }

    /// Bytes of the front chunk that its foremost reader has taken.
    fn taken_of_front(&self) -> usize {
        let start = self.front().map_or(0, |front| self.object.chunk(front).start);
        usize::try_from(self.readers.taken().saturating_sub(start)).unwrap_or(usize::MAX)
    }

    /// Ends keeping pace.
    pub(super) fn unpace(&mut self) {
        self.readers.pace(false);
        if let Some(Begun::Kept(writing)) = &mut self.begun {
            writing.waited = None;
        }
    }

    /// Waits until the reader of a chunk without a place is near. From one that is slow, the chunk
    /// goes past memory.
    pub(super) async fn keep_pace(&mut self) {
        while let Some(Begun::Kept(Writing { slot, waited: Some(waited), .. })) = &self.begun {
            if slot.filled() <= self.taken_of_front().saturating_add(PACED_BYTES) {
                break;
            }
            if !self.readers.is_one() {
                return self.unpace();
            }
            self.tell();
            let most =
                if self.turns.are_wanted_of(self.owner) { PACED_WAIT_MIN } else { PACED_WAIT_MAX };
            let (began, before) = (Instant::now(), *waited);
            let left = most.saturating_sub(before);
            if timeout(left, self.readers.changed()).await.is_err() {
                self.pass_on();
            } else if let Some(Begun::Kept(writing)) = &mut self.begun {
                writing.waited = Some(before + began.elapsed());
            }
        }
    }

    /// The reader is slow: gives up the memory that the front chunk has so far.
    fn pass_on(&mut self) {
        let Some((taken, tail)) = self.untaken() else { return };
        let filled = taken + tail.len();
        self.unpace();
        self.lags = self.pass_from(taken, Some(tail));
        debug_assert!(!self.lags || self.begun.as_ref().map(Begun::filled) == Some(filled));
    }

    /// All of the front chunk has come. If it has no place, what its reader has not taken is put
    /// where it will be found, since the chunk may leave memory before.
    pub(super) fn pass_rest(&mut self) -> bool {
        let untaken = self.untaken().filter(|(_, tail)| !tail.is_empty());
        self.unpace();
        untaken.is_some_and(|(taken, tail)| self.way_past(taken, Some(tail)).is_some())
    }

    /// An answer brings all of the object: what goes past memory is to be had like the rest.
    pub(super) fn take_back(&mut self) {
        if matches!(self.begun, Some(Begun::Passed(_))) {
            self.claims.pop_front();
            self.begun = None;
        }
    }

    /// Hands a piece to the reader once that has taken what it was given before. False: it has
    /// left, or does not take any more for so long that its answer is closed; if it goes on, what
    /// is left is asked for again.
    ///
    /// # Errors
    /// [`Fault::Corrupt`]: the leaf that the piece ends is wrong.
    pub(super) async fn pass(
        &mut self,
        engine: &Engine,
        body: &UpstreamBody,
        piece: Bytes,
    ) -> Result<bool, Fault> {
        let Some(Begun::Passed(entrance)) = &mut self.begun else { return Ok(true) };
        let began = Instant::now();
        let (mut until, last) = (began + PAUSE_MAX, began + HELD_MAX);
        loop {
            let waiting = async {
                tokio::select! {
                    biased;
                    room = entrance.room() => Some(room),
                    () = self.readers.changed() => None,
                }
            };
            match timeout_at(until, waiting).await {
                // Others may read what follows.
                Ok(Some(Err(Unread))) if self.readers.give_up() => return Ok(false),
                Ok(Some(_)) => break,
                Ok(None) if self.readers.give_up() => return Ok(false),
                Ok(None) => {}
                Err(_) if until >= last || !body.may_wait() => return Ok(false),
                Err(_) => until = last.min(until + PAUSE_MAX),
            }
        }
        engine.metrics.memory_passed_bytes.inc_by(piece.len() as u64);
        if entrance.put(piece).is_err() {
            engine.metrics.corrupt("origin");
            return Err(Fault::Corrupt);
        }
        Ok(!(self.answered.elapsed() > PAUSE_MAX && body.yields()))
    }
}

#[cfg(test)]
mod tests;
