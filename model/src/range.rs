//! A run of bytes in a file.

use serde::{Deserialize, Serialize};

/// Bytes `start..start + bytes` of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl ByteRange {
    /// The range from `start` of length `bytes`.
    #[must_use]
    pub const fn new(start: u64, bytes: u64) -> Self {
        Self { start, bytes }
    }

    /// Offset just past the last byte (saturating: a range from outside may lie).
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// Whether the whole range lies within a file of `file_bytes`.
    #[must_use]
    pub const fn fits(&self, file_bytes: u64) -> bool {
        match self.start.checked_add(self.bytes) {
            Some(end) => end <= file_bytes,
            None => false,
        }
    }
}
