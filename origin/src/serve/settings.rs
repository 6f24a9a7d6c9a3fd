//! Flags of `nearcast origin`, and the `[origin]` table.

use clap::Args;
use serde::Deserialize;
use service::config::ConfigError;
use std::net::SocketAddr;
use std::path::PathBuf;

/// As given: flags and environment, or the file's table.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Store to serve: dir:PATH, or s3://bucket/prefix (with the usual AWS variables)
    #[arg(long, env = "NEARCAST_ORIGIN_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Where to serve edges [default: 127.0.0.1:7090]
    #[arg(long, env = "NEARCAST_ORIGIN_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Admin port: /metrics, /healthz, /readyz [default: 127.0.0.1:7091]
    #[arg(long, env = "NEARCAST_ORIGIN_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// File to write the addresses to, once it listens
    #[arg(long, env = "NEARCAST_ORIGIN_ANNOUNCE", value_name = "FILE")]
    pub announce: Option<PathBuf>,
}

impl Settings {
    /// These over those of the file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            store: self.store.or(file.store),
            listen: self.listen.or(file.listen),
            admin: self.admin.or(file.admin),
            announce: self.announce.or(file.announce),
        }
    }
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of the store.
    pub store: String,
    /// Where to serve.
    pub listen: SocketAddr,
    /// Admin port.
    pub admin: SocketAddr,
    /// Where to announce.
    pub announce: Option<PathBuf>,
}

impl Config {
    /// Checks them. Both ports are on loopback by default: opening a store to a network is a
    /// decision.
    ///
    /// # Errors
    /// Names the key, what was given and what is allowed.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let store = settings.store.ok_or_else(|| {
            ConfigError::missing("origin.store (--store)", "dir:PATH or s3://bucket/prefix")
        })?;
        let addr = |key: &str, given: Option<String>, default: &str| {
            let text = given.unwrap_or_else(|| default.to_owned());
            let expected = "an address and a port, 127.0.0.1:7090";
            text.parse().map_err(|_| ConfigError::value(key, text, expected))
        };
        Ok(Self {
            store,
            listen: addr("origin.listen", settings.listen, "127.0.0.1:7090")?,
            admin: addr("origin.admin", settings.admin, "127.0.0.1:7091")?,
            announce: settings.announce,
        })
    }
}
