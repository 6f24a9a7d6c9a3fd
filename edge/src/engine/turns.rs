//! Room for requests to upstreams, given by priority (RFC 9218 urgency), first come first
//! served among equals. Who can't wait is refused, the least urgent first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Urgencies of RFC 9218: 0 goes first, 7 last.
const URGENCIES: usize = 8;

/// The room, and who waits for it.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    waiting_max: usize,
    waiting: [VecDeque<oneshot::Sender<Turn>>; URGENCIES],
}

/// A turn, given back when dropped.
pub struct Turn(Option<Turns>);

/// No turn can be had.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

impl Turns {
    /// Room for `at_once`, and for `waiting_max` that wait.
    pub fn new(at_once: usize, waiting_max: usize) -> Self {
        let state = State { free: at_once, waiting_max, waiting: Default::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Refused`] when too many wait that are as urgent, or when somebody more urgent came.
    pub async fn take(&self, urgency: u8) -> Result<Turn, Refused> {
        let waits = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(self.clone())));
            }
            state.enqueue(usize::from(urgency).min(URGENCIES - 1))?
        };
        waits.await.map_err(|_| Refused)
    }

    fn give_back(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                match state.waiting.iter_mut().find_map(VecDeque::pop_front) {
                    Some(next) => next,
                    None => return state.free += 1,
                }
            };
            // Who waited may have left; then the next one has it.
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

impl State {
    fn enqueue(&mut self, urgency: usize) -> Result<oneshot::Receiver<Turn>, Refused> {
        for queue in &mut self.waiting {
            queue.retain(|waits| !waits.is_closed());
        }
        if self.waiting.iter().map(VecDeque::len).sum::<usize>() >= self.waiting_max {
            let less_urgent = self.waiting[urgency + 1..].iter_mut().rev();
            let dropped = { less_urgent }.find_map(VecDeque::pop_back);
            drop(dropped.ok_or(Refused)?);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting[urgency].push_back(sender);
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

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_the_least_urgent_is_refused() {
        let turns = Turns::new(1, 2);
        let first = turns.take(3).await.unwrap();
        let mut late = Box::pin(turns.take(5));
        let mut early = Box::pin(turns.take(1));
        assert!((&mut late).now_or_never().is_none() && (&mut early).now_or_never().is_none());
        // The queue is full: an equal of the last is refused, a more urgent one takes its place.
        assert!(turns.take(5).await.is_err());
        let mut urgent = Box::pin(turns.take(0));
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
        let first = turns.take(3).await.unwrap();
        let mut leaves = Box::pin(turns.take(3));
        assert!((&mut leaves).now_or_never().is_none());
        drop(leaves);
        drop(first);
        assert!(turns.take(3).now_or_never().unwrap().is_ok());
    }
}
