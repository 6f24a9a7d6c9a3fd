//! Whether a hop is asked at all. Pure: the time is passed in.
//!
//! Closed: all requests pass. Too many failures open it: none passes. After a pause one
//! request passes as a trial (half-open): its success closes, its failure opens for longer.

use crate::window::Window;
use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Failures in a row that open it.
    pub in_row_max: u32,
    /// The first pause; it doubles with each trial that fails.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

/// An origin: an outage is met within some requests by the share of failures; a few URLs that
/// fail each time, asked for again and again, do not close it to all others.
pub(crate) const ORIGIN: Limits =
    Limits { in_row_max: 100, pause: Duration::from_secs(1), pause_max: Duration::from_secs(30) };
/// A peer: there is always another way, so it is left alone sooner.
pub(crate) const PEER: Limits =
    Limits { in_row_max: 3, pause: Duration::from_secs(1), pause_max: Duration::from_secs(30) };

/// Requests of the window from which on the share of failures is looked at.
const WINDOW_REQUESTS_MIN: u32 = 20;
/// The share of failures, in percent, that opens it.
const FAILURES_PERCENT_MAX: u32 = 50;
/// A trial that nobody reported on is forgotten after this time.
const TRIAL_MAX: Duration = Duration::from_secs(60);

/// What a breaker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Go.
    Yes,
    /// Go, as the one trial: report how it ended.
    Trial,
    /// Not now.
    No,
}

/// Its state, as shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All requests pass.
    Closed,
    /// One request at a time passes, as a trial.
    HalfOpen,
    /// None passes.
    Open,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    limits: Limits,
    in_row: u32,
    window: Window,
    open: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    until: Instant,
    pause: Duration,
    trial: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, in_row: 0, window: Window::new(now), open: None }
    }

    /// Whether a request may go. A trial must be reported by [`Self::good`],
    /// [`Self::failed`] or [`Self::abandoned`].
    pub(crate) fn admit(&mut self, now: Instant) -> Admit {
        let Some(open) = &mut self.open else { return Admit::Yes };
        let on_trial = open.trial.is_some_and(|at| now.duration_since(at) < TRIAL_MAX);
        if now < open.until || on_trial {
            return Admit::No;
        }
        open.trial = Some(now);
        Admit::Trial
    }

    /// Whether [`Self::admit`] would let a request go.
    pub(crate) fn would_admit(&self, now: Instant) -> bool {
        self.open.as_ref().is_none_or(|open| {
            now >= open.until && open.trial.is_none_or(|at| now.duration_since(at) >= TRIAL_MAX)
        })
    }

    pub(crate) fn state(&self, now: Instant) -> State {
        match &self.open {
            None => State::Closed,
            Some(open) if now < open.until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// A request ended well.
    pub(crate) fn good(&mut self, now: Instant) {
        self.in_row = 0;
        self.window.good(now);
        // Requests that were under way when it opened tell nothing about now: a trial does.
        if self.open.as_ref().is_some_and(|open| open.trial.is_some()) {
            self.close(now);
        }
    }

    /// A request failed. Returns whether that opened it.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.in_row = self.in_row.saturating_add(1);
        self.window.failed(now);
        match &self.open {
            Some(Opened { trial: Some(_), pause, .. }) => {
                let pause = (*pause * 2).min(self.limits.pause_max);
                self.open_for(pause, now);
                true
            }
            Some(_) => false,
            None if self.in_row >= self.limits.in_row_max || self.mostly_failed(now) => {
                self.open_for(self.limits.pause, now);
                true
            }
            None => false,
        }
    }

    /// A request's end tells nothing: a trial's place is free again.
    pub(crate) fn abandoned(&mut self) {
        if let Some(open) = &mut self.open {
            open.trial = None;
        }
    }

    /// Closes, whatever the counts: what they are of is over.
    pub(crate) fn close(&mut self, now: Instant) {
        self.open = None;
        self.in_row = 0;
        self.window = Window::new(now);
    }

    fn open_for(&mut self, pause: Duration, now: Instant) {
        self.open = Some(Opened { until: now + pause, pause, trial: None });
        self.in_row = 0;
    }

    fn mostly_failed(&self, now: Instant) -> bool {
        let (good, failed) = self.window.counts(now);
        good + failed >= WINDOW_REQUESTS_MIN
            && failed * 100 >= (good + failed) * FAILURES_PERCENT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(ORIGIN, now);
        (0..ORIGIN.in_row_max).for_each(|_| _ = breaker.failed(now));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_trial_closes_it() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!((breaker.state(now), breaker.admit(now)), (State::Open, Admit::No));
        let later = now + ORIGIN.pause;
        assert_eq!(breaker.state(later), State::HalfOpen);
        assert_eq!((breaker.admit(later), breaker.admit(later)), (Admit::Trial, Admit::No));
        breaker.good(later);
        assert_eq!((breaker.state(later), breaker.admit(later)), (State::Closed, Admit::Yes));
    }

    #[test]
    fn a_failed_trial_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = ORIGIN.pause;
        for _ in 0..8 {
            assert!(!breaker.would_admit(now + pause - ms(1)));
            now += pause;
            assert_eq!(breaker.admit(now), Admit::Trial);
            breaker.failed(now);
            pause = (pause * 2).min(ORIGIN.pause_max);
        }
        assert_eq!(pause, ORIGIN.pause_max);
    }

    #[test]
    fn an_abandoned_trial_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + ORIGIN.pause;
        assert_eq!(breaker.admit(later), Admit::Trial);
        breaker.abandoned();
        assert_eq!(breaker.admit(later), Admit::Trial);
        // Even one that nobody reported on.
        assert_eq!(breaker.admit(later + TRIAL_MAX), Admit::Trial);
    }

    #[test]
    fn half_failing_opens_it_and_old_failures_are_forgotten() {
        let now = Instant::now();
        let mut breaker = Breaker::new(ORIGIN, now);
        for n in 0..WINDOW_REQUESTS_MIN {
            assert_eq!(breaker.state(now), State::Closed, "after {n}");
            if n % 2 == 0 { breaker.good(now) } else { _ = breaker.failed(now) }
        }
        assert_eq!(breaker.state(now), State::Open);
        let mut breaker = Breaker::new(ORIGIN, now);
        for n in 0..u64::from(WINDOW_REQUESTS_MIN) * 3 {
            let at = now + ms(n * 1100);
            if n % 2 == 0 {
                breaker.good(at)
            } else {
                _ = breaker.failed(at)
            }
            assert_eq!(breaker.state(at), State::Closed);
        }
    }

    #[test]
    fn a_late_success_does_not_close_what_is_open() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.good(now + ms(1));
        assert_eq!(breaker.admit(now + ms(2)), Admit::No);
    }
}
