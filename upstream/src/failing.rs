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
pub(crate) struct Asked(u64);

impl Asked {
    /// `path`: with its query, if it has one.
    pub(crate) fn of(path: &str) -> Self {
        let end = path.find('?').unwrap_or(path.len());
        Self(xxh3_64(&path.as_bytes()[..end]))
    }
}

/// What one more failure adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is not known to fail.
    First,
    /// It is, but has not been counted within the window.
    Again,
    /// It has been.
    Counted,
}

/// Paths that failed, and when each was last counted.
#[derive(Debug, Default)]
pub(crate) struct Failing(VecDeque<(Asked, Instant)>);

impl Failing {
    pub(crate) fn knows(&self, asked: Asked) -> bool {
        self.0.iter().any(|known| known.0 == asked)
    }

    /// It failed.
    pub(crate) fn add(&mut self, asked: Asked, now: Instant) -> Seen {
        if let Some((_, counted)) = self.0.iter_mut().find(|known| known.0 == asked) {
            if now.duration_since(*counted) < window::LENGTH {
                return Seen::Counted;
            }
            *counted = now;
            return Seen::Again;
        }
        if self.0.len() == PATHS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((asked, now));
        Seen::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_once_in_a_window_whatever_its_query() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        assert_eq!(failing.add(Asked::of("/a?1"), now), Seen::First);
        assert_eq!(failing.add(Asked::of("/a"), now), Seen::Counted);
        assert_eq!(failing.add(Asked::of("/a?2?3"), now + window::LENGTH), Seen::Again);
        assert_eq!(failing.add(Asked::of("/a"), now + window::LENGTH), Seen::Counted);
        assert_eq!(failing.add(Asked::of("/a/"), now + window::LENGTH), Seen::First);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        let path = |n: usize| Asked::of(&format!("/{n}"));
        for n in 0..=PATHS_MAX {
            assert_eq!(failing.add(path(n), now), Seen::First);
        }
        assert!(!failing.knows(path(0)) && failing.knows(path(1)));
        assert_eq!(failing.0.len(), PATHS_MAX);
    }
}
