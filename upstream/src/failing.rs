//! What was asked for of an origin that failed lately. Pure: the time is passed in.
//!
//! Invariant: what is kept is bounded, however much fails.

use crate::window;
use std::collections::VecDeque;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// More are told apart than it takes to open a breaker; beyond, the oldest is forgotten.
const PATHS_MAX: usize = 64;

/// A path without its query: whoever asks for the same in other words can make as many queries
/// as he likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    path: u64,
    folder: u64,
}

impl Asked {
    /// `path`: with its query, if it has one.
    pub(crate) fn of(path: &str) -> Self {
        let path = &path[..path.find('?').unwrap_or(path.len())];
        // With the slash: a folder is not what may have its name.
        let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        Self { path: xxh3_64(path.as_bytes()), folder: xxh3_64(folder.as_bytes()) }
    }

    /// A hash of it.
    pub(crate) fn path(self) -> u64 {
        self.path
    }

    /// A hash of the folder that it is in, as far as its name tells.
    pub(crate) fn folder(self) -> u64 {
        self.folder
    }
}

/// Paths that failed, and when each did so last.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    paths: VecDeque<(Asked, Instant)>,
    in_row: u32,
}

impl Failing {
    pub(crate) fn knows(&self, asked: Asked) -> bool {
        self.paths.iter().any(|known| known.0 == asked)
    }

    /// It failed: whether that is new.
    pub(crate) fn add(&mut self, asked: Asked, now: Instant) -> bool {
        if let Some((_, failed)) = self.paths.iter_mut().find(|known| known.0 == asked) {
            *failed = now;
            return false;
        }
        if self.paths.len() == PATHS_MAX {
            self.paths.pop_front();
        }
        self.paths.push_back((asked, now));
        self.in_row = self.in_row.saturating_add(1);
        true
    }

    /// How many were new.
    pub(crate) fn in_row(&self) -> u32 {
        self.in_row
    }

    /// How many of those that are known failed within the window.
    pub(crate) fn lately(&self, now: Instant) -> usize {
        let lately = |failed: Instant| now.duration_since(failed) < window::LENGTH;
        self.paths.iter().filter(|(_, failed)| lately(*failed)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_once_whatever_its_query() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        assert!(failing.add(Asked::of("/a?1"), now));
        assert!(!failing.add(Asked::of("/a"), now));
        assert!(!failing.add(Asked::of("/a?2?3"), now) && failing.add(Asked::of("/a/"), now));
        assert_eq!((failing.in_row(), failing.lately(now)), (2, 2));
        let later = now + window::LENGTH;
        assert!(!failing.add(Asked::of("/a"), later));
        assert_eq!((failing.in_row(), failing.lately(later)), (2, 1));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        let path = |n: usize| Asked::of(&format!("/{n}"));
        for n in 0..=PATHS_MAX {
            assert!(failing.add(path(n), now));
        }
        assert!(!failing.knows(path(0)) && failing.knows(path(1)));
        assert_eq!((failing.lately(now), failing.in_row()), (PATHS_MAX, PATHS_MAX as u32 + 1));
    }
}
