//! How much of its disk a plan may fill.
//!
//! Invariant: it leaves what heads, purges and the reactive SSD's files are still to take there: they
//! would otherwise find the disk full.

use chunks::Chunks;
use heads::DiskShare;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of any disk that are left free, for what is small: indexes, checksums, the plan.
const SPARE_BYTES: u64 = 1 << 20;

/// What else an edge keeps that may be on the same disk.
#[derive(Clone)]
pub struct Room {
    /// Heads and purges.
    pub heads: DiskShare,
    /// The reactive SSD's files, which grow to their size.
    pub chunks: Chunks,
}

impl Room {
    /// Bytes that may be written at `path`; an error when there are none. Blocks.
    pub(super) fn bytes(&self, path: &Path) -> io::Result<u64> {
        let (free, device) = (chunks::bytes_free(path)?, std::fs::metadata(path)?.dev());
        // What the plan takes already is not told: as if the whole disk were its room.
        let heads = self.heads.on_disk_of(path, u64::MAX);
        let kept = heads.saturating_add(self.chunks.bytes_to_come(device));
        free.checked_sub(kept.max(SPARE_BYTES)).ok_or_else(|| no_room(0))
    }
}

/// The error when so much may be written, and the next is larger.
pub(super) fn no_room(bytes: u64) -> io::Error {
    let text = format!("a plan may write {bytes} more bytes here, the next chunk needs more");
    io::Error::new(io::ErrorKind::StorageFull, text)
}
