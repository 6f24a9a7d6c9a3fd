//! Room for a number of things at a time, given by priority (RFC 9218 urgency). Who can't wait is
//! refused, the least urgent first.
//!
//! Nobody starves: each [`STEP`] of waiting counts as one step of urgency, so whoever waits is
//! passed over only by those who came soon after.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The least urgent of RFC 9218; 0 is the most urgent.
const URGENCY_LAST: u8 = 7;
/// That of who says nothing (RFC 9218 section 4.1).
const URGENCY_USUAL: u8 = 3;
/// Waiting for this long counts as one step of urgency: the least urgent waits at most seven
/// times this longer than if all were equal.
const STEP: Duration = Duration::from_secs(1);

/// How urgent something is, 0 to 7. Clones share it: what others wait for, too, becomes as urgent
/// as the most urgent of them, also while it waits itself.
#[derive(Debug, Clone)]
pub struct Urgency(Arc<AtomicU8>);

impl Urgency {
    /// As a request says; more than 7 is 7.
    #[must_use]
    pub fn of(urgency: u8) -> Self {
        Self(Arc::new(AtomicU8::new(urgency.min(URGENCY_LAST))))
    }

    /// Somebody as urgent as this waits for it as well.
    pub fn raise(&self, urgency: u8) {
        self.0.fetch_min(urgency, Relaxed);
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> u8 {
        self.0.load(Relaxed)
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Self::of(URGENCY_USUAL)
    }
}

/// The room, and who waits for it. Clones share it.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting_max: usize,
    /// In the order in which they came.
    waiting: Vec<Waits>,
}

struct Waits {
    since: Instant,
    urgency: Urgency,
    turn: oneshot::Sender<Turn>,
}

impl Waits {
    /// The smallest is next.
    fn rank(&self) -> Instant {
        self.since + STEP * u32::from(self.urgency.get())
    }
}

/// A turn, given back when dropped.
pub struct Turn(Option<Turns>);

/// No turn can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Turns {
    /// Room for `at_once`, and for `waiting_max` that wait.
    #[must_use]
    pub fn new(at_once: usize, waiting_max: usize) -> Self {
        let state = State { free: at_once, waiting_max, waiting: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, if one is free now.
    #[must_use]
    pub fn take_now(&self) -> Option<Turn> {
        let mut state = self.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Turn(Some(self.clone())))
    }

    /// Whether somebody waits for one.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.lock().waiting.iter().any(|waits| !waits.turn.is_closed())
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Refused`] when too many wait that are as urgent, or when somebody more urgent came.
    pub async fn take(&self, urgency: &Urgency) -> Result<Turn, Refused> {
        if let Some(turn) = self.take_now() {
            return Ok(turn);
        }
        let waits = {
            let mut state = self.lock();
            // One may have been given back between the two.
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(self.clone())));
            }
            state.enqueue(urgency, Instant::now())?
        };
        waits.await.map_err(|_| Refused)
    }

    fn give_back(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                match state.next() {
                    Some(next) => next,
                    None => return state.free += 1,
                }
            };
            // Who waited may have left; then the next one has it.
            match next.turn.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<Waits> {
        let ranked = self.waiting.iter().enumerate().min_by_key(|(_, waits)| waits.rank());
        let (place, _) = ranked?;
        Some(self.waiting.remove(place))
    }

    fn enqueue(
        &mut self,
        urgency: &Urgency,
        now: Instant,
    ) -> Result<oneshot::Receiver<Turn>, Refused> {
        if self.waiting.len() >= self.waiting_max {
            self.waiting.retain(|waits| !waits.turn.is_closed());
        }
        if self.waiting.len() >= self.waiting_max {
            // Of the least urgent the last one.
            let waiting = self.waiting.iter().enumerate();
            let least = waiting.max_by_key(|(place, waits)| (waits.urgency.get(), *place));
            let (place, least) = least.ok_or(Refused)?;
            if least.urgency.get() <= urgency.get() {
                return Err(Refused);
            }
            self.waiting.remove(place);
        }
        let (turn, receiver) = oneshot::channel();
        self.waiting.push(Waits { since: now, urgency: urgency.clone(), turn });
        Ok(receiver)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn urgency(of: u8) -> Urgency {
        Urgency::of(of)
    }

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_the_least_urgent_is_refused() {
        let turns = Turns::new(1, 2);
        let of = [0, 1, 3, 5].map(urgency);
        let first = turns.take(&of[2]).await.unwrap();
        let mut late = Box::pin(turns.take(&of[3]));
        let mut early = Box::pin(turns.take(&of[1]));
        assert!((&mut late).now_or_never().is_none() && (&mut early).now_or_never().is_none());
        // The queue is full: an equal of the last is refused, a more urgent one takes its place.
        assert!(turns.take(&of[3]).await.is_err());
        let mut urgent = Box::pin(turns.take(&of[0]));
        assert!((&mut urgent).now_or_never().is_none());
        assert!(late.await.is_err());
        drop(first);
        let second = (&mut urgent).now_or_never().unwrap().unwrap();
        assert!((&mut early).now_or_never().is_none());
        drop(second);
        assert!(early.await.is_ok());
    }

    #[tokio::test]
    async fn who_left_the_queue_takes_no_turn_with_it() {
        let turns = Turns::new(1, 4);
        let usual = Urgency::default();
        let first = turns.take(&usual).await.unwrap();
        let mut leaves = Box::pin(turns.take(&usual));
        assert!((&mut leaves).now_or_never().is_none());
        drop(leaves);
        drop(first);
        assert!(turns.take(&usual).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn what_becomes_urgent_while_it_waits_goes_before_what_is_not() {
        let turns = Turns::new(1, 4);
        let of = [3, 3, 7].map(urgency);
        let first = turns.take(&of[0]).await.unwrap();
        let mut usual = Box::pin(turns.take(&of[1]));
        let mut ahead = Box::pin(turns.take(&of[2]));
        assert!((&mut usual).now_or_never().is_none() && (&mut ahead).now_or_never().is_none());
        of[2].raise(1);
        drop(first);
        assert!((&mut usual).now_or_never().is_none());
        assert!((&mut ahead).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn who_has_waited_long_is_passed_over_by_no_newcomer() {
        let start = Instant::now();
        let mut state = State { free: 0, waiting_max: 9, waiting: Vec::new() };
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (of, second) in [(7, 0), (3, 5), (0, 6), (0, 8)] {
            drop(state.enqueue(&urgency(of), at(second)).unwrap());
        }
        let order = std::iter::from_fn(|| state.next());
        let order: Vec<u8> = order.map(|waits| waits.urgency.get()).collect();
        assert_eq!(order, [0, 7, 3, 0]);
    }
}
