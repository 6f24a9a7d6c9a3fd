//! Whether a hop is asked at all. Pure: the time is passed in.
//!
//! Closed: all requests pass. Too many failures open it: none passes. After a pause one
//! request passes as a trial (half-open): its success closes, its failure opens for longer.
//!
//! Invariant: what fails of paths over standing connections opens no breaker of a hop that answers
//! for others meanwhile, however many paths they are; nor does one path, whatever else is asked for.

#[cfg(test)]
mod tests;

use crate::failing::{Asked, Failing};
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

/// An origin: an outage is met within some requests by the share of failures.
pub(crate) const ORIGIN: Limits =
    Limits { in_row_max: 100, pause: Duration::from_secs(1), pause_max: Duration::from_secs(30) };
/// A peer: there is always another way, so it is left alone sooner.
pub(crate) const PEER: Limits =
    Limits { in_row_max: 3, pause: Duration::from_secs(1), pause_max: Duration::from_secs(30) };

/// Requests of the window from which on the share of failures is looked at.
const WINDOW_REQUESTS_MIN: u32 = 20;
/// Paths that failed within the window, and none was answered since, by which it opens.
const PATHS_MAX: usize = 20;
/// And this long, at the least: those of a route that is broken may fail all at once.
const SILENCE_MIN: Duration = Duration::from_secs(2);
/// The share of failures, in percent, that opens it.
const FAILURES_PERCENT_MAX: u32 = 50;
/// A trial that nobody reported on is forgotten after this time.
const TRIAL_MAX: Duration = Duration::from_secs(60);

/// What a request that may go reports with. Only reports of what began since the breaker last
/// changed count: who began before tells of what was before, and ends no trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass(u64);

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
    /// Failures that say nothing of what was asked for, and that since the last answer.
    in_row: u32,
    /// These, and what was good.
    window: Window,
    /// Closed: what failed since the last answer. Open: what failed as a trial since it opened.
    failing: Failing,
    /// When there was an answer last, or time for one began.
    answered: Instant,
    open: Option<Opened>,
    /// Of those who began since it last opened, closed, or let a trial go.
    pass: Pass,
}

#[derive(Debug)]
struct Opened {
    until: Instant,
    pause: Duration,
    trial: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let (window, failing) = (Window::new(now), Failing::default());
        Self { limits, in_row: 0, window, failing, answered: now, open: None, pass: Pass(0) }
    }

    /// Lets a request go, or not. Its end must be reported, as it may be a trial's, by
    /// [`Self::good`], [`Self::failed`] or [`Self::abandoned`].
    pub(crate) fn admit(&mut self, asked: Asked, now: Instant) -> Option<Pass> {
        if !self.would_admit(now) || self.is_to_give_way(asked, now) {
            return None;
        }
        if let Some(open) = &mut self.open {
            open.trial = Some(now);
            self.pass.0 += 1;
        }
        Some(self.pass)
    }

    /// Whether [`Self::admit`] would let a request go, if not each one.
    pub(crate) fn would_admit(&self, now: Instant) -> bool {
        self.open.as_ref().is_none_or(|open| {
            now >= open.until && open.trial.is_none_or(|at| now.duration_since(at) >= TRIAL_MAX)
        })
    }

    /// Whether others are to go first, as it has failed as a trial: they would never be one
    /// where it is asked for more often.
    fn is_to_give_way(&self, asked: Asked, now: Instant) -> bool {
        let is_early = |open: &Opened| now < open.until + open.pause;
        self.open.as_ref().is_some_and(is_early) && self.failing.knows(asked)
    }

    pub(crate) fn state(&self, now: Instant) -> State {
        match &self.open {
            None => State::Closed,
            Some(open) if now < open.until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// A request ended well.
    pub(crate) fn good(&mut self, pass: Pass, now: Instant) {
        self.answered(pass, now);
        if pass == self.pass {
            self.window.good(now);
        }
    }

    /// A request has an answer, which may take long to come whole: that ends a trial.
    pub(crate) fn answered(&mut self, pass: Pass, now: Instant) {
        if pass != self.pass {
            return;
        }
        if self.open.is_some() {
            return self.close(now);
        }
        (self.in_row, self.answered, self.failing) = (0, now, Failing::default());
    }

    /// A request failed; `asked`, if it may be for what it asked for.
    pub(crate) fn failed(&mut self, pass: Pass, asked: Option<Asked>, now: Instant) {
        if pass != self.pass {
            return;
        }
        let is_new = asked.is_none_or(|asked| self.failing.add(asked, now));
        if let Some(open) = &self.open {
            let times = if is_new { 2 } else { 1 };
            let pause = (open.pause * times).min(self.limits.pause_max);
            return self.open_for(pause, now);
        }
        let in_row = match asked {
            Some(_) if now.duration_since(self.answered) < SILENCE_MIN => return,
            Some(_) => self.failing.in_row(),
            None => {
                self.window.failed(now);
                self.in_row = self.in_row.saturating_add(1);
                self.in_row
            }
        };
        let is_much = match asked {
            Some(_) => self.failing.lately(now) >= PATHS_MAX,
            None => self.mostly_failed(now),
        };
        if is_much || in_row >= self.limits.in_row_max {
            self.failing = Failing::default();
            self.open_for(self.limits.pause, now);
        }
    }

    /// What came of a request that was good was wrong.
    pub(crate) fn blamed(&mut self, now: Instant) {
        if self.open.is_none() {
            self.failed(self.pass, None, now);
        }
    }

    /// A request's end tells nothing: a trial's place is free again.
    pub(crate) fn abandoned(&mut self, pass: Pass) {
        if let Some(open) = self.open.as_mut().filter(|_| pass == self.pass) {
            open.trial = None;
        }
    }

    /// Closes, whatever the counts: what they are of is over.
    pub(crate) fn close(&mut self, now: Instant) {
        self.open = None;
        (self.in_row, self.answered, self.failing) = (0, now, Failing::default());
        self.window = Window::new(now);
        self.pass.0 += 1;
    }

    fn open_for(&mut self, pause: Duration, now: Instant) {
        self.open = Some(Opened { until: now + pause, pause, trial: None });
        self.in_row = 0;
        self.pass.0 += 1;
    }

    fn mostly_failed(&self, now: Instant) -> bool {
        let (good, failed) = self.window.counts(now);
        good + failed >= WINDOW_REQUESTS_MIN
            && failed * 100 >= (good + failed) * FAILURES_PERCENT_MAX
    }
}
