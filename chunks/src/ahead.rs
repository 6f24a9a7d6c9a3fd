//! Chunks that are here for a reader that has yet to take them, or the rest of them.
//!
//! Hardly anybody has used them yet, so the caches let go of them first; or nobody could have them
//! again. What is in a place here stays in memory until it is let go of. Invariant: there are never
//! more places than were set.

use crate::value::{Chunk, Key};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    /// Of these, by chunks that can't be had again.
    last: usize,
    chunks: HashMap<Key, Kept>,
    /// Arena bytes of those that no cache has.
    bytes_outside: u64,
}

struct Kept {
    chunk: Arc<Chunk>,
    places: usize,
    is_outside: bool,
}

impl State {
    /// Notes whether a chunk, if it has a place, is in no cache.
    fn note(&mut self, key: &Key, is_outside: bool) {
        let Some(kept) = self.chunks.get_mut(key) else { return };
        let bytes = kept.chunk.block_bytes() as u64;
        match (std::mem::replace(&mut kept.is_outside, is_outside), is_outside) {
            (false, true) => self.bytes_outside += bytes,
            (true, false) => self.bytes_outside -= bytes,
            _ => {}
        }
    }
}

/// A place for one chunk, of 1 MiB at most, until it is dropped.
pub struct Ahead {
    shared: Arc<Shared>,
    key: Option<Key>,
    /// For a chunk that can't be had again.
    is_last: bool,
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

    /// A place for the chunk that is so many after the one that is read. Only the one that is read
    /// may have the last place: without it that chunk would be fetched again and again. The next
    /// one may have half of them, and those beyond a quarter, so that a few readers do not have
    /// all.
    pub(crate) fn take(&self, by: u64) -> Option<Ahead> {
        let mut state = self.0.lock();
        let most = match by {
            0 => self.0.most,
            1 => self.0.most / 2,
            _ => self.0.most / 4,
        };
        if state.taken >= most {
            return None;
        }
        state.taken += 1;
        Some(Ahead { shared: Arc::clone(&self.0), key: None, is_last: false })
    }

    /// A place for a chunk that can't be had again: of all of them, these may have half.
    pub(crate) fn take_last(&self) -> Option<Ahead> {
        let mut state = self.0.lock();
        if state.taken >= self.0.most || state.last >= self.0.most / 2 {
            return None;
        }
        (state.taken, state.last) = (state.taken + 1, state.last + 1);
        Some(Ahead { shared: Arc::clone(&self.0), key: None, is_last: true })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Chunk>> {
        self.0.lock().chunks.get(key).map(|kept| Arc::clone(&kept.chunk))
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.lock().chunks.contains_key(key)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().taken
    }

    /// Arena bytes of the chunks that are in memory for their places' sake alone.
    pub(crate) fn bytes_outside(&self) -> u64 {
        self.0.lock().bytes_outside
    }

    /// A cache is about to have the chunk.
    pub(crate) fn enters(&self, key: &Key) {
        self.0.lock().note(key, false);
    }

    /// A cache has let go of the chunk.
    pub(crate) fn leaves(&self, key: &Key) {
        self.0.lock().note(key, true);
    }
}

impl Ahead {
    /// Keeps a chunk, which a cache has so far or none.
    pub(crate) fn keep(&mut self, chunk: Chunk, is_outside: bool) {
        let key = *chunk.key();
        if self.key.replace(key).is_some() {
            return;
        }
        let mut state = self.shared.lock();
        match state.chunks.entry(key) {
            Entry::Occupied(mut kept) => kept.get_mut().places += 1,
            Entry::Vacant(free) => {
                free.insert(Kept { chunk: Arc::new(chunk), places: 1, is_outside: false });
                state.note(&key, is_outside);
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.taken -= 1;
        state.last -= usize::from(self.is_last);
        let kept = self.key.and_then(|key| {
            let kept = state.chunks.get_mut(&key)?;
            kept.places -= 1;
            if kept.places > 0 {
                return None;
            }
            state.note(&key, false);
            state.chunks.remove(&key)
        });
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
    fn the_chunk_that_is_read_may_have_the_last_place_and_those_beyond_it_a_share() {
        let places = Places::new(8);
        let taken = |by| -> Vec<_> { (0..10).map_while(|_| places.take(by)).collect() };
        let (beyond, next, read) = (taken(2), taken(1), taken(0));
        assert_eq!((beyond.len(), next.len(), read.len(), places.taken()), (2, 2, 4, 8));
        drop(read);
        assert!(places.take(1).is_none());
        drop(next);
        assert!(places.take(2).is_none());
        drop(beyond);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn what_is_in_no_cache_is_counted_until_its_place_is_let_go_of() {
        let places = Places::new(4);
        let key = *chunk(7).key();
        let block = chunk(7).block_bytes() as u64;
        let mut place = places.take(1).unwrap();
        place.keep(chunk(7), true);
        assert_eq!(places.bytes_outside(), block);
        for (note, bytes) in [
            (Places::enters as fn(&Places, &Key), 0),
            (Places::leaves, block),
            (Places::leaves, block),
        ] {
            note(&places, &key);
            assert_eq!(places.bytes_outside(), bytes);
        }
        places.leaves(chunk(8).key());
        drop(place);
        assert_eq!(places.bytes_outside(), 0);
    }

    #[test]
    fn a_chunk_is_here_for_as_long_as_it_has_a_place() {
        let places = Places::new(4);
        let key = *chunk(7).key();
        for first_goes_first in [true, false] {
            let [mut first, mut second] = [places.take(1).unwrap(), places.take(1).unwrap()];
            first.keep(chunk(7), true);
            second.keep(chunk(7), true);
            let (goes, stays) = if first_goes_first { (first, second) } else { (second, first) };
            drop(goes);
            assert_eq!(places.get(&key).unwrap().bytes(), "x");
            assert_eq!(places.bytes_outside(), chunk(7).block_bytes() as u64);
            drop(stays);
            assert!(!places.contains(&key));
            assert_eq!((places.taken(), places.bytes_outside()), (0, 0));
        }
    }

    #[test]
    fn what_can_not_be_had_again_may_have_half_of_the_places() {
        let places = Places::new(8);
        let last: Vec<_> = (0..10).map_while(|_| places.take_last()).collect();
        let read: Vec<_> = (0..10).map_while(|_| places.take(0)).collect();
        assert_eq!((last.len(), read.len()), (4, 4));
        drop(last);
        let more: Vec<_> = (0..10).map_while(|_| places.take(0)).collect();
        assert_eq!(more.len(), 4);
        drop((read, more));
        assert_eq!(places.taken(), 0);
    }
}
