//! Good and failed requests of the last seconds. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// The window is this many slots of this length.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// What is older counts no more.
pub(crate) const LENGTH: Duration = SLOT.saturating_mul(SLOTS as u32);

/// Counts that forget.
#[derive(Debug)]
pub(crate) struct Window {
    /// Good and failed requests of each slot, and which slot of time it holds.
    slots: [(u64, u32, u32); SLOTS],
    since: Instant,
}

impl Window {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: [(0, 0, 0); SLOTS], since: now }
    }

    pub(crate) fn good(&mut self, now: Instant) {
        self.slot(now).1 += 1;
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.slot(now).2 += 1;
    }

    /// Good and failed ones.
    pub(crate) fn counts(&self, now: Instant) -> (u32, u32) {
        let oldest = (self.number(now) + 1).saturating_sub(SLOTS as u64);
        let recent = self.slots.iter().filter(|slot| slot.0 >= oldest);
        recent.fold((0, 0), |sum, slot| (sum.0 + slot.1, sum.1 + slot.2))
    }

    fn number(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs() / SLOT.as_secs()
    }

    fn slot(&mut self, now: Instant) -> &mut (u64, u32, u32) {
        let number = self.number(now);
        let place = usize::try_from(number % SLOTS as u64).unwrap_or(0);
        if self.slots[place].0 != number {
            self.slots[place] = (number, 0, 0);
        }
        &mut self.slots[place]
    }
}
