//! What each block of a disk holds, over restarts: foyer's index has hashes, and what is still wanted
//! of a block that is about to go has to be named.
//!
//! A list is a sealed file (`crate::sealed`), `nckeys01`: 24 bytes for each chunk, its key and `u32`
//! bytes that it takes. Lists stay on the disk until their block is about to go. A list is a hint: what
//! it names is looked for before it is read, so one from before its block was emptied costs a write
//! too many at most, and a damaged one is none. Every function here blocks.

use super::fifo::Written;
use super::folder;
use super::store::BUFFER_BYTES;
use crate::sealed;
use crate::value::Key;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    sealed::save(&path(dir, of), &encode(written))
}

/// Takes the list of a block away, if there is one.
pub(super) fn remove(dir: &Path, block: u32) -> io::Result<()> {
    match fs::remove_file(path(dir, Of::Block(block))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A list of a block of so many bytes; empty if there is none.
pub(super) fn load(dir: &Path, of: Of, block_bytes: u64) -> Vec<Written> {
    let path = path(dir, of);
    // What found its block full is on its list all the same, and a block may have two lists.
    let most = 2 * (block_bytes + BUFFER_BYTES as u64) / folder::PAGE_BYTES as u64;
    let read = || {
        let length = fs::metadata(&path)?.len();
        let is_too_long = length > 16 + most * CHUNK_BYTES as u64;
        let list = if is_too_long { None } else { decode(&fs::read(&path)?) };
        list.ok_or_else(|| io::Error::other("damaged"))
    };
    read().unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "a list of what a block holds");
        }
        Vec::new()
    })
}

/// Which blocks have lists, of blocks that were written last at these times. That of the block which
/// was being filled is one of a full one from now on.
pub(super) fn listed(dir: &Path, before: &[u128], block_bytes: u64) -> HashSet<u32> {
    let blocks = 0..u32::try_from(before.len()).unwrap_or(u32::MAX);
    let filling = load(dir, Of::Filling, block_bytes);
    if let Some(last) = blocks.clone().max_by_key(|block| before[*block as usize])
        && !filling.is_empty()
    {
        // The list that there is may be the block's own, or of what it held before.
        let mut written = load(dir, Of::Block(last), block_bytes);
        let known: HashSet<Key> = written.iter().map(|(key, _)| *key).collect();
        written.extend(filling.into_iter().filter(|(key, _)| !known.contains(key)));
        let saved = save(dir, Of::Block(last), &written);
        // Only once: it is of the run before this one.
        if let Err(error) = saved.and_then(|()| fs::remove_file(path(dir, Of::Filling))) {
            tracing::warn!(dir = %dir.display(), %error, "a list of what a block holds");
        }
    }
    blocks.filter(|block| path(dir, Of::Block(*block)).exists()).collect()
}

fn encode(written: &[Written]) -> Vec<u8> {
    sealed::seal(MAGIC, |bytes| {
        for (key, size) in written {
            bytes.extend_from_slice(&key.encoded());
            bytes.extend_from_slice(&size.to_le_bytes());
        }
    })
}

fn decode(bytes: &[u8]) -> Option<Vec<Written>> {
    let (chunks, rest) = sealed::open(MAGIC, bytes)?.as_chunks::<CHUNK_BYTES>();
    let written = chunks.iter().map(|chunk| {
        let (key, size) = chunk.split_first_chunk::<20>()?;
        Some((Key::decoded(key), u32::from_le_bytes(size.try_into().ok()?)))
    });
    if rest.is_empty() { written.collect() } else { None }
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
        const BLOCK: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let load = |block| load(dir.path(), Of::Block(block), BLOCK);
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
            assert_eq!(listed(dir.path(), &before, BLOCK), [0, 1, 2].into());
            assert_eq!([load(0), load(2), load(3)], [vec![], written(8..12), vec![]]);
            assert_eq!(load(1), [written(4..8), written(50..52)].concat());
        }
        assert!(!path(dir.path(), Of::Filling).exists());
        remove(dir.path(), 0).unwrap();
        remove(dir.path(), 0).unwrap();
        assert_eq!(listed(dir.path(), &before, BLOCK), [1, 2].into());
        // Longer than a block's can be.
        let vast = vec![(Key { body: [7; 16], number: 0 }, 4096); 9_000];
        save(dir.path(), Of::Block(2), &vast).unwrap();
        assert_eq!(load(2), []);
        assert_eq!(super::load(dir.path(), Of::Block(2), 2 * BLOCK), vast);
    }

    proptest! {
        #[test]
        fn any_content_is_a_list_or_none(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = sealed::seal(MAGIC, |bytes| bytes.extend_from_slice(&content));
            let list = decode(&bytes);
            prop_assert_eq!(list.is_some(), content.len().is_multiple_of(CHUNK_BYTES));
            prop_assert!(list.is_none_or(|list| encode(&list) == bytes));
        }
    }
}
