//! When a disk is switched off, and when it is tried again: decided from what was seen, not
//! from a clock.

use std::collections::VecDeque;
use std::time::Duration;

/// How often a disk that is up is looked at. Five looks are within the second in which a
/// disk that fails has to be off.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A read, a look or a batch's writing that takes longer than this means that the disk hangs.
pub(super) const HANG_MAX: Duration = Duration::from_millis(500);
/// A batch's writing may take longer: a disk that writes 8 MiB in less than that is of use.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(2);
/// Looks over which slow reads are counted: a second.
const LOOKS: usize = 5;
/// So many slow reads within those looks, and not one in time: better without this disk.
const SLOW_MAX: u64 = 8;
/// The first try after a disk was switched off, and after each failure twice as long...
const TRY_MIN: Duration = Duration::from_secs(1);
/// ... up to this.
const TRY_MAX: Duration = Duration::from_secs(60);
/// After so long without trouble a disk starts anew with [`TRY_MIN`].
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// Why a disk is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Reading or writing failed.
    Failed(String),
    /// It does not answer, or too late.
    Slow,
    /// Its files are gone.
    Gone(String),
}

impl Trouble {
    /// The labels of a metric, in the order of the variants.
    pub(crate) const NAMES: [&str; 3] = ["failed", "slow", "gone"];

    /// The label of a metric.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Failed(_) => Self::NAMES[0],
            Self::Slow => Self::NAMES[1],
            Self::Gone(_) => Self::NAMES[2],
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "it fails: {error}"),
            Self::Slow => f.write_str("it does not answer in time"),
            Self::Gone(error) => write!(f, "its files are gone: {error}"),
        }
    }
}

/// Reads since the last look: in time, and bypassed for taking too long.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reads {
    pub(super) quick: u64,
    pub(super) slow: u64,
}

/// The last looks at a disk.
#[derive(Debug, Default)]
pub(super) struct Looks {
    reads: VecDeque<Reads>,
}

impl Looks {
    /// Takes in a look: the reads since the last one, and how long the oldest one that is
    /// under way has been.
    pub(super) fn look(&mut self, reads: Reads, oldest: Option<Duration>) -> Option<Trouble> {
        self.reads.push_back(reads);
        if self.reads.len() > LOOKS {
            self.reads.pop_front();
        }
        let slow: u64 = self.reads.iter().map(|reads| reads.slow).sum();
        let quick: u64 = self.reads.iter().map(|reads| reads.quick).sum();
        let hangs = oldest.is_some_and(|oldest| oldest > HANG_MAX);
        (hangs || slow >= SLOW_MAX && quick == 0).then_some(Trouble::Slow)
    }
}

/// How long to wait before a disk is tried (again), after it was up for `up` and the try
/// before that had to wait `waited`.
pub(super) fn wait(waited: Option<Duration>, up: Duration) -> Duration {
    match waited {
        Some(waited) if up < SOUND_AFTER => (waited * 2).min(TRY_MAX),
        _ => TRY_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_off_when_it_hangs_or_when_every_read_of_a_second_was_slow() {
        let reads = |quick, slow| Reads { quick, slow };
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(Looks::default().look(reads(9, 0), ms(501)), Some(Trouble::Slow));
        assert_eq!(Looks::default().look(reads(9, 0), ms(499)), None);

        let mut looks = Looks::default();
        assert_eq!(looks.look(reads(1, 99), None), None);
        for _ in 0..4 {
            assert_eq!(looks.look(reads(0, 0), None), None);
        }
        // The one read in time is past.
        assert_eq!(looks.look(reads(0, 7), None), None);
        assert_eq!(looks.look(reads(0, 1), None), Some(Trouble::Slow));
    }

    #[test]
    fn tries_become_rarer_until_a_disk_was_sound_for_a_while() {
        let mut waited = None;
        let waits: Vec<u64> = std::iter::repeat_with(|| {
            waited = Some(wait(waited, Duration::ZERO));
            waited.map_or(0, |waited| waited.as_secs())
        })
        .take(8)
        .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(waited, SOUND_AFTER), TRY_MIN);
    }
}
