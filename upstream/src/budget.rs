//! How many tries on top of the first a site may send: a share of its requests. Pure: the time
//! is passed in. Without it an origin in trouble gets each request several times.

use std::time::{Duration, Instant};

/// What a site without traffic may spend at once, and what it gets back for waiting.
const BURST_TRIES_MAX: f64 = 20.0;
const TRIES_PER_SECOND: f64 = 1.0;

/// A bucket of tokens: each request puts in a share of one, each further try takes one.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    tokens: f64,
    filled: Instant,
}

impl Budget {
    pub(crate) fn new(percent: u32, now: Instant) -> Self {
        let tokens = if percent == 0 { 0.0 } else { BURST_TRIES_MAX };
        Self { share: f64::from(percent) / 100.0, tokens, filled: now }
    }

    /// A first try was sent.
    pub(crate) fn request(&mut self) {
        self.tokens = (self.tokens + self.share).min(BURST_TRIES_MAX);
    }

    /// Whether one more try may be sent; takes it.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.share == 0.0 {
            return false;
        }
        let waited = now.saturating_duration_since(self.filled);
        if waited > Duration::ZERO {
            self.tokens =
                (self.tokens + waited.as_secs_f64() * TRIES_PER_SECOND).min(BURST_TRIES_MAX);
            self.filled = now;
        }
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_load_tries_are_a_share_of_requests() {
        let now = Instant::now();
        let mut budget = Budget::new(20, now);
        let taken = (0..10_000).filter(|_| {
            budget.request();
            budget.take(now)
        });
        let taken = taken.count();
        assert!((2_000..=2_020).contains(&taken), "{taken}");
    }

    #[test]
    fn a_quiet_site_may_try_again_and_none_means_none() {
        let now = Instant::now();
        let mut budget = Budget::new(20, now);
        while budget.take(now) {}
        assert!(budget.take(now + Duration::from_secs(1)));
        let mut none = Budget::new(0, now);
        none.request();
        assert!(!none.take(now + Duration::from_secs(100)));
    }
}
