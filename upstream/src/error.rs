//! Why an upstream can't be set up.

use service::config::ConfigError;

/// What is wrong at start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting, or one that is missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates for outgoing TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// Metrics could not be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
