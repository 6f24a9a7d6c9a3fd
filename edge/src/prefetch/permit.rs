//! Leave to prefetch one thing, and how that ends.
//!
//! Invariant: what is held against the budget is given back, less what was spent, exactly once.

use super::Inner;
use super::budget::REQUEST_BYTES;
use super::vain::Hint;
use std::sync::Arc;
use std::time::Instant;

/// Leave to prefetch one thing. Dropped without being told how it ended it counts as failed, and
/// its bytes are given back: nothing was asked for.
pub struct Permit {
    inner: Arc<Inner>,
    pub(super) key: u64,
    pub(super) hint: Option<Hint>,
    pub(super) bytes: u64,
    pub(super) given: Instant,
    is_done: bool,
}

/// How a prefetch ended, and how many bytes came from elsewhere.
pub(super) enum End {
    Done(u64),
    GaveUp(u64),
    InVain(u64),
    /// Nobody was asked for it.
    Unasked,
}

impl End {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Done(bytes) | Self::GaveUp(bytes) | Self::InVain(bytes) => *bytes,
            Self::Unasked => 0,
        }
    }

    /// What of the budget it took: none where all was here.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::InVain(bytes) => REQUEST_BYTES.max(*bytes),
            _ if self.bytes() > 0 => REQUEST_BYTES.max(self.bytes()),
            _ => 0,
        }
    }
}

impl Permit {
    pub(super) fn new(
        inner: &Arc<Inner>,
        (key, hint): (u64, Option<Hint>),
        bytes: u64,
        given: Instant,
    ) -> Self {
        Self { inner: Arc::clone(inner), key, hint, bytes, given, is_done: false }
    }

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
        self.ended("done", &End::Done(bytes));
    }

    /// It was not taken to its end, and `bytes` came from elsewhere. What cost nothing may be
    /// tried again.
    pub fn gave_up(self, bytes: u64) {
        if bytes > 0 {
            self.ended("failed", &End::GaveUp(bytes));
        }
    }

    /// It was asked for, `bytes` came, and nothing of it is here: a request is what that cost at
    /// the least.
    pub fn in_vain(self, bytes: u64) {
        self.ended("failed", &End::InVain(bytes));
    }

    fn ended(mut self, outcome: &str, end: &End) {
        self.is_done = true;
        self.inner.outcomes.with_label_values(&[outcome]).inc();
        self.inner.ended(&self, end);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_done {
            self.inner.outcomes.with_label_values(&["failed"]).inc();
            self.inner.ended(self, &End::Unasked);
        }
    }
}
