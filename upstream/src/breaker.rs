//! Whether a hop is asked at all. Pure: the time is passed in.
//!
//! Closed: all requests pass. Too many failures open it: none passes. After a pause one
//! request passes as a trial (half-open): its success closes, its failure opens for longer.
//!
//! Invariant: what fails of paths over standing connections opens no breaker of a hop that answers
//! for others meanwhile, however many paths they are; nor does one path, whatever else is asked for.

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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What is asked for does not matter.
    fn admit(breaker: &mut Breaker, now: Instant) -> Option<Pass> {
        breaker.admit(path(0), now)
    }

    fn path(number: u32) -> Asked {
        Asked::of(&format!("/{number}"))
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(ORIGIN, now);
        let pass = admit(&mut breaker, now).unwrap();
        (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(pass, None, now));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_trial_closes_it() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!((breaker.state(now), admit(&mut breaker, now)), (State::Open, None));
        let later = now + ORIGIN.pause;
        assert_eq!(breaker.state(later), State::HalfOpen);
        let trial = admit(&mut breaker, later).unwrap();
        assert_eq!(admit(&mut breaker, later), None);
        breaker.good(trial, later);
        assert_eq!(breaker.state(later), State::Closed);
        assert!(admit(&mut breaker, later).is_some() && admit(&mut breaker, later).is_some());
    }

    #[test]
    fn a_failed_trial_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = ORIGIN.pause;
        for _ in 0..8 {
            assert!(!breaker.would_admit(now + pause - ms(1)));
            now += pause;
            let trial = admit(&mut breaker, now).unwrap();
            breaker.failed(trial, None, now);
            pause = (pause * 2).min(ORIGIN.pause_max);
        }
        assert_eq!(pause, ORIGIN.pause_max);
    }

    #[test]
    fn an_abandoned_trial_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + ORIGIN.pause;
        let first = admit(&mut breaker, later).unwrap();
        breaker.abandoned(first);
        let second = admit(&mut breaker, later).unwrap();
        // Even one that nobody reported on, which then comes too late.
        let third = admit(&mut breaker, later + TRIAL_MAX).unwrap();
        breaker.good(second, later + TRIAL_MAX);
        assert_eq!(breaker.state(later + TRIAL_MAX), State::HalfOpen);
        breaker.good(third, later + TRIAL_MAX);
        assert_eq!(breaker.state(later + TRIAL_MAX), State::Closed);
    }

    #[test]
    fn half_failing_opens_it_and_old_failures_are_forgotten() {
        let now = Instant::now();
        let mut breaker = Breaker::new(ORIGIN, now);
        let pass = admit(&mut breaker, now).unwrap();
        for n in 0..WINDOW_REQUESTS_MIN {
            assert_eq!(breaker.state(now), State::Closed, "after {n}");
            if n % 2 == 0 { breaker.good(pass, now) } else { breaker.failed(pass, None, now) }
        }
        assert_eq!(breaker.state(now), State::Open);
        let mut breaker = Breaker::new(ORIGIN, now);
        for n in 0..u64::from(WINDOW_REQUESTS_MIN) * 3 {
            let at = now + ms(n * 1100);
            let pass = admit(&mut breaker, at).unwrap();
            if n % 2 == 0 {
                breaker.good(pass, at)
            } else {
                breaker.failed(pass, None, at)
            }
            assert_eq!(breaker.state(at), State::Closed);
        }
    }

    #[test]
    fn who_began_before_ends_no_trial_and_opens_nothing_that_closed_since() {
        let now = Instant::now();
        let mut breaker = Breaker::new(ORIGIN, now);
        let before = admit(&mut breaker, now).unwrap();
        (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(before, None, now));
        breaker.good(before, now + ms(1));
        assert_eq!(breaker.state(now + ms(1)), State::Open);
        let later = now + ORIGIN.pause;
        let trial = admit(&mut breaker, later).unwrap();
        let reports: [&dyn Fn(&mut Breaker); 3] = [
            &|breaker| breaker.good(before, later),
            &|breaker| breaker.failed(before, None, later),
            &|breaker| breaker.abandoned(before),
        ];
        for report in reports {
            report(&mut breaker);
            assert_eq!((breaker.state(later), admit(&mut breaker, later)), (State::HalfOpen, None));
        }
        breaker.answered(trial, later);
        assert_eq!(breaker.state(later), State::Closed);
        (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(before, None, later));
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn blame_opens_it_but_ends_no_trial() {
        let now = Instant::now();
        let mut breaker = Breaker::new(PEER, now);
        (0..PEER.in_row_max).for_each(|_| breaker.blamed(now));
        let later = now + PEER.pause;
        let trial = admit(&mut breaker, later).unwrap();
        breaker.blamed(later);
        breaker.good(trial, later);
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn no_number_of_failures_of_one_path_opens_it() {
        let now = Instant::now();
        for apart in [ms(1), ms(900), ms(10_000), ms(30_000)] {
            let mut breaker = Breaker::new(ORIGIN, now);
            for n in 0..ORIGIN.in_row_max * 10 {
                let at = now + apart * n;
                let pass = breaker.admit(path(1), at).unwrap();
                breaker.failed(pass, Some(path(1)), at);
                assert_eq!(breaker.state(at), State::Closed, "{n} each {apart:?}");
            }
        }
    }

    /// A breaker to which so many paths fail at once, `after` the last answer.
    fn failed(paths: u32, after: Duration, now: Instant) -> (Breaker, Instant) {
        let (mut breaker, at) = (Breaker::new(ORIGIN, now), now + after);
        let pass = admit(&mut breaker, now).unwrap();
        for n in 0..paths {
            assert_eq!(breaker.state(at), State::Closed, "after {n}");
            (0..9).for_each(|_| breaker.failed(pass, Some(path(n)), at));
        }
        (breaker, at)
    }

    #[test]
    fn paths_that_all_fail_open_it() {
        let (now, many) = (Instant::now(), u32::try_from(PATHS_MAX).unwrap());
        let (breaker, at) = failed(many, SILENCE_MIN, now);
        assert_eq!(breaker.state(at), State::Open);
        // More seldom.
        let (mut breaker, _) = failed(1, SILENCE_MIN, now);
        for n in 1..ORIGIN.in_row_max {
            let at = now + SILENCE_MIN + ms(1100) * n;
            assert_eq!(breaker.state(at), State::Closed, "after {n}");
            breaker.failed(breaker.pass, Some(path(n)), at);
        }
        assert!(breaker.open.is_some());
    }

    #[test]
    fn no_number_of_paths_opens_it_while_others_are_answered() {
        let (now, many) = (Instant::now(), ORIGIN.in_row_max * 2);
        let (mut breaker, mut at) = failed(many, SILENCE_MIN - ms(1), now);
        for _ in 0..9 {
            let pass = breaker.admit(path(many), at).unwrap();
            breaker.answered(pass, at);
            at += SILENCE_MIN - ms(1);
            (0..many).for_each(|n| breaker.failed(pass, Some(path(n)), at));
            assert_eq!(breaker.state(at), State::Closed);
        }
        // Once nothing is answered any more, it takes as many paths anew.
        breaker.failed(breaker.pass, Some(path(0)), at + ms(1));
        assert_eq!(breaker.state(at + ms(1)), State::Open);
        let pass = admit(&mut Breaker::new(ORIGIN, now), now).unwrap();
        let mut breaker = Breaker::new(ORIGIN, now);
        for n in 0..many {
            let at = now + ms(100) * n;
            breaker.failed(pass, Some(path(n)), at);
            breaker.answered(pass, at);
            assert_eq!(breaker.state(at), State::Closed);
        }
    }

    #[test]
    fn a_path_that_failed_as_a_trial_gives_way_and_makes_no_pause_longer() {
        let now = Instant::now();
        let (mut breaker, bad) = (opened(now), path(1));
        let first = now + ORIGIN.pause;
        let trial = breaker.admit(bad, first).unwrap();
        breaker.failed(trial, Some(bad), first);
        let pause = ORIGIN.pause * 2;
        let mut at = first + pause;
        for _ in 0..9 {
            assert_eq!((breaker.state(at), breaker.admit(bad, at)), (State::HalfOpen, None));
            // Nobody else came.
            at += pause;
            let trial = breaker.admit(bad, at).unwrap();
            breaker.failed(trial, Some(bad), at);
            assert_eq!(breaker.state(at + pause - ms(1)), State::Open);
            at += pause;
        }
        assert_eq!(breaker.admit(bad, at), None);
        let trial = breaker.admit(path(2), at).unwrap();
        breaker.good(trial, at);
        assert_eq!(breaker.state(at), State::Closed);
    }
}
