//! One run of chunks, claimed together and brought by one answer of an upstream, or by another
//! one where that failed.
//!
//! Invariant: a chunk lands only whole. An answer that is cut, wrong or of another version ends
//! every chunk that it did not complete as failed.

mod claiming;
mod leaving;
mod passing;
mod repeating;
mod taking;

use super::asking::Asking;
use super::inflight::Claim;
use super::left::Left;
use super::owned::run_until;
use super::passage::Entrance;
use super::readers::{Failed, Readers};
use super::unranged::Listed;
use super::{Engine, owned_run_end};
use crate::error::Fault;
use crate::metrics::FillEnd;
use crate::object::Object;
use crate::verdict::Verdict;
use arena::Slot;
use bytes::Bytes;
use chunks::Ahead;
pub use leaving::LEFT_BYTES_MAX;
use model::ByteRange;
use model::chunk::CHUNK_BYTES;
use model::tree::Leaves;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use taking::End;
use upstream::{HopId, Owner, Place, Turn, Turns, UpstreamBody};

/// An upstream may answer with less than was asked for (RFC 9110 section 15.3.7), and is asked for
/// the rest. Less than this is no progress: so a chunk costs 16 answers at most.
pub const ANSWER_BYTES_MIN: u64 = CHUNK_BYTES / 16;
/// Of an answer that comes whole though a part was asked for, this many chunks before and after
/// the one that is wanted are claimed: 2 GiB each way.
const CLAIMS_MAX: u64 = 2048;

/// A run of chunks, claimed, and those who read them.
pub struct Run {
    object: Object,
    /// In the order of the object; neighbours, unless the answer is all of it.
    claims: VecDeque<Claim>,
    readers: Arc<Readers>,
    turns: Turns,
    /// Whose part of them its chunks are written in: no upstream has all, so that one that drips does
    /// not keep others from being written.
    owner: Option<Owner>,
    /// What has come of the front chunk.
    begun: Option<Begun>,
    /// Of the answer that is taken, or was last. What is missing of a chunk that has begun is asked
    /// for in the same place: were it waited for in a row, all who have a turn could wait for
    /// places, and all who have a place for turns.
    place: Option<Place>,
    /// Where the front chunk will be kept, if nobody has got to it yet.
    ahead: Option<Ahead>,
    /// Of the chunk of this number, of a title: where it goes past memory, that is verified by these.
    leaves: Option<(u64, Arc<Leaves>)>,
    /// Its reader was slow where memory had no place.
    lags: bool,
    /// What the answer that is taken brings may go past memory.
    is_passable: bool,
    /// When that answer began.
    answered: tokio::time::Instant,
    /// Everybody was seen to have left it.
    left: Left,
    /// Of the first chunk, who began it has so many bytes.
    taken: usize,
    source: Verdict,
    /// Tries in a row on top of one that brought no chunk: for a head, and after a body that broke.
    repeats: u32,
    /// The next try is for what the one before did not bring.
    is_repeat: bool,
    /// Another node's origin has failed: the origin itself is asked, once.
    is_last: bool,
    /// The origin sends all of the object, whatever is asked for.
    is_unranged: bool,
    /// Only the end of the answer that is taken, or was last, tells that it is of the version that it
    /// names.
    is_told_by_end: bool,
    /// It does so now, and others may join.
    listed: Option<Listed>,
    /// All chunks below were claimed that were missing then.
    claimed_until: u64,
    /// Of the answer that is taken, the chunk behind those that were claimed.
    extended_until: u64,
    /// The first chunk that who began it does not want.
    wanted_until: u64,
    began: Instant,
}

/// A chunk of which something has come.
enum Begun {
    /// It will be kept.
    Kept(Writing),
    /// It goes past memory.
    Passed(Entrance),
}

/// A chunk that is being written, and the right to do so: given by urgency, for one chunk.
struct Writing {
    slot: Slot,
    turn: Turn,
    /// Of a title's chunk, what it is verified by while it comes, and how far.
    verified: Option<(Arc<Leaves>, usize)>,
    /// Where memory has no place for it: how long its reader was waited for.
    waited: Option<Duration>,
}

impl Begun {
    /// Bytes of the chunk that need not come any more.
    fn filled(&self) -> usize {
        match self {
            Self::Kept(writing) => writing.slot.filled(),
            Self::Passed(entrance) => entrance.filled(),
        }
    }
}

/// An answer's bytes, and which of the object's they are.
pub struct Arriving {
    /// The bytes.
    pub body: UpstreamBody,
    /// Which of the object's.
    pub range: ByteRange,
    /// Which of the object's are wanted.
    pub wanted: Range<u64>,
    /// They are all of the object, though a part was asked for.
    pub is_unranged: bool,
    /// They are all of the object, and nothing says that a part of it could be had.
    pub may_be_unranged: bool,
    /// How many they are was said before they came. Else those of another version that has the same
    /// validator are told by their number.
    pub is_measured: bool,
    /// Who sends them.
    pub hop: HopId,
    /// How they are named in verdicts.
    pub source: Verdict,
    /// How many of the site's `retries` have gone into them.
    pub retried: u32,
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
    /// A run that has nothing claimed yet.
    pub fn new(engine: &Engine, object: Object, readers: Arc<Readers>) -> Self {
        let turns = if object.is_for_peer() { &engine.peer_turns } else { &engine.turns };
        let owner = engine.upstream_of(&object).map(|upstream| std::ptr::from_ref(upstream).addr());
        Self {
            object,
            claims: VecDeque::new(),
            readers,
            turns: turns.clone(),
            owner,
            begun: None,
            place: None,
            ahead: None,
            leaves: None,
            lags: false,
            is_passable: false,
            answered: tokio::time::Instant::now(),
            left: Left::default(),
            taken: 0,
            source: Verdict::Origin,
            repeats: 0,
            is_repeat: false,
            is_last: false,
            is_unranged: false,
            is_told_by_end: false,
            listed: None,
            claimed_until: 0,
            extended_until: 0,
            wanted_until: 0,
            began: Instant::now(),
        }
    }

    /// It starts with this chunk.
    pub fn begin(&mut self, first: Claim) {
        self.claims.push_back(first);
    }

    /// Who began it wants all below this chunk in the end: of an answer that brings more than it is
    /// asked for, that is taken.
    pub fn wants_until(&mut self, chunk: u64) {
        self.wanted_until = chunk;
    }

    /// What it is of.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Whether it claims whatever is missing.
    pub fn is_for_all(&self) -> bool {
        self.is_unranged
    }

    /// The first chunk was found without a fetch.
    pub fn land_first(mut self, bytes: Bytes, source: Verdict) {
        if let Some(claim) = self.claims.pop_front() {
            claim.land(bytes, source);
        }
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    fn front(&self) -> Option<u64> {
        self.claims.front().map(number)
    }

    /// The first byte that is missing.
    fn position(&self) -> Option<u64> {
        let filled = self.begun.as_ref().map_or(0, Begun::filled) as u64;
        Some(self.object.chunk(self.front()?).start + filled)
    }

    /// The bytes to ask for: of neighbours, from the first that is missing; from an origin that
    /// may send all, from the chunk that is wanted.
    fn missing(&self) -> Option<ByteRange> {
        let wanted = self.readers.wanted();
        let is_first = |claim: &Claim| self.is_unranged && number(claim) >= wanted;
        let first = self.claims.iter().position(is_first).unwrap_or(0);
        let mut numbers = self.claims.iter().skip(first).map(number);
        let first = numbers.next()?;
        let until = run_until(first, self.object.chunks());
        let next = numbers.zip(first + 1..until).take_while(|(number, next)| number == next).last();
        let last = next.map_or(first, |(number, _)| number);
        let start = match self.position() {
            Some(at) if self.front() == Some(first) => at,
            _ => self.object.chunk(first).start,
        };
        Some(ByteRange::new(start, self.object.chunk(last).end() - start))
    }

    /// Tells all who read that none of it will come. Most of them wait for the front: it ends
    /// last, so that who asks anew at once finds no chunk behind it that is about to fail, too.
    pub fn fail(self, fault: &Fault) {
        let ends = self.front().zip(self.claims.back().map(number));
        // Memory that is short is no failure of who was asked.
        if let Some((first, last)) = ends.filter(|_| !matches!(fault, Fault::Busy)) {
            let (fault, source, repeats) = (fault.clone(), self.source, self.repeats);
            let (chunks, is_last) = (first..last + 1, self.is_last);
            self.readers.fail(Failed { chunks, fault, source, repeats, is_last });
        }
        self.claims.into_iter().rev().for_each(|claim| claim.fail(fault.clone()));
    }

    /// Fetches what is claimed. A try that fails goes on where it stopped.
    pub async fn fetch(mut self, engine: &Arc<Engine>) {
        let mut avoid = None;
        while let Some(missing) = self.missing() {
            let front = self.front();
            let (fault, hop) = match self.one_try(engine, missing, avoid.take()).await {
                Ok(End::Done | End::Short) => {
                    // An answer may end within a chunk, which may turn out corrupt each time.
                    if self.front() != front {
                        self.repeats = 0;
                    }
                    // More is asked for while somebody reads; a chunk that has begun is completed.
                    if self.is_empty() || self.begun.is_some() || !self.readers.give_up() {
                        continue;
                    }
                    return engine.metrics.filled(FillEnd::Left, self.began.elapsed());
                }
                Ok(End::Left) => return self.leave(engine),
                Err(failed) => failed,
            };
            if let (Some(hop), Fault::Corrupt | Fault::Short) = (&hop, &fault) {
                engine.blame(&self.object, hop, &fault);
            }
            if self.is_for_nobody() {
                return self.leave_failed(engine, &fault);
            }
            // An upstream that could not be asked has been tried as often as its budget allows.
            let final_word = matches!(fault, Fault::Upstream(_)) && hop.is_none();
            let by = hop.as_ref().map(|hop| (hop, &fault));
            if final_word || !fault.may_pass() || !self.may_repeat(engine, front, by).await {
                return self.end(engine, &fault);
            }
            avoid = hop;
            engine.metrics.fill(FillEnd::Retried);
            tracing::debug!(at = missing.start, %fault, "fetching again");
        }
        engine.metrics.filled(FillEnd::Done, self.began.elapsed());
    }

    fn end(self, engine: &Engine, fault: &Fault) {
        engine.failed(&self.object, fault);
        engine.metrics.filled(FillEnd::Failed, self.began.elapsed());
        self.fail(fault);
    }

    /// Asks once, and takes what comes. A fault comes with the hop that answered, if one did.
    async fn one_try(
        &mut self,
        engine: &Arc<Engine>,
        missing: ByteRange,
        avoid: Option<HopId>,
    ) -> Result<End, (Fault, Option<HopId>)> {
        let place = self.place.take().filter(|_| self.begun.is_some());
        let is_repeat = std::mem::take(&mut self.is_repeat);
        // What others broke off is none of the site's `retries`.
        let before = match (self.is_last, self.source) {
            (true, _) => u32::MAX,
            (false, Verdict::Origin) => self.repeats,
            (false, _) => 0,
        };
        let mut retried = before;
        let (urgency, at_the_origin) = (self.readers.urgency(), self.is_last);
        let reach = self.wanted_until.saturating_mul(CHUNK_BYTES).min(self.object.bytes);
        let reach = reach.max(missing.end());
        let retried_by = &mut retried;
        let asking =
            Asking { avoid, place, is_repeat, at_the_origin, reach, retried: retried_by, urgency };
        let asked = engine.ask(&self.object, missing, asking).await;
        self.repeats += retried.saturating_sub(before);
        let arriving = asked.map_err(|fault| (fault, None))?;
        let hop = arriving.hop.clone();
        self.prepare(engine, &arriving);
        if self.is_empty() {
            return Ok(End::Done);
        }
        let is_little = arriving.range.bytes < ANSWER_BYTES_MIN;
        let is_more = arriving.range.end() > missing.end();
        match self.take(engine, arriving, is_more).await {
            Ok(End::Short) if is_little => Err((Fault::Short, Some(hop))),
            ended => ended.map_err(|fault| (fault, Some(hop))),
        }
    }

    /// Suits the claims to what has come: all of the object, or a part after all.
    fn prepare(&mut self, engine: &Engine, arriving: &Arriving) {
        if arriving.is_unranged {
            self.take_back();
            self.take_all(engine, arriving.reach());
        } else if self.is_unranged {
            engine.unranged.unset(&self.object.body);
            (self.is_unranged, self.listed) = (false, None);
            // Who waits for these asks for them.
            while self.position().is_some_and(|at| at < arriving.range.start) {
                self.begun = None;
                self.claims.pop_front().into_iter().for_each(Claim::hand_over);
            }
        }
    }

    /// Takes an answer that is here already, and whatever of the object it brings beyond what
    /// is claimed, for as long as somebody reads. What it fails to bring is fetched.
    pub async fn adopt(mut self, engine: &Arc<Engine>, arriving: Arriving) {
        let (again, front) = (self.object.can_be_fetched(), self.front());
        self.repeats = arriving.retried;
        let hop = arriving.hop.clone();
        match self.take(engine, arriving, true).await {
            Ok(End::Done) => engine.metrics.filled(FillEnd::Done, self.began.elapsed()),
            Ok(End::Left) => self.leave(engine),
            // What is missing of the chunk that it has begun.
            Ok(End::Short) => self.unlisted().fetch(engine).await,
            Err(fault) if self.is_for_nobody() => self.leave_failed(engine, &fault),
            Err(fault) => {
                let may_again = again && fault.may_pass();
                if !(may_again && self.may_repeat(engine, front, Some((&hop, &fault))).await) {
                    return self.end(engine, &fault);
                }
                engine.metrics.fill(FillEnd::Retried);
                tracing::debug!(%fault, "fetching the rest");
                self.unlisted().fetch(engine).await;
            }
        }
    }
}

fn number(claim: &Claim) -> u64 {
    u64::from(claim.key().number)
}
