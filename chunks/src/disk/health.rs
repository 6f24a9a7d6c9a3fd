//! When a disk is switched off, and when it is tried again: decided from what was seen, not
//! from a clock.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a disk that is up is looked at. Five looks are within the second in which a
/// disk that fails has to be off.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A read or a look that takes longer than this means that the disk hangs.
pub const HANG_MAX: Duration = Duration::from_millis(500);
/// A batch's writing, or the reading of what it keeps, may take longer: an SSD that makes room
/// for itself takes no writes for some hundred milliseconds. One that has not taken the 16 MiB
/// of a batch by then hangs, and is off within the second.
pub const WRITE_MAX: Duration = Duration::from_millis(900);
/// Bytes that a disk has to take and give back before it is used.
const PROBE_BYTES: usize = 4 << 10;
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
pub enum Trouble {
    /// Reading or writing failed.
    Failed(String),
    /// It does not answer, or too late.
    Slow,
    /// Its files are gone.
    Gone(String),
}

impl Trouble {
    /// The labels of a metric, in the order of the variants.
    pub const NAMES: [&str; 3] = ["failed", "slow", "gone"];

    /// The label of a metric.
    #[must_use]
    pub fn name(&self) -> &'static str {
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
struct Reads {
    quick: u64,
    slow: u64,
}

/// The last looks at a disk.
#[derive(Debug, Default)]
pub struct Looks {
    reads: VecDeque<Reads>,
}

impl Looks {
    /// Looks at the reads of a disk; what is wrong with it, if anything.
    pub fn at(&mut self, reads: &UnderWay) -> Option<Trouble> {
        self.look(reads.take(), reads.oldest())
    }

    /// Takes in a look: the reads since the last one, and how long the oldest one that is
    /// under way has been.
    fn look(&mut self, reads: Reads, oldest: Option<Duration>) -> Option<Trouble> {
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

/// A disk's reads: those under way by when they began, and how the last ones ended.
#[derive(Debug, Default)]
pub struct UnderWay {
    began: Mutex<(u64, BTreeMap<u64, Instant>)>,
    quick: AtomicU64,
    slow: AtomicU64,
}

impl UnderWay {
    /// Begins a read; `None` when `reads_max` are under way.
    #[must_use]
    pub fn begin(reads: &Arc<Self>, reads_max: usize) -> Option<Turn> {
        let mut began = reads.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.1.len() >= reads_max {
            return None;
        }
        began.0 += 1;
        let number = began.0;
        began.1.insert(number, Instant::now());
        Some(Turn { number, reads: Arc::clone(reads) })
    }

    /// A read ended in time.
    pub fn was_quick(&self) {
        self.quick.fetch_add(1, Ordering::Relaxed);
    }

    /// A read was bypassed.
    pub fn was_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads since the last call.
    fn take(&self) -> Reads {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Reads { quick: take(&self.quick), slow: take(&self.slow) }
    }

    /// How long the oldest one has been.
    fn oldest(&self) -> Option<Duration> {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.1.values().next().map(Instant::elapsed)
    }

    /// Forgets how reads ended, before a disk is looked at anew.
    pub fn forget(&self) {
        self.take();
    }
}

/// A read under way.
#[derive(Debug)]
pub struct Turn {
    number: u64,
    reads: Arc<UnderWay>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut began = self.reads.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.1.remove(&self.number);
    }
}

/// Writes a little into `dir`, durably, and reads it back. Blocks.
///
/// # Errors
/// What the disk said, or that it gave something else back.
pub fn takes_bytes(dir: &Path) -> io::Result<()> {
    let path = dir.join("probe");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let mut bytes = [0; PROBE_BYTES];
    bytes.iter_mut().zip(rand::random::<[u8; 32]>().iter().cycle()).for_each(|(to, of)| *to = *of);
    file.write_all(&bytes)?;
    file.sync_all()?;
    file.rewind()?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    if read != bytes {
        return Err(io::Error::other("it does not give back what was written"));
    }
    std::fs::remove_file(path)
}

/// How long to wait before a disk is tried (again), after it was up for `up` and the try
/// before that had to wait `waited`.
#[must_use]
pub fn wait(waited: Option<Duration>, up: Duration) -> Duration {
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
    fn a_read_is_bypassed_before_its_disk_is_off_and_a_disk_that_hangs_is_off_within_a_second() {
        let promised = Duration::from_secs(1);
        assert_eq!(crate::READ_MAX, Duration::from_millis(50));
        // A look sees a hung read, or hangs itself.
        assert!(LOOK_EVERY + HANG_MAX < promised);
        assert!(WRITE_MAX < promised);
        assert_eq!(LOOK_EVERY * u32::try_from(LOOKS).unwrap(), promised);
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
