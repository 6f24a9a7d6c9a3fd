//! ISO base media files (ISO/IEC 14496-12): reading any, writing CMAF.
//!
//! Reading takes bytes that may lie: every count is held against the bytes that could back it
//! before anything is allocated, and every failure is a `Fault`. Nothing here knows of
//! titles, renditions or segments' times.

mod bytes;
pub(crate) mod entry;
mod fragments;
pub(crate) mod movie;
pub(crate) mod out;
mod tables;

use crate::package::Error;
use std::io;

/// A `moov` box larger than this is refused, in bytes (12 h of 60 frames a second take about
/// 60 MiB a track).
pub const MOOV_BYTES_MAX: u64 = 256 << 20;

/// A `moof` box larger than this is refused, in bytes.
pub const MOOF_BYTES_MAX: u64 = 32 << 20;

/// More samples than this in one file, over all tracks that are kept, are refused (12 h of 60
/// frames a second and two AAC tracks are 6.6 million).
pub const SAMPLES_MAX: usize = 12 << 20;

/// More tracks than this in one file are refused.
pub const TRACKS_MAX: usize = 64;

/// What is wrong with a file, by one who does not know the file's name.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The system could not read.
    Read(io::Error),
    /// Something ends past the file's end.
    Truncated { what: String, needs: u64, has: u64 },
    /// It contradicts itself.
    Corrupt(String),
    /// Well-formed, but not taken.
    Unsupported { what: String, accepted: &'static str },
    /// Nothing in it.
    Empty(String),
    /// Above a named limit.
    TooLarge { what: String, value: u64, limit: u64 },
}

impl Fault {
    pub(crate) fn corrupt<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Corrupt(what.into()))
    }

    /// The error that a user sees.
    pub(crate) fn of_file(self, name: &str) -> Error {
        let file = name.to_owned();
        match self {
            Self::Read(source) => Error::Read { file, source },
            Self::Truncated { what, needs, has } => Error::Truncated { file, what, needs, has },
            Self::Corrupt(what) => Error::Corrupt { file, what },
            Self::Unsupported { what, accepted } => Error::Unsupported { file, what, accepted },
            Self::Empty(what) => Error::Empty { file, what },
            Self::TooLarge { what, value, limit } => Error::TooLarge { file, what, value, limit },
        }
    }
}
