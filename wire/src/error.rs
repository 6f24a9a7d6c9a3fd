//! What keeps a listener from starting.

/// A listener can't start. The message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QUIC can't use the TLS configuration, or the socket.
    #[error("QUIC: {0}")]
    Quic(String),
    /// The system refuses a thread for connections.
    #[error("a thread for connections: {0}")]
    Shard(#[source] std::io::Error),
}
