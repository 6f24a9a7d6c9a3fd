//! What can be wrong with an input; every message names the file.

use std::io;

/// Why a title could not be packaged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system could not read the file.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The source's name.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file has no bytes, or a track has no samples.
    #[error("{file}: empty: {what}")]
    Empty {
        /// The source's name.
        file: String,
        /// What is missing.
        what: String,
    },
    /// Something reaches past the end of the file.
    #[error("{file}: truncated: {what} reaches to byte {needs}, the file has {has}")]
    Truncated {
        /// The source's name.
        file: String,
        /// What is cut off.
        what: String,
        /// Where it would end.
        needs: u64,
        /// Size of the file.
        has: u64,
    },
    /// The file contradicts itself or its format.
    #[error("{file}: corrupt: {what}")]
    Corrupt {
        /// The source's name.
        file: String,
        /// What is wrong, and where.
        what: String,
    },
    /// Well-formed as far as it was read, but not what is packaged here.
    #[error("{file}: {what}; accepted: {accepted}")]
    Unsupported {
        /// The source's name.
        file: String,
        /// Track and what it is.
        what: String,
        /// What would be taken instead.
        accepted: &'static str,
    },
    /// A limit of this packager.
    #[error("{file}: {what} is {value}, the limit is {limit}")]
    TooLarge {
        /// The source's name.
        file: String,
        /// The figure, with its unit.
        what: String,
        /// Its value.
        value: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// No input has a video track.
    #[error("{files}: no video track: a title needs at least one video rendition")]
    NoVideo {
        /// All sources' names.
        files: String,
    },
    /// Two renditions cannot be cut at the same times.
    #[error("{first} and {second} do not align: {what}")]
    Misaligned {
        /// The rendition compared with.
        first: String,
        /// The one that differs.
        second: String,
        /// The first times that differ, and how to encode so that they don't.
        what: String,
    },
    /// A line of a WebVTT file.
    #[error("{file}:{line}: {what}")]
    Vtt {
        /// The source's name.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The track file could not be written.
    #[error("track {track}: cannot be written: {source}")]
    Write {
        /// The track's id.
        track: String,
        /// The sink's error.
        source: io::Error,
    },
}
