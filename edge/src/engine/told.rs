//! Hard purges that other nodes have told of. The answer to such a node may follow fetches that this
//! node began for clients, which know of no purge: these are to bring nothing from before it, either.
//!
//! Invariant: it bears on what other nodes are asked for, and on what they answer. Nothing that is
//! stored here ends by it, and none of its times is to come.

use heads::KeyId;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use upstream::Purges;

/// URLs of which it is known, some 2 MB; of more, those of which no node has told for longest are
/// forgotten. It has to last as long as the answer to a node that told is under way.
const TOLD_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// The last of each URL. Lost at a restart, as answers under way are.
pub(super) struct Told(Mutex<LruCache<KeyId, Purges>>);

impl Default for Told {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(TOLD_MAX)))
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, LruCache<KeyId, Purges>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node, which is `beside` this one or not, has told at `now_ms` of one at `hard_ms`, in
    /// milliseconds since 1970 UTC.
    pub(super) fn note(&self, key: KeyId, hard_ms: i64, beside: bool, now_ms: i64) {
        let (hard_ms, beside_ms) = match beside {
            true => (None, Some(hard_ms)),
            false => (Some(hard_ms), None),
        };
        let told = Purges { last_ms: None, hard_ms, beside_ms };
        let mut all = self.lock();
        let known = all.get_or_insert_mut(key, Purges::default);
        *known = past(*known, now_ms).max(told);
    }

    /// What was told of a URL. Nodes say how long ago that was, so a time to come is of a clock that
    /// was set back since: it would have other nodes asked for what none can have yet.
    pub(super) fn of(&self, key: &KeyId, now_ms: i64) -> Purges {
        past(self.lock().peek(key).copied().unwrap_or_default(), now_ms)
    }
}

/// Those that are not to come.
fn past(told: Purges, now_ms: i64) -> Purges {
    let is_past = |ms: &i64| *ms <= now_ms;
    let (hard_ms, beside_ms) = (told.hard_ms.filter(is_past), told.beside_ms.filter(is_past));
    Purges { hard_ms, beside_ms, ..told }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purges(hard_ms: Option<i64>, beside_ms: Option<i64>) -> Purges {
        Purges { last_ms: None, hard_ms, beside_ms }
    }

    #[test]
    fn the_last_of_each_kind_of_node_counts() {
        let (told, key) = (Told::default(), KeyId([1; 16]));
        assert_eq!(told.of(&key, 9_000), Purges::default());
        for (hard_ms, beside) in [(2_000, false), (1_000, false), (4_000, true), (3_000, true)] {
            told.note(key, hard_ms, beside, 9_000);
        }
        assert_eq!(told.of(&key, 9_000), purges(Some(2_000), Some(4_000)));
        assert_eq!(told.of(&KeyId([2; 16]), 9_000), Purges::default());
        assert_eq!(told.of(&key, 3_000), purges(Some(2_000), None), "the clock was set back");
        told.note(key, 2_500, true, 3_000);
        assert_eq!(told.of(&key, 3_000), purges(Some(2_000), Some(2_500)), "it counts at once");
    }

    #[test]
    fn the_url_of_which_none_told_for_longest_is_forgotten() {
        let (told, max) = (Told::default(), TOLD_MAX.get() as u32);
        let key = |number: u32| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_le_bytes());
            KeyId(key)
        };
        (0..max).chain([0, max]).for_each(|number| told.note(key(number), 1_000, false, 1_000));
        let is_known = |number| told.of(&key(number), 1_000) != Purges::default();
        assert_eq!([0, 1, 2, max].map(is_known), [true, false, true, true]);
    }
}
