//! How a disk is cut into blocks, the unit in which it evicts: plain numbers.
//!
//! Blocks that are kept empty, are being filled or have been looked through are room lost, so a
//! disk has many of them; each is an open file, so not too many.

use super::store::{BLOB_INDEX_BYTES, BUFFER_BYTES, RECLAIMERS, stored_bytes};

/// Whole chunks in a block of a disk of 16 to 512 GiB.
const BLOCK_CHUNKS_MAX: u64 = 64;
/// In the smallest block: a batch's worth.
const BLOCK_CHUNKS_MIN: u64 = 8;
/// A disk of 2 GiB or more has at least this many blocks.
const BLOCKS_MIN: u64 = 256;
/// A disk has at most this many blocks, each an open file; a larger one has larger blocks,
/// up to [`BLOCK_BYTES_MAX`].
const BLOCKS_MAX: u64 = 8192;
/// foyer counts bytes of a block in 32 bits.
const BLOCK_BYTES_MAX: u64 = 1 << 32;

/// Bytes of a block of a disk of so many: whole chunks leave no room in it.
pub(super) fn block_bytes(bytes: u64) -> u64 {
    let (index, chunk) = (BLOB_INDEX_BYTES as u64, stored_bytes(arena::BLOCK_BYTES_MAX) as u64);
    let few = (bytes / BLOCKS_MIN / chunk).clamp(BLOCK_CHUNKS_MIN, BLOCK_CHUNKS_MAX);
    let most = (BLOCK_BYTES_MAX - index) / chunk;
    index + few.max((bytes / BLOCKS_MAX).div_ceil(chunk)).min(most) * chunk
}

/// Blocks that are looked through before they go: as many as a batch may fill, and one more, since
/// it may begin in the middle of one.
pub(super) fn ahead(block_bytes: u64) -> usize {
    let fills = (BUFFER_BYTES as u64).div_ceil(block_bytes) + 1;
    usize::try_from(fills).unwrap_or(usize::MAX).max(RECLAIMERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_many_blocks_but_not_too_many() {
        const MIB: u64 = 1 << 20;
        const TIB: u64 = 1 << 40;
        for (bytes, chunks) in [
            (100 * MIB, 8),
            (2048 * MIB, 8),
            (4096 * MIB, 15),
            (TIB / 64, 63),
            (TIB / 2, 64),
            (2 * TIB, 256),
            (100 * TIB, 4080),
        ] {
            assert_eq!(block_bytes(bytes), (16 << 10) + chunks * (MIB + 4096), "{bytes}");
        }
    }
}
