//! A share of the heads by key: those in memory, least recently used out first, and the changes
//! that wait for the disk. Plain data behind one lock; nothing here touches a disk or a clock.
//!
//! Invariant: what `in_memory` and `learn` return is what memory, the changes and the disk say
//! together. A head that was removed does not come back from a row that is about to go.

use crate::head::{Head, KeyId, Variants};
use crate::pending::{Pending, Rows};
use lru::LruCache;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What one key is known to have.
#[derive(Debug)]
struct Kept {
    variants: Variants,
    /// The disk has no others.
    whole: bool,
    bytes: usize,
    /// The hour in which the disk was told that it is in use.
    hour: u32,
}

/// A key is a hash that nobody can choose: a part of it is as good as another hash of it.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, key: &[u8]) {
        // The first bytes decide on the shard.
        let end = key.last_chunk().copied().unwrap_or_default();
        self.0 = u64::from_le_bytes(end);
    }

    fn write_usize(&mut self, _: usize) {}
}

/// Counts of what a change has pushed out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Keys that left memory.
    pub(crate) evicted: u64,
    /// Heads that the disk will not get, for want of room among the changes.
    pub(crate) unwritten: u64,
    /// A removal could not be noted: the disk says too much from now on.
    pub(crate) removal_lost: bool,
}

/// A share of the heads.
#[derive(Debug)]
pub(crate) struct Shard {
    memory: LruCache<KeyId, Kept, BuildHasherDefault<AsItIs>>,
    memory_bytes: usize,
    memory_bytes_max: usize,
    /// For the writer's next batch.
    pub(crate) waiting: Pending,
    waiting_bytes_max: usize,
    /// In the writer's hands.
    pub(crate) writing: Option<Arc<Pending>>,
    /// Batches that the writer has finished.
    pub(crate) batches: u64,
    /// Of these, so many outlive a power cut.
    pub(crate) synced: u64,
    /// Reads under way, and who waits for each.
    pub(crate) reading: HashMap<KeyId, Vec<oneshot::Sender<Variants>>>,
}

impl Shard {
    pub(crate) fn new(memory_bytes_max: usize, waiting_bytes_max: usize) -> Self {
        Self {
            memory: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
            memory_bytes: 0,
            memory_bytes_max,
            waiting: Pending::default(),
            waiting_bytes_max,
            writing: None,
            batches: 0,
            synced: 0,
            reading: HashMap::new(),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// All variants of `key`, if memory knows them all. The disk is told once an `hour` that
    /// they are in use.
    pub(crate) fn in_memory(&mut self, key: &KeyId, hour: u32) -> Option<Variants> {
        let kept = self.memory.get_mut(key).filter(|kept| kept.whole)?;
        if kept.hour < hour && !kept.variants.is_empty() {
            kept.hour = hour;
            if self.waiting.bytes() < self.waiting_bytes_max {
                self.waiting.change(*key, |rows| rows.touch = true);
            }
        }
        Some(kept.variants.clone())
    }

    /// What is known without the disk; maybe not all.
    pub(crate) fn known(&self, key: &KeyId) -> Variants {
        self.memory.peek(key).map(|kept| kept.variants.clone()).unwrap_or_default()
    }

    /// `head`, with bytes from as early as those are that are kept under its body: who has made it
    /// may have looked before these came.
    pub(crate) fn earliest(&self, key: &KeyId, head: &Arc<Head>) -> Arc<Head> {
        let kept = self.memory.peek(key).map(|kept| kept.variants.iter());
        let same = kept.into_iter().flatten().filter(|kept| kept.body == head.body);
        match same.map(|kept| kept.fetched_ms).min() {
            Some(fetched_ms) if fetched_ms < head.fetched_ms => {
                Arc::new(Head { fetched_ms, ..(**head).clone() })
            }
            _ => Arc::clone(head),
        }
    }

    /// `head` is its key's newest.
    pub(crate) fn put(&mut self, key: KeyId, head: Arc<Head>, hour: u32) -> Dropped {
        let (variants, whole) = match self.memory.peek(&key) {
            Some(kept) => (kept.variants.with(Arc::clone(&head)), kept.whole),
            None => (self.unwritten(&key, Variants::default()).with(Arc::clone(&head)), false),
        };
        let dropped = self.note(key, &head, true);
        Dropped { evicted: self.keep(key, variants, whole, hour), ..dropped }
    }

    /// `head` goes in place of the one with the same body, wherever it is.
    pub(crate) fn refresh(&mut self, key: KeyId, head: &Arc<Head>) -> Dropped {
        let mut evicted = 0;
        if let Some(kept) = self.memory.peek(&key) {
            let (whole, hour) = (kept.whole, kept.hour);
            match kept.variants.refreshed(head) {
                Some(variants) => evicted = self.keep(key, variants, whole, hour),
                None if whole => return Dropped::default(),
                None => {}
            }
        }
        Dropped { evicted, ..self.note(key, head, false) }
    }

    /// `head` goes, if its body is still the one kept.
    pub(crate) fn remove(&mut self, key: KeyId, head: &Head) -> Dropped {
        let (variant, body) = (head.variant(), head.body);
        if let Some(kept) = self.memory.peek(&key) {
            let (whole, hour) = (kept.whole, kept.hour);
            let left =
                kept.variants.without(|other| other.variant() == variant && other.body == body);
            self.keep(key, left, whole, hour);
        }
        self.note_removal(key, |rows| rows.remove(variant, body))
    }

    /// Nothing is stored of `key`, nor can a crash bring anything back.
    pub(crate) fn has_nothing(&self, key: &KeyId) -> bool {
        let writing = self.writing.as_ref().is_some_and(|writing| writing.has(key));
        self.memory.peek(key).is_some_and(|kept| kept.whole && kept.variants.is_empty())
            && !writing
            && !self.waiting.has(key)
            && self.synced == self.batches
    }

    /// All of `key` goes.
    pub(crate) fn remove_all(&mut self, key: KeyId, hour: u32) -> Dropped {
        self.keep(key, Variants::default(), true, hour);
        self.note_removal(key, Rows::remove_all)
    }

    /// Takes what the disk said, read when `batches` were finished; `used` is the hour that the
    /// row says. `None`: a batch has ended since then, so it must be read again.
    pub(crate) fn learn(
        &mut self,
        key: &KeyId,
        disk: Variants,
        batches: u64,
        hours: (u32, u32),
    ) -> Option<(Variants, u64)> {
        if self.batches != batches {
            return None;
        }
        let (used, hour) = hours;
        let variants = self.unwritten(key, disk);
        if used < hour && !variants.is_empty() && self.waiting.bytes() < self.waiting_bytes_max {
            self.waiting.change(*key, |rows| rows.touch = true);
        }
        let evicted = self.keep(*key, variants.clone(), true, hour);
        Some((variants, evicted))
    }

    /// What is on disk, corrected by the changes on their way to it.
    fn unwritten(&self, key: &KeyId, disk: Variants) -> Variants {
        let written = match &self.writing {
            Some(writing) => writing.over(key, disk),
            None => disk,
        };
        self.waiting.over(key, written)
    }

    fn keep(&mut self, key: KeyId, variants: Variants, whole: bool, hour: u32) -> u64 {
        let bytes = size_of::<(KeyId, Kept)>() + 4 * size_of::<usize>() + variants.memory_bytes();
        let nothing = variants.is_empty();
        let kept = Kept { variants, whole, bytes, hour };
        self.memory_bytes += bytes;
        if let Some(old) = self.memory.put(key, kept) {
            self.memory_bytes -= old.bytes;
        }
        if nothing {
            // That a key has nothing is worth least: a client may ask for any number of them.
            self.memory.demote(&key);
        }
        let mut evicted = 0;
        while self.memory_bytes > self.memory_bytes_max
            && let Some((_, old)) = self.memory.pop_lru()
        {
            self.memory_bytes -= old.bytes;
            evicted += 1;
        }
        evicted
    }

    /// Notes a head for the disk. Without room the row goes instead, as what it holds is older.
    fn note(&mut self, key: KeyId, head: &Arc<Head>, put: bool) -> Dropped {
        if self.waiting.bytes() < self.waiting_bytes_max {
            let head = Arc::clone(head);
            self.waiting.change(key, |rows| if put { rows.put(head) } else { rows.refresh(head) });
            return Dropped::default();
        }
        let variant = head.variant();
        let removed = self.note_removal(key, |rows| rows.replace_with_nothing(variant));
        Dropped { unwritten: 1, ..removed }
    }

    /// Removals have as much room again as heads.
    fn note_removal(&mut self, key: KeyId, change: impl FnOnce(&mut Rows)) -> Dropped {
        if self.waiting.bytes() >= 2 * self.waiting_bytes_max {
            return Dropped { removal_lost: true, ..Dropped::default() };
        }
        self.waiting.change(key, change);
        Dropped::default()
    }
}
