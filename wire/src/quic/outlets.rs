//! The sending halves of the streams of requests that h3 reads: what answers takes them out of
//! h3's hands.
//!
//! Invariant: one that nobody takes goes with what h3 has of its stream.

use h3::quic::StreamId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sending halves of the requests' streams, until they are taken.
#[derive(Clone, Default)]
pub struct Outlets(Arc<Mutex<HashMap<u64, Outlet>>>);

/// A sending half, until it is taken.
pub type Outlet = Arc<Mutex<Option<quinn::SendStream>>>;

/// What a mutex holds, whatever happened to others who held it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outlets {
    /// Takes the sending half of a request's stream; h3 sends nothing on it any more.
    pub fn take(&self, id: StreamId) -> Option<quinn::SendStream> {
        let outlet = locked(&self.0).remove(&id.into_inner())?;
        locked(&outlet).take()
    }

    /// Keeps the sending half of a stream.
    pub fn insert(&self, id: StreamId, outlet: &Outlet) {
        locked(&self.0).insert(id.into_inner(), Arc::clone(outlet));
    }

    /// Keeps it no longer.
    pub fn forget(&self, id: StreamId) {
        locked(&self.0).remove(&id.into_inner());
    }
}
