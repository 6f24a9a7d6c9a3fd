//! Room for a number of things at a time, given by priority (RFC 9218 urgency). Who can't wait is
//! refused, the least urgent first.
//!
//! Things may have owners, none of which has all of the room: of what is free, each may have
//! [`OF_WHAT_IS_FREE`] times as much, one alone four fifths of all, two four ninths each (Choudhury and
//! Hahne, "Dynamic queue length thresholds", 1998); and the last free one is for an owner that has none,
//! as is the next one that is given back.
//!
//! Each [`STEP`] of waiting counts as one step of urgency, so whoever waits is passed over only by
//! those who came soon after, and by those of owners that have none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The least urgent of RFC 9218; 0 is the most urgent.
const URGENCY_LAST: u8 = 7;
/// That of who says nothing (RFC 9218 section 4.1).
const URGENCY_USUAL: u8 = 3;
/// Waiting for this long counts as one step of urgency: the least urgent waits at most seven
/// times this longer than if all were equal.
const STEP: Duration = Duration::from_secs(1);

/// For so long it is known when an owner that has none had its last one.
const KNOWN_FOR: Duration = Duration::from_secs(120);
/// An owner may hold so many times what is free.
const OF_WHAT_IS_FREE: usize = 4;

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
    /// What each owner holds, or lately held.
    held: HashMap<Owner, Holds>,
    /// When anybody had a turn, or went on in one.
    stirred: Instant,
}

/// So many turns. When it had the last one, or went on in one.
struct Holds {
    turns: usize,
    stirred: Instant,
}

/// Whose a turn is.
pub type Owner = usize;

struct Waits {
    since: Instant,
    urgency: Urgency,
    owner: Option<Owner>,
    turn: oneshot::Sender<Turn>,
}

impl Waits {
    /// The smallest is next.
    fn rank(&self) -> Instant {
        self.since + STEP * u32::from(self.urgency.get())
    }
}

/// A turn, given back when dropped.
pub struct Turn(Option<Turns>, Option<Owner>);

/// No turn can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Turns {
    /// Room for `at_once`, and for `waiting_max` that wait.
    #[must_use]
    pub fn new(at_once: usize, waiting_max: usize) -> Self {
        let (waiting, held) = (Vec::new(), HashMap::new());
        let stirred = Instant::now();
        let state = State { free: at_once, waiting_max, waiting, held, stirred };
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
        Some(Turn(Some(self.clone()), None))
    }

    /// Whether somebody waits for one.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.lock().waiting.iter().any(|waits| !waits.turn.is_closed())
    }

    /// Whether somebody waits for one that this owner gives back.
    #[must_use]
    pub fn are_wanted_of(&self, owner: Option<Owner>) -> bool {
        let state = self.lock();
        // While some are free beyond the last one, each waits for those of its own owner.
        let wants = |waits: &Waits| state.free <= 1 || waits.owner == owner;
        state.waiting.iter().any(|waits| wants(waits) && !waits.turn.is_closed())
    }

    /// Whether this owner has had no turn for so long, and has gone on in none
    /// ([`Turn::goes_on`]); of one that is not known, whether anybody has.
    #[must_use]
    pub fn has_stood_for(&self, owner: Option<Owner>, long: Duration) -> bool {
        let state = self.lock();
        let holds = owner.and_then(|owner| state.held.get(&owner));
        holds.map_or(state.stirred, |holds| holds.stirred).elapsed() >= long
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Refused`] when too many wait that are as urgent, or when somebody more urgent came.
    pub async fn take(&self, urgency: &Urgency) -> Result<Turn, Refused> {
        self.take_of(None, urgency).await
    }

    /// Waits for a turn, of which one owner may not have all.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn take_of(&self, owner: Option<Owner>, urgency: &Urgency) -> Result<Turn, Refused> {
        let waits = {
            let mut state = self.lock();
            if state.may_have(owner) {
                state.hold(owner);
                return Ok(Turn(Some(self.clone()), owner));
            }
            state.enqueue(urgency, owner, Instant::now())?
        };
        waits.await.map_err(|_| Refused)
    }

    fn give_back(&self, owner: Option<Owner>) {
        let mut state = self.lock();
        state.let_go(owner);
        while let Some(next) = state.next() {
            state.hold(next.owner);
            // Who waited may have left; then the next one has it.
            if let Err(mut unwanted) = next.turn.send(Turn(Some(self.clone()), next.owner)) {
                unwanted.0 = None;
                state.let_go(next.owner);
            }
        }
    }
}

impl State {
    fn held(&self, owner: Option<Owner>) -> usize {
        owner.and_then(|owner| self.held.get(&owner)).map_or(0, |holds| holds.turns)
    }

    /// The last free one is for an owner that has none.
    fn may_have(&self, owner: Option<Owner>) -> bool {
        if self.free == 0 || owner.is_none() {
            return self.free > 0;
        }
        let held = self.held(owner);
        held == 0 || (self.free > 1 && held < OF_WHAT_IS_FREE * self.free)
    }

    fn hold(&mut self, owner: Option<Owner>) {
        self.free -= 1;
        if let Some(owner) = owner {
            let holds = Holds { turns: 0, stirred: self.stirred };
            self.held.entry(owner).or_insert(holds).turns += 1;
        }
        self.stir(owner);
    }

    fn stir(&mut self, owner: Option<Owner>) {
        self.stirred = Instant::now();
        if let Some(holds) = owner.and_then(|owner| self.held.get_mut(&owner)) {
            holds.stirred = self.stirred;
        }
    }

    fn let_go(&mut self, owner: Option<Owner>) {
        self.free += 1;
        if let Some(holds) = owner.and_then(|owner| self.held.get_mut(&owner)) {
            holds.turns -= 1;
        }
        // Owners come and go with their settings.
        self.held.retain(|_, holds| holds.turns > 0 || holds.stirred.elapsed() < KNOWN_FOR);
    }

    /// The next one of those that may have a turn, first of those whose owner has none.
    fn next(&mut self) -> Option<Waits> {
        if self.free == 0 {
            return None;
        }
        let ranked =
            self.waiting.iter().enumerate().filter(|(_, waits)| self.may_have(waits.owner));
        let rank = |waits: &Waits| (self.held(waits.owner) > 0, waits.rank());
        let (place, _) = ranked.min_by_key(|(_, waits)| rank(waits))?;
        Some(self.waiting.remove(place))
    }

    fn enqueue(
        &mut self,
        urgency: &Urgency,
        owner: Option<Owner>,
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
        self.waiting.push(Waits { since: now, urgency: urgency.clone(), owner, turn });
        Ok(receiver)
    }
}

impl Turn {
    /// What is done in it goes on: those who wait for one of the same owner wait for something.
    pub fn goes_on(&self) {
        if let Some(turns) = &self.0 {
            turns.lock().stir(self.1);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give_back(self.1);
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
        let (waiting, held) = (Vec::new(), HashMap::new());
        let mut state = State { free: 1, waiting_max: 9, waiting, held, stirred: start };
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (of, second) in [(7, 0), (3, 5), (0, 6), (0, 8)] {
            drop(state.enqueue(&urgency(of), None, at(second)).unwrap());
        }
        let order = std::iter::from_fn(|| state.next());
        let order: Vec<u8> = order.map(|waits| waits.urgency.get()).collect();
        assert_eq!(order, [0, 7, 3, 0]);
    }

    /// Found by an audit: one origin that drips had all, and nothing cold came from any other.
    #[tokio::test]
    async fn no_owner_has_all() {
        let turns = Turns::new(10, 4);
        let usual = Urgency::default();
        let take = |owner| Box::pin(turns.take_of(Some(owner), &usual));
        let mut of_one: Vec<_> =
            std::iter::from_fn(|| Some(take(1).now_or_never()?.unwrap())).collect();
        assert_eq!(of_one.len(), 8);
        let mut one_more = take(1);
        assert!((&mut one_more).now_or_never().is_none());
        // Who waits for its own share keeps no other from its.
        let of_another: Vec<_> =
            std::iter::from_fn(|| Some(take(2).now_or_never()?.unwrap())).collect();
        assert_eq!(of_another.len(), 1);
        // The last one is for who has none.
        let of_a_third = take(3).now_or_never().unwrap().unwrap();
        assert!(turns.lock().free == 0 && turns.are_wanted_of(Some(2)));
        drop((of_another, of_a_third));
        assert!((&mut one_more).now_or_never().is_none());
        assert!(turns.are_wanted_of(Some(1)) && !turns.are_wanted_of(Some(2)));
        of_one.pop();
        of_one.push(one_more.now_or_never().unwrap().unwrap());
        // What was given back is free.
        drop(of_one);
        assert!(turns.lock().held.values().all(|holds| holds.turns == 0));
        assert_eq!(turns.lock().free, 10);
    }

    /// Found by a review: those who waited for what came slowly were refused, and those of whose
    /// owner the last turn had just ended.
    #[tokio::test(start_paused = true)]
    async fn an_owner_stands_when_it_goes_on_in_none() {
        let (turns, usual) = (Turns::new(10, 4), Urgency::default());
        let long = Duration::from_secs(30);
        let later = || tokio::time::advance(Duration::from_secs(20));
        let one = turns.take_of(Some(1), &usual).await.unwrap();
        later().await;
        assert!(!turns.has_stood_for(Some(1), long) && !turns.has_stood_for(None, long));
        one.goes_on();
        later().await;
        assert!(!turns.has_stood_for(Some(1), long));
        // One that is given back was had all the same.
        drop(one);
        assert!(!turns.has_stood_for(Some(1), long));
        let of_another = turns.take_of(Some(2), &usual).await.unwrap();
        later().await;
        assert!(turns.has_stood_for(Some(1), long) && !turns.has_stood_for(Some(3), long));
        later().await;
        assert!(turns.has_stood_for(Some(2), long) && turns.has_stood_for(Some(3), long));
        // Who has had none for long is forgotten.
        tokio::time::advance(KNOWN_FOR).await;
        drop(of_another);
        assert!(turns.lock().held.is_empty());
    }
}
