//! What the fill plan has a disk hold, had from wherever it is: memory, the SSD, a fetch on behalf of
//! players, else upstream, where players may follow it.
//!
//! Invariants: what is in memory, or on its way there, is not fetched for the plan (what goes past
//! memory to a slow player is, and what an SSD does not read in time); and a chunk that has come for
//! it is found by who reads until it is written.

use super::Engine;
use super::inflight::{Claim, Coming, Progress};
use super::owned::run_until;
use super::readers::Readers;
use crate::error::Fault;
use crate::object::Object;
use crate::origin::{Origin, Run};
use bytes::Bytes;
use chunks::Key;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use upstream::Urgency;

/// That of the plan's fetches (RFC 9218), the least, until players follow them.
const URGENCY: u8 = 7;

/// How far behind the next chunk a player waits for one of the same answer; one that wants more is
/// left to fetch it itself.
const AHEAD_CHUNKS: usize = 4;
/// A fetch for players may wait for them: the plan does not, for longer.
const FOLLOWED_MAX: Duration = Duration::from_secs(5);

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

/// Chunks for the plan, by their numbers. Players find them as long as this is kept.
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

/// Of the chunks that one answer is to bring, those that it has not brought.
struct Claims(Mutex<VecDeque<Claim>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves to players what one of them waits for far behind the next chunk, and all after that.
    fn leave_far(&self) {
        let mut claims = self.lock();
        let wanted = claims.iter().skip(1 + AHEAD_CHUNKS).position(Claim::is_awaited);
        let left = wanted.map(|place| claims.split_off(1 + AHEAD_CHUNKS + place));
        drop(claims);
        left.into_iter().flatten().rev().for_each(Claim::hand_over);
    }

    /// Leaves all to who asks next.
    fn leave_all(&self) {
        let claims = std::mem::take(&mut *self.lock());
        claims.into_iter().rev().for_each(Claim::hand_over);
    }
}

/// What is had without a fetch for the plan.
enum Nearby {
    Here(Bytes),
    /// Somebody fetches it, and is slow about it.
    Late,
    Nowhere,
}

impl Engine {
    /// Neighbouring chunks of a track, for the plan, each of them verified: as many of `run` as are had
    /// without waiting long for who fetches for others. What has come before a failure comes with it.
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
            match self.nearby(&key).await {
                Nearby::Here(bytes) if track.chunk_is_whole(next, &bytes) => {
                    // Memory has other use for its slot until the disk has taken it.
                    filled.keep(key, Bytes::copy_from_slice(&bytes));
                    next += 1;
                }
                Nearby::Late => return Ok(()),
                found => {
                    let is_wrong = matches!(found, Nearby::Here(_));
                    drop(found);
                    let wanted = Run { chunks: next..run.chunks.end, ..run.clone() };
                    next += self.fill_missing(origin, &object, wanted, is_wrong, filled).await?;
                }
            }
        }
        Ok(())
    }

    /// Fetches the first chunk of `wanted`, of which no bytes are here or wrong ones, and those behind it
    /// that are missing as well: how many of them have come. None have where somebody else has begun
    /// to fetch the first.
    async fn fill_missing(
        &self,
        origin: &Origin,
        object: &Object,
        wanted: Run,
        is_wrong: bool,
        filled: &mut Filled,
    ) -> Result<u64, Fault> {
        let Range { start, end } = wanted.chunks;
        let key = object.key(start).ok_or(Fault::NotFound)?;
        let (readers, _reading) = Readers::begin(start, &Urgency::of(URGENCY));
        readers.pace(true);
        let Some(first) = self.inflight.claim(key, &readers) else {
            // Where there are wrong bytes of it besides, nothing has waited so far.
            tokio::task::yield_now().await;
            return Ok(0);
        };
        // It may have landed between both looks.
        if !is_wrong && self.chunks.is_in_memory(&key) {
            first.hand_over();
            return Ok(0);
        }
        let mut claims = VecDeque::from([first]);
        let others = start + 1..run_until(start, end);
        claims.extend(others.map_while(|number| self.claim_missing(object, number, &readers)));
        let part = Run { chunks: start..start + claims.len() as u64, ..wanted };
        let (claims, mut came) = (Claims(Mutex::new(claims)), 0);
        let ended = {
            let keep = |bytes: Bytes, source| {
                let claim = claims.lock().pop_front();
                if let Some(claim) = claim {
                    filled.keep(claim.key(), bytes.clone());
                    claim.land(bytes, source);
                    came += 1;
                }
                !claims.lock().is_empty()
            };
            // What it does not bring at once, players have brought by tries of their own.
            let is_alone = || !claims.lock().iter().any(Claim::is_awaited);
            let fetching = origin.chunks(&part, readers.urgency(), is_alone, keep);
            let mut fetching = std::pin::pin!(fetching);
            loop {
                tokio::select! {
                    biased;
                    ended = &mut fetching => break ended,
                    () = readers.changed() => claims.leave_far(),
                }
            }
        };
        claims.leave_all();
        match came {
            0 => ended.map(|()| 0),
            // Behind what has come, players or not, another request brings more.
            came => Ok(came),
        }
    }

    /// The chunk, if it is here, or comes by somebody else's fetch.
    async fn nearby(&self, key: &Key) -> Nearby {
        if let Some(bytes) = self.chunks.copy_in_memory(key) {
            return Nearby::Here(bytes);
        }
        if let Some(coming) = self.inflight.follow(key) {
            let late = tokio::time::timeout(FOLLOWED_MAX, followed(coming)).await;
            return match late {
                Ok(Some(bytes)) => Nearby::Here(bytes),
                Ok(None) => Nearby::Nowhere,
                Err(_) => Nearby::Late,
            };
        }
        if self.chunks.may_be_on_disk(key)
            && let Some(bytes) = self.chunks.copy_on_disk(key).await
        {
            return Nearby::Here(bytes);
        }
        Nearby::Nowhere
    }
}

/// The chunk, once it has come; none if it does not come by this fetch.
async fn followed(mut coming: Coming) -> Option<Bytes> {
    loop {
        match &*coming.progress.borrow_and_update() {
            Progress::Landed(bytes, _) => return Some(bytes.clone()),
            Progress::Moved | Progress::Failed(_) => return None,
            Progress::Waiting | Progress::Open { .. } => {}
        }
        coming.progress.changed().await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{claim, film, small};
    use super::*;
    use crate::verdict::Verdict;
    use futures::FutureExt;

    /// A chunk that a player has fetched is waited for, and taken where it comes.
    #[tokio::test]
    async fn what_comes_for_players_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, film) = (small(dir.path()), film());
        let key = film.key(3).unwrap();
        for lands in [true, false] {
            let bringing = claim(&engine, &film, 3);
            let mut nearby = std::pin::pin!(engine.nearby(&key));
            assert!(nearby.as_mut().now_or_never().is_none(), "it waits");
            match lands {
                true => bringing.land(Bytes::from_static(b"chunk"), Verdict::Origin),
                false => bringing.hand_over(),
            }
            match nearby.await {
                Nearby::Here(bytes) => assert!(lands && bytes == "chunk"),
                Nearby::Nowhere => assert!(!lands),
                Nearby::Late => panic!("late"),
            }
        }
    }

    /// Nor for ever: the plan may be another one meanwhile.
    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, film) = (small(dir.path()), film());
        let _bringing = claim(&engine, &film, 3);
        assert!(matches!(engine.nearby(&film.key(3).unwrap()).await, Nearby::Late));
    }
}
