//! What can go wrong with a store: each variant is something else to do.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What a store's URL may look like.
pub(crate) const URL_FORMS: &str = "dir:PATH, mem:, mem:NAME or s3://bucket/prefix";

/// A store and, where there is one, a key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At(String);

impl At {
    pub(crate) fn new(url: &str, key: &str) -> Self {
        if key.is_empty() {
            return Self(format!("store {url}"));
        }
        Self(format!("store {url}, object {}", key.chars().take(200).collect::<String>()))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A store's error. Every message names the store, the object and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL of a store.
    #[error("store {given:?} is not valid: expected {expected}")]
    BadUrl {
        /// As given.
        given: String,
        /// What is allowed.
        expected: String,
    },
    /// Not a name that an object may have.
    #[error("{at}: not a valid name: expected a-z, 0-9, '.', '_', '-', '/'")]
    BadKey {
        /// Where.
        at: At,
    },
    /// No such object.
    #[error("{at}: not found")]
    NotFound {
        /// Where.
        at: At,
    },
    /// There is one already.
    #[error("{at}: exists already")]
    AlreadyExists {
        /// Where.
        at: At,
    },
    /// The object is shorter than the bytes that were asked for.
    #[error("{at}: has no bytes {}..{}", range.start, range.end)]
    OutOfRange {
        /// Where.
        at: At,
        /// What was asked for.
        range: Range<u64>,
    },
    /// Larger than the asker takes.
    #[error("{at}: has {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge {
        /// Where.
        at: At,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// A listing with too many objects.
    #[error("{at}: lists more than {entries_max} objects")]
    TooMany {
        /// Where.
        at: At,
        /// The limit.
        entries_max: usize,
    },
    /// Credentials or permissions do not allow it: trying again does not help.
    #[error("{at}: access refused ({why}): check credentials and permissions")]
    Refused {
        /// Where.
        at: At,
        /// What the store said.
        why: String,
    },
    /// It can only be read.
    #[error("{at}: is read-only: choose another store, or make this one writable")]
    ReadOnly {
        /// Where.
        at: At,
    },
    /// No room is left.
    #[error("{at}: is full: free some space and run this again, what is stored is kept")]
    Full {
        /// Where.
        at: At,
    },
    /// It gave other bytes than it should.
    #[error("{at}: is damaged ({why})")]
    Corrupt {
        /// Where.
        at: At,
        /// How.
        why: String,
    },
    /// No answer in time: trying again later may help.
    #[error("{at}: no answer within {after:?}: check that it can be reached")]
    TimedOut {
        /// Where.
        at: At,
        /// The limit.
        after: Duration,
    },
    /// It can't be reached or does not work: trying again later may help.
    #[error("{at}: can't be used ({why}): check that it exists and can be reached")]
    Unavailable {
        /// Where.
        at: At,
        /// Why.
        why: String,
    },
    /// The local file to be stored can't be read.
    #[error("{path}: {source}", path = path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Stopped as requested; nothing half stored is left.
    #[error("{at}: stopped before it was stored whole")]
    Stopped {
        /// Where.
        at: At,
    },
}

impl Error {
    pub(crate) fn bad_url(given: &str, expected: impl Into<String>) -> Self {
        Self::BadUrl { given: given.to_owned(), expected: expected.into() }
    }

    /// What an error of the operating system means for a store in a folder.
    pub(crate) fn from_io(at: At, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound { at },
            ErrorKind::AlreadyExists => Self::AlreadyExists { at },
            ErrorKind::PermissionDenied => Self::Refused { at, why: error.to_string() },
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { at },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full { at }
            }
            ErrorKind::UnexpectedEof => {
                Self::Corrupt { at, why: "it has become shorter while it was read".to_owned() }
            }
            _ => Self::Unavailable { at, why: error.to_string() },
        }
    }
}
