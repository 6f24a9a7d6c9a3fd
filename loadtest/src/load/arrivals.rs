//! When the next request is due. In an open loop requests fall due whatever the answers do, and
//! one that finds no free connection waits with its clock running.

use super::plan::{Arrivals, Until};
use super::tally::Exchange;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Requests that may be due and unsent: beyond it they are dropped and counted.
const DUE_MAX: usize = 1 << 20;

/// Hands out requests to whoever has room for one.
pub(super) struct Queue {
    kind: Arrivals,
    targets: usize,
    /// How many may still be sent.
    left: Cell<u64>,
    sent: Cell<u64>,
    due: RefCell<VecDeque<Instant>>,
    dropped: Cell<u64>,
    news: Notify,
}

/// What a connection that has room should do.
pub(super) enum Next {
    Send(Exchange),
    /// Nothing is due.
    Wait,
    /// Nothing will be due again.
    Over,
}

impl Queue {
    pub(super) fn new(kind: Arrivals, until: Until, targets: usize) -> Self {
        let left = match until {
            Until::Answers(answers) => answers,
            Until::Elapsed(_) => u64::MAX,
        };
        Self {
            kind,
            targets,
            left: Cell::new(left),
            sent: Cell::new(0),
            due: RefCell::default(),
            dropped: Cell::new(0),
            news: Notify::new(),
        }
    }

    /// Due and never sent for lack of room in the queue.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Whether nothing will be due again.
    pub(super) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    pub(super) fn poll(&self) -> Next {
        if self.left.get() == 0 {
            // Others may wait for what will not come.
            self.news.notify_one();
            return Next::Over;
        }
        if self.kind == Arrivals::Closed {
            return Next::Send(self.take(Instant::now(), true));
        }
        let mut due = self.due.borrow_mut();
        let Some(since) = due.pop_front() else { return Next::Wait };
        if !due.is_empty() {
            self.news.notify_one();
        }
        Next::Send(self.take(since, true))
    }

    /// For a slow reader: now, and beyond any limit.
    pub(super) fn untimed(&self) -> Exchange {
        let left = self.left.get();
        let exchange = self.take(Instant::now(), false);
        self.left.set(left);
        exchange
    }

    fn take(&self, since: Instant, timed: bool) -> Exchange {
        let number = self.sent.get();
        self.sent.set(number + 1);
        self.left.set(self.left.get().saturating_sub(1));
        let target = usize::try_from(number % self.targets as u64).expect("below a usize");
        Exchange::new(target, number, since, timed)
    }

    /// Until something may be due. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    /// The next request; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<Exchange> {
        loop {
            match self.poll() {
                Next::Send(exchange) => return Some(exchange),
                Next::Over => return None,
                Next::Wait => self.changed().await,
            }
        }
    }

    /// Makes requests due, for ever. A closed loop has none.
    pub(super) async fn drive(&self) -> std::io::Result<()> {
        let rate = match self.kind {
            Arrivals::Closed => return std::future::pending().await,
            Arrivals::Constant(rate) | Arrivals::Poisson(rate) => rate,
        };
        // tokio's own timers are as coarse as 1 ms.
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        #[allow(deprecated, reason = "an OwnedFd stays the same descriptor; the rest is unsafe")]
        let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        let mut random = SmallRng::seed_from_u64(1);
        let start = Instant::now();
        let mut at = 0.0;
        loop {
            let now = start.elapsed().as_secs_f64();
            while at <= now {
                self.arrive(start + Duration::from_secs_f64(at));
                at += gap(self.kind, rate, &mut random);
            }
            sleep(&timer, Duration::from_secs_f64((at - now).max(1e-6))).await?;
        }
    }

    fn arrive(&self, at: Instant) {
        let mut due = self.due.borrow_mut();
        if due.len() >= DUE_MAX {
            self.dropped.set(self.dropped.get() + 1);
            return;
        }
        due.push_back(at);
        self.news.notify_one();
    }
}

/// Seconds to the next arrival.
fn gap(kind: Arrivals, rate: f64, random: &mut SmallRng) -> f64 {
    if matches!(kind, Arrivals::Poisson(_)) {
        // 1 - x is never 0.
        return -(1.0 - random.random::<f64>()).ln() / rate;
    }
    1.0 / rate
}

async fn sleep(timer: &AsyncFd<OwnedFd>, time: Duration) -> std::io::Result<()> {
    let value = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let at = Itimerspec { it_interval: never, it_value: value };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &at)?;
    let mut ready = timer.readable().await?;
    let _ = rustix::io::read(timer.get_ref(), &mut [0_u8; 8]);
    ready.clear_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_arrivals_come_at_the_rate_and_not_evenly() {
        let mut random = SmallRng::seed_from_u64(7);
        let gaps: Vec<f64> =
            (0..20_000).map(|_| gap(Arrivals::Poisson(0.0), 100.0, &mut random)).collect();
        let mean = gaps.iter().sum::<f64>() / 20_000.0;
        assert!((0.0095..0.0105).contains(&mean), "{mean}");
        let short = gaps.iter().filter(|gap| **gap < 0.01).count();
        // 1 - 1/e of them are shorter than the mean.
        assert!((12_300..13_000).contains(&short), "{short}");
        assert!((gap(Arrivals::Constant(0.0), 100.0, &mut random) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn a_limited_load_hands_out_as_many_requests_in_turn() {
        let queue = Queue::new(Arrivals::Closed, Until::Answers(3), 2);
        let mut targets = Vec::new();
        while let Next::Send(exchange) = queue.poll() {
            targets.push((exchange.target, exchange.number));
        }
        assert_eq!(targets, [(0, 0), (1, 1), (0, 2)]);
        assert!(matches!(queue.poll(), Next::Over));
    }

    #[test]
    fn in_an_open_loop_only_what_is_due_is_sent() {
        let queue = Queue::new(Arrivals::Constant(10.0), Until::Answers(9), 1);
        assert!(matches!(queue.poll(), Next::Wait));
        queue.arrive(Instant::now());
        assert!(matches!(queue.poll(), Next::Send(_)));
        assert!(matches!(queue.poll(), Next::Wait));
    }
}
