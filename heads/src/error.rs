//! What can go wrong with heads and purges, by what the caller does next.

use std::path::PathBuf;

/// An error of heads or of the purge log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The purge itself is no good: the caller's mistake.
    #[error("{field}: {reason}")]
    BadPurge {
        /// Which of its fields.
        field: &'static str,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// Too many wait for the disk: try again soon.
    #[error("{waiting} wait for the disk already: try again in a second")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The purge is not on disk, and not in force: try again once the disk works.
    #[error("the purge is not in force, since {path} can't be written: {reason}")]
    NotDurable {
        /// The log.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A removal is in force, but a crash may bring back what it removed.
    #[error("the removal from {path} is not on disk: {reason}")]
    NotWritten {
        /// The database.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The edge is ending.
    #[error("nothing is written any more: the edge is ending")]
    Closed,
    /// A thread or a metric can't be made at start.
    #[error("{what}: {reason}")]
    Start {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl From<prometheus::Error> for Error {
    fn from(error: prometheus::Error) -> Self {
        Self::Start { what: "metrics", reason: error.to_string() }
    }
}
