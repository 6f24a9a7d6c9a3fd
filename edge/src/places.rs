//! Room for responses.

use crate::refused::Refused;
use prometheus::IntGauge;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

    /// A place for a response of this urgency (RFC 9218). Urgencies 0 to 3, which is what a
    /// request that says nothing has, may fill all of it, 4 and 5 may not take the last
    /// twentieth, 6 and 7 not the last tenth: under too much load prefetches go before playback.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub fn take(&self, urgency: u8) -> Result<Place, Refused> {
        let kept = match urgency {
            0..=3 => 0,
            4..=5 => self.max.div_ceil(20),
            _ => self.max.div_ceil(10),
        };
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
