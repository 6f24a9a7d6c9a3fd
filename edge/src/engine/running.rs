//! Which responses read what is stored, and how far each has got. Once another version has taken
//! its place, no upstream may have more of it, and of what has no strong validator none has from the
//! beginning: so what these have yet to take, of what is in memory alone, stays there, as far as there
//! are places for it.
//!
//! Invariant: a chunk has such a place only while a response has it before it.

use super::Engine;
use crate::object::{Kind, Object};
use chunks::{Ahead, Chunks, Key};
use heads::{Head, KeyId};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks of a version that are looked for in memory, about: it rarely has as many. They are shared
/// out among the places where responses are, with [`LOOKED_MIN`] for each.
const LOOKED_MAX: u64 = 1 << 16;
const LOOKED_MIN: u64 = 16;

/// The responses that read what is stored and have not got to the end.
#[derive(Clone, Default)]
pub struct Running(Arc<Shared>);

#[derive(Default)]
struct Shared {
    versions: Mutex<HashMap<KeyId, Vec<Arc<Version>>>>,
    /// How many of them are superseded.
    superseded: AtomicUsize,
}

/// A version of a stored representation that somebody reads.
struct Version {
    head: Arc<Head>,
    is_superseded: AtomicBool,
    state: Mutex<State>,
}

/// Where the responses are, in chunks.
#[derive(Default)]
struct State {
    /// How many have got to each.
    at: BTreeMap<u64, usize>,
    /// None of them wants this one or any behind it.
    until: u64,
    kept: BTreeMap<u64, Ahead>,
}

/// A response that reads, until it is dropped.
pub struct Underway {
    running: Running,
    key: KeyId,
    version: Arc<Version>,
    at: u64,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Vec<Arc<Version>>>> {
        self.0.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A response goes on to read these chunks of what is stored.
    fn begin(&self, key: KeyId, head: &Arc<Head>, chunks: Range<u64>) -> Underway {
        let mut versions = self.lock();
        let versions = versions.entry(key).or_default();
        let known = versions.iter().find(|version| version.head.body == head.body).cloned();
        let version = known.unwrap_or_else(|| {
            let (is_superseded, state) = (AtomicBool::new(false), Mutex::default());
            let version = Arc::new(Version { head: Arc::clone(head), is_superseded, state });
            versions.push(Arc::clone(&version));
            version
        });
        let mut state = version.lock();
        state.until = state.until.max(chunks.end);
        state.comes(chunks.start);
        drop(state);
        Underway { running: self.clone(), key, version, at: chunks.start }
    }

    /// Those of its versions that are read.
    fn of(&self, key: &KeyId, is: impl Fn(&Head) -> bool) -> Vec<Arc<Version>> {
        let versions = self.lock();
        let Some(versions) = versions.get(key) else { return Vec::new() };
        versions.iter().filter(|version| is(&version.head)).cloned().collect()
    }

    /// The version is stored no more.
    fn supersede(&self, version: &Version, chunks: &Chunks) {
        let mut state = version.lock();
        // Who was the last may just have left.
        if state.at.is_empty() {
            return;
        }
        if !version.is_superseded.swap(true, Ordering::AcqRel) {
            self.0.superseded.fetch_add(1, Ordering::AcqRel);
        }
        state.keep_all(version.head.body, chunks);
    }

    /// The superseded version that an object is of, if somebody reads that.
    fn superseded(&self, object: &Object) -> Option<Arc<Version>> {
        if self.0.superseded.load(Ordering::Acquire) == 0 {
            return None;
        }
        let Kind::Web(web) = &object.kind else { return None };
        let version = self.of(&web.wanted.key, |head| head.body == object.body).pop()?;
        version.is_superseded.load(Ordering::Acquire).then_some(version)
    }
}

impl Version {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn comes(&mut self, number: u64) {
        *self.at.entry(number).or_default() += 1;
    }

    /// A response has left a chunk. What nobody has before it any more.
    #[must_use]
    fn leaves(&mut self, number: u64) -> BTreeMap<u64, Ahead> {
        if let Entry::Occupied(mut at) = self.at.entry(number) {
            *at.get_mut() -= 1;
            if *at.get() == 0 {
                at.remove();
            }
        }
        let first = self.at.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        if self.kept.first_key_value().is_none_or(|(number, _)| *number >= first) {
            return BTreeMap::new();
        }
        let left = self.kept.split_off(&first);
        std::mem::replace(&mut self.kept, left)
    }

    /// Has stay in memory what is there alone and yet to be taken, the next ones first.
    fn keep_all(&mut self, body: [u8; 16], chunks: &Chunks) {
        let mut wanted = Vec::new();
        let most = (LOOKED_MAX / self.at.len().max(1) as u64).max(LOOKED_MIN);
        let ends = self.at.keys().skip(1).copied().chain([self.until]);
        for (from, end) in self.at.keys().copied().zip(ends) {
            wanted.extend((from..end.min(from + most)).map(|number| (number - from, number)));
        }
        wanted.sort_unstable();
        for (_, number) in wanted {
            self.keep(body, number, chunks);
        }
    }

    fn keep(&mut self, body: [u8; 16], number: u64, chunks: &Chunks) {
        let Ok(place) = u32::try_from(number) else { return };
        let key = Key { body, number: place };
        if !self.kept.contains_key(&number)
            && chunks.is_in_memory(&key)
            && !chunks.may_be_on_disk(&key)
            && let Some(place) = chunks.stay(&key)
        {
            self.kept.insert(number, place);
        }
    }
}

impl Underway {
    /// The response has got to this chunk.
    pub fn at(&mut self, number: u64) {
        let mut state = self.version.lock();
        state.comes(number);
        let passed = state.leaves(std::mem::replace(&mut self.at, number));
        drop(state);
        // Their memory goes back without the lock.
        drop(passed);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut versions = self.running.lock();
        let mut state = self.version.lock();
        let passed = state.leaves(self.at);
        let is_over = state.at.is_empty();
        let was_superseded = self.version.is_superseded.load(Ordering::Acquire);
        drop(state);
        if is_over && let Some(of) = versions.get_mut(&self.key) {
            of.retain(|version| !Arc::ptr_eq(version, &self.version));
            if of.is_empty() {
                versions.remove(&self.key);
            }
            if was_superseded {
                self.running.0.superseded.fetch_sub(1, Ordering::AcqRel);
            }
        }
        drop(versions);
        drop(passed);
    }
}

impl Engine {
    /// A response goes on to read these chunks; none of what never changes.
    pub fn begins(&self, object: &Object, chunks: Range<u64>) -> Option<Underway> {
        let Kind::Web(web) = &object.kind else { return None };
        let key = web.wanted.key;
        let underway = self.running.begin(key, &web.head, chunks);
        // Another version may have come since the response has found this one.
        let is_there = |head: &Arc<Head>| head.body == object.body;
        let heads = self.heads.in_memory(&key);
        if heads.is_some_and(|heads| !heads.iter().any(is_there)) {
            self.running.supersede(&underway.version, &self.chunks);
        } else if !object.can_be_fetched() {
            underway.version.lock().keep_all(object.body, &self.chunks);
        }
        Some(underway)
    }

    /// Stores a head, in place of another version's if there is one.
    pub fn put_head(&self, key: KeyId, head: &Arc<Head>) {
        self.heads.put(key, Arc::clone(head));
        let is_other = |old: &Head| old.body != head.body && old.selecting == head.selecting;
        for version in self.running.of(&key, is_other) {
            self.running.supersede(&version, &self.chunks);
        }
    }

    /// Lets go of a head: what it is of is not there any more.
    pub fn remove_head(&self, key: KeyId, head: &Head) {
        self.heads.remove(key, head);
        for version in self.running.of(&key, |old| old.body == head.body) {
            self.running.supersede(&version, &self.chunks);
        }
    }

    /// Whether no upstream may have what is missing of an object.
    pub(super) fn is_superseded(&self, object: &Object) -> bool {
        self.running.superseded(object).is_some()
    }

    /// A chunk has come. Of a version that was superseded while it was on its way, it stays for all
    /// who have yet to take it; the foremost of them has it in any case.
    pub(super) fn has_come(&self, object: &Object, number: u64) {
        let Some(version) = self.running.superseded(object) else { return };
        let mut state = version.lock();
        let (first, count) = (state.at.keys().next().copied(), state.at.values().sum::<usize>());
        if count > 1 && first.is_some_and(|first| first <= number) && number < state.until {
            state.keep(object.body, number, &self.chunks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::small;
    use bytes::Bytes;
    use model::chunk::CHUNK_BYTES;

    const BODY: [u8; 16] = [7; 16];

    #[tokio::test]
    async fn the_next_of_each_response_stay_until_the_last_of_them_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let chunks = &small(dir.path()).chunks;
        for number in 0..12 {
            let bytes = Bytes::from(vec![1; CHUNK_BYTES as usize]);
            chunks.insert_in_memory(Key { body: BODY, number }, bytes);
        }
        let mut state = State { until: 12, ..State::default() };
        for at in [0, 0, 6] {
            state.comes(at);
        }
        // Half of three eighths of 16 MiB.
        state.keep_all(BODY, chunks);
        let kept = |state: &State| state.kept.keys().copied().collect::<Vec<_>>();
        assert_eq!((kept(&state), chunks.count_ahead()), (vec![0, 1, 6], 3));
        state.comes(1);
        assert!(state.leaves(0).is_empty(), "another one is there yet");
        assert_eq!(state.leaves(0).into_keys().collect::<Vec<_>>(), [0]);
        state.keep_all(BODY, chunks);
        assert_eq!(kept(&state), [1, 2, 6]);
        for at in [1, 6] {
            drop(state.leaves(at));
        }
        assert_eq!((kept(&state), chunks.count_ahead()), (vec![], 0));
    }
}
