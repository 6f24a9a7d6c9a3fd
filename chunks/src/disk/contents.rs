//! What each block of a disk holds, over restarts: foyer's index has hashes, and what is still wanted
//! of a block that is about to go has to be named.
//!
//! A list is a file (integers little-endian): `nckeys01`, 24 bytes for each chunk (its key, `u32`
//! bytes that it takes), `u64` XXH3 of all that. It is a hint: what it names is looked for before it
//! is read, so one from before its block was emptied costs a write too many at most, and a damaged
//! one is none. Every function here blocks.

use super::fifo::Written;
use super::folder;
use super::store::BUFFER_BYTES;
use crate::value::Key;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"nckeys01";
const CHUNK_BYTES: usize = 24;

/// Whose list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A block's that is full.
    Block(u32),
    /// That block's which was being filled when the disk was closed: the one that was written last.
    Filling,
}

/// Where the list lies.
pub(super) fn path(dir: &Path, of: Of) -> PathBuf {
    match of {
        Of::Block(number) => dir.join(format!("keys-{number:08}")),
        Of::Filling => dir.join("keys-filling"),
    }
}

/// Puts a list in place of the one before it.
pub(super) fn save(dir: &Path, of: Of, written: &[Written]) -> io::Result<()> {
    fs::write(path(dir, of), encode(written))
}

/// The lists of so many blocks, which were written last at these times. That of the block which was
/// being filled is one of a full one from now on.
pub(super) fn load(dir: &Path, before: &[u128], block_bytes: u64) -> HashMap<u32, Vec<Written>> {
    // What found its block full is on its list all the same, and a block may have two lists.
    let most = 2 * (block_bytes + BUFFER_BYTES as u64) / folder::PAGE_BYTES as u64;
    let read = |of: Of| -> Option<Vec<Written>> {
        let path = path(dir, of);
        let length = fs::metadata(&path).ok()?.len();
        let is_too_long = length > 16 + most * CHUNK_BYTES as u64;
        if is_too_long { None } else { decode(&fs::read(path).ok()?) }
    };
    let blocks = 0..u32::try_from(before.len()).unwrap_or(u32::MAX);
    let mut lists: HashMap<_, _> =
        blocks.clone().filter_map(|block| Some((block, read(Of::Block(block))?))).collect();
    if let Some(filling) = read(Of::Filling)
        && let Some(last) = blocks.max_by_key(|block| before[*block as usize])
    {
        // That there is may be the block's own, or what it held before.
        let written = lists.entry(last).or_default();
        let known: HashSet<Key> = written.iter().map(|(key, _)| *key).collect();
        written.extend(filling.into_iter().filter(|(key, _)| !known.contains(key)));
        let saved = save(dir, Of::Block(last), written);
        // Only once: it is of the run before this one.
        if let Err(error) = saved.and_then(|()| fs::remove_file(path(dir, Of::Filling))) {
            tracing::warn!(dir = %dir.display(), %error, "a list of what a block holds");
        }
    }
    lists
}

fn encode(written: &[Written]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + written.len() * CHUNK_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (key, size) in written {
        bytes.extend_from_slice(&key.encoded());
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Written>> {
    let (bytes, sum) = bytes.split_last_chunk::<8>()?;
    let (magic, chunks) = bytes.split_first_chunk::<8>()?;
    let (chunks, rest) = chunks.as_chunks::<CHUNK_BYTES>();
    if magic != MAGIC || !rest.is_empty() || u64::from_le_bytes(*sum) != xxh3_64(bytes) {
        return None;
    }
    let written = chunks.iter().map(|chunk| {
        let (key, size) = chunk.split_first_chunk::<20>()?;
        Some((Key::decoded(key), u32::from_le_bytes(size.try_into().ok()?)))
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(numbers: std::ops::Range<u32>) -> Vec<Written> {
        numbers.map(|number| (Key { body: [7; 16], number }, 4096 * number)).collect()
    }

    #[test]
    fn what_was_being_filled_is_of_the_block_that_was_written_last_and_a_damaged_list_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for block in 0..3 {
            save(dir.path(), Of::Block(block), &written(block * 4..block * 4 + 4)).unwrap();
        }
        save(dir.path(), Of::Filling, &written(50..52)).unwrap();
        let damaged = path(dir.path(), Of::Block(0));
        let mut bytes = fs::read(&damaged).unwrap();
        bytes[20] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        let before = [10, 30, 20];
        for _ in 0..2 {
            let lists = load(dir.path(), &before, 1 << 20);
            let both = [written(4..8), written(50..52)].concat();
            assert_eq!(lists, HashMap::from([(1, both), (2, written(8..12))]));
        }
        assert!(!path(dir.path(), Of::Filling).exists());
        // Longer than a block's can be.
        let vast = vec![(Key { body: [7; 16], number: 0 }, 4096); 9_000];
        save(dir.path(), Of::Block(2), &vast).unwrap();
        assert!(!load(dir.path(), &before, 4096).contains_key(&2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_none());
        }
    }
}
