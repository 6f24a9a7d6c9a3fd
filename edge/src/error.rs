//! What can go wrong: [`Error`] when the edge starts, [`Fault`] when a byte is wanted.

use std::sync::Arc;

/// The edge could not start. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port or a file.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The certificate or its key can't be used.
    #[error("edge TLS: {0}")]
    Tls(String),
    /// The memory tier can't be set up.
    #[error("edge cache: {0}")]
    Cache(String),
    /// The metrics registry refused a metric.
    #[error("edge metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// An error about a file.
    pub(crate) fn file(path: impl Into<std::path::PathBuf>, source: std::io::Error) -> Self {
        Self::Service(service::Error::file(path, source))
    }
}

/// Bytes that were asked for could not be had. Cheap to clone: all who wait share it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The origin has no such title, version or file.
    #[error("the origin does not have it")]
    NotFound,
    /// No origin could be reached, or it answered something that can't be used.
    #[error("the origin failed: {0}")]
    Unavailable(Arc<str>),
    /// An origin was too slow.
    #[error("the origin was too slow: {0}")]
    TimedOut(Arc<str>),
    /// What an origin sent is not what the title's version stands for, twice.
    #[error("the origin's bytes are not those of this version")]
    Corrupt,
    /// Too much is being fetched already.
    #[error("too many fetches wait for the origin")]
    Busy,
    /// The task that fetched ended without a result.
    #[error("the fetch ended early")]
    Lost,
}

impl Fault {
    /// An origin failed, for this reason.
    pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self::Unavailable(reason.to_string().into())
    }
}
