//! Chunks that are here before whoever will read them.
//!
//! Nobody has used them yet, so the caches let go of them first. What is in a place here stays in
//! memory until it is let go of. Invariant: there are never more places than were set.

use crate::value::{Chunk, Key};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places for such chunks.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    chunks: HashMap<Key, Arc<Chunk>>,
}

/// A place for one chunk, of 1 MiB at most, until it is dropped.
pub struct Ahead {
    shared: Arc<Shared>,
    key: Option<Key>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Shared { most, state: Mutex::default() }))
    }

    /// A place for the chunk that is so many after the one that is read. This and the next one may
    /// have the last place; those beyond have half of them, so that a few readers do not have all.
    pub(crate) fn take(&self, by: u64) -> Option<Ahead> {
        let mut state = self.0.lock();
        let most = if by > 1 { self.0.most / 2 } else { self.0.most };
        if state.taken >= most {
            return None;
        }
        state.taken += 1;
        Some(Ahead { shared: Arc::clone(&self.0), key: None })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Chunk>> {
        self.0.lock().chunks.get(key).cloned()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.lock().chunks.contains_key(key)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().taken
    }
}

impl Ahead {
    /// Keeps a chunk, unless another place has it.
    pub(crate) fn keep(&mut self, chunk: Chunk) {
        let key = *chunk.key();
        let mut state = self.shared.lock();
        if self.key.is_none() && !state.chunks.contains_key(&key) {
            state.chunks.insert(key, Arc::new(chunk));
            self.key = Some(key);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.taken -= 1;
        let kept = self.key.and_then(|key| state.chunks.remove(&key));
        drop(state);
        // Its memory goes back without the lock.
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Copy;
    use bytes::Bytes;

    fn chunk(number: u32) -> Chunk {
        Chunk::new(Key { body: [1; 16], number }, Bytes::from_static(b"x"), Copy::None)
    }

    #[test]
    fn the_next_chunk_may_have_the_last_place_and_those_beyond_have_half() {
        let places = Places::new(4);
        let beyond: Vec<_> = (2..10).filter_map(|by| places.take(by)).collect();
        let next: Vec<_> = (0..10).filter_map(|_| places.take(1)).collect();
        assert_eq!((beyond.len(), next.len(), places.taken()), (2, 2, 4));
        drop(next);
        assert!(places.take(2).is_none());
        drop(beyond);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_chunk_is_here_for_as_long_as_it_has_its_place() {
        let places = Places::new(4);
        let key = *chunk(7).key();
        let [mut first, mut second] = [places.take(1).unwrap(), places.take(1).unwrap()];
        first.keep(chunk(7));
        second.keep(chunk(7));
        drop(second);
        assert!(places.contains(&key));
        assert_eq!(places.get(&key).unwrap().bytes(), "x");
        drop(first);
        assert!(!places.contains(&key));
    }
}
