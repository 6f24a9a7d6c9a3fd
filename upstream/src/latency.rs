//! How long a hop takes to its head: a decaying histogram. Pure.

use std::time::Duration;

/// Buckets of powers of 2^(1/4), from 100 µs on: the last one begins at about 109 s.
const BUCKETS: usize = 81;
const FIRST: f64 = 100e-6;
const PER_DOUBLING: f64 = 4.0;
/// At this weight all counts are halved, so that the last thousand or so answers rule.
const WEIGHT_MAX: f64 = 2_000.0;
/// Answers before anything is said.
const SAMPLES_MIN: f64 = 50.0;
/// Answers before it is said roughly.
const SAMPLES_ROUGH_MIN: f64 = 8.0;

#[derive(Debug)]
pub(crate) struct Latency {
    counts: [f64; BUCKETS],
    weight: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: [0.0; BUCKETS], weight: 0.0 }
    }
}

fn bucket(took: Duration) -> usize {
    let ratio = took.as_secs_f64() / FIRST;
    if ratio <= 1.0 {
        return 0;
    }
    // The ratio is finite and above 1; the product is cut at the last bucket.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let place = (ratio.log2() * PER_DOUBLING).ceil() as usize;
    place.min(BUCKETS - 1)
}

impl Latency {
    pub(crate) fn note(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1.0;
        self.weight += 1.0;
        if self.weight >= WEIGHT_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
            self.weight /= 2.0;
        }
    }

    /// The time that `share` (0 to 1) of the answers took at most, rounded up by less than a
    /// fifth; nothing before there were enough answers.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        self.of(share, SAMPLES_MIN)
    }

    /// The median, as soon as there are some answers.
    pub(crate) fn rough_median(&self) -> Option<Duration> {
        self.of(0.5, SAMPLES_ROUGH_MIN)
    }

    fn of(&self, share: f64, samples_min: f64) -> Option<Duration> {
        if self.weight < samples_min {
            return None;
        }
        let mut sum = 0.0;
        let place = self.counts.iter().position(|count| {
            sum += count;
            sum >= share * self.weight
        })?;
        let doublings = f64::from(u32::try_from(place).unwrap_or(u32::MAX)) / PER_DOUBLING;
        Some(Duration::from_secs_f64(FIRST * doublings.exp2()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_and_nothing_is_said_too_early() {
        let mut latency = Latency::default();
        (1..=7).for_each(|ms| latency.note(Duration::from_millis(ms)));
        assert_eq!(latency.rough_median(), None);
        (8..=49).for_each(|ms| latency.note(Duration::from_millis(ms)));
        assert_eq!(latency.quantile(0.5), None);
        assert!(latency.rough_median().unwrap() >= Duration::from_millis(25));
        (50..=1000).for_each(|ms| latency.note(Duration::from_millis(ms)));
        for (share, exact) in [(0.5, 0.5), (0.99, 0.99)] {
            let said = latency.quantile(share).unwrap().as_secs_f64();
            assert!(said >= exact && said < exact * 1.2, "{share}: {said}");
        }
    }

    #[test]
    fn what_is_long_ago_fades() {
        let mut latency = Latency::default();
        (0..5000).for_each(|_| latency.note(Duration::from_secs(2)));
        (0..10_000).for_each(|_| latency.note(Duration::from_millis(5)));
        assert!(latency.quantile(0.9).unwrap() < Duration::from_millis(10));
    }

    #[test]
    fn extremes_have_a_bucket() {
        for took in [Duration::ZERO, Duration::MAX] {
            assert!(bucket(took) < BUCKETS);
        }
    }
}
