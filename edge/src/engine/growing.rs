//! An answer that can't be fetched again in parts (no strong validator, or of unknown length):
//! read by many while it arrives, kept as a whole or not at all.
//!
//! Who reads a chunk from its first byte on has asked for it, which is what decides whether a disk
//! takes it: that is counted once it is known that the answer is kept, since nothing is ever had
//! again of one that is not.
//!
//! Invariant: a reader gets every byte from where it began, in order, and an end only when the
//! answer was whole. Who reads slowly holds up nobody but itself; where the answer is too large
//! to be kept, who holds others up is left behind, and its answer cut.

mod reader;
mod window;

pub use reader::{GrowingReader, Step};

use super::left::{KEPT_MAX, LEFT_MAX, Left, wait_until};
use super::{COPIED_BYTES_MAX, Engine, Pin};
use crate::error::Fault;
use crate::verdict::Verdict;
use bytes::Bytes;
use futures::FutureExt;
use model::chunk::CHUNK_BYTES;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use upstream::UpstreamBody;
use window::Pace;

/// A larger answer is not kept: it passes through a window of this size.
pub const UNVALIDATED_BYTES_MAX: u64 = 64 << 20;
/// One answer alone has four fifths of the memory for such answers, three have 4/13 each.
const OF_WHAT_IS_LEFT: u64 = 4;
/// With this much or less to come, an answer that everybody left is taken to its end.
pub const REST_BYTES_MAX: u64 = CHUNK_BYTES;
/// Readers of a chunk that are counted before it is kept: what so many want is worth any disk.
const COUNTED_MAX: u32 = 256;

/// How far the answer has come.
#[derive(Clone, Default)]
pub struct Grown {
    /// Bytes that are here.
    pub filled: u64,
    /// How it ended.
    pub end: Option<Result<(), Fault>>,
}

/// What comes of an answer that was taken to its end.
pub enum Taken {
    /// Its chunks.
    Whole(Vec<Bytes>),
    /// Nobody vouches for that all of it came.
    Undelimited,
    /// It is longer than what is kept.
    TooLong,
    /// Memory for such answers was used up.
    NoRoom,
}

/// The answer.
pub struct Growing {
    /// Its length, if it said.
    pub length: Option<u64>,
    /// A longer one is not kept: at most [`UNVALIDATED_BYTES_MAX`].
    bytes_max: u64,
    engine: Arc<Engine>,
    /// What its chunks are kept by, and held by who sends them.
    body: [u8; 16],
    held: Mutex<Held>,
    progress: watch::Sender<Grown>,
    moved: Notify,
}

#[derive(Default)]
struct Held {
    /// Its chunks from number `first` on; the last one may still be written.
    chunks: VecDeque<arena::SlotReader>,
    first: u64,
    /// Where each reader is.
    readers: HashMap<u64, u64>,
    /// Those of them that read for nobody, so that it is kept.
    keepers: HashSet<u64>,
    /// No others do.
    left: Left,
    joined: u64,
    /// How many began each chunk, as long as it is not known that it is kept.
    begun: Vec<u32>,
    /// It is: who begins a chunk is counted at once.
    is_kept: bool,
    /// Its window was full once: nobody may join any more.
    is_full: bool,
    /// It was given up.
    over: bool,
}

impl Held {
    /// When it is given up, at byte `at` with so much to come: once everybody has left, at once if
    /// that is much and nobody keeps it, else when it is late.
    fn left_until(&mut self, at: u64, rest: u64) -> Option<Instant> {
        let each = match (self.keepers.is_empty(), rest <= REST_BYTES_MAX) {
            (false, _) => KEPT_MAX,
            (true, true) => LEFT_MAX,
            (true, false) => Duration::ZERO,
        };
        self.left.until(self.readers.len() == self.keepers.len(), at, each)
    }

    /// A reader begins this chunk.
    fn begins(&mut self, number: u64) {
        if let Ok(number) = usize::try_from(number)
            && (number as u64) < UNVALIDATED_BYTES_MAX.div_ceil(CHUNK_BYTES)
        {
            self.begun.resize(self.begun.len().max(number + 1), 0);
            self.begun[number] = (self.begun[number] + 1).min(COUNTED_MAX);
        }
    }
}

impl Growing {
    /// An answer of which nothing is here yet.
    pub fn new(
        engine: &Arc<Engine>,
        body: [u8; 16],
        length: Option<u64>,
        bytes_max: u64,
    ) -> Arc<Self> {
        let ((progress, _), held) = (watch::channel(Grown::default()), Mutex::default());
        let (engine, moved) = (Arc::clone(engine), Notify::new());
        Arc::new(Self { length, bytes_max, engine, body, held, progress, moved })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether who comes now finds all of it.
    pub fn is_joinable(&self) -> bool {
        let held = self.lock();
        !held.over && !held.is_full && held.first == 0
    }

    /// A reader from byte `at` on, if that is still here and the answer not given up.
    pub fn read_from(self: &Arc<Self>, at: u64) -> Option<GrowingReader> {
        let mut held = self.lock();
        if held.over || at < held.first * CHUNK_BYTES {
            return None;
        }
        held.joined += 1;
        let name = held.joined;
        held.readers.insert(name, at);
        drop(held);
        let (growing, progress) = (Arc::clone(self), self.progress.subscribe());
        let counts_from = at.div_ceil(CHUNK_BYTES);
        Some(GrowingReader { growing, name, at, progress, counts_from, pins: [None, None] })
    }

    /// The reader of the one who asked, counted at once: it may come whole before that one reads.
    pub fn first_reader(self: &Arc<Self>) -> Option<GrowingReader> {
        let mut first = self.read_from(0)?;
        self.lock().begins(0);
        first.counts_from = 1;
        Some(first)
    }

    /// It came whole, in these chunks, and is kept.
    pub fn keep(&self, chunks: Vec<Bytes>) {
        let begun = {
            let mut held = self.lock();
            held.is_kept = true;
            std::mem::take(&mut held.begun)
        };
        let counts = begun.into_iter().chain(std::iter::repeat(0));
        for ((number, chunk), count) in (0u32..).zip(chunks).zip(counts) {
            let key = chunks::Key { body: self.body, number };
            for _ in 0..count {
                self.engine.chunks.requested(&key, chunk.len());
            }
            self.engine.chunks.insert(key, chunk);
        }
    }

    /// Takes the answer to its end.
    ///
    /// # Errors
    /// How it was cut, or [`Fault::Lost`] when everybody left.
    pub async fn grow(&self, body: UpstreamBody, source: Verdict) -> Result<Taken, Fault> {
        let mut kept = Kept { engine: &self.engine, source, bytes: 0 };
        let mut pace = Pace::default();
        let mut end = End { growing: self, told: Err(Fault::Lost) };
        let ended = self.take(&mut kept, &mut pace, body).await;
        end.told = ended.as_ref().map(|_| ()).map_err(Clone::clone);
        ended
    }

    async fn take(
        &self,
        kept: &mut Kept<'_>,
        pace: &mut Pace,
        mut body: UpstreamBody,
    ) -> Result<Taken, Fault> {
        let mut whole: Vec<Bytes> = Vec::new();
        let mut slot: Option<arena::Slot> = None;
        let mut filled = 0;
        let mut unkept: Option<Taken> = None;
        loop {
            let data = match self.next(&mut body, filled).await? {
                Some(data) => data,
                None => break,
            };
            kept.engine.metrics.fetched(kept.source, data.len());
            let mut rest = &data[..];
            while !rest.is_empty() {
                if slot.is_none() {
                    unkept = unkept.or_else(|| kept.refuses(filled, self.bytes_max));
                    if unkept.is_some() {
                        whole.clear();
                        self.slide(kept, pace, filled).await?;
                    }
                    let new = kept.engine.slot(self.chunk_bytes(filled)).await?;
                    kept.grew(new.capacity() as u64);
                    self.lock().chunks.push_back(new.reader());
                    slot = Some(new);
                }
                let Some(writing) = &mut slot else { return Err(Fault::Busy) };
                let taken = writing.write(rest);
                if taken == 0 {
                    return Err(Fault::unavailable("the answer is longer than it said"));
                }
                rest = &rest[taken..];
                filled += taken as u64;
                if writing.filled() as u64 == CHUNK_BYTES
                    && let Some(full) = slot.take()
                {
                    whole.push(full.freeze());
                }
            }
            self.progress.send_modify(|grown| grown.filled = filled);
        }
        if self.length.is_some_and(|length| length != filled) {
            return Err(Fault::unavailable("the answer was cut"));
        }
        if !body.is_delimited() {
            return Ok(Taken::Undelimited);
        }
        if filled > self.bytes_max {
            return Ok(Taken::TooLong);
        }
        if let Some(unkept) = unkept {
            return Ok(unkept);
        }
        if let Some(last) = slot.filter(|slot| slot.filled() > 0) {
            whole.push(snug(kept.engine, last));
        }
        Ok(Taken::Whole(whole))
    }

    /// How large a slot the next bytes need.
    fn chunk_bytes(&self, filled: u64) -> usize {
        let left = self.length.map_or(CHUNK_BYTES, |length| length.saturating_sub(filled));
        usize::try_from(left.clamp(1, CHUNK_BYTES)).unwrap_or(1)
    }

    /// The next bytes of the answer; none at its end. Given up when everybody has left: see
    /// [`Held::left_until`].
    async fn next(&self, body: &mut UpstreamBody, filled: u64) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(data) = body.next().now_or_never() {
                return Ok(data.transpose()?);
            }
            let rest = self.length.map_or(u64::MAX, |length| length.saturating_sub(filled));
            let until = {
                let mut held = self.lock();
                let until = held.left_until(filled, rest);
                held.over = until.is_some_and(|until| until <= Instant::now());
                if held.over {
                    return Err(Fault::Lost);
                }
                until
            };
            tokio::select! {
                data = body.next() => return Ok(data.transpose()?),
                () = self.moved.notified() => {}
                () = wait_until(until) => {}
            }
        }
    }
}

/// What is held of an answer, in account with the engine.
struct Kept<'a> {
    engine: &'a Engine,
    source: Verdict,
    bytes: u64,
}

impl Kept<'_> {
    /// It has its part of the memory for such answers: so many times what is left of that. So there
    /// is always something left for others, however long it takes its readers to read all of it
    /// (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
    fn has_its_part(&self) -> bool {
        let taken = self.engine.growing_bytes.load(Ordering::Relaxed);
        self.bytes > OF_WHAT_IS_LEFT * self.engine.growing_bytes_max.saturating_sub(taken)
    }

    fn is_all_taken(&self) -> bool {
        self.engine.growing_bytes.load(Ordering::Relaxed) >= self.engine.growing_bytes_max
    }

    /// Why no more is kept of an answer with so many bytes and more. Of each there is a chunk anyway.
    fn refuses(&self, filled: u64, bytes_max: u64) -> Option<Taken> {
        match filled {
            _ if filled >= bytes_max => Some(Taken::TooLong),
            0..CHUNK_BYTES => None,
            _ => self.has_its_part().then_some(Taken::NoRoom),
        }
    }

    fn grew(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.engine.growing_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A whole chunk was let go of.
    fn shrank(&mut self) {
        self.bytes -= CHUNK_BYTES;
        self.engine.growing_bytes.fetch_sub(CHUNK_BYTES, Ordering::Relaxed);
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.engine.growing_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Tells readers the end, also when the task that took the answer is gone.
struct End<'a> {
    growing: &'a Growing,
    told: Result<(), Fault>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Who wakes only now may still read what came whole: it is held as long as they are.
        if self.told.is_err() {
            self.growing.lock().over = true;
        }
        let told = self.told.clone();
        self.growing.progress.send_modify(|grown| grown.end = Some(told));
    }
}

/// A last chunk of unknown length was given room for a whole one: moves it where it fits.
fn snug(engine: &Engine, last: arena::Slot) -> Bytes {
    let (filled, capacity) = (last.filled(), last.capacity());
    let bytes = last.freeze();
    if filled > capacity / 2 {
        return bytes;
    }
    match engine.chunks.slot(filled) {
        Some(mut fitting) => {
            fitting.write(&bytes);
            fitting.freeze()
        }
        None => bytes,
    }
}

#[cfg(test)]
mod tests;
