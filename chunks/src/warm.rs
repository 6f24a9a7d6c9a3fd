//! Over a clean restart: the hottest chunks of memory, by key, and how they come back from
//! the disks, in the background and at a bounded rate.
//!
//! What was asked for while it was in memory comes back as such: memory would else evict it for
//! whatever comes next, before anybody has asked for it again.
//!
//! The list is a sealed file (`crate::sealed`), `ncwarm02`: `u32` count, `u32` count of those that
//! were asked for, 20 bytes a key (hottest first). It is a hint: a key that no disk has any more is
//! skipped, and a damaged list is no list.

use crate::disk::Disk;
use crate::disks;
use crate::memory::Memory;
use crate::sealed;
use crate::value::Key;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

/// Chunks on a list at most: 256 GiB of large ones, in 5 MB.
pub(crate) const KEYS_MAX: usize = 1 << 18;
/// Bytes a second that are read while warming up: a quarter of what the slowest SSD gives, so
/// that requests come first.
const BYTES_PER_S: u64 = 128 << 20;
/// Warming up ends when memory has less than this left: nothing is evicted for it.
const ROOM_MIN: u64 = 2 << 20;
/// How long opening a disk is waited for: the indexes of some 100 million chunks.
const TRIED_MAX: Duration = Duration::from_secs(60);
const MAGIC: &[u8; 8] = b"ncwarm02";
const KEY_BYTES: usize = 20;

/// Where the list lies.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("warm-chunks")
}

/// Chunks of memory, by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The hottest first.
    pub(crate) keys: Vec<Key>,
    /// So many of them, the first, were asked for since they came.
    pub(crate) used: usize,
}

impl Listed {
    /// These, and after those of them that were asked for what `rest` has of that kind, without
    /// what is named twice; as many as a list takes.
    pub(crate) fn and(self, rest: &Self) -> Self {
        let ((used, unused), (rest_used, rest_unused)) =
            (self.keys.split_at(self.used), rest.keys.split_at(rest.used));
        let mut listed = HashSet::new();
        let mut keys = Vec::new();
        let mut list = |part: &[Key]| {
            keys.extend(part.iter().filter(|key| listed.insert(**key)));
            keys.len()
        };
        // What has just come is not known yet to have been asked for.
        list(used);
        let count = list(rest_used);
        list(unused);
        list(rest_unused);
        keys.truncate(KEYS_MAX);
        Self { used: count.min(keys.len()), keys }
    }
}

/// How far memory has been warmed. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Warmed(Arc<Mutex<Option<SoFar>>>);

struct SoFar {
    listed: Arc<Listed>,
    count: usize,
}

impl Warmed {
    /// So many of the list are in memory, or can't be had.
    fn set(&self, listed: &Arc<Listed>, count: usize) {
        let so_far = SoFar { listed: Arc::clone(listed), count };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(so_far);
    }

    /// What of the list is still to come; none if it has not been read yet.
    pub(crate) fn rest(&self) -> Option<Listed> {
        let so_far = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let SoFar { listed, count } = so_far.as_ref()?;
        let keys = listed.keys[*count..].to_vec();
        Some(Listed { keys, used: listed.used.saturating_sub(*count) })
    }
}

fn encode(listed: &Listed) -> Vec<u8> {
    let Listed { keys, used } = listed;
    sealed::seal(MAGIC, |bytes| {
        for count in [keys.len(), *used] {
            bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        keys.iter().for_each(|key| bytes.extend_from_slice(&key.encoded()));
    })
}

fn decode(bytes: &[u8]) -> Option<Listed> {
    let (count, rest) = sealed::open(MAGIC, bytes)?.split_first_chunk::<4>()?;
    let (used, keys) = rest.split_first_chunk::<4>()?;
    let (keys, rest) = keys.as_chunks::<KEY_BYTES>();
    let whole = rest.is_empty() && u32::from_le_bytes(*count) as usize == keys.len();
    let used = u32::from_le_bytes(*used) as usize;
    let used = used.min(keys.len());
    whole.then(|| Listed { keys: keys.iter().map(Key::decoded).collect(), used })
}

/// Puts the list in place. Blocks.
pub(crate) fn save(path: &Path, listed: &Listed) -> io::Result<()> {
    sealed::save(path, &encode(listed))
}

/// Brings the listed chunks back into memory, as far as they fit, once every disk has been
/// tried.
pub(crate) async fn up(path: PathBuf, disks: Vec<Arc<Disk>>, memory: Memory, warmed: Warmed) {
    for disk in &disks {
        // One that hangs keeps no other from warming memory.
        let _ = timeout(TRIED_MAX, disk.tried()).await;
    }
    let listed = spawn_blocking(move || fs::read(path)).await;
    let listed = listed.ok().and_then(Result::ok).and_then(|bytes| decode(&bytes));
    let listed = Arc::new(listed.unwrap_or_default());
    let (began, mut bytes, mut chunks) = (Instant::now(), 0, 0u64);
    for (place, key) in listed.keys.iter().enumerate() {
        if memory.bytes_free() < ROOM_MIN {
            break;
        }
        warmed.set(&listed, place);
        if memory.contains(key) {
            memory.used_before(key, uses(place, listed.used));
            continue;
        }
        if let Some(chunk) = disks::read(&disks, key, true).await {
            memory.used_before(key, uses(place, listed.used));
            (bytes, chunks) = (bytes + chunk.len() as u64, chunks + 1);
            sleep_until(began + Duration::from_micros(bytes * 1_000_000 / BYTES_PER_S)).await;
        }
    }
    warmed.set(&Arc::default(), 0);
    if !listed.keys.is_empty() {
        tracing::info!(chunks, bytes, "memory is warm again");
    }
}

/// As how many uses memory counts what was at this place of a list: the hotter half stays longest.
fn uses(place: usize, used: usize) -> u32 {
    u32::from(place < used) + u32::from(place < used / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_not_read_in_again_stays_on_the_list() {
        let list = |numbers: &[u32], used| {
            let key = |number: &u32| Key { body: [0; 16], number: *number };
            Listed { keys: numbers.iter().map(key).collect(), used }
        };
        for (held, rest, both) in [
            (list(&[1, 2, 3], 2), list(&[4, 2, 5], 2), list(&[1, 2, 4, 3, 5], 3)),
            (list(&[], 0), list(&[4, 5], 1), list(&[4, 5], 1)),
            (list(&[2, 1], 0), list(&[1, 3], 1), list(&[1, 2, 3], 1)),
        ] {
            assert_eq!(held.and(&rest), both);
        }
        let warmed = Warmed::default();
        assert_eq!(warmed.rest(), None);
        warmed.set(&Arc::new(list(&[1, 2, 3], 2)), 1);
        assert_eq!(warmed.rest(), Some(list(&[2, 3], 1)));
        warmed.set(&Arc::new(list(&[1, 2, 3], 2)), 3);
        assert_eq!(warmed.rest(), Some(list(&[], 0)));
    }

    #[test]
    fn a_list_survives_a_restart_and_a_damaged_one_is_none() {
        let key = |number| Key { body: [number as u8; 16], number };
        for count in [0, 1, 100] {
            let listed = Listed { keys: (0..count).map(key).collect(), used: count as usize / 2 };
            let mut bytes = encode(&listed);
            assert_eq!(decode(&bytes), Some(listed));
            assert_eq!(decode(&bytes[1..]), None);
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn only_what_was_asked_for_counts_as_used() {
        let counted: Vec<_> = (0..7).map(|place| uses(place, 5)).collect();
        assert_eq!(counted, [2, 2, 1, 1, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_content_is_a_list_or_none(
            counts in [0..6u32, 0..6u32],
            keys in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = sealed::seal(MAGIC, |bytes| {
                counts.iter().for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
                bytes.extend_from_slice(&keys);
            });
            let [count, used] = counts.map(|count| count as usize);
            let listed = decode(&bytes);
            prop_assert_eq!(listed.is_some(), keys.len() == count * KEY_BYTES);
            if let Some(listed) = listed {
                prop_assert_eq!((listed.keys.len(), listed.used), (count, used.min(count)));
            }
        }
    }
}
