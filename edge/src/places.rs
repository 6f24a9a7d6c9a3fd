//! Room for responses.

use crate::refused::Refused;
use prometheus::IntGauge;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// That of a request that says nothing, and the least (RFC 9218 section 4.1).
const URGENCY_USUAL: u8 = 3;
const URGENCY_LAST: u8 = 7;
/// One place in so many is kept from what is less urgent than usual, for each step.
const KEPT_SHARE: usize = 40;

/// Room for responses, of which the last is kept for what is urgent.
pub struct Places {
    free: Arc<Semaphore>,
    max: usize,
    taken: IntGauge,
}

/// One response's room, counted and given back when dropped.
pub struct Place {
    taken: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

impl Places {
    /// Room for `max`; `taken` tells how many have it.
    pub fn new(max: usize, taken: IntGauge) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max, taken }
    }

    /// A place for a response of this urgency (RFC 9218). For each step below 3, which is what a
    /// request that says nothing has, a fortieth more is kept from it, a tenth from 7: under too much
    /// load prefetches go before playback. From 3 nothing is kept, so that all places are of use, and
    /// nothing can be for 0 to 2 alone: nobody waits here whom they could go before.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub fn take(&self, urgency: u8) -> Result<Place, Refused> {
        let steps = usize::from(urgency.clamp(URGENCY_USUAL, URGENCY_LAST) - URGENCY_USUAL);
        let kept = (steps * self.max).div_ceil(KEPT_SHARE);
        if kept > 0 && self.free.available_permits() <= kept {
            return Err(Refused::Busy);
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| Refused::Busy)?;
        self.taken.inc();
        Ok(Place { taken: self.taken.clone(), _permit: permit })
    }

    /// The share that is taken.
    pub fn load(&self) -> f64 {
        (self.max.saturating_sub(self.free.available_permits())) as f64 / self.max.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_less_urgent_goes_first_step_by_step() {
        let places = Places::new(400, IntGauge::new("taken", "places").unwrap());
        let mut held = Vec::new();
        for (urgency, most) in [(7, 360), (6, 370), (5, 380), (4, 390), (3, 400), (0, 400)] {
            held.extend(std::iter::from_fn(|| places.take(urgency).ok()));
            assert_eq!(held.len(), most, "{urgency}");
        }
    }

    #[test]
    fn the_last_places_are_for_playback() {
        let taken = IntGauge::new("taken", "places").unwrap();
        let places = Places::new(20, taken.clone());
        let mut held: Vec<Place> = (0..18).map(|_| places.take(3).unwrap()).collect();
        assert!(places.take(7).is_err());
        held.push(places.take(5).unwrap());
        assert!(places.take(5).is_err());
        held.push(places.take(3).unwrap());
        assert!(places.take(0).is_err());
        assert!((places.load() - 1.0).abs() < f64::EPSILON);
        assert_eq!(taken.get(), 20);
        drop(held);
        assert_eq!(taken.get(), 0);
    }
}
