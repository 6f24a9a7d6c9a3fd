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
use tokio::time::Instant;
use upstream::Urgency;

/// That of the plan's fetches (RFC 9218), the least, until players follow them.
const URGENCY: u8 = 7;

/// How long a player waits for the plan's chunks before its own; one for whom that takes longer is left
/// to fetch it itself.
const OTHERS_MAX: Duration = Duration::from_millis(250);
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

/// A chunk for the plan. Players find it as long as this is kept.
pub struct Filled {
    engine: Arc<Engine>,
    key: Key,
    /// All of it.
    pub bytes: Bytes,
}

impl Filled {
    fn new(engine: &Arc<Engine>, key: Key, bytes: Bytes) -> Self {
        engine.unwritten.change(|chunks| drop(chunks.insert(key, bytes.clone())));
        Self { engine: Arc::clone(engine), key, bytes }
    }

    /// Which of its track.
    pub fn number(&self) -> u64 {
        u64::from(self.key.number)
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.engine.unwritten.change(|chunks| drop(chunks.remove(&self.key)));
    }
}

/// Who takes the chunks, until it wants no more.
struct Taker<K> {
    keep: K,
    goes_on: bool,
}

impl<K: FnMut(Filled) -> bool> Taker<K> {
    fn give(&mut self, chunk: Filled) {
        self.goes_on = (self.keep)(chunk) && self.goes_on;
    }
}

/// Of the chunks that one answer is to bring, those that it has not brought, and how fast it was.
struct Claims(Mutex<Bringing>);

struct Bringing {
    claims: VecDeque<Claim>,
    begun: Instant,
    /// When the last one came.
    last: Instant,
    came: u32,
}

impl Bringing {
    /// How many chunks come within what a player may wait for others; none before the first has come.
    fn soon(&self, now: Instant) -> usize {
        let Some(mean) = (self.last - self.begun).checked_div(self.came) else { return 0 };
        let each = mean.max(now - self.last).as_nanos().max(1);
        usize::try_from(OTHERS_MAX.as_nanos() / each).unwrap_or(usize::MAX)
    }
}

impl Claims {
    fn new(claims: VecDeque<Claim>) -> Self {
        let now = Instant::now();
        Self(Mutex::new(Bringing { claims, begun: now, last: now, came: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Bringing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one has come.
    fn next(&self) -> Option<Claim> {
        let mut bringing = self.lock();
        (bringing.last, bringing.came) = (Instant::now(), bringing.came + 1);
        bringing.claims.pop_front()
    }

    fn came(&self) -> u64 {
        self.lock().came.into()
    }

    fn are_brought(&self) -> bool {
        self.lock().claims.is_empty()
    }

    fn are_awaited(&self) -> bool {
        self.lock().claims.iter().any(Claim::is_awaited)
    }

    /// Leaves to players what one of them would wait too long for, and all after that.
    fn leave_far(&self) {
        let mut bringing = self.lock();
        let near = bringing.soon(Instant::now()).saturating_add(1);
        let wanted = bringing.claims.iter().skip(near).position(Claim::is_awaited);
        let left = wanted.map(|place| bringing.claims.split_off(near + place));
        drop(bringing);
        left.into_iter().flatten().rev().for_each(Claim::hand_over);
    }
}

impl Drop for Claims {
    /// Leaves all to who asks next, whatever has ended the fetch.
    fn drop(&mut self) {
        let claims = std::mem::take(&mut self.lock().claims);
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
    /// Neighbouring chunks of a track, for the plan, each verified and handed to `keep`, in order, until
    /// that wants no more: as many of `run` as are had without waiting long for who fetches for others.
    /// May be dropped at any time.
    ///
    /// # Errors
    /// How the fetch of the first chunk that did not come failed.
    pub async fn fill(
        self: &Arc<Self>,
        origin: &Origin,
        run: &Run,
        keep: impl FnMut(Filled) -> bool,
    ) -> Result<(), Fault> {
        let object = Object::track(&run.title, run.track).ok_or(Fault::NotFound)?;
        let track = run.title.index.tracks.get(run.track).ok_or(Fault::NotFound)?;
        let mut taker = Taker { keep, goes_on: true };
        let mut next = run.chunks.start;
        while taker.goes_on && next < run.chunks.end {
            let key = object.key(next).ok_or(Fault::NotFound)?;
            match self.nearby(&key).await {
                Nearby::Here(bytes) if track.chunk_is_whole(next, &bytes) => {
                    // Memory has other use for its slot until the disk has taken it.
                    taker.give(Filled::new(self, key, Bytes::copy_from_slice(&bytes)));
                    next += 1;
                }
                Nearby::Late => return Ok(()),
                found => {
                    let is_wrong = matches!(found, Nearby::Here(_));
                    drop(found);
                    let wanted = Run { chunks: next..run.chunks.end, ..run.clone() };
                    next +=
                        self.fill_missing(origin, &object, wanted, is_wrong, &mut taker).await?;
                }
            }
        }
        Ok(())
    }

    /// Fetches the first chunk of `wanted`, of which no bytes are here or wrong ones, and those behind it
    /// that are missing as well: how many of them have come. None have where somebody else has begun
    /// to fetch the first.
    async fn fill_missing<K: FnMut(Filled) -> bool>(
        self: &Arc<Self>,
        origin: &Origin,
        object: &Object,
        wanted: Run,
        is_wrong: bool,
        taker: &mut Taker<K>,
    ) -> Result<u64, Fault> {
        let Range { start, end } = wanted.chunks;
        let key = object.key(start).ok_or(Fault::NotFound)?;
        let (readers, _reading) = Readers::begin(start, &Urgency::of(URGENCY));
        readers.pace(true);
        let Some(first) = self.inflight.claim(key, &readers) else {
            // Where there are wrong bytes of it besides, nobody has waited for them so far.
            if is_wrong && let Some(coming) = self.inflight.follow(&key) {
                let _ = tokio::time::timeout(FOLLOWED_MAX, followed(coming)).await;
            }
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
        let claims = Claims::new(claims);
        let keep = |bytes: Bytes, source| {
            if let Some(claim) = claims.next() {
                taker.give(Filled::new(self, claim.key(), bytes.clone()));
                claim.land(bytes, source);
            }
            taker.goes_on && !claims.are_brought()
        };
        // What it does not bring at once, players have brought by tries of their own.
        let is_alone = || !claims.are_awaited();
        let fetching = origin.chunks(&part, readers.urgency(), is_alone, keep);
        let mut fetching = std::pin::pin!(fetching);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut fetching => break ended,
                () = readers.changed() => {}
                // One that was soon may be late.
                () = tokio::time::sleep(OTHERS_MAX) => {}
            }
            claims.leave_far();
        };
        match claims.came() {
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

    /// A player waits for others' chunks as long as that takes no time.
    #[tokio::test(start_paused = true)]
    async fn how_many_chunks_come_soon_is_told_by_those_that_came() {
        let claims = Claims::new(VecDeque::new());
        let soon = || claims.lock().soon(Instant::now());
        assert_eq!(soon(), 0, "nobody knows");
        for (waits_ms, then) in [(10, 25), (90, 5), (200, 2), (900, 0)] {
            tokio::time::advance(Duration::from_millis(waits_ms)).await;
            assert!(claims.next().is_none());
            assert_eq!(soon(), then, "after {waits_ms} ms");
        }
        let claims = Claims::new(VecDeque::new());
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(claims.next().is_none());
        tokio::time::advance(OTHERS_MAX * 2).await;
        assert_eq!(claims.lock().soon(Instant::now()), 0, "the next one is late");
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
