//! What can go wrong, and for whom: at start for the operator, later for a request.

use std::path::PathBuf;

/// An error of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener, the announcement, or another thing that all servers share.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The object store.
    #[error("the catalog can't be read: {0}")]
    Store(#[from] store::Error),
    /// A file can't be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the data directory can't be written.
    #[error("{path} can't be written: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of the table of networks.
    #[error("{path}:{line}: {message}")]
    Networks {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Key, what is wrong, what was expected.
        message: String,
    },
    /// A credential that is no credential.
    #[error("{path}: expected one line of {min} to {max} visible characters", min = crate::secrets::CREDENTIAL_BYTES_MIN, max = crate::secrets::CREDENTIAL_BYTES_MAX)]
    Credential {
        /// Which file.
        path: PathBuf,
    },
    /// The signing key.
    #[error("{path}: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: token::KeyError,
    },
    /// The database can't be opened, or is of a newer release.
    #[error("{path}: {reason}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The database refused a statement.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The queue of the database is full.
    #[error("the database is busy")]
    Busy,
    /// The write was not committed; the log says why.
    #[error("the database can't commit")]
    NotCommitted,
    /// The database did not answer within a deadline.
    #[error("the database did not answer within {0:?}")]
    TimedOut(std::time::Duration),
}
