//! Settings: as given (flags, environment, file) and as checked.

use crate::fleet::is_base_url;
use crate::retention::Retention;
use crate::secrets::CredentialFiles;
use serde::Deserialize;
use service::config::ConfigError;
use service::value::Span;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// As given. Every field is optional here; [`Config::check`] knows which must be there.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Where the API and the console listen [default: 127.0.0.1:7080]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where metrics and health listen [default: 127.0.0.1:7081]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_ADMIN", value_name = "ADDR")]
    pub admin: Option<String>,
    /// Write the addresses to this file, as JSON, once listening
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_ANNOUNCE", value_name = "FILE")]
    pub announce: Option<PathBuf>,
    /// The object store whose titles play: dir:PATH or s3://bucket/prefix
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Folder of the database, the signing key and the credentials [default: control-plane-data]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How players and edges reach this control plane [default: http:// and where it listens]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Table of networks and countries: lines of network,country
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_NETWORKS", value_name = "FILE")]
    pub networks: Option<PathBuf>,
    /// How often the store is asked for new titles [default: 3s]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_CATALOG_REFRESH", value_name = "SPAN")]
    pub catalog_refresh: Option<Span>,
    /// How long plays and their events are kept after their day, at least 7d [default: 35d]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_KEEP_EVENTS", value_name = "SPAN")]
    pub keep_events: Option<Span>,
    /// How long daily demand and plan runs are kept, at least 7d [default: 400d]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_KEEP_DEMAND", value_name = "SPAN")]
    pub keep_demand: Option<Span>,
    /// File with the operator's credential [default: DATA-DIR/credentials/operator, made if missing]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_OPERATOR_CREDENTIAL_FILE", value_name = "FILE")]
    pub operator_credential_file: Option<PathBuf>,
    /// File with the apps' credential [default: DATA-DIR/credentials/app, made if missing]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_APP_CREDENTIAL_FILE", value_name = "FILE")]
    pub app_credential_file: Option<PathBuf>,
    /// File with the edges' credential [default: DATA-DIR/credentials/edge, made if missing]
    #[arg(long, env = "NEARCAST_CONTROL_PLANE_EDGE_CREDENTIAL_FILE", value_name = "FILE")]
    pub edge_credential_file: Option<PathBuf>,
}

impl Settings {
    /// These (flags and environment) over those of a file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            admin: self.admin.or(file.admin),
            announce: self.announce.or(file.announce),
            store: self.store.or(file.store),
            data_dir: self.data_dir.or(file.data_dir),
            public_url: self.public_url.or(file.public_url),
            networks: self.networks.or(file.networks),
            catalog_refresh: self.catalog_refresh.or(file.catalog_refresh),
            keep_events: self.keep_events.or(file.keep_events),
            keep_demand: self.keep_demand.or(file.keep_demand),
            operator_credential_file: self
                .operator_credential_file
                .or(file.operator_credential_file),
            app_credential_file: self.app_credential_file.or(file.app_credential_file),
            edge_credential_file: self.edge_credential_file.or(file.edge_credential_file),
        }
    }
}

/// As checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) announce: Option<PathBuf>,
    pub(crate) store: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) public_url: Option<String>,
    pub(crate) networks: Option<PathBuf>,
    pub(crate) catalog_refresh: Duration,
    pub(crate) keep: Retention,
    pub(crate) credentials: CredentialFiles,
}

/// Only this machine until the operator says otherwise.
const LISTEN: &str = "127.0.0.1:7080";
/// Beside it.
const ADMIN: &str = "127.0.0.1:7081";
/// Where the operator stands, so that a first try needs no setting.
const DATA_DIR: &str = "control-plane-data";
/// A new title shows up while its operator still looks; one listing of the store costs little.
const CATALOG_REFRESH: Duration = Duration::from_secs(3);
/// Less would only keep the store busy.
const CATALOG_REFRESH_MIN: Duration = Duration::from_millis(10);
/// A month to look back at a complaint, and no longer: they tell who watched what.
const KEEP_EVENTS: Duration = Duration::from_secs(35 * DAY_S);
/// The same week a year ago can be compared; demand names no viewer.
const KEEP_DEMAND: Duration = Duration::from_secs(400 * DAY_S);
/// A play must outlive its token, and the planner reads the day before.
const KEEP_MIN: Duration = Duration::from_secs(7 * DAY_S);
const DAY_S: u64 = 86_400;

impl Config {
    /// Checks settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is expected.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let listen = addr("control-plane.listen", settings.listen, LISTEN)?;
        let admin = addr("control-plane.admin", settings.admin, ADMIN)?;
        let missing = |key: &str, expected: &str| ConfigError::missing(key, expected);
        let url = "control-plane.public-url";
        if settings.public_url.is_none() && listen.ip().is_unspecified() {
            return Err(missing(
                url,
                "the URL by which players reach it, since it listens on every address",
            ));
        }
        if let Some(given) = settings.public_url.as_deref().filter(|given| !is_base_url(given)) {
            let expected = "http:// or https:// with a host, without a path";
            return Err(ConfigError::value(url, given, expected));
        }
        let refresh = settings.catalog_refresh.map_or(CATALOG_REFRESH, |span| span.0);
        if refresh < CATALOG_REFRESH_MIN {
            let (key, given) = ("control-plane.catalog-refresh", format!("{refresh:?}"));
            return Err(ConfigError::value(key, given, "10ms or more"));
        }
        Ok(Self {
            listen,
            admin,
            announce: settings.announce,
            store: settings
                .store
                .ok_or_else(|| missing("control-plane.store", "dir:PATH or s3://bucket/prefix"))?,
            data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            public_url: settings.public_url,
            networks: settings.networks,
            catalog_refresh: refresh,
            keep: Retention {
                events: keep("control-plane.keep-events", settings.keep_events, KEEP_EVENTS)?,
                demand: keep("control-plane.keep-demand", settings.keep_demand, KEEP_DEMAND)?,
            },
            credentials: CredentialFiles {
                operator: settings.operator_credential_file,
                app: settings.app_credential_file,
                edge: settings.edge_credential_file,
            },
        })
    }
}

fn keep(key: &str, given: Option<Span>, default: Duration) -> Result<Duration, ConfigError> {
    let kept = given.map_or(default, |span| span.0);
    if kept < KEEP_MIN {
        return Err(ConfigError::value(key, format!("{kept:?}"), "7d or more"));
    }
    Ok(kept)
}

fn addr(key: &str, given: Option<String>, default: &str) -> Result<SocketAddr, ConfigError> {
    let text = given.unwrap_or_else(|| default.to_owned());
    text.parse()
        .map_err(|_| ConfigError::value(key, &text, "an address and port, as 127.0.0.1:7080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            store: Some("mem:".into()),
            data_dir: Some("data".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn mistakes_are_named() {
        let errors: Vec<String> = [
            Settings::default(),
            Settings { listen: Some("7080".into()), ..settings() },
            Settings { listen: Some("0.0.0.0:7080".into()), ..settings() },
            Settings { public_url: Some("http://a/b".into()), ..settings() },
            Settings { catalog_refresh: Some(Span(Duration::ZERO)), ..settings() },
            Settings { keep_events: Some(Span(Duration::from_secs(3600))), ..settings() },
            Settings { keep_demand: Some(Span(Duration::ZERO)), ..settings() },
        ]
        .into_iter()
        .map(|settings| Config::check(settings).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
        assert!(Config::check(settings()).is_ok());
    }

    #[test]
    fn flags_win() {
        let file = Settings { listen: Some("127.0.0.1:1".into()), ..settings() };
        let flags = Settings { listen: Some("127.0.0.1:2".into()), ..Settings::default() };
        let config = Config::check(flags.over(file)).unwrap();
        assert_eq!((config.listen.port(), config.store.as_str()), (2, "mem:"));
    }
}
