//! The form of the small files beside the tiers: eight bytes that name the format, the content,
//! and `u64` XXH3 of both, little-endian.

use std::fs;
use std::io;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const SUM_BYTES: usize = 8;

/// A file of this format, with the content that `put` appends.
pub(crate) fn seal(magic: &[u8; 8], put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    put(&mut bytes);
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Puts a file in place of the one before it, which stays where that fails. Blocks.
pub(crate) fn save(path: &Path, sealed: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, sealed)?;
    fs::rename(new, path)
}

/// The content of a file; none of one that is damaged, or of another format.
pub(crate) fn open<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    let content = bytes.strip_prefix(magic)?;
    (u64::from_le_bytes(*sum) == xxh3_64(bytes)).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAGIC: &[u8; 8] = b"nctest01";

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_that_is_changed_or_cut_does(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            flip in 1..=u8::MAX,
        ) {
            let mut bytes = seal(MAGIC, |bytes| bytes.extend_from_slice(&content));
            prop_assert_eq!(open(MAGIC, &bytes), Some(&content[..]));
            prop_assert_eq!(open(b"nctest02", &bytes), None);
            let at = at.index(bytes.len());
            prop_assert_eq!(open(MAGIC, &bytes[..at]), None);
            bytes[at] ^= flip;
            prop_assert_eq!(open(MAGIC, &bytes), None);
        }
    }
}
