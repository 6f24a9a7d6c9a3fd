//! Digests of the leaves of chunks, by which a part of a chunk is known to be right before the rest
//! of it is there.
//!
//! The digest of a chunk is the root of a hash tree (BLAKE3 paper, section 2.1), of which the hashes
//! over each 64 KiB are nodes: all of them make the digest. So they can come from anywhere. A *tree
//! file* has those of a track file one after another, 32 bytes each. Of a chunk that is one leaf the
//! digest itself stands there.

use crate::ByteRange;
use crate::chunk::{self, CHUNK_BYTES};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::ops::Range;

/// Bytes in a leaf; only the last one of a file is shorter.
pub const LEAF_BYTES: usize = 64 << 10;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// The leaves of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    hashes: Vec<Hash>,
    chunk_bytes: usize,
}

impl Leaves {
    /// Those of a chunk that is here.
    #[must_use]
    pub fn of(chunk: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(chunk);
        let hashes = hasher.finish().tree.as_chunks().0.to_vec();
        Self { hashes, chunk_bytes: chunk.len() }
    }

    /// Those of a chunk of so many bytes, as they stand in a tree file; none if they are too few, or
    /// too many.
    #[must_use]
    pub fn decode(chunk_bytes: usize, encoded: &[u8]) -> Option<Self> {
        let (hashes, rest) = encoded.as_chunks();
        let fits = rest.is_empty() && hashes.len() == chunk_bytes.div_ceil(LEAF_BYTES);
        fits.then(|| Self { hashes: hashes.to_vec(), chunk_bytes })
    }

    /// The digest of the chunk whose leaves they are.
    #[must_use]
    pub fn digest(&self) -> Option<Hash> {
        root(&self.hashes)
    }

    /// The leaf with a byte of the chunk: where it lies in that. Empty past the end.
    #[must_use]
    pub fn around(&self, byte: usize) -> Range<usize> {
        let start = (byte - byte % LEAF_BYTES).min(self.chunk_bytes);
        start..(start + LEAF_BYTES).min(self.chunk_bytes)
    }

    /// Whether `bytes` are the leaf that begins at byte `start` of the chunk.
    #[must_use]
    pub fn is_leaf(&self, start: usize, bytes: &[u8]) -> bool {
        if bytes.is_empty() || self.around(start) != (start..start + bytes.len()) {
            return false;
        }
        let hasher = leaf_hasher(start);
        let hash = finish(hasher, bytes, self.hashes.len() == 1);
        self.hashes.get(start / LEAF_BYTES) == Some(&hash)
    }
}

/// How long the tree file of a file of `file_bytes` is.
#[must_use]
pub const fn bytes(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(LEAF_BYTES as u64) * HASH_BYTES as u64
}

/// Where in the tree file of a file of `file_bytes` the leaves of these chunks stand.
#[must_use]
pub fn range(chunks: Range<u64>, file_bytes: u64) -> ByteRange {
    let at = |number| bytes(chunk::range(number, file_bytes).start);
    let start = at(chunks.start);
    ByteRange::new(start, at(chunks.end.max(chunks.start)) - start)
}

/// What is made of a file's bytes in one pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The digests of its chunks.
    pub digests: Vec<Hash>,
    /// Its tree file.
    pub tree: Vec<u8>,
}

/// Takes a file's bytes in order.
#[derive(Debug, Default)]
pub struct Hasher {
    /// Over the leaf that has begun.
    leaf: blake3::Hasher,
    /// Bytes of the chunk that have passed.
    filled: usize,
    /// The leaves of the chunk that are whole.
    leaves: Vec<Hash>,
    done: Hashed,
}

impl Hasher {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = self.filled % LEAF_BYTES;
            if within == 0 && self.filled > 0 {
                self.leaves.push(self.leaf.finalize_non_root());
                self.leaf = leaf_hasher(self.filled);
            }
            let (now, later) = rest.split_at(rest.len().min(LEAF_BYTES - within));
            self.leaf.update(now);
            self.filled += now.len();
            if self.filled as u64 == CHUNK_BYTES {
                self.close_chunk();
            }
            rest = later;
        }
    }

    fn close_chunk(&mut self) {
        let is_one = self.leaves.is_empty();
        let leaf = std::mem::take(&mut self.leaf);
        self.leaves.push(finish(leaf, &[], is_one));
        self.done.tree.extend(self.leaves.as_flattened());
        self.done.digests.extend(root(&self.leaves));
        self.leaves.clear();
        self.filled = 0;
    }

    /// That was all.
    #[must_use]
    pub fn finish(mut self) -> Hashed {
        if self.filled > 0 {
            self.close_chunk();
        }
        self.done
    }
}

/// Over the leaf that begins at this byte of its chunk.
fn leaf_hasher(start: usize) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start as u64);
    hasher
}

/// The hash of a leaf that ends with `bytes`.
fn finish(mut hasher: blake3::Hasher, bytes: &[u8], is_chunk: bool) -> Hash {
    hasher.update(bytes);
    if is_chunk { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
}

/// All leaves but the last are whole: the left part of a tree has the most that are a power of two.
fn split(leaves: &[Hash]) -> Option<(&[Hash], &[Hash])> {
    (leaves.len() > 1).then(|| leaves.split_at(1 << (leaves.len() - 1).ilog2()))
}

fn root(leaves: &[Hash]) -> Option<Hash> {
    let Some((left, right)) = split(leaves) else { return leaves.first().copied() };
    Some(*merge_subtrees_root(&node(left)?, &node(right)?, Mode::Hash).as_bytes())
}

fn node(leaves: &[Hash]) -> Option<Hash> {
    let Some((left, right)) = split(leaves) else { return leaves.first().copied() };
    Some(merge_subtrees_non_root(&node(left)?, &node(right)?, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 + at / 997) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn leaves_make_the_digests_of_a_file_however_it_comes(
            file_bytes in 0..3 * CHUNK_BYTES as usize,
            piece in 1..3 * LEAF_BYTES,
        ) {
            let file = content(file_bytes);
            let mut hasher = Hasher::default();
            file.chunks(piece).for_each(|piece| hasher.update(piece));
            let Hashed { digests, tree } = hasher.finish();
            let chunks: Vec<_> = file.chunks(CHUNK_BYTES as usize).collect();
            let right: Vec<_> = chunks.iter().map(|it| *blake3::hash(it).as_bytes()).collect();
            prop_assert_eq!(&digests, &right);
            prop_assert_eq!(tree.len() as u64, bytes(file_bytes as u64));
            for (number, chunk) in chunks.iter().enumerate() {
                let number = number as u64;
                let at = range(number..number + 1, file_bytes as u64);
                let own = &tree[at.start as usize..at.end() as usize];
                let leaves = Leaves::decode(chunk.len(), own).unwrap();
                prop_assert_eq!(leaves.digest(), Some(right[number as usize]));
                prop_assert_eq!(&leaves, &Leaves::of(chunk));
                prop_assert!(Leaves::decode(chunk.len() + LEAF_BYTES, own).is_none());
            }
        }

        #[test]
        fn a_leaf_is_known_by_each_of_its_bytes(
            chunk_bytes in 1..=CHUNK_BYTES as usize,
            byte in 0..CHUNK_BYTES as usize,
        ) {
            let (byte, mut chunk) = (byte % chunk_bytes, content(chunk_bytes));
            let leaves = Leaves::of(&chunk);
            let leaf = leaves.around(byte);
            prop_assert!(leaf.contains(&byte));
            prop_assert!(leaves.is_leaf(leaf.start, &chunk[leaf.clone()]));
            prop_assert!(!leaves.is_leaf(leaf.start, &chunk[leaf.start..leaf.end - 1]));
            prop_assert!(!leaves.is_leaf(leaf.end, &chunk[leaf.clone()]));
            chunk[byte] ^= 1;
            prop_assert!(!leaves.is_leaf(leaf.start, &chunk[leaf]));
            prop_assert!(Leaves::of(&chunk).digest() != leaves.digest());
        }
    }
}
