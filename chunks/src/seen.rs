//! Which chunks were asked for before: a set that forgets the oldest half when it is full.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::{Mutex, PoisonError};

/// Chunks that are remembered, at least. Of 1 MiB each: a terabyte, in some 40 MB.
const SEEN_MIN: usize = 1 << 20;

/// Remembers hashes of keys. Two that share one pass for each other, once in a long while.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    halves: Mutex<(Hashes, Hashes)>,
}

type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

impl Seen {
    /// Whether it was seen before; it is from now on.
    pub(crate) fn before(&self, hash: u64) -> bool {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, old) = &mut *halves;
        let seen = new.contains(&hash) || old.contains(&hash);
        if new.insert(hash) && new.len() >= SEEN_MIN {
            *old = mem::take(new);
        }
        seen
    }
}

/// For what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_newest_are_not() {
        let seen = Seen::default();
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 0..3 * SEEN_MIN as u64 {
            assert!(!seen.before(spread(number)));
            assert!(seen.before(spread(number)));
        }
        assert!(!seen.before(spread(0)));
        assert!(seen.before(spread(2 * SEEN_MIN as u64)));
    }
}
