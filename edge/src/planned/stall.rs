//! Whether the planned tier's disk is asked: one that stalls is left alone for a while, then
//! tried by whoever comes next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first pause after a stall; it doubles with each stall in a row.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The disk's state.
#[derive(Default)]
pub struct Disk(Mutex<State>);

#[derive(Default)]
struct State {
    stalls: u32,
    until: Option<Instant>,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is left alone now.
    pub fn is_off(&self, now: Instant) -> bool {
        self.lock().until.is_some_and(|until| now < until)
    }

    /// A read ended in time.
    pub fn is_well(&self) {
        *self.lock() = State::default();
    }

    /// A read did not end in time. Returns how long the disk is left alone: reads that were
    /// under way when it was found to stall add nothing to that.
    pub fn stalled(&self, now: Instant) -> Duration {
        let mut state = self.lock();
        if state.until.is_some_and(|until| now < until) {
            return Duration::ZERO;
        }
        let pause = PAUSE.saturating_mul(1 << state.stalls.min(5)).min(PAUSE_MAX);
        state.stalls = state.stalls.saturating_add(1);
        state.until = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stalls_is_left_alone_for_longer_and_longer_and_comes_back() {
        let (disk, start) = (Disk::default(), Instant::now());
        assert!(!disk.is_off(start));
        assert_eq!(disk.stalled(start), PAUSE);
        assert_eq!(disk.stalled(start), Duration::ZERO);
        assert!(disk.is_off(start + PAUSE / 2));
        let later = start + PAUSE;
        assert!(!disk.is_off(later));
        assert_eq!(disk.stalled(later), 2 * PAUSE);
        let mut now = later;
        for _ in 0..10 {
            now += PAUSE_MAX;
            disk.stalled(now);
        }
        assert_eq!(disk.stalled(now + PAUSE_MAX), PAUSE_MAX);
        disk.is_well();
        assert!(!disk.is_off(now));
        assert_eq!(disk.stalled(now), PAUSE);
    }
}
