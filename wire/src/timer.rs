//! hyper's timer for one HTTP/1.1 connection. hyper sets one for each request's head and drops it
//! when the head is there; here it stays in the runtime's wheel, set for a time that is not too
//! late, and is set anew when that comes. So a busy connection touches the wheel once for all the
//! requests of the time that it waits for a head.
//!
//! Invariant: a sleep that is polled ends at its time, or where it was put off to, and not before.

use hyper::rt::{Sleep, Timer};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::task::coop::unconstrained;

/// A connection's timer. Clones share it: only one sleep at a time is to be polled.
#[derive(Clone, Default)]
pub struct HeadTimer(Arc<Mutex<Set>>);

/// What is in the wheel, and whom it wakes.
#[derive(Debug, Default)]
pub(crate) struct Set {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    wakes: Option<Waker>,
    /// No sleep ends before.
    not_before: Option<Instant>,
}

impl Set {
    /// Waits until this time, or where it was put off to, whatever other time was waited for before.
    pub(crate) fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.not_before.map_or(until, |least| least.max(until));
        let at = tokio::time::Instant::from_std(until);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        let is_told = self.wakes.as_ref().is_some_and(|wakes| wakes.will_wake(cx.waker()));
        if is_told && !sleep.is_elapsed() && sleep.deadline() <= at {
            return Poll::Pending;
        }
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        // Not refused for what this turn did before: a refused poll leaves nothing in the wheel.
        while pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready() {
            if sleep.deadline() >= at {
                self.wakes = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        self.wakes = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl HeadTimer {
    /// The head that is waited for came, and was answered: no sleep ends before another `wait`.
    pub fn put_off(&self, wait: Duration) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.not_before = Some(self.now() + wait);
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep { set: Arc::clone(&self.0), until: deadline })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// A sleep of a [`HeadTimer`].
struct HeadSleep {
    set: Arc<Mutex<Set>>,
    until: Instant,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.poll_until(self.until, cx)
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn polled(sleep: &mut Pin<Box<dyn Sleep>>) -> bool {
        poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_ready())).await
    }

    /// tokio refuses polls of a task that did much in its turn.
    #[tokio::test]
    async fn a_sleep_that_is_polled_first_when_a_turn_is_spent_ends_all_the_same() {
        use tokio::task::coop::{has_budget_remaining, poll_proceed};
        let mut sleep = HeadTimer::default().sleep(Duration::from_millis(20));
        poll_fn(|cx| {
            while has_budget_remaining() {
                if let Poll::Ready(spent) = poll_proceed(cx) {
                    spent.made_progress();
                }
            }
            assert!(sleep.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::time::timeout(Duration::from_secs(60), sleep).await.unwrap();
    }

    #[tokio::test]
    async fn a_sleep_that_is_put_off_ends_as_much_later() {
        let timer = HeadTimer::default();
        let limit = Duration::from_millis(20);
        let mut sleep = timer.sleep(limit);
        assert!(!polled(&mut sleep).await);
        let began = timer.now();
        timer.put_off(limit * 3);
        sleep.await;
        assert!(timer.now() - began >= limit * 3);
    }

    #[tokio::test]
    async fn a_sleep_ends_at_its_time_whatever_was_set_before() {
        let timer = HeadTimer::default();
        let limit = Duration::from_millis(20);
        let began = timer.now();
        // As heads are waited for, and come: what is set is for the first one.
        while timer.now() - began < limit * 2 {
            let mut dropped = timer.sleep(limit);
            assert!(!polled(&mut dropped).await || timer.now() - began >= limit);
            tokio::task::yield_now().await;
        }
        let began = timer.now();
        timer.sleep(limit).await;
        assert!(timer.now() - began >= limit);
        // One that ends before what is set does not wait for that.
        let mut far = timer.sleep(Duration::from_secs(3600));
        assert!(!polled(&mut far).await);
        timer.sleep(limit).await;
    }
}
