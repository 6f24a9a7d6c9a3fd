//! What is known of a hop: whether it answers, well, and how soon.

use crate::breaker::{self, Breaker, Pass, State};
use crate::failing::Asked;
use crate::habits::{Habits, Patience};
use crate::latency::Latency;
use crate::window::Window;
use http::StatusCode;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A hop that can be reached has failed if it did this often within the window, and this share of
/// all requests, in percent: no answer, a broken or wrong one, or that it can't (502, 503, 504).
/// Less may be about what it was asked for.
const BAD_MAX: u32 = 3;
const BAD_PERCENT_MAX: u32 = 50;
/// It is sound while it answers, and no more than one in so many within the window was a 5xx, or none.
const SOUND_SHARE: u32 = 10;
/// An origin that was much slower than others shows this often, by one request, if it still is.
const LOOKED_AGAIN: Duration = Duration::from_secs(5);
/// It is not, when that one's answer begins within this share of its median.
const QUICKER_TIMES: u32 = 2;

pub(crate) struct Known {
    pub(crate) breaker: Breaker,
    pub(crate) habits: Habits,
    /// When it last failed, if that is to keep requests away.
    pub(crate) failed: Option<Instant>,
    lately: Window,
    /// Its heads, of which a 5xx of any kind is a bad one, and what came to nothing.
    answers: Window,
    latency: Latency,
    /// When a request was sent to see whether it is still slow.
    looked: Option<Instant>,
    /// Cancelled when the hop is found silent; a new one when it is back.
    pub(super) alive: CancellationToken,
}

impl Known {
    pub(super) fn new(limits: breaker::Limits, now: Instant) -> Self {
        Self {
            breaker: Breaker::new(limits, now),
            habits: Habits::default(),
            failed: None,
            lately: Window::new(now),
            answers: Window::new(now),
            latency: Latency::default(),
            looked: None,
            alive: CancellationToken::new(),
        }
    }

    pub(super) fn would_admit(&self, now: Instant) -> bool {
        !self.alive.is_cancelled() && self.breaker.would_admit(now)
    }

    pub(super) fn state(&self, now: Instant) -> State {
        if self.alive.is_cancelled() { State::Open } else { self.breaker.state(now) }
    }

    /// How long what is asked for may be waited for before that is long.
    pub(super) fn patience(&self, asked: Asked) -> Patience {
        self.habits.patience(asked, self.latency.rough_median())
    }

    /// A head came.
    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        match status.is_server_error() {
            true => self.answers.failed(now),
            false => self.answers.good(now),
        }
    }

    /// A head came after this time. What was known of a hop that was slow is forgotten when it is
    /// much quicker: it is asked too seldom for that to fade.
    pub(crate) fn head_after(&mut self, took: Duration) {
        let half = self.latency.quantile(0.5).filter(|_| self.looked.is_some());
        if half.is_some_and(|half| took * QUICKER_TIMES <= half) {
            (self.latency, self.looked) = (Latency::default(), None);
        }
        self.latency.note(took);
    }

    /// Whether it is time to see if it is still slow; then a request is to be sent.
    pub(super) fn look_again(&mut self, now: Instant) -> bool {
        let is_due = self.looked.is_none_or(|at| now.duration_since(at) >= LOOKED_AGAIN);
        self.looked = if is_due { Some(now) } else { self.looked };
        is_due
    }

    /// See [`Latency::quantile`].
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        self.latency.quantile(share)
    }

    /// An exchange was whole, or given up after a good head.
    pub(crate) fn good(&mut self, pass: Pass, status: Option<StatusCode>, now: Instant) {
        self.breaker.good(pass, now);
        if status.is_some_and(|status| matches!(status.as_u16(), 502..=504)) {
            return self.could_not(now);
        }
        self.lately.good(now);
        if !self.is_bad(now) {
            self.failed = None;
        }
    }

    /// An exchange with it came to nothing good, though it was reached.
    pub(crate) fn bad(&mut self, now: Instant) {
        self.answers.failed(now);
        self.could_not(now);
    }

    fn could_not(&mut self, now: Instant) {
        self.lately.failed(now);
        if self.is_bad(now) {
            self.failed = Some(now);
        }
    }

    /// Whether it has answered lately, nearly all of it well. One that hangs has not.
    pub(crate) fn is_sound(&self, now: Instant) -> bool {
        let (good, bad) = self.answers.counts(now);
        good > 0 && bad * SOUND_SHARE <= good + bad
    }

    fn is_bad(&self, now: Instant) -> bool {
        let (good, bad) = self.lately.counts(now);
        bad >= BAD_MAX && bad * 100 >= (good + bad) * BAD_PERCENT_MAX
    }
}
