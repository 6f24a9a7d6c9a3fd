//! Since when what other nodes have of a URL may be old: one of them was found to have another
//! version than the next, or an unsafe request has changed it by way of some of them alone.
//!
//! Those that are asked from then on are told, as after a purge. In memory: a restart forgets it, as
//! does a URL that is beyond as many.

use heads::KeyId;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// URLs of which that is known, some 6 MB.
const OUTDATED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The last moment for each URL, in milliseconds since 1970 UTC.
pub struct Outdated(Mutex<LruCache<KeyId, i64>>);

impl Default for Outdated {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(OUTDATED_MAX)))
    }
}

impl Outdated {
    /// What is from this moment or before may be old.
    pub fn note(&self, key: KeyId, at_ms: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, at_ms);
    }

    /// What was noted last of a URL.
    pub fn last(&self, key: &KeyId) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}
