//! What can go wrong here. Each message names the file, the object or the address.

use std::path::PathBuf;

/// An ingest or an origin server could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source can't be packaged.
    #[error(transparent)]
    Package(#[from] manifests::package::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A local file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process ingests the same files.
    #[error("{path}: another ingest of these files is running", path = path.display())]
    Busy {
        /// The work folder.
        path: PathBuf,
    },
    /// Ended by a signal; nothing is half published.
    #[error(
        "stopped: nothing was published; run the same command again, what is stored whole is kept"
    )]
    Stopped,
    /// ffmpeg is missing, or could not make the renditions.
    #[error("--ladder: {0}")]
    Ladder(String),
    /// The server could not start.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// A task of this program has failed.
    #[error("internal: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// An error of a local file.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
