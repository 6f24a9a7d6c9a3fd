//! What to fetch before it is asked for, and how much of that: the next segments of a track
//! that is being watched, and what a player announces (CMCD `nor`).
//!
//! Prefetching spends the origin's bytes on a guess, so it has a budget in proportion to what
//! viewers really took, and none while the edge has too little room for what is asked for.
//! Invariant: bytes are held against the budget from the permit on, whatever becomes of it.
//! Knows nothing of fetching.

use lru::LruCache;
use prometheus::{IntCounterVec, IntGauge, Registry};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes being prefetched at a time: what a gigabit brings in a quarter of a second.
const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;
/// What may be prefetched before anybody took anything: four segments of 2 MiB.
const FLOOR_BYTES: f64 = (8 << 20) as f64;
/// Demand and prefetches of this long ago count half.
const HALF_LIFE: Duration = Duration::from_secs(60);
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

/// Why something is not prefetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The edge has no room to spare.
    Pressed,
    /// It was prefetched, and not used since.
    Known,
    /// Enough is in flight.
    InFlight,
    /// Enough was prefetched for what was taken.
    OverShare,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Pressed, Self::Known, Self::InFlight, Self::OverShare];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pressed => "pressed",
            Self::Known => "known",
            Self::InFlight => "in-flight",
            Self::OverShare => "over-share",
        }
    }
}

/// Bytes of late: older ones fade.
#[derive(Debug, Clone, Copy)]
struct Recent {
    bytes: f64,
    at: Instant,
}

impl Recent {
    fn at(self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.bytes * (-halves).exp2()
    }

    fn add(&mut self, now: Instant, bytes: f64) {
        *self = Self { bytes: (self.at(now) + bytes).max(0.0), at: self.at.max(now) };
    }
}

/// What is spent and what was taken.
#[derive(Debug, Clone, Copy)]
struct Budget {
    demand: Recent,
    spent: Recent,
    in_flight_bytes: u64,
}

/// Whether `bytes` more may be prefetched.
fn decide(budget: &Budget, settings: &Settings, now: Instant, bytes: u64) -> Result<(), Refusal> {
    if budget.in_flight_bytes.saturating_add(bytes) > IN_FLIGHT_BYTES_MAX {
        return Err(Refusal::InFlight);
    }
    let share = f64::from(settings.demand_percent) / 100.0;
    let allowed =
        FLOOR_BYTES.mul_add(f64::from(u8::from(share > 0.0)), share * budget.demand.at(now));
    if budget.spent.at(now) + bytes as f64 > allowed { Err(Refusal::OverShare) } else { Ok(()) }
}

/// Something that was prefetched, or is just now, and not used since.
struct Known {
    since: Instant,
    /// What it cost, once it is here.
    bytes: Option<u64>,
    /// Somebody asked for it before it was here: they share one fetch.
    is_used: bool,
}

struct State {
    budget: Budget,
    /// Oldest last.
    known: LruCache<u64, Known>,
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

/// Leave to prefetch one thing. Dropped without being told how it ended it counts as failed, and
/// its bytes are given back.
pub struct Permit {
    inner: Arc<Inner>,
    key: u64,
    bytes: u64,
    given: Instant,
    is_done: bool,
}

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
        let state =
            State { budget, known: LruCache::new(KNOWN_MAX), tracks: LruCache::new(TRACKS_MAX) };
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

    /// Somebody asked for a thing: if it was prefetched, that was useful.
    pub fn used(&self, key: u64) {
        let mut state = self.0.state();
        let Some(known) = state.known.peek_mut(&key) else { return };
        match known.bytes {
            None => known.is_used = true,
            Some(bytes) => {
                state.known.pop(&key);
                self.0.note(&state);
                self.0.count("useful", bytes);
            }
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
        let outcome = self.0.decide(now, key, bytes, is_pressed);
        match outcome {
            Ok(()) => {
                let inner = Arc::clone(&self.0);
                Some(Permit { inner, key, bytes, given: now, is_done: false })
            }
            Err(refusal) => {
                self.0.outcomes.with_label_values(&[refusal.as_str()]).inc();
                None
            }
        }
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

    fn decide(&self, now: Instant, key: u64, bytes: u64, is_pressed: bool) -> Result<(), Refusal> {
        let mut state = self.state();
        self.tell(&mut state, now);
        let is_old = |known: &Known| now.saturating_duration_since(known.since) >= USED_WITHIN;
        while state.known.peek_lru().is_some_and(|(_, oldest)| is_old(oldest)) {
            if let Some((_, oldest)) = state.known.pop_lru() {
                self.count("wasted", oldest.bytes.unwrap_or(0));
            }
        }
        if is_pressed {
            return Err(Refusal::Pressed);
        }
        if state.known.contains(&key) {
            return Err(Refusal::Known);
        }
        decide(&state.budget, &self.settings, now, bytes)?;
        self.reserve(&mut state, now, bytes);
        let known = Known { since: now, bytes: None, is_used: false };
        if let Some((_, oldest)) = state.known.push(key, known) {
            self.count("wasted", oldest.bytes.unwrap_or(0));
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

    /// Gives back what was reserved and not fetched.
    fn ended(&self, permit: &Permit, fetched: Option<u64>) {
        let mut state = self.state();
        state.budget.in_flight_bytes -= permit.bytes;
        self.in_flight.set(i64::try_from(state.budget.in_flight_bytes).unwrap_or(i64::MAX));
        let correction = fetched.unwrap_or(0) as f64 - permit.bytes as f64;
        state.budget.spent.add(permit.given, correction);
        match fetched {
            Some(bytes) => {
                self.count("fetched", bytes);
                if let Some(known) = state.known.peek_mut(&permit.key) {
                    known.bytes = Some(bytes);
                }
                if state.known.peek(&permit.key).is_some_and(|known| known.is_used) {
                    state.known.pop(&permit.key);
                    self.count("useful", bytes);
                }
            }
            None => {
                state.known.pop(&permit.key);
            }
        }
        self.note(&state);
    }
}

impl Permit {
    /// It turns out to have so many `bytes`, or more than was thought. False beyond the budget.
    #[must_use]
    pub fn raise(&mut self, now: Instant, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let may = more == 0 || self.inner.raise(now, more).is_ok();
        self.bytes += if may { more } else { 0 };
        may
    }

    /// It is here now: `bytes` came from elsewhere for it.
    pub fn fetched(self, bytes: u64) {
        self.ended("done", bytes);
    }

    /// It was not taken to its end, and `bytes` came from elsewhere. What cost nothing may be
    /// tried again.
    pub fn gave_up(self, bytes: u64) {
        if bytes > 0 {
            self.ended("failed", bytes);
        }
    }

    fn ended(mut self, outcome: &str, bytes: u64) {
        self.is_done = true;
        self.inner.outcomes.with_label_values(&[outcome]).inc();
        self.inner.ended(&self, Some(bytes));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_done {
            self.inner.outcomes.with_label_values(&["failed"]).inc();
            self.inner.ended(self, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn prefetch() -> (Prefetch, Instant) {
        (Prefetch::new(Settings::default(), &Registry::new()).unwrap(), Instant::now())
    }

    fn bytes(prefetch: &Prefetch, fate: &str) -> u64 {
        prefetch.0.bytes.with_label_values(&[fate]).get()
    }

    fn outcome(prefetch: &Prefetch, of: &str) -> u64 {
        prefetch.0.outcomes.with_label_values(&[of]).get()
    }

    #[test]
    fn who_watches_in_sequence_gets_the_next_segments() {
        let (prefetch, _) = prefetch();
        let of = |track, number| prefetch.following([track; 16], number, 10);
        assert_eq!(of(1, 0), 1..3);
        assert_eq!(of(1, 1), 2..4);
        assert_eq!(of(2, 5), 6..6, "a jump into another track");
        assert_eq!(of(2, 6), 7..9);
        assert_eq!(of(2, 6), 7..7, "asked again: the range of a player that retries");
        assert_eq!(of(2, 7), 8..10);
        assert_eq!(of(2, 8), 9..10);
        assert_eq!(of(2, 9), 10..10, "the last one");
        assert_eq!(of(1, 2), 3..5, "another viewer of another track");
        let last = prefetch.following([3; 16], u32::MAX, u32::MAX);
        assert!(last.is_empty());
    }

    #[test]
    fn several_viewers_of_a_track_are_told_apart() {
        let (prefetch, _) = prefetch();
        for step in 1..20 {
            for viewer in 0..8 {
                let number = 100 * viewer + step;
                let next = prefetch.following([1; 16], number, 10_000);
                assert_eq!(next.is_empty(), step == 1, "viewer {viewer}, step {step}");
            }
        }
    }

    #[test]
    fn the_budget_follows_the_demand() {
        let (prefetch, now) = prefetch();
        let mut key = 0;
        let mut fetch = |now, count: usize| {
            (0..count)
                .filter(|_| {
                    key += 1;
                    prefetch
                        .permit(now, key, MIB, false)
                        .map(|permit| permit.fetched(MIB))
                        .is_some()
                })
                .count()
        };
        assert_eq!(fetch(now, 20), 8, "the floor");
        prefetch.demanded(|| now, 40 * MIB);
        assert_eq!(fetch(now, 20), 10, "a quarter of the demand");
        assert_eq!(
            fetch(now + HALF_LIFE, 20),
            4,
            "9 MiB of spending have faded, and 5 of the demand's share"
        );
        assert_eq!(outcome(&prefetch, "over-share"), 12 + 10 + 16);
        assert_eq!(bytes(&prefetch, "fetched"), 22 * MIB);
    }

    #[test]
    fn a_failed_prefetch_costs_nothing_and_may_be_tried_again() {
        let (prefetch, now) = prefetch();
        for _ in 0..100 {
            drop(prefetch.permit(now, 1, 8 * MIB, false).unwrap());
        }
        assert_eq!((outcome(&prefetch, "failed"), bytes(&prefetch, "fetched")), (100, 0));
        let state = prefetch.0.state();
        assert_eq!((state.budget.in_flight_bytes, state.known.len()), (0, 0));
    }

    #[test]
    fn what_is_given_up_costs_what_came_and_is_not_tried_again() {
        let (prefetch, now) = prefetch();
        let mut permit = prefetch.permit(now, 1, 2 * MIB, false).unwrap();
        assert!(permit.raise(now, 5 * MIB));
        assert!(!permit.raise(now, 9 * MIB));
        assert_eq!(prefetch.0.state().budget.in_flight_bytes, 5 * MIB);
        permit.gave_up(7 * MIB);
        assert_eq!((outcome(&prefetch, "failed"), bytes(&prefetch, "fetched")), (1, 7 * MIB));
        assert!(prefetch.permit(now, 1, MIB / 2, false).is_none(), "known");
        assert!(prefetch.permit(now, 2, 2 * MIB, false).is_none(), "over its share");
        assert!(prefetch.permit(now, 3, MIB, false).is_some());
        assert_eq!(prefetch.0.state().budget.in_flight_bytes, 0);
    }

    #[test]
    fn bytes_in_flight_are_bounded() {
        let (prefetch, now) = prefetch();
        prefetch.demanded(|| now, 1 << 40);
        let held: Vec<_> =
            (0..10).filter_map(|key| prefetch.permit(now, key, 10 * MIB, false)).collect();
        assert_eq!((held.len(), outcome(&prefetch, "in-flight")), (3, 7));
        drop(held);
        assert!(prefetch.permit(now, 20, 10 * MIB, false).is_some());
        assert!(prefetch.permit(now, 21, u64::MAX, false).is_none());
    }

    #[test]
    fn what_was_prefetched_is_useful_or_wasted() {
        let (prefetch, now) = prefetch();
        for key in [1, 2] {
            prefetch.permit(now, key, MIB, false).unwrap().fetched(MIB / 2);
        }
        assert!(prefetch.permit(now, 1, MIB, false).is_none(), "known");
        prefetch.used(1);
        prefetch.used(1);
        prefetch.used(3);
        assert_eq!(bytes(&prefetch, "useful"), MIB / 2);
        assert!(prefetch.permit(now, 1, MIB, true).is_none(), "pressed");
        assert!(prefetch.permit(now + USED_WITHIN, 4, MIB, false).is_some());
        assert_eq!(bytes(&prefetch, "wasted"), MIB / 2);
    }

    #[test]
    fn settings_switch_it_off() {
        let off = Settings { segments: 0, demand_percent: 0 };
        let prefetch = Prefetch::new(off, &Registry::new()).unwrap();
        let now = Instant::now();
        prefetch.demanded(|| now, 1 << 40);
        assert!(prefetch.following([0; 16], 0, 10).is_empty());
        assert!(prefetch.permit(now, 1, 1, false).is_none());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_budget_holds(
            steps in prop::collection::vec((0u8..5, 0u64..6, 0u64..40 * MIB, 0u64..100), 0..80),
        ) {
            let (prefetch, mut now) = prefetch();
            let mut held: Vec<Permit> = Vec::new();
            let mut fetched = 0;
            for (what, key, size, wait) in steps {
                now += Duration::from_secs(wait);
                match what {
                    0 => prefetch.demanded(|| now, size),
                    1 => prefetch.used(key),
                    2 if !held.is_empty() => drop(held.remove(0)),
                    3 if !held.is_empty() => {
                        let permit = held.remove(0);
                        let half = permit.bytes / 2;
                        fetched += half;
                        permit.fetched(half);
                    }
                    _ => held.extend(prefetch.permit(now, key, size, false)),
                }
                let in_flight: u64 = held.iter().map(|permit| permit.bytes).sum();
                prop_assert!(in_flight <= IN_FLIGHT_BYTES_MAX);
                prop_assert_eq!(prefetch.0.state().budget.in_flight_bytes, in_flight);
                prop_assert_eq!(bytes(&prefetch, "fetched"), fetched);
                prop_assert!(bytes(&prefetch, "useful") + bytes(&prefetch, "wasted") <= fetched);
            }
        }
    }
}
