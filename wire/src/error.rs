//! What keeps a listener from starting.

/// A listener can't start. The message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QUIC can't use the TLS configuration, or the socket.
    #[error("QUIC: {0}")]
    Quic(String),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
    /// The certificate can't be read.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// The system refuses a thread for connections.
    #[error("a thread for connections: {0}")]
    Shard(#[source] std::io::Error),
}
