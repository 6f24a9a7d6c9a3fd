//! Things that go wrong many times a second and are told of in the log: the first at once, those
//! that follow together, so that the log stays readable. It does not write; time is passed in.

use std::time::{Duration, Instant};

/// The log tells of the same thing no more often than this.
pub const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What was counted and no log line has told.
#[derive(Debug, Default)]
pub struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Untold {
    /// Counts some more; how many to tell of now, if it is time.
    pub fn add(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.count = self.count.saturating_add(count);
        let is_time = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if !is_time || self.count == 0 {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_others_together() {
        let (mut untold, start) = (Untold::default(), Instant::now());
        assert_eq!(untold.add(0, start), None);
        assert_eq!(untold.add(3, start), Some(3));
        assert_eq!(untold.add(1, start + Duration::from_secs(1)), None);
        assert_eq!(untold.add(2, start + Duration::from_secs(9)), None);
        assert_eq!(untold.add(4, start + TOLD_EVERY), Some(7));
    }
}
