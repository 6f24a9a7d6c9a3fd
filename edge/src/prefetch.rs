//! What to fetch before it is asked for, and how much of that: the next segments of a track
//! that is being watched, and what a player announces (CMCD `nor`).
//!
//! Prefetching spends the origin's bytes on a guess, so it has a budget in proportion to what
//! viewers really took, and none while the edge has too little room for what is asked for.
//! Invariant: bytes are held against the budget from the permit on, whatever becomes of it.
//! Knows nothing of fetching.

mod budget;
mod permit;
mod vain;

pub use budget::Refusal;
use budget::{Budget, Recent, decide};
use lru::LruCache;
use permit::End;
pub use permit::Permit;
use prometheus::{IntCounterVec, IntGauge, Registry};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
pub use vain::Hint;
use vain::Vain;
use xxhash_rust::xxh3::xxh3_64;

/// Prefetched things that are remembered until they are used.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Not used for this long: wasted.
const USED_WITHIN: Duration = Duration::from_secs(600);
/// So much that clients took may be counted a little later than it was.
const UNTOLD_BYTES_MAX: u64 = 1 << 20;
/// Tracks that are remembered as being watched.
const TRACKS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Positions that are remembered of one track, of as many viewers.
const POSITIONS_MAX: usize = 8;

/// Segments fetched ahead unless told otherwise.
pub const SEGMENTS: u32 = 2;

/// An operator's wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Segments fetched ahead of who watches a track; 0 for none.
    pub segments: u32,
    /// Bytes prefetched, in percent of the bytes that clients took of late; 0 for none.
    pub demand_percent: u32,
}

impl Default for Settings {
    /// Two segments: players ask for the next one a segment's length ahead, and the second
    /// covers a player that fills its buffer. A quarter: half of the guesses may be wrong and
    /// the origin's bytes still grow by an eighth only.
    fn default() -> Self {
        Self { segments: SEGMENTS, demand_percent: 25 }
    }
}

/// Something that was prefetched, or is just now, and not used since.
struct Known {
    since: Instant,
    /// What it cost, once it is here.
    bytes: Option<u64>,
    /// What of it went out since; of more than it cost as well, while it is not here.
    used: u64,
    /// All of it came.
    is_whole: bool,
    /// Nothing of it is here: whoever asks for it uses nothing, and to fetch it again is in vain.
    is_vain: bool,
}

impl Known {
    /// What nobody had.
    fn wasted(&self) -> u64 {
        self.bytes.unwrap_or(0).saturating_sub(self.used)
    }
}

/// A request for something that was prefetched, or is just now.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    key: u64,
    /// It was here before the request was.
    was_here: bool,
}

struct State {
    budget: Budget,
    /// Oldest last.
    known: LruCache<u64, Known>,
    vain: Vain,
    tracks: LruCache<[u8; 16], Vec<u32>>,
}

struct Inner {
    settings: Settings,
    state: Mutex<State>,
    outcomes: IntCounterVec,
    bytes: IntCounterVec,
    in_flight: IntGauge,
    /// Bytes that clients took and the budget does not know of yet.
    untold_bytes: AtomicU64,
    /// How many things the state knows.
    known: AtomicUsize,
}

/// Decides what to prefetch. Clones share its state.
#[derive(Clone)]
pub struct Prefetch(Arc<Inner>);

/// Names a thing to prefetch, by whatever names it: a body and a segment's number, a key.
#[must_use]
pub fn key(name: &[u8]) -> u64 {
    xxh3_64(name)
}

impl Prefetch {
    /// One for an edge.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub fn new(settings: Settings, registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = counting::counters(
            registry,
            "prefetches_total",
            "Prefetches wished for, by what became of them",
            &["outcome"],
        )?;
        let bytes = counting::counters(
            registry,
            "prefetch_bytes_total",
            "Bytes prefetched, and of these the ones used and the ones not used in time",
            &["fate"],
        )?;
        let bytes = counting::from_zero(bytes, &["fetched", "useful", "wasted"]);
        let in_flight =
            counting::gauge(registry, "prefetch_in_flight_bytes", "Bytes being prefetched")?;
        for outcome in Refusal::ALL.map(Refusal::as_str).into_iter().chain(["done", "failed"]) {
            outcomes.with_label_values(&[outcome]);
        }
        let none = Recent { bytes: 0.0, at: Instant::now() };
        let budget = Budget { demand: none, spent: none, in_flight_bytes: 0 };
        let state = State {
            budget,
            known: LruCache::new(KNOWN_MAX),
            vain: Vain::default(),
            tracks: LruCache::new(TRACKS_MAX),
        };
        let state = Mutex::new(state);
        let (untold_bytes, known) = (AtomicU64::default(), AtomicUsize::default());
        let inner = Inner { settings, state, outcomes, bytes, in_flight, untold_bytes, known };
        Ok(Self(Arc::new(inner)))
    }

    /// Clients took `bytes` of bodies: what the budget is measured by.
    pub fn demanded(&self, now: impl FnOnce() -> Instant, bytes: u64) {
        // Each response comes here: only now and then one takes the lock.
        let before = self.0.untold_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) >= UNTOLD_BYTES_MAX {
            self.0.tell(&mut self.0.state(), now());
        }
    }

    /// Whether anything was prefetched that was not used since.
    #[must_use]
    pub fn has_unused(&self) -> bool {
        self.0.known.load(Ordering::Relaxed) > 0
    }

    /// Somebody asks for a thing: what that is, if it was prefetched.
    #[must_use]
    pub fn awaited(&self, key: u64) -> Option<Awaited> {
        let state = self.0.state();
        let known = state.known.peek(&key).filter(|known| !known.is_vain)?;
        Some(Awaited { key, was_here: known.bytes.is_some() })
    }

    /// What was prefetched went out, so many bytes: `stored` ones, and `joined` ones, which came
    /// while they were waited for. If it was here before, the latter were fetched anew.
    pub fn used(&self, Awaited { key, was_here }: Awaited, stored: u64, joined: u64) {
        let served = if was_here { stored } else { stored + joined };
        let mut state = self.0.state();
        let Some(known) = state.known.peek_mut(&key).filter(|known| !known.is_vain) else { return };
        let before = known.used;
        known.used = before.saturating_add(served);
        if let Some(bytes) = known.bytes {
            known.used = known.used.min(bytes);
            let useful = known.used - before;
            if served > 0 && known.used == bytes {
                state.known.pop(&key);
                self.0.note(&state);
            }
            self.0.count("useful", useful);
        }
    }

    /// A thing is not here any more: what was prefetched of it may be so again.
    pub fn forget(&self, key: u64) {
        let mut state = self.0.state();
        if state.known.peek(&key).is_some_and(|known| known.is_whole)
            && let Some(known) = state.known.pop(&key)
        {
            self.0.note(&state);
            self.0.count("wasted", known.wasted());
        }
    }

    /// Segment `number` of the `count` of a track was asked for: which ones will be next. None
    /// unless the track is watched in sequence, from its start or after the segment before.
    #[must_use]
    pub fn following(&self, track: [u8; 16], number: u32, count: u32) -> Range<u32> {
        let mut state = self.0.state();
        let positions = state.tracks.get_or_insert_mut(track, Vec::new);
        let before = number.checked_sub(1);
        let known = before.and_then(|before| positions.iter().position(|one| *one == before));
        match known {
            Some(place) => positions[place] = number,
            None if positions.contains(&number) => {}
            None => {
                if positions.len() == POSITIONS_MAX {
                    positions.remove(0);
                }
                positions.push(number);
            }
        }
        let first = number.saturating_add(1);
        if known.is_none() && number != 0 {
            return first..first;
        }
        first..first.saturating_add(self.0.settings.segments).min(count).max(first)
    }

    /// Leave to prefetch something that is not here, of about `bytes`. None, counted, while the
    /// edge is pressed, beyond the budget, or when it was prefetched in vain already.
    #[must_use]
    pub fn permit(&self, now: Instant, key: u64, bytes: u64, is_pressed: bool) -> Option<Permit> {
        self.permit_any(now, (key, None), bytes, is_pressed)
    }

    /// The same of what a hint leads to; nor is there leave while hints like it come to nothing.
    #[must_use]
    pub fn permit_hinted(
        &self,
        now: Instant,
        (key, hint): (u64, Hint),
        bytes: u64,
        is_pressed: bool,
    ) -> Option<Permit> {
        self.permit_any(now, (key, Some(hint)), bytes, is_pressed)
    }

    fn permit_any(
        &self,
        now: Instant,
        (key, hint): (u64, Option<Hint>),
        bytes: u64,
        is_pressed: bool,
    ) -> Option<Permit> {
        match self.0.decide(now, (key, hint), bytes, is_pressed) {
            Ok(()) => Some(Permit::new(&self.0, (key, hint), bytes, now)),
            Err(refusal) => {
                self.left(refusal);
                None
            }
        }
    }

    /// Something is not prefetched.
    pub fn left(&self, why: Refusal) {
        self.0.outcomes.with_label_values(&[why.as_str()]).inc();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, fate: &str, bytes: u64) {
        self.bytes.with_label_values(&[fate]).inc_by(bytes);
    }

    /// Tells the budget what clients took.
    fn tell(&self, state: &mut State, now: Instant) {
        let bytes = self.untold_bytes.swap(0, Ordering::Relaxed);
        state.budget.demand.add(now, bytes as f64);
    }

    fn decide(
        &self,
        now: Instant,
        (key, hint): (u64, Option<Hint>),
        bytes: u64,
        is_pressed: bool,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        self.tell(&mut state, now);
        let is_old = |known: &Known| now.saturating_duration_since(known.since) >= USED_WITHIN;
        while state.known.peek_lru().is_some_and(|(_, oldest)| is_old(oldest)) {
            if let Some((_, oldest)) = state.known.pop_lru() {
                self.count("wasted", oldest.wasted());
            }
        }
        if is_pressed {
            return Err(Refusal::Pressed);
        }
        if state.known.contains(&key) {
            return Err(Refusal::Known);
        }
        if hint.is_some_and(|hint| state.vain.is_left(hint, now)) {
            return Err(Refusal::InVain);
        }
        decide(&state.budget, &self.settings, now, bytes)?;
        self.reserve(&mut state, now, bytes);
        let known = Known { since: now, bytes: None, used: 0, is_whole: false, is_vain: false };
        if let Some((_, oldest)) = state.known.push(key, known) {
            self.count("wasted", oldest.wasted());
        }
        self.note(&state);
        Ok(())
    }

    fn raise(&self, now: Instant, bytes: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        self.tell(&mut state, now);
        decide(&state.budget, &self.settings, now, bytes)?;
        self.reserve(&mut state, now, bytes);
        Ok(())
    }

    fn reserve(&self, state: &mut State, now: Instant, bytes: u64) {
        state.budget.spent.add(now, bytes as f64);
        state.budget.in_flight_bytes += bytes;
        self.in_flight.set(i64::try_from(state.budget.in_flight_bytes).unwrap_or(i64::MAX));
    }

    fn note(&self, state: &State) {
        self.known.store(state.known.len(), Ordering::Relaxed);
    }

    /// Gives back what was reserved and not spent.
    fn ended(&self, permit: &Permit, end: &End) {
        let mut state = self.state();
        state.budget.in_flight_bytes -= permit.bytes;
        self.in_flight.set(i64::try_from(state.budget.in_flight_bytes).unwrap_or(i64::MAX));
        let correction = end.cost() as f64 - permit.bytes as f64;
        state.budget.spent.add(permit.given, correction);
        match (permit.hint, end) {
            (Some(hint), End::InVain(_)) => state.vain.add(hint, permit.given),
            (Some(hint), End::Done(_)) => state.vain.is_of_use(hint, permit.given),
            _ => {}
        }
        self.count("fetched", end.bytes());
        match end {
            End::Unasked => drop(state.known.pop(&permit.key)),
            End::Done(bytes) | End::GaveUp(bytes) | End::InVain(bytes) => {
                if let Some(known) = state.known.peek_mut(&permit.key) {
                    known.is_whole = matches!(end, End::Done(_));
                    known.is_vain = matches!(end, End::InVain(_));
                    known.bytes = Some(*bytes);
                    known.used = if known.is_vain { 0 } else { known.used.min(*bytes) };
                    let useful = known.used;
                    if useful > 0 && useful == *bytes {
                        state.known.pop(&permit.key);
                    }
                    self.count("useful", useful);
                }
            }
        }
        self.note(&state);
    }
}

#[cfg(test)]
mod tests;
