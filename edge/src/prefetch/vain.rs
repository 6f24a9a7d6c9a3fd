//! Folders whose hints came to nothing of late: what was fetched is not kept, or is not there.
//! Pure: the time is passed in.
//!
//! Invariant: what is remembered is bounded; a folder that is forgotten has its hints followed.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Folders that are remembered.
const FOLDERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// So many in a row show that the next one would come to nothing, too.
const IN_ROW_MAX: u32 = 3;
/// For so long after the last one the folder is left alone; then one is followed again.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(60);

/// Hints in a row that came to nothing, by folder, and when the last one did.
pub(super) struct Vain(LruCache<u64, (u32, Instant)>);

impl Default for Vain {
    fn default() -> Self {
        Self(LruCache::new(FOLDERS_MAX))
    }
}

impl Vain {
    /// Whether hints at what is in this folder are to be left.
    pub(super) fn is_left(&self, folder: u64, now: Instant) -> bool {
        self.0.peek(&folder).is_some_and(|(in_row, last)| {
            *in_row >= IN_ROW_MAX && now.saturating_duration_since(*last) < LEFT_FOR
        })
    }

    /// A hint at something in this folder came to nothing.
    pub(super) fn add(&mut self, folder: u64, now: Instant) {
        let (in_row, last) = self.0.get_or_insert_mut(folder, || (0, now));
        (*in_row, *last) = (in_row.saturating_add(1), now);
    }

    /// One brought something.
    pub(super) fn clear(&mut self, folder: u64) {
        self.0.pop(&folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_left_after_three_and_tried_again_later() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        for count in 1..=IN_ROW_MAX {
            assert!(!vain.is_left(1, now), "{count}");
            vain.add(1, now);
        }
        assert!(vain.is_left(1, now) && !vain.is_left(2, now));
        let later = now + LEFT_FOR;
        assert!(!vain.is_left(1, later));
        vain.add(1, later);
        assert!(vain.is_left(1, later));
        vain.clear(1);
        assert!(!vain.is_left(1, later));
    }

    #[test]
    fn the_folder_of_long_ago_is_forgotten() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        for folder in 0..=FOLDERS_MAX.get() as u64 {
            (0..IN_ROW_MAX).for_each(|_| vain.add(folder, now));
        }
        assert!(!vain.is_left(0, now) && vain.is_left(1, now));
        assert_eq!(vain.0.len(), FOLDERS_MAX.get());
    }
}
