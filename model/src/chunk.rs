//! The fixed grid on which track files are digested, fetched and cached.

use crate::ByteRange;

/// Bytes in a chunk; only the last one of a file is shorter.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// How many chunks a file of `file_bytes` has.
#[must_use]
pub const fn count(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(CHUNK_BYTES)
}

/// The bytes of chunk `number` in a file of `file_bytes`; empty past the end.
#[must_use]
pub fn range(number: u64, file_bytes: u64) -> ByteRange {
    let start = number.saturating_mul(CHUNK_BYTES).min(file_bytes);
    ByteRange::new(start, (file_bytes - start).min(CHUNK_BYTES))
}

/// The numbers of the chunks that a non-empty range touches; empty for an empty range.
#[must_use]
pub fn covering(range: ByteRange) -> std::ops::Range<u64> {
    if range.bytes == 0 {
        return 0..0;
    }
    range.start / CHUNK_BYTES..(range.end() - 1) / CHUNK_BYTES + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_tile_the_file(file_bytes in 0u64..10 * CHUNK_BYTES) {
            let mut next = 0;
            for number in 0..count(file_bytes) {
                let chunk = range(number, file_bytes);
                prop_assert_eq!(chunk.start, next);
                prop_assert!(chunk.bytes > 0);
                next = chunk.end();
            }
            prop_assert_eq!(next, file_bytes);
        }

        #[test]
        fn covering_chunks_hold_the_range(start in 0u64..1 << 40, bytes in 1u64..1 << 24) {
            let touched = covering(ByteRange::new(start, bytes));
            prop_assert!(touched.start * CHUNK_BYTES <= start);
            prop_assert!(touched.end * CHUNK_BYTES >= start + bytes);
            prop_assert!((touched.start + 1) * CHUNK_BYTES > start);
            prop_assert!((touched.end - 1) * CHUNK_BYTES < start + bytes);
        }
    }
}
