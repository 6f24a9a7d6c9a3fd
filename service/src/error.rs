//! What can go wrong when a server starts.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A server could not start. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens there.
    #[error(
        "{what}: {addr} is already in use: stop the other process or choose another address \
         (port 0 takes a free one)"
    )]
    InUse {
        /// Which listener.
        what: String,
        /// Where.
        addr: SocketAddr,
    },
    /// The address can't be listened on.
    #[error("{what}: can't listen on {addr}: {source}")]
    Listen {
        /// Which listener.
        what: String,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another process keeps its state in the same folder.
    #[error(
        "{key}: another nearcast runs on {dir}: stop it or choose another folder",
        dir = dir.display()
    )]
    Locked {
        /// The key that names the folder, `edge.data-dir`.
        key: String,
        /// The folder.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates for outgoing TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Error {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
