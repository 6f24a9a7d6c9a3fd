//! A node as its clients know it: where it is, and what it may not answer with any more.

use super::THING_BYTES;
use super::process::Place;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Of each thing, a version.
struct Versions(Vec<AtomicU64>);

impl Versions {
    fn none() -> Self {
        Self((0..=THING_BYTES.len()).map(|_| AtomicU64::new(0)).collect())
    }

    fn get(&self, number: usize) -> u64 {
        self.0[number].load(Ordering::SeqCst)
    }

    fn raise(&self, number: usize, version: u64) {
        self.0[number].fetch_max(version, Ordering::SeqCst);
    }
}

pub struct Node {
    pub id: String,
    place: Mutex<Arc<Place>>,
    /// Versions below which no answer to a new request may be: older ones were purged here.
    purged: Versions,
    /// The same of what was invalidated by a request that was sent here.
    invalidated: Versions,
    /// Other nodes are asked for what is not here.
    has_others: bool,
}

impl Node {
    pub fn new(id: &str, place: &Arc<Place>, has_others: bool) -> Self {
        Self {
            id: id.to_owned(),
            place: Mutex::new(Arc::clone(place)),
            purged: Versions::none(),
            invalidated: Versions::none(),
            has_others,
        }
    }

    /// Where it is asked.
    pub fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place.lock().unwrap())
    }

    /// It was started anew, and is elsewhere from now on. What it has passed an unsafe request for
    /// is told to other nodes until a restart.
    pub fn moved(&self, place: &Arc<Place>) {
        *self.place.lock().unwrap() = Arc::clone(place);
        if self.has_others {
            self.invalidated.0.iter().for_each(|version| version.store(0, Ordering::SeqCst));
        }
    }

    /// The version of a thing below which no answer to a new request may be.
    pub fn floor(&self, number: usize) -> u64 {
        self.purged.get(number).max(self.invalidated.get(number))
    }

    pub fn purged(&self, number: usize, version: u64) {
        self.purged.raise(number, version);
    }

    pub fn invalidated(&self, number: usize, version: u64) {
        self.invalidated.raise(number, version);
    }
}
