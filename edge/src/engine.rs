//! Where a chunk comes from: memory, a fetch under way, the fill plan's files, the SSD tier,
//! a sibling, a parent, the origin, in this order, and one fetch however many read.
//!
//! Invariant: every chunk of a title that leaves here is what its index says; every chunk of a
//! stored representation was sent under its validator.

mod gauges;
mod growing;
mod inflight;
mod owned;
mod pins;
mod run;
mod turns;

pub use gauges::register;
pub use growing::{Growing, GrowingReader, Step, UNVALIDATED_BYTES_MAX};
pub use inflight::{Coming, Progress, Reading};
pub use owned::{OWNED_RUN_BYTES, owned_run_end};
pub use pins::Pin;
pub use run::{Arriving, Run};

use crate::error::Fault;
use crate::metrics::Metrics;
use crate::object::{Kind, Object, Web};
use crate::planned::Planned;
use crate::verdict::Verdict;
use arena::Slot;
use bytes::Bytes;
use chunks::Chunks;
use heads::Heads;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use inflight::{Claim, InFlight, Readers};
use model::ByteRange;
use model::admin::ChunkPlace;
use model::chunk::CHUNK_BYTES;
use owned::run_until;
use pins::Pins;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use turns::Turns;
use upstream::{Ask, HopId, HopKind, Upstream};

/// Bytes in one request to an upstream: missing neighbours are joined up to this.
pub const RUN_BYTES_MAX: u64 = 16 << 20;
/// What a peer knows a request for titles by: they are of no site.
pub const TITLES_HOST: &str = "titles";
/// Runs that are fetched at a time.
const FETCHES_MAX: usize = 256;
/// Runs that wait for their turn; more are refused as busy, the least urgent first.
const FETCHES_WAITING_MAX: usize = 1024;
/// How far ahead the verdict of a head looks, in chunks.
const FORESEEN_MAX: u64 = 64;
/// Responses may hold one part in so many of the memory; beyond that they copy what they send.
const PINNED_SHARE: u64 = 4;
/// How long a fetch waits for memory when every slot is in use.
const SLOT_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often it looks.
const SLOT_WAIT_STEP: Duration = Duration::from_millis(5);

/// A chunk that is wanted.
pub enum Got {
    /// It is here.
    Here(Bytes, Verdict),
    /// It is on its way.
    Coming(Coming),
}

/// All sources of chunks.
pub struct Engine {
    /// Memory and reactive SSD.
    pub chunks: Chunks,
    /// The fill plan's files.
    pub planned: Arc<Planned>,
    /// Where titles' bytes come from.
    pub titles: Option<Upstream>,
    /// What is known of stored representations.
    pub heads: Heads,
    /// Counters.
    pub metrics: Metrics,
    /// Where fetches run: bodies ask for chunks on the threads that serve connections.
    work: Handle,
    inflight: InFlight,
    turns: Turns,
    /// For other nodes' requests: were these to wait behind fetches that wait for those nodes,
    /// all could wait for each other.
    peer_turns: Turns,
    /// Chunks that responses hold, and how many bytes of them are too many.
    pins: Pins,
    pinned_bytes_max: u64,
    /// Bytes that answers without a strong validator hold now.
    growing_bytes: AtomicU64,
    growing_bytes_max: u64,
}

impl Engine {
    /// The sources, put together, within the runtime that fetches. Answers without a strong validator may hold a quarter of the
    /// `memory_bytes`.
    pub fn new(
        chunks: Chunks,
        planned: Arc<Planned>,
        titles: Option<Upstream>,
        heads: Heads,
        metrics: Metrics,
        memory_bytes: u64,
    ) -> Self {
        Self {
            chunks,
            planned,
            titles,
            heads,
            metrics,
            work: Handle::current(),
            inflight: InFlight::default(),
            pins: Pins::default(),
            pinned_bytes_max: memory_bytes / PINNED_SHARE,
            turns: Turns::new(FETCHES_MAX, FETCHES_WAITING_MAX),
            peer_turns: Turns::new(FETCHES_MAX, FETCHES_WAITING_MAX),
            growing_bytes: AtomicU64::new(0),
            growing_bytes_max: memory_bytes / 4,
        }
    }

    /// A response goes on at a byte of the object. Counts its chunk as requested, once for each
    /// response that gets it from its first byte on.
    pub fn requested(&self, object: &Object, byte: u64) {
        let number = byte / CHUNK_BYTES;
        if byte.is_multiple_of(CHUNK_BYTES)
            && let Some(key) = object.key(number)
        {
            let bytes = usize::try_from(object.chunk(number).bytes).unwrap_or(usize::MAX);
            self.chunks.requested(&key, bytes);
        }
    }

    /// A chunk. `until` is the first chunk that is not wanted with it: if it must be fetched,
    /// missing neighbours below that come along. Does not wait.
    pub fn chunk(self: &Arc<Self>, object: &Object, number: u64, until: u64, urgency: u8) -> Got {
        let Some(key) = object.key(number) else {
            return Got::Coming(Coming::failed(Fault::NotFound));
        };
        if let Some(bytes) = self.chunks.in_memory(&key) {
            return Got::Here(bytes, Verdict::HitMemory);
        }
        let (coming, claim) = self.inflight.join(key);
        if let Some((claim, readers)) = claim {
            // A fetch may have landed between the look and the join.
            if let Some(bytes) = self.chunks.in_memory(&key) {
                return Got::Here(bytes, Verdict::HitMemory);
            }
            let (engine, object) = (Arc::clone(self), object.clone());
            // Detached: a player that leaves does not end what others wait for.
            self.work
                .spawn(async move { engine.bring(object, claim, readers, until, urgency).await });
        }
        Got::Coming(coming)
    }

    /// Whether responses had better copy small pieces than hold on to chunks.
    pub fn under_pressure(&self) -> bool {
        self.chunks.under_pressure() || self.pins.bytes() >= self.pinned_bytes_max
    }

    /// A response holds on to a chunk from now on.
    pub fn pin(&self, object: &Object, number: u64) -> Option<Pin> {
        Some(self.pins.pin(object.key(number)?, object.chunk(number).bytes))
    }

    /// Whether the chunk is here, or known to be.
    fn is_here(&self, object: &Object, number: u64) -> bool {
        object.key(number).is_some_and(|key| self.chunks.is_in_memory(&key))
            || self.is_on_disk(object, number)
    }

    fn is_on_disk(&self, object: &Object, number: u64) -> bool {
        let planned = match &object.kind {
            Kind::Track { title, track, .. } => self.planned.holds(title, *track, number),
            Kind::Web(_) => false,
        };
        planned || object.key(number).is_some_and(|key| self.chunks.may_be_on_disk(&key))
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
        (0..object.chunks()).all(|number| self.is_here(object, number))
    }

    /// The costliest source that `chunks` would have now.
    #[must_use]
    pub fn foresee(&self, object: &Object, chunks: std::ops::Range<u64>) -> Verdict {
        let end = chunks.end.min(chunks.start.saturating_add(FORESEEN_MAX));
        let sources = (chunks.start..end).map(|number| self.locate(object, number));
        sources.max().unwrap_or(Verdict::HitMemory)
    }

    /// Where a chunk would come from now.
    pub fn locate(&self, object: &Object, number: u64) -> Verdict {
        let Some(key) = object.key(number) else { return Verdict::Origin };
        if self.chunks.is_in_memory(&key) {
            return Verdict::HitMemory;
        }
        match &object.kind {
            Kind::Track { title, track, .. } if self.planned.holds(title, *track, number) => {
                Verdict::HitPlan
            }
            _ if self.chunks.may_be_on_disk(&key) => Verdict::HitSsd,
            _ if self.inflight.has(&key) => Verdict::Filling,
            _ => Verdict::Origin,
        }
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

    /// Finds the chunk that `claim` is for, on disk or upstream.
    async fn bring(
        self: Arc<Self>,
        object: Object,
        claim: Claim,
        readers: Arc<Readers>,
        until: u64,
        urgency: u8,
    ) {
        debug_assert!(!wire::is_shard(), "a fetch among connections");
        let (key, number) = (claim.key(), u64::from(claim.key().number));
        if let Kind::Track { title, track, .. } = &object.kind
            && let Some(bytes) = self.planned.read(title, *track, number).await
        {
            let bytes = self.keep(key, bytes);
            return claim.land(bytes, Verdict::HitPlan);
        }
        if let Some(bytes) = self.chunks.read_disk(&key).await {
            if bytes.len() as u64 == object.chunk(number).bytes {
                return claim.land(bytes, Verdict::HitSsd);
            }
            self.metrics.corrupt("ssd");
        }
        if !object.can_be_fetched() {
            self.failed(&object, &Fault::Gone);
            return claim.fail(Fault::Gone);
        }
        let turns = if object.is_for_peer() { &self.peer_turns } else { &self.turns };
        let mut run = Run::new(object, claim, Arc::clone(&readers));
        run.claim_neighbours(&self, number + 1..run_until(number, until));
        let Ok(turn) = turns.take(urgency).await else { return run.fail(&Fault::Busy) };
        run.fetch(&self).await;
        drop(turn);
    }

    /// Puts bytes into memory that are on disk, or made anew when they are gone.
    pub fn keep(&self, key: chunks::Key, bytes: Bytes) -> Bytes {
        let Some(mut slot) = self.chunks.slot(bytes.len()) else { return bytes };
        slot.write(&bytes);
        let bytes = slot.freeze();
        self.chunks.insert_in_memory(key, bytes.clone());
        bytes
    }

    /// Takes an answer that is on its way: its bytes become chunks, and who asks for them
    /// follows. Returns once its first chunk can be joined.
    pub fn adopt(self: &Arc<Self>, object: &Object, arriving: Arriving) -> Option<Coming> {
        let first = arriving.range.start / CHUNK_BYTES;
        let (coming, claim) = self.inflight.join(object.key(first)?);
        let (claim, readers) = claim?;
        let mut run = Run::new(object.clone(), claim, readers);
        let whole = |number: &u64| object.chunk(*number).end() <= arriving.reach();
        let last = (first + 1..object.chunks()).take_while(whole).last().unwrap_or(first);
        run.claim_neighbours(self, first + 1..last + 1);
        let engine = Arc::clone(self);
        self.work.spawn(async move { run.adopt(&engine, arriving).await });
        Some(coming)
    }

    /// A claim for a chunk that nobody has or fetches.
    fn claim_missing(&self, object: &Object, number: u64, readers: &Arc<Readers>) -> Option<Claim> {
        if self.is_here(object, number) {
            return None;
        }
        self.inflight.claim(object.key(number)?, readers)
    }

    /// Room for a chunk's bytes.
    async fn slot(&self, bytes: usize) -> Result<Slot, Fault> {
        let started = Instant::now();
        loop {
            if let Some(slot) = self.chunks.slot(bytes) {
                return Ok(slot);
            }
            if started.elapsed() > SLOT_WAIT_MAX {
                self.metrics.fetches_without_memory.inc();
                return Err(Fault::Busy);
            }
            tokio::time::sleep(SLOT_WAIT_STEP).await;
        }
    }

    /// An object's bytes could not be had as its head promises: the head goes.
    fn failed(&self, object: &Object, fault: &Fault) {
        if let (Kind::Web(web), Fault::Changed | Fault::Gone | Fault::NotFound) =
            (&object.kind, fault)
        {
            self.heads.remove(web.key, &web.head);
        }
    }

    /// Asks for the bytes `missing` of an object, under its validator.
    async fn ask(
        &self,
        object: &Object,
        missing: ByteRange,
        avoid: Option<HopId>,
    ) -> Result<Arriving, Fault> {
        let (upstream, mut ask) = match &object.kind {
            Kind::Track { title, track, passed } => {
                let upstream = self.titles.as_ref().ok_or(Fault::NotFound)?;
                let track = title.index.tracks.get(*track).ok_or(Fault::NotFound)?;
                let path = format!("/{}", title.file_path(track));
                let mut ask = Ask::get(TITLES_HOST, path, object.body);
                passed.tell(&mut ask.fields);
                (upstream, ask)
            }
            Kind::Web(web) => (&web.site.upstream, web.site.ask_again(web)),
        };
        let last = missing.end().saturating_sub(1);
        if let Ok(range) = HeaderValue::try_from(format!("bytes={}-{last}", missing.start)) {
            ask.fields.insert(header::RANGE, range);
        }
        (ask.run, ask.avoid) = (missing.start / OWNED_RUN_BYTES, avoid);
        let answer = upstream.send(ask).await?;
        let (hop, source) = (answer.hop, source(answer.kind));
        if answer.head.status.is_server_error() {
            return Err(Fault::Answered(answer.head.status));
        }
        match bytes_of(object, &answer.head, missing) {
            Ok(range) => Ok(Arriving { body: answer.body, range, hop, source }),
            Err(fault) => {
                if !matches!(fault, Fault::Changed) {
                    upstream.blame(&hop, &fault.to_string());
                }
                Err(fault)
            }
        }
    }

    /// The upstream of an object was wrong.
    fn blame(&self, object: &Object, hop: &HopId, fault: &Fault) {
        match &object.kind {
            Kind::Track { .. } => {
                if let Some(titles) = &self.titles {
                    titles.blame(hop, &fault.to_string());
                }
            }
            Kind::Web(web) => web.site.upstream.blame(hop, &fault.to_string()),
        }
    }
}

/// How bytes from there are named.
pub fn source(kind: HopKind) -> Verdict {
    match kind {
        HopKind::Sibling => Verdict::Sibling,
        HopKind::Parent => Verdict::Parent,
        HopKind::Origin => Verdict::Origin,
    }
}

/// Which of the object's bytes an answer to a range request holds.
fn bytes_of(
    object: &Object,
    head: &http::response::Parts,
    missing: ByteRange,
) -> Result<ByteRange, Fault> {
    let said = || {
        let range = head.headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let range = range.unwrap_or("no Content-Range");
        format!("{} and {range} to bytes {}-{}", head.status, missing.start, missing.end() - 1)
    };
    let same = |fields: &HeaderMap| match &object.kind {
        Kind::Track { .. } => true,
        Kind::Web(web) => same_version(web, fields),
    };
    match head.status {
        StatusCode::PARTIAL_CONTENT => {
            let given = caching::content_range(&head.headers)
                .ok_or_else(|| Fault::unavailable(format!("answered {}", said())))?;
            if !same(&head.headers) || given.total.is_some_and(|total| total != object.bytes) {
                return Err(changed(object, said));
            }
            let fits = given.range.start == missing.start && given.range.end() <= missing.end();
            if fits {
                Ok(given.range)
            } else {
                Err(Fault::unavailable(format!("answered {}", said())))
            }
        }
        StatusCode::OK => {
            let length = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            let whole = length.is_some_and(|length| length == object.bytes.to_string());
            if whole && same(&head.headers) {
                return Ok(ByteRange::new(0, object.bytes));
            }
            Err(changed(object, said))
        }
        StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE
        | StatusCode::NOT_FOUND
        | StatusCode::GONE => Err(changed(object, said)),
        _ => Err(Fault::unavailable(format!("answered {}", said()))),
    }
}

/// A title's bytes never change: an origin that says so is broken.
fn changed(object: &Object, said: impl Fn() -> String) -> Fault {
    match object.kind {
        Kind::Track { .. } => Fault::unavailable(format!("answered {}", said())),
        Kind::Web(_) => Fault::Changed,
    }
}

fn same_version(web: &Web, fields: &HeaderMap) -> bool {
    // As a stored head's: an answer without a date is of when it came, and only beside a date
    // is `Last-Modified` a strong validator.
    let fields = caching::received_fields(fields, crate::proxy::now_ms());
    caching::same_validator(&web.head.stored, &fields)
}
