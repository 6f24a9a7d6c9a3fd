//! Which objects' origins know no ranges: they answer with the whole, whatever is asked for. Then
//! whatever of it is missing is taken from that one answer, also what is only asked for while it
//! arrives.
//!
//! A whole answer of an origin that says nothing of ranges is listed, too: it may be such a one, which
//! the answer to the first range that is asked for beside it shows.
//!
//! Invariant: of one object at most one such answer is listed, and who else has one leaves to it
//! what that one has still to bring.

use super::inflight::Claim;
use super::readers::Readers;
use lru::LruCache;
use model::chunk::CHUNK_BYTES;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Objects of which that is remembered; one that is forgotten costs a request more.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

type Body = [u8; 16];

/// The bodies of which it is known.
pub struct Unranged {
    bodies: Mutex<LruCache<Body, ()>>,
    claiming: Mutex<()>,
    /// Answers that bring all of a body now: as many as there are fetches.
    wholes: Arc<Wholes>,
}

type Wholes = Mutex<HashMap<Body, Arc<Whole>>>;

/// An answer that brings all of an object.
pub struct Whole {
    readers: Arc<Readers>,
    joined: Mutex<Joined>,
}

struct Joined {
    /// It has got to this byte.
    at: u64,
    /// It is taken up to this one.
    reach: u64,
    /// What it is to bring on top of what it was begun for.
    claims: Vec<Claim>,
    /// It takes no more of these.
    is_over: bool,
}

/// It is listed for as long as this is held.
pub struct Listed {
    whole: Arc<Whole>,
    body: Body,
    wholes: Arc<Wholes>,
}

impl Default for Unranged {
    fn default() -> Self {
        Self {
            bodies: Mutex::new(LruCache::new(REMEMBERED_MAX)),
            claiming: Mutex::default(),
            wholes: Arc::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unranged {
    /// If this one's origin was seen to send all of it: the right to claim, alone. Were parts of
    /// it claimed by two at a time, each would ask for all.
    pub fn claiming(&self, body: &Body) -> Option<MutexGuard<'_, ()>> {
        lock(&self.bodies).get(body)?;
        Some(lock(&self.claiming))
    }

    /// Whether this one's origin was seen to send all of it.
    pub fn knows(&self, body: &Body) -> bool {
        lock(&self.bodies).contains(body)
    }

    /// It was asked for a part, and sent all.
    pub fn set(&self, body: Body) {
        lock(&self.bodies).put(body, ());
    }

    /// It has sent a part.
    pub fn unset(&self, body: &Body) {
        lock(&self.bodies).pop(body);
    }

    /// The answer that brings all of it now.
    pub fn whole(&self, body: &Body) -> Option<Arc<Whole>> {
        lock(&self.wholes).get(body).cloned()
    }

    /// Lists an answer that brings all of a body, up to byte `reach`; none if there is one.
    pub fn list(&self, body: Body, readers: &Arc<Readers>, reach: u64) -> Option<Listed> {
        let mut wholes = lock(&self.wholes);
        if wholes.contains_key(&body) {
            return None;
        }
        let joined = Joined { at: 0, reach, claims: Vec::new(), is_over: false };
        let whole = Arc::new(Whole { readers: Arc::clone(readers), joined: Mutex::new(joined) });
        wholes.insert(body, Arc::clone(&whole));
        Some(Listed { whole, body, wholes: Arc::clone(&self.wholes) })
    }
}

impl Whole {
    /// Has it bring a chunk, if that is still to come; `claim` claims it for its readers.
    pub fn join(&self, number: u64, claim: impl FnOnce(&Arc<Readers>) -> Option<Claim>) {
        let mut joined = lock(&self.joined);
        let start = number * CHUNK_BYTES;
        if !joined.is_over
            && (joined.at..joined.reach).contains(&start)
            && let Some(claim) = claim(&self.readers)
        {
            joined.claims.push(claim);
            self.readers.tell();
        }
    }

    /// Whether it has still to bring the chunk.
    pub fn brings(&self, number: u64) -> bool {
        let joined = lock(&self.joined);
        !joined.is_over && (joined.at..joined.reach).contains(&(number * CHUNK_BYTES))
    }
}

impl Listed {
    /// It begins, perhaps once more.
    pub fn begin(&self, reach: u64) {
        let mut joined = lock(&self.whole.joined);
        (joined.at, joined.reach, joined.is_over) = (0, reach, false);
    }

    /// Up to where it is taken.
    pub fn reach(&self) -> u64 {
        lock(&self.whole.joined).reach
    }

    /// It has got to byte `at`: what it is to bring on top.
    pub fn at(&self, at: u64) -> Vec<Claim> {
        let mut joined = lock(&self.whole.joined);
        joined.at = at;
        std::mem::take(&mut joined.claims)
    }

    /// It ends, unless somebody has joined it: then false.
    pub fn ends(&self) -> bool {
        let mut joined = lock(&self.whole.joined);
        joined.is_over = joined.claims.is_empty();
        joined.is_over
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.wholes).remove(&self.body);
        let mut joined = lock(&self.whole.joined);
        joined.is_over = true;
        let left = std::mem::take(&mut joined.claims);
        drop(joined);
        // Who waits for these asks anew; but a fetch that panics is not to be had again and again.
        if !std::thread::panicking() {
            left.into_iter().for_each(Claim::hand_over);
        }
    }
}
