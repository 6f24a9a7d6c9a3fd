//! One answer of an upstream, written into chunks while it arrives: whoever reads them follows
//! byte by byte, except of a title's chunks, which must be verified first.
//!
//! Invariant: a chunk lands only whole. An answer that is cut, wrong or of another version ends
//! every chunk that it did not complete as failed.

use super::inflight::{Claim, Readers};
use super::{Engine, RUN_BYTES_MAX, owned_run_end};
use crate::error::Fault;
use crate::metrics::FillEnd;
use crate::object::{Kind, Object};
use crate::verdict::Verdict;
use arena::Slot;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use model::ByteRange;
use model::chunk::CHUNK_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use upstream::{HopId, UpstreamBody};

/// How many chunks an answer may be ahead of its foremost reader. More would fill memory on
/// behalf of a player that is slow, or about to leave.
const AHEAD_CHUNKS: u64 = 4;
/// An answer that is so far ahead is held open for this long; what is left is then asked for
/// again when somebody gets there, if the answer is of a kind that can be.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// With this much or less to come, an answer that everybody left is taken to its end.
const REST_BYTES_MAX: u64 = CHUNK_BYTES;
/// Tries for a byte that does not come.
const TRIES_MAX: usize = 2;

/// A run of neighbouring chunks, claimed, and those who read them.
pub struct Run {
    object: Object,
    claims: VecDeque<Claim>,
    readers: Arc<Readers>,
    /// What of the front chunk is here.
    slot: Option<Slot>,
    source: Verdict,
    began: Instant,
}

/// How a run ended that did not fail.
enum End {
    /// All that was claimed is here.
    Done,
    /// Nobody reads any more, or nobody so far.
    Left,
}

/// An answer's bytes, and which of the object's they are.
pub struct Arriving {
    /// The bytes.
    pub body: UpstreamBody,
    /// Which of the object's.
    pub range: ByteRange,
    /// Who sends them.
    pub hop: HopId,
    /// How they are named in verdicts.
    pub source: Verdict,
}

impl Arriving {
    /// Where those of its bytes end that are taken: a sibling may itself wait for this node to
    /// bring the next run.
    pub fn reach(&self) -> u64 {
        let end = self.range.end();
        let is_sibling = self.source == Verdict::Sibling;
        if is_sibling { end.min(owned_run_end(self.range.start)) } else { end }
    }
}

impl Run {
    /// A run that starts with `first`.
    pub fn new(object: Object, first: Claim, readers: Arc<Readers>) -> Self {
        let claims = VecDeque::from([first]);
        let (slot, source, began) = (None, Verdict::Origin, Instant::now());
        Self { object, claims, readers, slot, source, began }
    }

    fn front(&self) -> Option<u64> {
        self.claims.front().map(|claim| u64::from(claim.key().number))
    }

    /// The first byte that is missing.
    fn position(&self) -> Option<u64> {
        let filled = self.slot.as_ref().map_or(0, Slot::filled) as u64;
        Some(self.object.chunk(self.front()?).start + filled)
    }

    /// The bytes that are missing.
    fn missing(&self) -> Option<ByteRange> {
        let last = u64::from(self.claims.back()?.key().number);
        let start = self.position()?;
        Some(ByteRange::new(start, self.object.chunk(last).end() - start))
    }

    /// Claims the next neighbours that nobody has or fetches, up to a run's length.
    pub fn claim_neighbours(&mut self, engine: &Engine, numbers: std::ops::Range<u64>) {
        let most = numbers.start + RUN_BYTES_MAX / CHUNK_BYTES - 1;
        for number in numbers.start..numbers.end.min(most) {
            match engine.claim_missing(&self.object, number, &self.readers) {
                Some(claim) => self.claims.push_back(claim),
                None => return,
            }
        }
    }

    /// Tells all who read that none of it will come.
    pub fn fail(self, fault: &Fault) {
        self.claims.into_iter().for_each(|claim| claim.fail(fault.clone()));
    }

    /// Fetches what is claimed. A try that fails goes on where it stopped.
    pub async fn fetch(mut self, engine: &Arc<Engine>) {
        let (mut tries, mut avoid) = (0, None);
        while let Some(missing) = self.missing() {
            let front = self.front();
            let ended = match engine.ask(&self.object, missing, avoid).await {
                Err(fault) => Err((fault, None)),
                Ok(arriving) => {
                    let hop = arriving.hop.clone();
                    self.take(engine, arriving, false).await.map_err(|fault| (fault, Some(hop)))
                }
            };
            let (fault, hop) = match ended {
                Ok(End::Done) => break,
                Ok(End::Left) => return engine.metrics.filled(FillEnd::Left, self.began.elapsed()),
                Err(failed) => failed,
            };
            // Only a chunk is progress: an origin may stall after a few bytes each time.
            tries = if self.front() == front { tries + 1 } else { 1 };
            if let (Some(hop), Fault::Corrupt) = (&hop, &fault) {
                engine.blame(&self.object, hop, &fault);
            }
            avoid = hop;
            // An upstream that could not be asked has been tried as often as its budget allows.
            let final_word = matches!(fault, Fault::Upstream(_)) && avoid.is_none();
            if tries >= TRIES_MAX || final_word || !fault.may_pass() {
                engine.failed(&self.object, &fault);
                engine.metrics.filled(FillEnd::Failed, self.began.elapsed());
                return self.fail(&fault);
            }
            engine.metrics.fill(FillEnd::Retried);
            tracing::debug!(at = missing.start, %fault, "fetching again");
        }
        engine.metrics.filled(FillEnd::Done, self.began.elapsed());
    }

    /// Takes an answer that is here already, and whatever of the object it brings beyond what
    /// is claimed, for as long as somebody reads. What it fails to bring is fetched.
    pub async fn adopt(mut self, engine: &Arc<Engine>, arriving: Arriving) {
        let again = self.object.can_be_fetched();
        match self.take(engine, arriving, true).await {
            Ok(End::Done) => engine.metrics.filled(FillEnd::Done, self.began.elapsed()),
            Ok(End::Left) => engine.metrics.filled(FillEnd::Left, self.began.elapsed()),
            Err(fault) if again && fault.may_pass() => {
                engine.metrics.fill(FillEnd::Retried);
                tracing::debug!(%fault, "fetching the rest");
                self.fetch(engine).await;
            }
            Err(fault) => {
                engine.failed(&self.object, &fault);
                engine.metrics.filled(FillEnd::Failed, self.began.elapsed());
                self.fail(&fault);
            }
        }
    }

    async fn take(
        &mut self,
        engine: &Arc<Engine>,
        mut arriving: Arriving,
        extends: bool,
    ) -> Result<End, Fault> {
        self.source = arriving.source;
        let (mut at, end) = (arriving.range.start, arriving.range.end());
        let reach = arriving.reach();
        if extends {
            self.extend(engine, at, reach);
        }
        while let Some(position) = self.position() {
            if position >= end {
                return Err(Fault::unavailable("the answer is shorter than it said"));
            }
            if self.slot.is_none() && !self.wait_for_readers(end - at).await {
                return Ok(End::Left);
            }
            let Some(data) = self.next(&mut arriving.body, end - at).await? else {
                return Ok(End::Left);
            };
            engine.metrics.fetched(self.source, data.len());
            if data.len() as u64 > end - at {
                return Err(Fault::unavailable("the answer is longer than it said"));
            }
            match self.put(engine, data, at, end).await? {
                Some(after) => at = after,
                None => return Ok(End::Left),
            }
            if extends {
                self.extend(engine, at, reach);
            }
        }
        // So that the connection is seen to be free for the next request.
        if at == end {
            let _ = arriving.body.frame().now_or_never();
        }
        Ok(End::Done)
    }

    /// Waits while the answer is too far ahead. False: nobody wants more of it.
    async fn wait_for_readers(&self, rest: u64) -> bool {
        let Some(front) = self.front() else { return true };
        while front > self.readers.wanted() + AHEAD_CHUNKS {
            if self.readers.is_left() && rest <= REST_BYTES_MAX {
                return true;
            }
            if self.readers.give_up() {
                return false;
            }
            if tokio::time::timeout(PAUSE_MAX, self.readers.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// The next bytes; none once everybody has left.
    async fn next(&self, body: &mut UpstreamBody, rest: u64) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    // Before a pause, readers get all that is here.
                    self.tell();
                    tokio::select! {
                        frame = body.frame() => frame,
                        () = self.readers.changed() => {
                            if rest > REST_BYTES_MAX && self.readers.give_up() {
                                return Ok(None);
                            }
                            continue;
                        }
                    }
                }
            };
            match frame {
                None => return Err(Fault::unavailable("the answer was cut")),
                Some(Err(fault)) => return Err(fault.into()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Lets readers have what is here of the front chunk, unless it must be verified first.
    fn tell(&self) {
        if let (Some(claim), Some(slot), Kind::Web(_)) =
            (self.claims.front(), &self.slot, &self.object.kind)
            && slot.filled() > 0
        {
            claim.open(slot.reader(), slot.filled(), self.source);
        }
    }

    /// Writes bytes that start at `at` of the object; what is before the first missing byte is
    /// passed over. Returns where they end; none once everybody has left.
    async fn put(
        &mut self,
        engine: &Arc<Engine>,
        data: Bytes,
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
            if self.slot.is_none() {
                // A pause comes before a slot is taken: one begun and not gone on with is memory
                // that nobody has.
                if !self.wait_for_readers(end - at).await {
                    return Ok(None);
                }
                self.slot = Some(engine.slot(length).await?);
            }
            let Some(slot) = &mut self.slot else { return Err(Fault::Busy) };
            let room = length - slot.filled();
            let taken = slot.write(&rest[..rest.len().min(room)]);
            rest = &rest[taken..];
            at += taken as u64;
            if slot.filled() == length {
                self.land(engine)?;
            }
        }
        Ok(Some(at + rest.len() as u64))
    }

    /// The front chunk is whole.
    fn land(&mut self, engine: &Arc<Engine>) -> Result<(), Fault> {
        let Some(slot) = self.slot.take() else { return Ok(()) };
        let bytes = slot.freeze();
        let Some(number) = self.front() else { return Ok(()) };
        if let Kind::Track { title, track, .. } = &self.object.kind {
            let whole = title.index.tracks.get(*track);
            if !whole.is_some_and(|track| track.chunk_is_whole(number, &bytes)) {
                engine.metrics.corrupt("origin");
                return Err(Fault::Corrupt);
            }
        }
        if let Some(claim) = self.claims.pop_front() {
            engine.chunks.insert(claim.key(), bytes.clone());
            claim.land(bytes, self.source);
        }
        Ok(())
    }

    /// Claims the next neighbours that the answer brings anyway, as far as it may be ahead.
    fn extend(&mut self, engine: &Arc<Engine>, at: u64, end: u64) {
        let most = self.readers.wanted() + 2 * AHEAD_CHUNKS;
        loop {
            let next = match self.claims.back() {
                Some(claim) => u64::from(claim.key().number) + 1,
                None => at / CHUNK_BYTES,
            };
            let range = self.object.chunk(next);
            if next > most || next >= self.object.chunks() || range.end() > end || range.start < at
            {
                return;
            }
            let Some(claim) = engine.claim_missing(&self.object, next, &self.readers) else {
                return;
            };
            self.claims.push_back(claim);
        }
    }
}
