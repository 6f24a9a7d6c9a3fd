//! What an operator may set: as flags, environment or the `[edge]` table, checked once.

mod peers;

pub use peers::Peers;

use crate::prefetch;
use crate::proxy::{self, SiteConfig, SiteSettings};
use crate::serve::RESPONSES_MAX;
use chunks::MEMORY_BYTES_MIN;

/// Smallest SSD tier.
const DISK_BYTES_MIN: u64 = 256 << 20;
use clap::Args;
use model::EdgeId;
use serde::Deserialize;
use service::config::ConfigError;
use service::value::ByteSize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use upstream::SiteKind;
use url::Url;
use wire::{CONNECTIONS_MAX, Levers, SEND_STALL_MAX, SHARDS_MAX};

/// Settings as given; what is not given has a default. Names are those of the `[edge]` table.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Where to serve: http://IP:PORT, or https://IP:PORT (TCP, and UDP for HTTP/3). Repeatable
    #[arg(long, env = "NEARCAST_EDGE_LISTEN", value_delimiter = ',', value_name = "URL")]
    pub listen: Vec<String>,
    /// Where to serve other nodes, http://IP:PORT: siblings, children, without play tokens, so
    /// within your own network only. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_PEER_LISTEN", value_delimiter = ',', value_name = "URL")]
    pub peer_listen: Vec<String>,
    /// An origin to fetch from, http://, https:// or s3://BUCKET; several are tried in order. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_ORIGIN", value_delimiter = ',', value_name = "URL")]
    pub origin: Vec<String>,
    /// The control plane to join: its origins then hold titles. Without one, --origin is any HTTP
    /// or S3 origin to cache
    #[arg(long, env = "NEARCAST_EDGE_CONTROL_PLANE", value_name = "URL")]
    pub control_plane: Option<String>,
    /// File that holds the secret for joining
    #[arg(long, env = "NEARCAST_EDGE_JOIN_SECRET_FILE", value_name = "FILE")]
    pub join_secret_file: Option<PathBuf>,
    /// The secret itself: by environment only, since others can read a command line
    #[arg(long, env = "NEARCAST_EDGE_JOIN_SECRET", hide = true, hide_env_values = true)]
    #[serde(skip)]
    pub join_secret: Option<Secret>,
    /// This edge's name within its fleet, and for CDNs around it [default: edge- and 8 digits
    /// that the data folder keeps]
    #[arg(long, env = "NEARCAST_EDGE_ID", value_name = "ID")]
    pub id: Option<String>,
    /// Folder for all that it keeps [default: nearcast-edge]
    #[arg(long, env = "NEARCAST_EDGE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Memory for chunks [default: 512MiB]
    #[arg(long, env = "NEARCAST_EDGE_MEMORY", value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// SSD for chunks fetched on demand, 0 for none [default: 4GiB]
    #[arg(long, env = "NEARCAST_EDGE_SSD", value_name = "SIZE")]
    pub ssd: Option<ByteSize>,
    /// Folders for that, one a disk [default: ssd in the data folder]. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_SSD_DIR", value_delimiter = ',', value_name = "DIR")]
    pub ssd_dir: Vec<PathBuf>,
    /// SSD for the fill plan's files [default: 10GiB]
    #[arg(long, env = "NEARCAST_EDGE_PLANNED", value_name = "SIZE")]
    pub planned: Option<ByteSize>,
    /// Certificate chain, PEM; without it one is generated in the data folder
    #[arg(long, env = "NEARCAST_EDGE_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "NEARCAST_EDGE_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Certificates, PEM, to trust in place of the system's for the origin and control plane
    #[arg(long, env = "NEARCAST_EDGE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Where players reach it, best first; without it the addresses listened on. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_PUBLIC_URL", value_delimiter = ',', value_name = "URL")]
    pub public_url: Vec<String>,
    /// Admin port: /metrics, /healthz, /readyz [default: 127.0.0.1:8081]
    #[arg(long, env = "NEARCAST_EDGE_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// File to write the addresses to, once it listens
    #[arg(long, env = "NEARCAST_EDGE_ANNOUNCE", value_name = "FILE")]
    pub announce: Option<PathBuf>,
    /// Threads that serve connections [default: one for each core]
    #[arg(long, env = "NEARCAST_EDGE_SHARDS", value_name = "N")]
    pub shards: Option<usize>,
    /// Connections at a time, over all listeners; more are closed at once [default: 20000]
    #[arg(long, env = "NEARCAST_EDGE_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Responses at a time; more are answered 503 [default: 16384]
    #[arg(long, env = "NEARCAST_EDGE_RESPONSES_MAX", value_name = "N")]
    pub responses_max: Option<usize>,
    /// Segments of a title fetched ahead of who watches it, 0 for none [default: 2]
    #[arg(long, env = "NEARCAST_EDGE_PREFETCH_SEGMENTS", value_name = "N")]
    pub prefetch_segments: Option<u32>,
    /// For measurements: parts of the write path to leave out, cork, frames, sendfile. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_WRITE_PATH_OFF", value_delimiter = ',', value_name = "PART")]
    pub write_path_off: Vec<String>,
    /// Proxy sites by host name; in the file only
    #[arg(skip)]
    pub sites: BTreeMap<String, SiteSettings>,
    /// Siblings, parents and shield; in the file only
    #[arg(skip)]
    pub hierarchy: upstream::hierarchy::Settings,
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Err("the secret is empty"),
            secret => Ok(Self(secret.to_owned())),
        }
    }
}

/// A listener: an address, and whether it speaks TLS (and QUIC beside it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// `https`.
    pub tls: bool,
    /// Where.
    pub addr: SocketAddr,
}

/// The certificate to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// The operator's own.
    Own {
        /// PEM.
        cert: PathBuf,
        /// PEM.
        key: PathBuf,
    },
    /// One that is generated for this edge.
    Generated,
}

/// Settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listeners; at least one.
    pub listen: Vec<Listen>,
    /// The title site.
    pub titles: Option<TitlesConfig>,
    /// The proxy sites.
    pub sites: Vec<SiteConfig>,
    /// Other nodes.
    pub peers: Peers,
    /// The secret for joining.
    pub join_secret: Option<Secret>,
    /// This edge; none: the name that its data folder keeps.
    pub id: Option<EdgeId>,
    /// Folder for all that it keeps.
    pub data_dir: PathBuf,
    /// Memory tier, in bytes.
    pub memory_bytes: u64,
    /// Reactive SSD tier, in bytes; 0 for none.
    pub ssd_bytes: u64,
    /// Folders of the reactive SSD tier, one a disk; empty: one in the data folder.
    pub ssd_dirs: Vec<PathBuf>,
    /// Planned tier, in bytes.
    pub planned_bytes: u64,
    /// The certificate.
    pub certificate: Certificate,
    /// Trusted instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// Where players reach it; empty: derived from the listeners.
    pub public_urls: Vec<String>,
    /// Admin port.
    pub admin: SocketAddr,
    /// Where to announce.
    pub announce: Option<PathBuf>,
    /// Threads that serve connections.
    pub shards: NonZeroUsize,
    /// How much it does at a time.
    pub limits: Limits,
    /// What it fetches ahead.
    pub prefetch: prefetch::Settings,
    /// Parts of the write path that are on.
    pub levers: Levers,
}

/// A title site, checked.
#[derive(Debug, Clone)]
pub struct TitlesConfig {
    /// Where titles come from.
    pub upstream: upstream::Config,
    /// The control plane, without a trailing slash.
    pub control_plane: String,
}

/// How much an edge does at a time; what comes on top is refused and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open, over all listeners and protocols; more are closed at once.
    pub connections: usize,
    /// Media responses under way; more are answered 503.
    pub responses: usize,
    /// A connection whose peer takes nothing of what it asked for is closed after this long.
    pub send_stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: CONNECTIONS_MAX, responses: RESPONSES_MAX, send_stall: SEND_STALL_MAX }
    }
}

/// Loopback: opening an edge to a network is a decision.
const LISTEN: [&str; 2] = ["http://127.0.0.1:8080", "https://127.0.0.1:8443"];
const ID_EXPECTED: &str = "1 to 63 characters of a-z, 0-9 and -, not starting with -";
const ADMIN: &str = "127.0.0.1:8081";
/// Some minutes of video at a few renditions; small enough for any machine.
const MEMORY: ByteSize = ByteSize(512 << 20);
/// Two to three films: useful at once, and no surprise on a laptop's disk.
const SSD: ByteSize = ByteSize(4 << 30);
/// Room for a first plan of a few films, likewise.
const PLANNED: ByteSize = ByteSize(10 << 30);

impl Settings {
    /// These settings (flags and environment) over those of the file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        let list = |mine: Vec<String>, file| if mine.is_empty() { file } else { mine };
        // A certificate and its key go together: never one from each.
        let own = self.cert.is_some() || self.key.is_some();
        let (cert, key) = if own { (self.cert, self.key) } else { (file.cert, file.key) };
        let own = self.join_secret.is_some() || self.join_secret_file.is_some();
        Self {
            listen: list(self.listen, file.listen),
            peer_listen: list(self.peer_listen, file.peer_listen),
            origin: list(self.origin, file.origin),
            control_plane: self.control_plane.or(file.control_plane),
            join_secret_file: if own { self.join_secret_file } else { file.join_secret_file },
            join_secret: self.join_secret,
            id: self.id.or(file.id),
            data_dir: self.data_dir.or(file.data_dir),
            memory: self.memory.or(file.memory),
            ssd: self.ssd.or(file.ssd),
            ssd_dir: if self.ssd_dir.is_empty() { file.ssd_dir } else { self.ssd_dir },
            planned: self.planned.or(file.planned),
            cert,
            key,
            ca: self.ca.or(file.ca),
            public_url: list(self.public_url, file.public_url),
            admin: self.admin.or(file.admin),
            announce: self.announce.or(file.announce),
            shards: self.shards.or(file.shards),
            connections_max: self.connections_max.or(file.connections_max),
            responses_max: self.responses_max.or(file.responses_max),
            prefetch_segments: self.prefetch_segments.or(file.prefetch_segments),
            write_path_off: list(self.write_path_off, file.write_path_off),
            // Flags have none.
            sites: file.sites,
            hierarchy: file.hierarchy,
        }
    }
}

impl Config {
    /// Checks settings.
    ///
    /// # Errors
    /// Names the first key with a value that is not allowed, or that is missing.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let (titles, any) = origins(&settings)?;
        let sites = proxy::check_sites(&settings.sites, any)?;
        if titles.is_none() && sites.is_empty() {
            let expected = "an http://, https:// or s3:// URL, or a table edge.sites.\"HOST\"";
            return Err(ConfigError::missing("edge.origin", expected));
        }
        let listen = if settings.listen.is_empty() {
            LISTEN.map(str::to_owned).to_vec()
        } else {
            settings.listen
        };
        let certificate = match (settings.cert, settings.key) {
            (Some(cert), Some(key)) => Certificate::Own { cert, key },
            (None, None) => Certificate::Generated,
            (Some(_), None) => {
                return Err(ConfigError::missing("edge.key", "the key of edge.cert"));
            }
            (None, Some(_)) => {
                return Err(ConfigError::missing("edge.cert", "the certificate of edge.key"));
            }
        };
        let named =
            |id: String| id.parse().map_err(|_| ConfigError::value("edge.id", &id, ID_EXPECTED));
        let id: Option<EdgeId> = settings.id.map(named).transpose()?;
        let admin = settings.admin.unwrap_or_else(|| ADMIN.to_owned());
        let allowed = "an address and port, 127.0.0.1:8081";
        let site = |text: &String| site_url("edge.public-url", text);
        Ok(Self {
            listen: listen
                .iter()
                .map(|text| parse_listen("edge.listen", text))
                .collect::<Result<_, _>>()?,
            titles,
            sites,
            peers: Peers::check(id.as_ref(), &settings.peer_listen, settings.hierarchy)?,
            join_secret: join_secret(settings.join_secret, settings.join_secret_file)?,
            id,
            data_dir: settings.data_dir.unwrap_or_else(|| "nearcast-edge".into()),
            memory_bytes: size("edge.memory", settings.memory, MEMORY, MEMORY_BYTES_MIN, false)?,
            ssd_bytes: size("edge.ssd", settings.ssd, SSD, DISK_BYTES_MIN, true)?,
            ssd_dirs: settings.ssd_dir,
            planned_bytes: settings.planned.unwrap_or(PLANNED).0,
            certificate,
            ca: settings.ca,
            public_urls: settings.public_url.iter().map(site).collect::<Result<_, _>>()?,
            admin: admin.parse().map_err(|_| ConfigError::value("edge.admin", &admin, allowed))?,
            announce: settings.announce,
            shards: shards(settings.shards)?,
            limits: Limits {
                connections: settings.connections_max.unwrap_or(CONNECTIONS_MAX),
                responses: settings.responses_max.unwrap_or(RESPONSES_MAX),
                send_stall: SEND_STALL_MAX,
            },
            prefetch: prefetch::Settings {
                segments: settings.prefetch_segments.unwrap_or(prefetch::SEGMENTS),
                ..prefetch::Settings::default()
            },
            levers: levers(&settings.write_path_off)?,
        })
    }
}

/// What `--origin` stands for: titles where there is a control plane, else a site for any host.
fn origins(
    settings: &Settings,
) -> Result<(Option<TitlesConfig>, Option<SiteSettings>), ConfigError> {
    let given = settings.origin.iter().enumerate().map(|(place, url)| upstream::Origin {
        // Tried in the order given.
        priority: u32::try_from(place).unwrap_or(u32::MAX),
        url: url.clone(),
        weight: 1,
    });
    let upstream = upstream::Settings { origins: given.collect(), ..Default::default() };
    let Some(control_plane) = &settings.control_plane else {
        let any = SiteSettings { upstream, ..SiteSettings::default() };
        return Ok((None, (!settings.origin.is_empty()).then_some(any)));
    };
    if settings.origin.is_empty() {
        return Err(ConfigError::missing("edge.origin", "an http:// or https:// URL"));
    }
    let upstream = upstream::Config::check("edge", "titles", SiteKind::Title, &upstream)?;
    let control_plane = base_url("edge.control-plane", control_plane)?;
    Ok((Some(TitlesConfig { upstream, control_plane }), None))
}

fn levers(off: &[String]) -> Result<Levers, ConfigError> {
    off.iter().try_fold(Levers::default(), |levers, name| {
        let bad = || ConfigError::value("edge.write-path-off", name, Levers::NAMES);
        levers.off(name).ok_or_else(bad)
    })
}

/// As many as given, or as there are cores for this process.
fn shards(given: Option<usize>) -> Result<NonZeroUsize, ConfigError> {
    let Some(given) = given else {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    };
    let count = NonZeroUsize::new(given).filter(|count| count.get() <= SHARDS_MAX);
    count.ok_or_else(|| ConfigError::value("edge.shards", given, format!("1 to {SHARDS_MAX}")))
}

fn parse_listen(key: &str, text: &str) -> Result<Listen, ConfigError> {
    let expected = "http://IP:PORT or https://IP:PORT";
    let bad = || ConfigError::value(key, text, expected);
    let (tls, addr) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(addr), _) => (false, addr),
        (_, Some(addr)) => (true, addr),
        _ => return Err(bad()),
    };
    Ok(Listen { tls, addr: addr.trim_end_matches('/').parse().map_err(|_| bad())? })
}

fn size(
    key: &str,
    given: Option<ByteSize>,
    default: ByteSize,
    min: u64,
    may_be_none: bool,
) -> Result<u64, ConfigError> {
    let size = given.unwrap_or(default);
    if size.0 >= min || (may_be_none && size.0 == 0) {
        return Ok(size.0);
    }
    let or_none = if may_be_none { ", or 0 for none" } else { "" };
    Err(ConfigError::value(key, size, format!("at least {}{or_none}", ByteSize(min))))
}

/// An `http` or `https` URL with a host and without query; a trailing slash is taken off.
fn base_url(key: &str, text: &str) -> Result<String, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
    });
    let trimmed = text.trim_end_matches('/').to_owned();
    url.map(|_| trimmed).ok_or_else(|| ConfigError::value(key, text, "an http:// or https:// URL"))
}

/// A URL that names a host alone, since players are moved between edges by host.
fn site_url(key: &str, text: &str) -> Result<String, ConfigError> {
    let base = base_url(key, text)?;
    let bare = Url::parse(&base).is_ok_and(|url| url.path() == "/");
    let expected = "an http:// or https:// URL without a path";
    if bare { Ok(base) } else { Err(ConfigError::value(key, text, expected)) }
}

fn join_secret(
    given: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<Secret>, ConfigError> {
    let Some(path) = file.filter(|_| given.is_none()) else { return Ok(given) };
    let text = std::fs::read_to_string(&path)
        .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let expected = "a file that holds one line, the secret";
    let bad = |_| ConfigError::value("edge.join-secret-file", path.display(), expected);
    text.parse().map(Some).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            origin: vec!["http://127.0.0.1:7090/".into()],
            control_plane: Some("http://127.0.0.1:7080".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn defaults_are_good_and_flags_win() {
        let config = Config::check(settings()).unwrap();
        let titles = config.titles.unwrap();
        assert_eq!(titles.control_plane, "http://127.0.0.1:7080");
        assert!(config.sites.is_empty());
        assert_eq!(config.listen.len(), 2);
        let file =
            Settings { id: Some("file".into()), memory: Some(ByteSize(1 << 30)), ..settings() };
        let flags = Settings { id: Some("flag".into()), ..Settings::default() };
        let config = Config::check(flags.over(file)).unwrap();
        let id = config.id.as_ref().map(EdgeId::as_str);
        assert_eq!((id, config.memory_bytes), (Some("flag"), 1 << 30));
    }

    #[test]
    fn bad_values_are_named() {
        let error = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            Config::check(settings).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            [
                error(|s| s.origin.clear()),
                error(|s| s.control_plane = Some("here".into())),
                error(|s| s.origin = vec!["127.0.0.1:7090".into()]),
                error(|s| s.listen = vec!["tcp://127.0.0.1:1".into()]),
                error(|s| s.listen = vec!["https://localhost:1".into()]),
                error(|s| s.id = Some("Edge 1".into())),
                error(|s| s.memory = Some(ByteSize(1))),
                error(|s| s.ssd = Some(ByteSize(1))),
                error(|s| s.public_url = vec!["http://edge.example/path".into()]),
                error(|s| s.cert = Some("cert.pem".into())),
                error(|s| s.shards = Some(0)),
                error(|s| s.admin = Some("8081".into())),
                error(|s| s.write_path_off = vec!["cork".into(), "zeal".into()]),
                error(|s| s.join_secret_file = Some("/no/such/file".into())),
            ]
            .join("\n")
        );
    }
}
