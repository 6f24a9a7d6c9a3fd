//! The values that were asked for last, by the hash of what they are of.

use lru::LruCache;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// At most so many values; who was asked for longest ago makes room. It takes memory as it
/// needs it.
pub struct Recent<V> {
    /// Nobody outside knows it, so nobody can choose what hashes alike.
    seed: u64,
    values: LruCache<u64, V, BuildHasherDefault<AsItIs>>,
    values_max: usize,
}

/// Of a key that is a hash.
#[derive(Default)]
struct AsItIs(u64);

impl<V> Recent<V> {
    pub fn new(values_max: usize) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        let values = LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        Self { seed, values, values_max }
    }

    /// What stands for these texts here.
    pub fn hash(&self, texts: [&[u8]; 3]) -> u64 {
        texts.iter().fold(self.seed, |seed, text| xxh3_64_with_seed(text, seed))
    }

    /// The value, which may be of other texts with the same hash.
    pub fn get_mut(&mut self, hash: u64) -> Option<&mut V> {
        self.values.get_mut(&hash)
    }

    pub fn put(&mut self, hash: u64, value: V) {
        self.values.put(hash, value);
        if self.values.len() > self.values_max {
            self.values.pop_lru();
        }
    }
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as there may be are all found, whatever their hashes are.
    #[test]
    fn only_the_one_asked_for_longest_ago_makes_room() {
        const MAX: usize = 1_000;
        let mut recent = Recent::new(MAX);
        let hash = |recent: &Recent<usize>, at: usize| {
            recent.hash([b"https", b"films.example", format!("/films/{at}").as_bytes()])
        };
        for at in 0..MAX {
            let hash = hash(&recent, at);
            recent.put(hash, at);
        }
        for at in 0..MAX {
            let hash = hash(&recent, at);
            assert_eq!(recent.get_mut(hash), Some(&mut at.clone()));
        }
        let (first, next) = (hash(&recent, 0), hash(&recent, MAX));
        recent.get_mut(first);
        recent.put(next, MAX);
        let found = |recent: &mut Recent<usize>, at: usize| {
            let hash = hash(recent, at);
            recent.get_mut(hash).is_some()
        };
        assert!(!found(&mut recent, 1));
        assert_eq!((0..=MAX).filter(|at| found(&mut recent, *at)).count(), MAX);
    }
}
