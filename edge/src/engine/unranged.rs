//! Which objects' origins know no ranges: they answer with the whole, whatever is asked for. Then
//! whatever of it is missing is taken from that one answer.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects of which that is remembered; one that is forgotten costs a request more.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// The bodies of which it is known.
pub struct Unranged {
    bodies: Mutex<LruCache<[u8; 16], ()>>,
    claiming: Mutex<()>,
}

impl Default for Unranged {
    fn default() -> Self {
        Self { bodies: Mutex::new(LruCache::new(REMEMBERED_MAX)), claiming: Mutex::default() }
    }
}

impl Unranged {
    fn lock(&self) -> MutexGuard<'_, LruCache<[u8; 16], ()>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If this one's origin was seen to send all of it: the right to claim, alone. Were parts of
    /// it claimed by two at a time, each would ask for all.
    pub fn claiming(&self, body: &[u8; 16]) -> Option<MutexGuard<'_, ()>> {
        self.lock().get(body)?;
        Some(self.claiming.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It was asked for a part, and sent all.
    pub fn set(&self, body: [u8; 16]) {
        self.lock().put(body, ());
    }

    /// It has sent a part.
    pub fn unset(&self, body: &[u8; 16]) {
        self.lock().pop(body);
    }
}
