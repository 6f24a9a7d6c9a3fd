//! Which objects' origins take no range that has an end: they answer 416 to one, and name a length
//! that it is within, as servers do that take all digits of a `Range` for one number. Such an object
//! is asked for from a byte on, and left where no more of it is wanted.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Objects of which that is remembered; one that is forgotten costs a request more.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

type Body = [u8; 16];

/// The bodies of which it is known.
pub(super) struct OpenEnded(Mutex<LruCache<Body, ()>>);

impl Default for OpenEnded {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED_MAX)))
    }
}

impl OpenEnded {
    /// Whether this one is to be asked for without an end.
    pub(super) fn knows(&self, body: &Body) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(body).is_some()
    }

    /// It was asked for with one in vain, and without it the same origin has sent what was asked for.
    pub(super) fn set(&self, body: Body) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(body, ());
    }

    /// It was asked for without one, in vain.
    pub(super) fn unset(&self, body: &Body) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(body);
    }
}
