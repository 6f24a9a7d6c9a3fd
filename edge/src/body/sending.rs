//! Parts of an object on their way to a client: chunk by chunk, each from wherever it is, and
//! byte by byte where it is still arriving.

mod border;
mod left;

use crate::engine::{self, COPIED_BYTES_MAX, Engine, Got, Progress, Want};
use crate::error::Fault;
use crate::object::Object;
use crate::verdict::Verdict;
use bytes::Bytes;
use model::ByteRange;
use model::chunk::{self, CHUNK_BYTES};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

/// A fetch that was given up just as it was joined, or that panicked, is asked for again, at most
/// this often in a row.
const LOST_MAX: usize = 3;

/// What is sent, in order.
pub enum Piece {
    /// The text between the parts of a multipart answer.
    Text(Bytes),
    /// Bytes of the object.
    Part(ByteRange),
}

/// An object's bytes under way.
pub struct Sending {
    engine: Arc<Engine>,
    object: Object,
    pieces: VecDeque<Piece>,
    /// What is left of the current part.
    left: ByteRange,
    /// The chunk that it began with.
    from: u64,
    urgency: u8,
    state: State,
    /// Polled before the head left.
    ahead: Option<Result<(Bytes, Verdict), Fault>>,
    /// These chunks were missing when this response asked for them, and come from there: that they
    /// are in memory when their turn comes does not make them hits.
    own: (Range<u64>, Verdict),
    reading: Option<engine::Reading>,
    /// Something of the chunk of the first byte that is left was handed over.
    has_begun: bool,
    lost: usize,
    /// The chunks of which pieces were handed over last: the connection may hold them still.
    pins: [Option<engine::Pin>; 2],
    /// From the first bytes on, until nothing is left.
    underway: Option<engine::Underway>,
}

type Steps = watch::Receiver<Progress>;

enum State {
    /// The next chunk is not asked for yet.
    Next,
    Have(Bytes, Verdict),
    Following(Steps),
    Waiting(Pin<Box<dyn Future<Output = Steps> + Send>>),
    /// The chunk comes past memory.
    Passing(engine::Exit),
    Ended,
}

impl Sending {
    /// These pieces of an object.
    pub fn new(engine: &Arc<Engine>, object: Object, pieces: Vec<Piece>, urgency: u8) -> Self {
        Self {
            engine: Arc::clone(engine),
            object,
            pieces: pieces.into(),
            left: ByteRange::default(),
            from: 0,
            urgency,
            state: State::Next,
            ahead: None,
            own: (0..0, Verdict::Origin),
            reading: None,
            has_begun: false,
            lost: 0,
            pins: [None, None],
            underway: None,
        }
    }

    /// These bytes of an object.
    pub fn part(engine: &Arc<Engine>, object: Object, range: ByteRange, urgency: u8) -> Self {
        let from = range.start / CHUNK_BYTES;
        Self { left: range, from, ..Self::new(engine, object, Vec::new(), urgency) }
    }

    /// The chunk that it begins with is on its way by this response's own fetch, and so is what
    /// follows it.
    pub fn by_own_fetch(mut self, reading: engine::Reading, source: Verdict) -> Self {
        self.own = (0..u64::MAX, source);
        self.reading = Some(reading);
        self
    }

    /// Waits until its first bytes are at hand, so that the head that goes before them is true.
    /// The costliest source of the whole.
    ///
    /// # Errors
    /// How they can't be had.
    pub async fn first(&mut self) -> Result<Verdict, Fault> {
        let foreseen = self.foreseen();
        match poll_fn(|cx| self.poll(cx)).await {
            None => Ok(Verdict::HitMemory),
            Some(Err(fault)) => Err(fault),
            Some(Ok((bytes, verdict))) => {
                self.ahead = Some(Ok((bytes, verdict)));
                // Another hop than was foreseen may have been asked.
                let foreseen = match foreseen.unwrap_or(verdict) {
                    Verdict::Sibling | Verdict::Parent | Verdict::Origin if !verdict.is_hit() => {
                        verdict
                    }
                    foreseen => foreseen,
                };
                Ok(verdict.max(foreseen))
            }
        }
    }

    /// [`Self::first`] where all of it is in memory, as far as it is looked ahead; none where it
    /// is not.
    pub fn first_in_memory(&mut self) -> Option<Verdict> {
        let chunks = chunk::covering(self.left);
        if self.pieces.is_empty() && chunks.end - chunks.start == 1 {
            // One look tells: it is here or not.
            let (engine, object) = (&self.engine, &self.object);
            let bytes = engine.requested_in_memory(object, self.left.start)?;
            self.state = State::Have(bytes, Verdict::HitMemory);
        } else if self.foreseen() != Some(Verdict::HitMemory) {
            return None;
        }
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok((bytes, verdict)))) => {
                self.ahead = Some(Ok((bytes, verdict)));
                Some(verdict)
            }
            // It has just left.
            _ => None,
        }
    }

    /// All of it, if that was polled ahead.
    pub fn whole(&mut self) -> Option<(Bytes, Verdict)> {
        if self.left.bytes > 0 || !self.pieces.is_empty() {
            return None;
        }
        self.ahead.take_if(|ahead| ahead.is_ok())?.ok()
    }

    /// The next bytes and their source.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(Bytes, Verdict), Fault>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(ahead));
        }
        loop {
            if self.left.bytes == 0 {
                match self.pieces.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Piece::Text(text)) => {
                        return Poll::Ready(Some(Ok((text, Verdict::HitMemory))));
                    }
                    Some(Piece::Part(range)) => {
                        (self.left, self.state, self.has_begun) = (range, State::Next, false);
                        self.from = self.number();
                        continue;
                    }
                }
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(Some(Err(Fault::Lost))),
                State::Next => self.ask(),
                State::Have(bytes, verdict) => {
                    return Poll::Ready(Some(self.cut(&bytes, verdict)));
                }
                State::Waiting(mut waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Ready(steps) => self.state = State::Following(steps),
                    Poll::Pending => {
                        self.state = State::Waiting(waiting);
                        return Poll::Pending;
                    }
                },
                State::Passing(exit) => match self.pass(exit, cx) {
                    Poll::Ready(None) => {}
                    Poll::Ready(told) => return Poll::Ready(told),
                    Poll::Pending => return Poll::Pending,
                },
                State::Following(steps) => {
                    if let Some(told) = self.follow(steps) {
                        return Poll::Ready(Some(told));
                    }
                }
            }
        }
    }

    fn number(&self) -> u64 {
        self.left.start / CHUNK_BYTES
    }

    /// The chunk, and what is wanted behind it: the current part's, and of those that follow what
    /// goes on where it ends.
    fn want(&self, number: u64) -> Want {
        let mut end = chunk::covering(self.left).end;
        for piece in &self.pieces {
            let Piece::Part(range) = piece else { continue };
            let chunks = chunk::covering(*range);
            if !(number..=end).contains(&chunks.start) {
                break;
            }
            end = end.max(chunks.end);
        }
        Want { number, until: engine::growing_until(self.from, number, end), end }
    }

    /// Asks for the chunk of the first byte that is left.
    fn ask(&mut self) {
        let number = self.number();
        let want = self.want(number);
        let passed = |reading: &engine::Reading| reading.passed(number, self.left.start);
        if let Some(exit) = self.reading.as_ref().and_then(passed) {
            self.state = State::Passing(exit);
            return;
        }
        self.engine.requested(&self.object, self.left.start);
        let (object, followed) = (&self.object, self.reading.as_ref());
        let within = usize::try_from(self.left.start % CHUNK_BYTES).unwrap_or(0);
        let taken = if self.has_begun { within } else { 0 };
        self.state = match self.engine.chunk(object, want, taken, self.urgency, followed) {
            Got::Here(bytes, verdict) => {
                if let Some(reading) = &self.reading {
                    reading.want(number);
                }
                let (own, source) = &self.own;
                let is_own = own.contains(&number) && !source.is_hit();
                State::Have(bytes, if is_own { *source } else { verdict })
            }
            Got::Coming(coming) => {
                if coming.is_own && number >= self.own.0.end {
                    self.own.0 =
                        number..self.engine.missing_until(&self.object, number..want.until);
                }
                self.reading = coming.reading.or(self.reading.take());
                if let Some(reading) = &self.reading {
                    reading.took(self.left.start);
                }
                State::Following(coming.progress)
            }
        };
    }

    /// A step of a chunk that is on its way; none if there is nothing to send yet.
    fn follow(&mut self, mut steps: Steps) -> Option<Result<(Bytes, Verdict), Fault>> {
        let progress = steps.borrow_and_update().clone();
        let within = usize::try_from(self.left.start % CHUNK_BYTES).unwrap_or(usize::MAX);
        match progress {
            Progress::Open { reader, filled, source } if filled > within => {
                let end = filled.min(within.saturating_add(self.left_in_chunk()));
                let verdict = self.named(source);
                if self.engine.under_pressure() {
                    // Nothing of the chunk is held until the client takes more.
                    let end = end.min(within + COPIED_BYTES_MAX);
                    let Some(bytes) = reader.bytes(within..end) else {
                        return Some(Err(Fault::Lost));
                    };
                    self.state = State::Next;
                    self.advance(bytes.len());
                    return Some(Ok((Bytes::copy_from_slice(&bytes), verdict)));
                }
                let Some(bytes) = reader.bytes(within..end) else { return Some(Err(Fault::Lost)) };
                let bytes = self.pinned(bytes);
                self.state = State::Following(steps);
                self.advance(bytes.len());
                Some(Ok((bytes, verdict)))
            }
            Progress::Waiting | Progress::Open { .. } => {
                self.state = State::Waiting(Box::pin(async move {
                    // A claim that ends tells its end first.
                    let _ = steps.changed().await;
                    steps
                }));
                None
            }
            Progress::Landed(bytes, source) => {
                let verdict = self.named(source);
                self.state = State::Have(bytes, verdict);
                None
            }
            // Told once for an event of an answer: there is no end of them only while there is none
            // of new answers that bring all of the object.
            Progress::Moved => {
                self.state = State::Next;
                None
            }
            Progress::Failed(Fault::Lost) => self.asks_anew().err().map(Err),
            Progress::Failed(fault) => Some(Err(fault)),
        }
    }

    /// What was on its way does not come: asks for it anew, a few times in a row.
    fn asks_anew(&mut self) -> Result<(), Fault> {
        if self.lost >= LOST_MAX {
            return Err(Fault::Lost);
        }
        self.lost += 1;
        self.state = State::Next;
        Ok(())
    }

    /// What comes past memory; none if it does not come to the end that is wanted.
    fn pass(
        &mut self,
        mut exit: engine::Exit,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Bytes, Verdict), Fault>>> {
        match exit.poll(cx, self.left.start, self.left_in_chunk()) {
            Poll::Pending => {
                self.state = State::Passing(exit);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(self.asks_anew().err().map(Err)),
            Poll::Ready(Some(bytes)) => {
                let verdict = self.named(exit.source());
                self.state = State::Passing(exit);
                self.advance(bytes.len());
                Poll::Ready(Some(Ok((bytes, verdict))))
            }
        }
    }

    /// How a chunk from there is named here: what others fetch is filling.
    fn named(&mut self, source: Verdict) -> Verdict {
        if source.is_hit() {
            return source;
        }
        if self.own.0.contains(&self.number()) {
            self.own.1 = source;
            return source;
        }
        Verdict::Filling
    }

    fn left_in_chunk(&self) -> usize {
        let within = self.left.start % CHUNK_BYTES;
        usize::try_from(self.left.bytes.min(CHUNK_BYTES - within)).unwrap_or(usize::MAX)
    }

    fn advance(&mut self, bytes: usize) {
        let (bytes, before) = (bytes as u64, self.number());
        self.lost = 0;
        self.left = ByteRange::new(self.left.start + bytes, self.left.bytes - bytes);
        self.has_begun = self.left.bytes > 0 && self.number() == before;
        if !self.has_begun {
            self.state = State::Next;
        }
        if !self.has_begun || self.underway.is_none() {
            self.is_underway();
        }
        if let Some(reading) = &self.reading {
            reading.took(self.left.start);
        }
    }

    /// A part of the chunk at hand, which is handed over as it is. The last one outlives this: its
    /// connection may take it much later.
    fn pinned(&mut self, part: Bytes) -> Bytes {
        self.pin();
        let is_last = self.left.bytes == part.len() as u64 && self.pieces.is_empty();
        match self.pins[0].take_if(|_| is_last) {
            Some(pin) => pin.held_with(part),
            None => part,
        }
    }

    /// The chunk at hand is handed over as it is, or a part of it.
    fn pin(&mut self) {
        let key = self.object.key(self.number());
        if self.pins[0].as_ref().map(|pin| *pin.key()) != key {
            self.pins.swap(0, 1);
            self.pins[0] = self.engine.pin(&self.object, self.number());
        }
    }

    /// Cuts what is wanted out of a chunk that is here. The next one is asked for at once, so
    /// that it is on its way while this one is sent.
    fn cut(&mut self, chunk: &Bytes, verdict: Verdict) -> Result<(Bytes, Verdict), Fault> {
        let within = usize::try_from(self.left.start % CHUNK_BYTES).unwrap_or(usize::MAX);
        let pressed = self.engine.under_pressure();
        let most = if pressed { COPIED_BYTES_MAX } else { usize::MAX };
        let end = within.saturating_add(self.left_in_chunk().min(most));
        if within >= end || end > chunk.len() {
            return Err(Fault::Lost);
        }
        let part = if pressed {
            Bytes::copy_from_slice(&chunk[within..end])
        } else {
            if let Some(reading) = &self.reading {
                reading.has(self.number());
            }
            self.pinned(chunk.slice(within..end))
        };
        // Without pressure the cut is up to the chunk's end: the next chunk follows.
        self.state = State::Next;
        self.advance(part.len());
        if self.left.bytes > 0 && !pressed {
            self.ask();
            self.pin();
        }
        Ok((part, verdict))
    }
}

#[cfg(test)]
mod tests;
