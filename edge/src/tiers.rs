//! Where a chunk comes from: memory, the fill plan's files, the SSD tier, the origin, in this
//! order, and one fetch however many wait.
//!
//! Invariant: every chunk that leaves here is what its title's index says.

use crate::chunks::{Chunks, Key};
use crate::error::Fault;
use crate::fill;
use crate::flights::{Flights, Ticket};
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::planned::Planned;
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::Bytes;
use model::chunk::CHUNK_BYTES;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes in one request to an origin: missing neighbours are joined up to this.
pub const RUN_BYTES_MAX: u64 = 16 << 20;
/// Requests to origins at a time.
const FILLS_MAX: usize = 64;
/// How far ahead the verdict of a head looks, in chunks.
const FORESEEN_MAX: u64 = 64;
/// Requests that wait for their turn; more are refused as busy.
const FILLS_WAITING_MAX: usize = 256;

/// A chunk, and where it came from.
#[derive(Clone)]
pub struct Got {
    /// The whole chunk.
    pub bytes: Bytes,
    /// Its source.
    pub verdict: Verdict,
    /// If it came from the origin: the first chunk that did not come along.
    pub until: u64,
}

impl Got {
    fn here(bytes: Bytes, verdict: Verdict) -> Self {
        Self { bytes, verdict, until: 0 }
    }
}

/// What lands in the in-flight table.
pub type Landed = Result<Got, Fault>;

/// All sources of chunks.
pub struct Tiers {
    /// Memory and SSD.
    pub chunks: Chunks,
    /// The fill plan's files.
    pub planned: Arc<Planned>,
    /// The origins.
    pub origin: Arc<Origin>,
    /// Counters.
    pub metrics: Metrics,
    flights: Flights<Key, Landed>,
    turns: Semaphore,
    waiting: Semaphore,
}

/// The key of a chunk of a title's track.
pub fn key(title: &Title, track: usize, chunk: u64) -> Option<Key> {
    let (track, chunk) = (u32::try_from(track).ok()?, u32::try_from(chunk).ok()?);
    Some(Key { version: *title.version.as_bytes(), track, chunk })
}

impl Tiers {
    /// The sources, put together.
    pub fn new(
        chunks: Chunks,
        planned: Arc<Planned>,
        origin: Arc<Origin>,
        metrics: Metrics,
    ) -> Self {
        Self {
            chunks,
            planned,
            origin,
            metrics,
            flights: Flights::new(),
            turns: Semaphore::new(FILLS_MAX),
            waiting: Semaphore::new(FILLS_WAITING_MAX),
        }
    }

    /// A chunk. `until` is the first chunk that is not wanted with it: if it must come from
    /// the origin, missing neighbours below that come along.
    ///
    /// # Errors
    /// How the origin failed, or [`Fault::Busy`].
    pub async fn chunk(
        self: &Arc<Self>,
        title: &Arc<Title>,
        track: usize,
        number: u64,
        until: u64,
    ) -> Landed {
        let key = key(title, track, number).ok_or(Fault::NotFound)?;
        let memory = |bytes| Got::here(bytes, Verdict::HitMemory);
        if let Some(bytes) = self.chunks.in_memory(&key) {
            return Ok(memory(bytes));
        }
        let (wait, ticket) = self.flights.join(key);
        let joined = ticket.is_none();
        if let Some(ticket) = ticket {
            // A fetch may have landed between the look and the join.
            if let Some(bytes) = self.chunks.in_memory(&key) {
                return Ok(memory(bytes));
            }
            let run = fill::Run { title: Arc::clone(title), track, first: number, until };
            // Detached: a player that leaves does not end what others wait for. At most
            // RUN_BYTES_MAX are fetched for nobody.
            tokio::spawn(Arc::clone(self).bring(run, ticket));
        }
        let mut got = wait.landed().await.unwrap_or(Err(Fault::Lost))?;
        if joined && got.verdict == Verdict::Origin {
            got.verdict = Verdict::Filling;
        }
        Ok(got)
    }

    /// The costliest source that `chunks` would have now.
    #[must_use]
    pub fn foresee(&self, title: &Title, track: usize, chunks: std::ops::Range<u64>) -> Verdict {
        let source = |number| {
            let Some(key) = key(title, track, number) else { return Verdict::Origin };
            if self.chunks.is_in_memory(&key) {
                Verdict::HitMemory
            } else if self.planned.holds(title, track, number) {
                Verdict::HitPlan
            } else if self.chunks.may_be_on_ssd(&key) {
                Verdict::HitSsd
            } else if self.flights.has(&key) {
                Verdict::Filling
            } else {
                Verdict::Origin
            }
        };
        let end = chunks.end.min(chunks.start.saturating_add(FORESEEN_MAX));
        (chunks.start..end).map(source).max().unwrap_or(Verdict::HitMemory)
    }

    /// Finds the chunk that `ticket` is for, on disk or at the origin.
    async fn bring(self: Arc<Self>, run: fill::Run, ticket: Ticket<Key, Landed>) {
        let key = *ticket.key();
        if let Some(bytes) = self.planned.read(&run.title, run.track, run.first).await {
            self.chunks.insert_in_memory(key, bytes.clone());
            return ticket.land(Ok(Got::here(bytes, Verdict::HitPlan)));
        }
        if let Some(bytes) = self.chunks.read_ssd(&key).await {
            return ticket.land(Ok(Got::here(bytes, Verdict::HitSsd)));
        }
        let mut tickets = vec![ticket];
        tickets.extend(self.missing_neighbours(&run));
        let Ok(place) = self.waiting.try_acquire() else {
            return tickets.into_iter().for_each(|ticket| ticket.land(Err(Fault::Busy)));
        };
        let turn = self.turns.acquire().await;
        drop(place);
        fill::run(&self, &run, tickets).await;
        drop(turn);
    }

    /// Tickets for the chunks after the first that nobody has or fetches, up to a run's length.
    fn missing_neighbours(&self, run: &fill::Run) -> Vec<Ticket<Key, Landed>> {
        let until = run.until.min(run.first + RUN_BYTES_MAX / CHUNK_BYTES);
        let missing = |number: u64| {
            let key = key(&run.title, run.track, number)?;
            let here = self.chunks.is_in_memory(&key)
                || self.planned.holds(&run.title, run.track, number)
                || self.chunks.may_be_on_ssd(&key);
            if here { None } else { self.flights.claim(key) }
        };
        (run.first + 1..until).map_while(missing).collect()
    }
}
