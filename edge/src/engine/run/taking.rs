//! Taking one answer: written into chunks while it arrives. Whoever reads them follows byte by
//! byte, except of a title's chunks, which must be verified first.

use super::leaving::look_again;
use super::{Arriving, Begun, CLAIMS_MAX, Run, Writing, number};
use crate::engine::Engine;
use crate::error::Fault;
use crate::object::Kind;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use model::chunk::CHUNK_BYTES;
use model::tree::Leaves;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use upstream::{Turn, UpstreamBody};

/// How many chunks an answer may be ahead of its foremost reader. More would fill memory on
/// behalf of a player that is slow, or about to leave. Fewer, or none, while memory is full and
/// has no places for them: they would have left it before the reader comes.
pub(super) const AHEAD_CHUNKS: u64 = 4;
/// An answer that is so far ahead is held open for this long where others need its place; what is
/// left is then asked for again when somebody gets there, if the answer is of a kind that can be.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Where nobody does, it is held for this long: the origin has sent more already than was taken,
/// as much as the sockets' buffers have room for, and would send that again. So a player that
/// takes 500 kbit/s keeps its answer; nodes wait for 30 s for who reads, other servers for 60 s.
pub(super) const HELD_MAX: Duration = Duration::from_secs(20);
/// Where the origin knows no ranges, what is left costs all that is before it again.
const UNRANGED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// An answer waits for its turn to be written until for so long none has come to what its upstream
/// brings, nor [`GOES_ON_BYTES`] in one that it has: longer than what everybody left may keep one
/// ([`LEFT_MAX`]).
///
/// [`LEFT_MAX`]: crate::engine::left::LEFT_MAX
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Of a chunk, what shows that it goes on.
const GOES_ON_BYTES: usize = 64 << 10;
/// How an answer ended that did not fail.
pub enum End {
    /// What it holds of what is claimed is here.
    Done,
    /// It was whole, and ended within a chunk: an upstream may send less than was asked for.
    Short,
    /// Nobody reads any more, or nobody so far.
    Left,
}

impl Run {
    /// Takes the answer, as far as somebody reads; with `extends`, also what it brings beyond
    /// what is claimed.
    ///
    /// # Errors
    /// How it was cut or wrong, or [`Fault::Busy`] without room to write it to.
    pub(super) async fn take(
        &mut self,
        engine: &Arc<Engine>,
        mut arriving: Arriving,
        extends: bool,
    ) -> Result<End, Fault> {
        self.source = arriving.source;
        self.is_told_by_end = !arriving.is_measured;
        self.place = arriving.body.place();
        if self.object.can_be_fetched() {
            arriving.body.leave_if_silent();
        }
        self.begin_answer();
        let (mut at, end) = (arriving.range.start, arriving.range.end());
        let (reach, first) = (arriving.reach(), self.front());
        let extends = extends || self.is_unranged;
        if extends {
            self.extend(engine, at, reach);
        }
        let ended = loop {
            self.join(engine, at);
            let Some(position) = self.position() else {
                match &self.listed {
                    Some(listed) if !listed.ends() => continue,
                    _ => break End::Done,
                }
            };
            if position >= end {
                // An upstream may send less than was asked for, but not nothing.
                match (&self.begun, self.front() != first) {
                    (Some(_), _) => break End::Short,
                    (None, true) => break End::Done,
                    (None, false) => {
                        return Err(Fault::unavailable("the answer is shorter than it said"));
                    }
                }
            }
            if self.begun.is_none()
                && !self.wait_for_readers(engine, &arriving.body, (at, end - at)).await
            {
                return Ok(End::Left);
            }
            let Some(data) = self.next(&mut arriving, end - at).await? else {
                return Ok(End::Left);
            };
            engine.metrics.fetched(self.source, data.len());
            if data.len() as u64 > end - at {
                return Err(self.misses_length(&arriving, "the answer is longer than it said"));
            }
            match self.put(engine, (data, &arriving.body), at, end).await? {
                Some(after) => at = after,
                None => {
                    return Ok(End::Left);
                }
            }
            if extends {
                self.extend(engine, at, reach);
            }
        };
        // So that the connection is seen to be free for the next request.
        if at == end
            && let Some(Some(Ok(more))) = arriving.body.frame().now_or_never()
            && !arriving.is_measured
            && more.data_ref().is_some_and(|more| !more.is_empty())
        {
            return Err(self.misses_length(&arriving, "there is more"));
        }
        Ok(ended)
    }

    /// It has not ended where it should have. What was said to be of one version, and did not say
    /// how long it is, is of another.
    fn misses_length(&self, arriving: &Arriving, why: &str) -> Fault {
        match (&self.object.kind, arriving.is_measured) {
            (Kind::Web(_), false) => Fault::Changed,
            _ => Fault::unavailable(why),
        }
    }

    /// Waits while the answer is too far ahead. False: nobody wants more of it.
    async fn wait_for_readers(
        &mut self,
        engine: &Engine,
        body: &UpstreamBody,
        left: (u64, u64),
    ) -> bool {
        match self.is_unranged {
            true => self.wait_up_to(engine, [UNRANGED_PAUSE_MAX; 2], || false, left).await,
            false => self.wait_up_to(engine, [PAUSE_MAX, HELD_MAX], || body.may_wait(), left).await,
        }
    }

    /// Whether the front chunk may be begun, for where its readers are. Takes a place for it: it
    /// might leave memory before they have it, or all of it, since who copies pieces of a chunk
    /// under pressure, now or later, holds nothing of it and comes for it again and again.
    fn may_begin(&mut self, engine: &Engine) -> bool {
        let by = self.front().map_or(0, |front| front.saturating_sub(self.readers.wanted()));
        if by > AHEAD_CHUNKS {
            return false;
        }
        if self.ahead.is_none() && !self.goes_past_memory(engine) {
            self.ahead = engine.chunks.ahead(by);
        }
        by == 0 || self.ahead.is_some() || engine.chunks.have_room()
    }

    /// Waits for `pause`, and while it `may_wait` for up to `most`.
    async fn wait_up_to(
        &mut self,
        engine: &Engine,
        [pause, most]: [Duration; 2],
        may_wait: impl Fn() -> bool,
        (at, rest): (u64, u64),
    ) -> bool {
        if self.is_left_with(rest) && self.readers.give_up() {
            return false;
        }
        // One limit for the whole pause: a reader that creeps on does not begin it anew.
        let began = Instant::now();
        let (mut until, last) = (began + pause, began + most);
        while !self.may_begin(engine) {
            if self.readers.is_left() && self.is_finished(rest) {
                break;
            }
            if self.readers.give_up() {
                return false;
            }
            if timeout_at(until, self.readers.changed()).await.is_err() {
                if until >= last || !may_wait() {
                    return false;
                }
                until = last.min(until + pause);
            }
            self.join(engine, at);
        }
        true
    }

    /// A turn to write a chunk, as long as what its upstream brings goes on.
    async fn turn(&self, engine: &Engine) -> Result<Turn, Fault> {
        let mut turn = pin!(self.turns.take_of(self.owner, self.readers.urgency()));
        loop {
            match timeout(TURN_WAIT_MAX, &mut turn).await {
                Ok(turn) => return turn.map_err(|_| Fault::Busy),
                Err(_) if self.turns.has_stood_for(self.owner, TURN_WAIT_MAX) => {
                    engine.metrics.fetches_without_memory.inc();
                    return Err(Fault::Busy);
                }
                Err(_) => {}
            }
        }
    }

    /// Room for a chunk, in the order of urgency, of an answer with so much to come.
    pub(super) async fn room(
        &self,
        engine: &Engine,
        bytes: usize,
        rest: u64,
    ) -> Result<Writing, Fault> {
        let turn = tokio::select! {
            turn = self.turn(engine) => turn?,
            () = self.left_with(rest) => return Err(Fault::Lost),
        };
        Ok(Writing { slot: engine.slot(bytes).await?, turn, verified: None, waited: None })
    }

    /// The next bytes; none once everybody has left.
    async fn next(&mut self, arriving: &mut Arriving, rest: u64) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = match arriving.body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    // Before a pause, readers get all that is here.
                    self.tell();
                    let others_wait = self.others_wait(rest, || arriving.body.may_wait());
                    let until = self.left_until(rest, others_wait);
                    if until.is_some_and(|until| until <= Instant::now()) && self.readers.give_up()
                    {
                        return Ok(None);
                    }
                    tokio::select! {
                        frame = arriving.body.frame() => frame,
                        () = self.readers.changed() => continue,
                        () = look_again(until) => continue,
                    }
                }
            };
            match frame {
                None => return Err(self.misses_length(arriving, "the answer was cut")),
                Some(Err(fault)) => return Err(fault.into()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Lets readers have what is here of the front chunk; of a title's what is verified.
    pub(super) fn tell(&self) {
        let (Some(claim), Some(Begun::Kept(writing))) = (self.claims.front(), &self.begun) else {
            return;
        };
        let filled = match (&self.object.kind, &writing.verified) {
            (Kind::Web(_), _) => writing.slot.filled(),
            (Kind::Track { .. }, Some((_, verified))) => *verified,
            (Kind::Track { .. }, None) => 0,
        };
        if filled > 0 {
            claim.open(writing.slot.reader(), filled, self.source);
        }
    }

    /// The front chunk is verified as far as it is here, if it can be in part.
    fn verify(&mut self, engine: &Engine) -> Result<(), Fault> {
        let Some(Begun::Kept(Writing { slot, verified: Some((leaves, verified)), .. })) =
            &mut self.begun
        else {
            return Ok(());
        };
        loop {
            let leaf = leaves.around(*verified);
            if leaf.is_empty() || slot.filled() < leaf.end {
                return Ok(());
            }
            let bytes = slot.reader().bytes(leaf.clone()).unwrap_or_default();
            if !leaves.is_leaf(leaf.start, &bytes) {
                // It will come again, from its first byte on.
                self.begun = None;
                engine.metrics.corrupt("origin");
                return Err(Fault::Corrupt);
            }
            *verified = leaf.end;
        }
    }

    /// Writes bytes that start at `at` of the object; what is before the first missing byte is
    /// passed over. Returns where they end; none once everybody has left.
    async fn put(
        &mut self,
        engine: &Arc<Engine>,
        (data, body): (Bytes, &UpstreamBody),
        at: u64,
        end: u64,
    ) -> Result<Option<u64>, Fault> {
        let mut rest = &data[..];
        let mut at = at;
        while let (false, Some(position)) = (rest.is_empty(), self.position()) {
            let passed = usize::try_from(position - at).unwrap_or(usize::MAX).min(rest.len());
            rest = &rest[passed..];
            at += passed as u64;
            if rest.is_empty() {
                break;
            }
            let number = self.front().unwrap_or_default();
            let length = usize::try_from(self.object.chunk(number).bytes).unwrap_or(usize::MAX);
            if self.begun.is_none() {
                // A pause comes before a slot is taken: one begun and not gone on with is memory
                // that nobody has.
                if !self.wait_for_readers(engine, body, (at, end - at)).await {
                    return Ok(None);
                }
                self.begin_chunk(engine, length, end - at).await?;
                // They may have left while it waited for room.
                if self.is_left_with(end - at) && self.readers.give_up() {
                    return Ok(None);
                }
            }
            let taken = match &mut self.begun {
                Some(Begun::Kept(Writing { slot, turn, .. })) => {
                    let (before, room) = (slot.filled(), length - slot.filled());
                    let taken = slot.write(&rest[..rest.len().min(room)]);
                    if before / GOES_ON_BYTES < slot.filled() / GOES_ON_BYTES {
                        turn.goes_on();
                    }
                    self.verify(engine)?;
                    taken
                }
                Some(Begun::Passed(entrance)) => {
                    let most = entrance.piece_bytes_max().min(length - entrance.filled());
                    let piece = data.slice_ref(&rest[..rest.len().min(most)]);
                    let bytes = piece.len();
                    if !self.pass(engine, body, piece).await? {
                        return Ok(None);
                    }
                    bytes
                }
                None => return Err(Fault::Busy),
            };
            rest = &rest[taken..];
            at += taken as u64;
            if self.begun.as_ref().map(Begun::filled) == Some(length) {
                self.land(engine)?;
            } else {
                self.keep_pace().await;
            }
        }
        Ok(Some(at + rest.len() as u64))
    }

    /// The front chunk is whole.
    fn land(&mut self, engine: &Arc<Engine>) -> Result<(), Fault> {
        // Who took less of it than has come gets the rest past memory.
        let is_passed = self.pass_rest();
        let Some(Begun::Kept(Writing { slot, turn, .. })) = self.begun.take() else {
            self.claims.pop_front();
            return Ok(());
        };
        let bytes = slot.freeze();
        drop(turn);
        let Some(number) = self.front() else { return Ok(()) };
        if let Kind::Track { title, track, .. } = &self.object.kind {
            let (leaves, track) = (Leaves::of(&bytes), title.index.tracks.get(*track));
            let digest = track.and_then(|track| track.digest(number));
            if digest.is_none() || leaves.digest().as_ref() != digest {
                engine.metrics.corrupt("origin");
                return Err(Fault::Corrupt);
            }
            // It may leave memory before its reader has all of it.
            if let (None, Some(key)) = (&self.ahead, self.object.key(number)) {
                engine.trees.keep(key, leaves);
            }
        }
        if let Some(claim) = self.claims.pop_front() {
            let mut ahead = self.ahead.take();
            engine.chunks.insert_ahead(claim.key(), bytes.clone(), ahead.as_mut());
            if let Some(ahead) = ahead {
                self.readers.keep(number, ahead);
            }
            // What several want at once is not to leave memory as what one has wanted does.
            if claim.is_shared() {
                drop(engine.chunks.in_memory(&claim.key()));
            }
            if !is_passed {
                claim.land(bytes, self.source);
            }
            engine.has_come(&self.object, number);
        }
        Ok(())
    }

    /// Claims what the answer brings anyway: the next neighbours as far as it may be ahead, up to
    /// the first that is here, from where on another request is cheaper; but where the origin
    /// sends all in any case, whatever is missing.
    pub(super) fn extend(&mut self, engine: &Engine, at: u64, end: u64) {
        let most = match self.is_unranged {
            true => at / CHUNK_BYTES + CLAIMS_MAX,
            false => self.readers.wanted() + 2 * AHEAD_CHUNKS,
        };
        let after = self.claims.back().map_or(0, |claim| number(claim) + 1);
        let mut next = match self.is_unranged {
            true => after.max(at.div_ceil(CHUNK_BYTES)).max(self.claimed_until),
            false => after.max(self.extended_until),
        };
        self.extended_until = next;
        if !self.is_unranged && self.object.chunk(next).start < at {
            // What came last has got past the one that is here.
            return;
        }
        while next <= most && next < self.object.chunks() && self.object.chunk(next).start < end {
            match engine.claim_missing(&self.object, next, &self.readers) {
                Some(claim) => self.claims.push_back(claim),
                None if self.is_unranged => {}
                None => return,
            }
            next += 1;
            self.extended_until = next;
            if self.is_unranged {
                self.claimed_until = next;
            }
        }
    }
}

#[cfg(test)]
mod tests;
