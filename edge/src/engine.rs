//! Where a chunk comes from: memory, a fetch under way, the fill plan's files, the SSD tier,
//! a sibling, a parent, the origin, in this order, and one fetch however many read.
//!
//! Invariant: every chunk of a title that leaves here is what its index says; every chunk of a
//! stored representation was sent under its validator.

mod adopting;
mod asking;
mod extent;
mod filling;
mod following;
mod from_disk;
mod gauges;
mod growing;
mod inflight;
mod left;
mod locating;
mod outdated;
mod owned;
mod passage;
mod pins;
mod readers;
mod run;
mod running;
mod told;
mod trees;
mod unranged;

pub use asking::source;
pub use filling::Filled;
pub use gauges::register;
pub use growing::{Growing, GrowingReader, REST_BYTES_MAX, Step, Taken, UNVALIDATED_BYTES_MAX};
pub use inflight::{Coming, Progress};
pub use left::{Left, wait_until};
pub use outdated::Outdated;
pub use owned::{OWNED_RUN_BYTES, Want, growing_until, owned_run_end};
pub use passage::Exit;
pub use pins::{COPIED_BYTES_MAX, Pin};
pub use readers::Reading;
pub use run::{ANSWER_BYTES_MIN, Arriving, LEFT_BYTES_MAX, Run};
pub use running::Underway;
pub use trees::TREE_BYTES_MAX;

use crate::error::Fault;
use crate::metrics::Metrics;
use crate::object::Object;
use crate::planned::Planned;
use crate::verdict::Verdict;
use arena::Slot;
use bytes::Bytes;
use chunks::Chunks;
use extent::Extents;
use filling::Unwritten;
use heads::{Heads, PurgeLog};
use inflight::InFlight;
use model::chunk::CHUNK_BYTES;
use owned::run_until;
use pins::Pins;
use running::Running;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use trees::Trees;
use unranged::Unranged;
use upstream::{Turns, Upstream};

/// Bytes in one request to an upstream: missing neighbours are joined up to this.
pub const RUN_BYTES_MAX: u64 = 16 << 20;
/// What a peer knows a request for titles by: they are of no site.
pub const TITLES_HOST: &str = "titles";
/// Runs that are written at a time, each into one chunk of memory.
const FETCHES_MAX: usize = 256;
/// As few as this, however little memory there is.
const FETCHES_MIN: usize = 8;
/// What they write may take one part in so many of the memory.
const FETCHES_SHARE: u64 = 4;
/// Runs that wait to write a chunk; more are refused as busy, the least urgent first. As many as
/// responses: it is the limits of the upstreams that keep them few.
const FETCHES_WAITING_MAX: usize = crate::serve::RESPONSES_MAX;
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
    /// What was purged: other nodes may not have been.
    pub purges: PurgeLog,
    /// Since when other nodes' copies may be old, where there are other nodes.
    outdated: Option<Arc<Outdated>>,
    /// Counters.
    pub metrics: Metrics,
    /// Where fetches run: bodies ask for chunks on the threads that serve connections.
    work: Handle,
    inflight: InFlight,
    unranged: Unranged,
    extents: Extents,
    trees: Trees,
    unwritten: Unwritten,
    turns: Turns,
    /// For other nodes' requests: were these to wait behind fetches that wait for those nodes,
    /// all could wait for each other.
    peer_turns: Turns,
    /// Chunks that responses hold, and how many bytes of them are too many.
    pins: Pins,
    pinned_bytes_max: u64,
    running: Running,
    /// Bytes that answers without a strong validator hold now.
    growing_bytes: AtomicU64,
    growing_bytes_max: u64,
}

impl Engine {
    /// The sources, put together, within the runtime that fetches. Answers without a strong
    /// validator may hold a quarter of the `memory_bytes`.
    pub fn new(
        chunks: Chunks,
        planned: Arc<Planned>,
        titles: Option<Upstream>,
        heads: Heads,
        (purges, outdated): (PurgeLog, Option<Arc<Outdated>>),
        metrics: Metrics,
        memory_bytes: u64,
    ) -> Self {
        let fetches = fetches_max(memory_bytes);
        Self {
            chunks,
            planned,
            titles,
            heads,
            purges,
            outdated,
            metrics,
            work: Handle::current(),
            inflight: InFlight::default(),
            pins: Pins::default(),
            pinned_bytes_max: memory_bytes / PINNED_SHARE,
            running: Running::default(),
            unranged: Unranged::default(),
            extents: Extents::default(),
            trees: Trees::default(),
            unwritten: Unwritten::default(),
            turns: Turns::new(fetches, FETCHES_WAITING_MAX),
            peer_turns: Turns::new(fetches, FETCHES_WAITING_MAX),
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

    /// [`Self::requested`] and the byte's chunk, if that is in memory; else nothing is counted.
    pub fn requested_in_memory(&self, object: &Object, byte: u64) -> Option<Bytes> {
        let key = object.key(byte / CHUNK_BYTES)?;
        match byte.is_multiple_of(CHUNK_BYTES) {
            true => self.chunks.requested_in_memory(&key),
            false => self.chunks.in_memory(&key),
        }
    }

    /// A chunk. If it must be fetched, missing neighbours come along, as far as they are wanted. Who has its first `taken` bytes need not get them
    /// again. Who has followed a fetch that failed to bring it is told so, unless another try is
    /// paid for; `followed` is the last one. Does not wait.
    pub fn chunk(
        self: &Arc<Self>,
        object: &Object,
        Want { number, until, end }: Want,
        taken: usize,
        urgency: u8,
        followed: Option<&Reading>,
    ) -> Got {
        let Some(key) = object.key(number) else {
            return Got::Coming(Coming::failed(Fault::NotFound));
        };
        if let Some(bytes) = self.chunks.in_memory(&key) {
            return Got::Here(bytes, Verdict::HitMemory);
        }
        let claiming = self.unranged.claiming(&object.body);
        if claiming.is_some()
            && let Some(whole) = self.unranged.whole(&object.body)
        {
            whole.join(number, |readers| self.claim_missing(object, number, readers));
        }
        let (coming, claim) = self.inflight.join(key, urgency, followed);
        if let Some((claim, readers)) = claim {
            // A fetch may have landed between the look and the join.
            if let Some(bytes) = self.chunks.in_memory(&key) {
                return Got::Here(bytes, Verdict::HitMemory);
            }
            let mut run = Run::new(self, object.clone(), readers);
            run.wants_until(end);
            if let Some(failed) = followed.and_then(|followed| followed.failed(number))
                && !self.is_on_disk(object, number)
                && !run.may_go_on(self, &failed)
            {
                // Who has joined it meanwhile asks anew.
                claim.hand_over();
                return Got::Coming(Coming::failed(failed.fault));
            }
            run.begin(claim);
            // A chunk that several read is had once for all of them.
            if followed.is_some_and(Reading::is_one) {
                run.go_on_after(taken);
            }
            if claiming.is_some() && !self.is_on_disk(object, number) {
                run.claim_all(self, u64::MAX);
            }
            let engine = Arc::clone(self);
            // Detached: a player that leaves does not end what others wait for.
            let bringing = async move { engine.bring(run, number, until).await };
            self.work.spawn(self.metrics.guarded(bringing));
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

    /// A response for all of a body that is one chunk of `bytes` gets it, if it is in memory; else
    /// nothing is counted. It holds on to it.
    pub fn whole_in_memory(&self, body: [u8; 16], bytes: u64) -> Option<(Bytes, Pin)> {
        let key = chunks::Key { body, number: 0 };
        let chunk = self.chunks.requested_in_memory(&key)?;
        (chunk.len() as u64 == bytes).then(|| (chunk, self.pins.pin(key, bytes)))
    }

    /// Finds chunk `number`, which the run begins with, on disk or upstream; there with those
    /// below `until` that are missing, too.
    async fn bring(self: Arc<Self>, mut run: Run, number: u64, until: u64) {
        debug_assert!(!wire::is_shard(), "a fetch among connections");
        if run.is_for_all() {
            return run.fetch(&self).await;
        }
        if let Some((bytes, verdict)) = self.on_disk(run.object(), number).await {
            return run.land_first(bytes, verdict);
        }
        if !run.object().can_be_fetched() {
            self.failed(run.object(), &Fault::Gone);
            return run.fail(&Fault::Gone);
        }
        run.claim_neighbours(&self, number + 1..run_until(number, until));
        run.begin_past_memory(&self).await;
        run.fetch(&self).await;
    }

    /// Puts bytes into memory that are on disk, or made anew when they are gone.
    pub fn keep(&self, key: chunks::Key, bytes: Bytes) -> Bytes {
        let Some(mut slot) = self.chunks.slot(bytes.len()) else { return bytes };
        slot.write(&bytes);
        let bytes = slot.freeze();
        self.chunks.insert_in_memory(key, bytes.clone());
        bytes
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
}

/// How many runs may be written at a time.
fn fetches_max(memory_bytes: u64) -> usize {
    let most = memory_bytes / FETCHES_SHARE / CHUNK_BYTES;
    usize::try_from(most).unwrap_or(FETCHES_MAX).clamp(FETCHES_MIN, FETCHES_MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::inflight::Claim;
    use super::readers::Readers;
    use super::*;
    use crate::title::Title;
    use model::{TitleIndex, Version};
    use std::ops::Range;
    use std::path::Path;
    use upstream::Urgency;

    /// How many chunks a [`film`] has.
    pub(crate) const CHUNKS: u64 = 16;

    pub(crate) fn film() -> Object {
        let bytes = vec![0; (CHUNKS * CHUNK_BYTES) as usize];
        let tracks = vec![crate::planned::faults::track("v", &bytes)];
        let encoded = TitleIndex { segment_target_ms: 4000, tracks }.encode();
        let name = ("film".parse().unwrap(), Version::of_index(&encoded));
        Object::track(&Arc::new(Title::decode(&name, &encoded).unwrap()), 0).unwrap()
    }

    /// The right to bring a chunk that nobody fetches.
    pub(crate) fn claim(engine: &Engine, object: &Object, number: u64) -> Claim {
        let (readers, _) = Readers::begin(number, &Urgency::default());
        engine.claim_missing(object, number, &readers).unwrap()
    }

    /// A fetch of these chunks, and its reader, who has got to the first of the object.
    pub(crate) fn own_fetch(engine: &Engine, object: &Object, of: Range<u64>) -> (Run, Reading) {
        let (readers, reading) = Readers::begin(0, &Urgency::default());
        let mut run = Run::new(engine, object.clone(), readers);
        run.claim_neighbours(engine, of);
        (run, reading)
    }

    /// The smallest memory, and no other source.
    pub(crate) fn small(dir: &Path) -> Arc<Engine> {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let memory_bytes = chunks::MEMORY_BYTES_MIN;
        let sizes = chunks::Sizes {
            memory_bytes,
            disks: Vec::new(),
            data_dir: dir.to_owned(),
            read_max: chunks::READ_MAX,
            kept_free: chunks::KeptFree::default(),
        };
        let planned = Planned::new(dir.join("plan"), 0, chunks::READ_MAX, metrics.clone());
        Arc::new(Engine::new(
            Chunks::open(&sizes, &registry).unwrap(),
            Arc::new(planned),
            None,
            Heads::open(&dir.join("heads.db"), heads::Limits::default(), &registry).unwrap(),
            (PurgeLog::open(&dir.join("purges.log"), &registry).unwrap(), None),
            metrics,
            memory_bytes,
        ))
    }
}
