//! Whose hints came to nothing of late, and where: what was fetched is not kept, or is not there.
//! Pure: the time is passed in.
//!
//! Each player is judged for itself in each folder, so that one that announces nonsense takes nothing
//! from others. One that gives itself a new name each time is met by what the folder's hints came to:
//! then only those are followed whose own were mostly good.
//!
//! Invariant: what is remembered is bounded, and what is forgotten has its hints followed. Of what is
//! not: each player's hints in a folder that are in vain are at most [`PLAYER_MAX`] more than those of
//! use, and one a minute; those of all players that had none of use [`FOLDER_MAX`] more than all that
//! were, and one a minute.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Folders that are remembered.
const FOLDERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Players that are remembered, each in one folder.
const PLAYERS_MAX: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// So many more of a player in vain than of use show that its next one would come to nothing, too.
const PLAYER_MAX: i8 = 3;
/// The same of a folder: three players that announce what is not kept are no accident.
const FOLDER_MAX: i8 = 3 * PLAYER_MAX;
/// So many good ones count, however many there were.
const GOOD_MAX: i8 = 3;
/// For so long after the last one in vain they are left alone; then one is followed again.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(60);

/// Where a hint leads, and who gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Names the folder.
    pub folder: u64,
    /// Names the player in this folder.
    pub player: u64,
}

/// Hints in vain, less those of use, and when the last one in vain was.
struct Score {
    vain: i8,
    last: Instant,
}

impl Score {
    fn is_left(&self, most: i8, now: Instant) -> bool {
        self.vain >= most && now.saturating_duration_since(self.last) < LEFT_FOR
    }
}

/// What hints came to.
pub(super) struct Vain {
    folders: LruCache<u64, Score>,
    players: LruCache<u64, Score>,
}

impl Default for Vain {
    fn default() -> Self {
        Self { folders: LruCache::new(FOLDERS_MAX), players: LruCache::new(PLAYERS_MAX) }
    }
}

impl Vain {
    /// Whether a hint is to be left.
    pub(super) fn is_left(&self, hint: Hint, now: Instant) -> bool {
        let own = self.players.peek(&hint.player);
        if own.is_some_and(|own| own.is_left(PLAYER_MAX, now)) {
            return true;
        }
        let is_good = own.is_some_and(|own| own.vain < 0);
        let folder = self.folders.peek(&hint.folder);
        !is_good && folder.is_some_and(|folder| folder.is_left(FOLDER_MAX, now))
    }

    /// A hint came to nothing.
    pub(super) fn add(&mut self, hint: Hint, now: Instant) {
        let Self { folders, players } = self;
        let both = [(players, hint.player, PLAYER_MAX), (folders, hint.folder, FOLDER_MAX)];
        for (scores, name, most) in both {
            let score = scores.get_or_insert_mut(name, || Score { vain: 0, last: now });
            (score.vain, score.last) = (most.min(score.vain + 1), now);
        }
    }

    /// One brought something. Of a folder no credit is kept: a stranger could use it up.
    pub(super) fn is_of_use(&mut self, hint: Hint, now: Instant) {
        let own = self.players.get_or_insert_mut(hint.player, || Score { vain: 0, last: now });
        own.vain = (own.vain - 1).max(-GOOD_MAX);
        if let Some(folder) = self.folders.get_mut(&hint.folder) {
            folder.vain = (folder.vain - 1).max(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(player: u64) -> Hint {
        Hint { folder: 1, player }
    }

    #[test]
    fn a_player_is_left_after_three_and_tried_again_later() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        for count in 1..=PLAYER_MAX {
            assert!(!vain.is_left(hint(1), now), "{count}");
            vain.add(hint(1), now);
        }
        assert!(vain.is_left(hint(1), now) && !vain.is_left(hint(2), now));
        let later = now + LEFT_FOR;
        assert!(!vain.is_left(hint(1), later));
        vain.add(hint(1), later);
        assert!(vain.is_left(hint(1), later));
        vain.is_of_use(hint(1), later);
        assert!(!vain.is_left(hint(1), later));
    }

    #[test]
    fn of_a_folder_of_nonsense_those_are_followed_whose_hints_were_good() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        for _ in 0..10 {
            vain.is_of_use(hint(1), now);
        }
        let mut followed = 0;
        for stranger in 100..200 {
            if !vain.is_left(hint(stranger), now) {
                vain.add(hint(stranger), now);
                followed += 1;
            }
        }
        assert_eq!(followed, FOLDER_MAX);
        assert!(!vain.is_left(hint(1), now) && vain.is_left(hint(2), now));
        assert!(!vain.is_left(Hint { folder: 2, player: 2 }, now), "another folder");
        // Its credit is as good as its last ones.
        for _ in 0..GOOD_MAX {
            assert!(!vain.is_left(hint(1), now));
            vain.add(hint(1), now);
        }
        assert!(vain.is_left(hint(1), now));
        let later = now + LEFT_FOR;
        assert!(!vain.is_left(hint(2), later));
        vain.is_of_use(hint(2), later);
        assert!(!vain.is_left(hint(3), later));
    }

    #[test]
    fn what_is_in_vain_is_little_more_than_what_is_of_use() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        let (mut bad, mut good) = (0, 0);
        // Three of four are nonsense, each under another name.
        for number in 0..3000 {
            let is_good = number % 4 == 0;
            let hint = hint(if is_good { 1 } else { number });
            match (vain.is_left(hint, now), is_good) {
                (true, _) => {}
                (false, true) => {
                    vain.is_of_use(hint, now);
                    good += 1;
                }
                (false, false) => {
                    vain.add(hint, now);
                    bad += 1;
                }
            }
        }
        assert_eq!(good, 750);
        assert!(bad <= good + i32::from(FOLDER_MAX), "{bad} in vain, {good} of use");
    }

    #[test]
    fn the_folder_and_the_player_of_long_ago_are_forgotten() {
        let (mut vain, now) = (Vain::default(), Instant::now());
        for number in 0..=PLAYERS_MAX.get() as u64 {
            vain.add(Hint { folder: number, player: number }, now);
        }
        assert_eq!(vain.players.len(), PLAYERS_MAX.get());
        assert_eq!(vain.folders.len(), FOLDERS_MAX.get());
    }
}
