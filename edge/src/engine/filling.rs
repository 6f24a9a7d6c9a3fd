//! What the fill plan has a disk hold, had from wherever it is: memory, the SSD, a fetch on behalf of
//! players, else upstream, where players may follow it.
//!
//! Invariants: nothing that is here, or on its way here, is fetched for the plan; and a chunk that has
//! come for it is found by who reads until it is written.

use super::Engine;
use super::inflight::{Claim, Progress};
use super::owned::run_until;
use super::readers::Readers;
use crate::error::Fault;
use crate::object::Object;
use crate::origin::{Origin, Run};
use bytes::Bytes;
use chunks::Key;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use upstream::Urgency;

/// That of the plan's fetches (RFC 9218), the least, until players follow them.
const URGENCY: u8 = 7;

/// Chunks that have come for the plan, and are not written yet.
#[derive(Default)]
pub(super) struct Unwritten {
    /// Nearly always none: then nobody locks.
    count: AtomicUsize,
    chunks: Mutex<HashMap<Key, Bytes>>,
}

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Bytes>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them.
    fn change(&self, change: impl FnOnce(&mut HashMap<Key, Bytes>)) {
        let mut chunks = self.lock();
        change(&mut chunks);
        self.count.store(chunks.len(), Ordering::Release);
    }

    /// The chunk, if it is one of them.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            _ => self.lock().get(key).cloned(),
        }
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.lock().contains_key(key)
    }
}

/// Chunks for the plan, by their numbers. Players find what was fetched for it as long as this is
/// kept.
pub struct Filled {
    engine: Arc<Engine>,
    keys: Vec<Key>,
    /// They, in the order of the file.
    pub chunks: Vec<(u64, Bytes)>,
}

impl Filled {
    fn none(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::clone(engine), keys: Vec::new(), chunks: Vec::new() }
    }

    fn keep(&mut self, key: Key, bytes: Bytes) {
        self.engine.unwritten.change(|chunks| drop(chunks.insert(key, bytes.clone())));
        self.keys.push(key);
        self.chunks.push((u64::from(key.number), bytes));
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let keys = &self.keys;
        if !keys.is_empty() {
            let forget = |chunks: &mut HashMap<Key, Bytes>| {
                keys.iter().for_each(|key| drop(chunks.remove(key)))
            };
            self.engine.unwritten.change(forget);
        }
    }
}

impl Engine {
    /// Neighbouring chunks of a track, for the plan, each of them verified. What has come before a
    /// failure comes with it.
    pub async fn fill(self: &Arc<Self>, origin: &Origin, run: &Run) -> (Filled, Result<(), Fault>) {
        let mut filled = Filled::none(self);
        let ended = self.fill_all(origin, run, &mut filled).await;
        (filled, ended)
    }

    async fn fill_all(
        self: &Arc<Self>,
        origin: &Origin,
        run: &Run,
        filled: &mut Filled,
    ) -> Result<(), Fault> {
        let object = Object::track(&run.title, run.track).ok_or(Fault::NotFound)?;
        let track = run.title.index.tracks.get(run.track).ok_or(Fault::NotFound)?;
        let mut next = run.chunks.start;
        while next < run.chunks.end {
            let key = object.key(next).ok_or(Fault::NotFound)?;
            if let Some(bytes) = self.nearby(&key).await
                && track.chunk_is_whole(next, &bytes)
            {
                // Memory has other use for its slot until the disk has taken it.
                filled.chunks.push((next, Bytes::copy_from_slice(&bytes)));
                next += 1;
                continue;
            }
            let (readers, _reading) = Readers::begin(next, &Urgency::of(URGENCY));
            // Whoever has begun to fetch it meanwhile is followed.
            let Some(first) = self.inflight.claim(key, &readers) else { continue };
            let mut claims = VecDeque::from([first]);
            let others = next + 1..run_until(next, run.chunks.end);
            claims.extend(others.map_while(|number| self.claim_missing(&object, number, &readers)));
            let chunks = next..next + claims.len() as u64;
            let part = Run { title: Arc::clone(&run.title), track: run.track, chunks };
            let keep = |bytes: Bytes, source| {
                if let Some(claim) = claims.pop_front() {
                    filled.keep(claim.key(), bytes.clone());
                    claim.land(bytes, source);
                    next += 1;
                }
            };
            let ended = origin.chunks(&part, readers.urgency(), keep).await;
            // A player is not to fail by the plan's tries.
            claims.into_iter().rev().for_each(Claim::hand_over);
            ended?;
        }
        Ok(())
    }

    /// The chunk, if it is here, or comes by somebody else's fetch.
    async fn nearby(&self, key: &Key) -> Option<Bytes> {
        if let Some(bytes) = self.chunks.in_memory(key) {
            return Some(bytes);
        }
        if let Some(mut coming) = self.inflight.follow(key) {
            loop {
                match &*coming.progress.borrow_and_update() {
                    Progress::Landed(bytes, _) => return Some(bytes.clone()),
                    Progress::Moved | Progress::Failed(_) => return None,
                    Progress::Waiting | Progress::Open { .. } => {}
                }
                coming.progress.changed().await.ok()?;
            }
        }
        match self.chunks.may_be_on_disk(key) {
            true => self.chunks.read_disk(key).await,
            false => None,
        }
    }
}
