//! What an operator may set: as flags, environment or the `[edge]` table, checked once.

mod files;
mod given;
mod listening;
mod machine;
mod peers;
mod sites;
mod values;

pub use given::{Secret, Settings};
pub use peers::Peers;
pub(crate) use sites::Rule;
pub use sites::{ANY_HOST, SiteConfig, SiteSettings, TtlSettings};

use crate::prefetch;
use crate::serve::RESPONSES_MAX;
use chunks::MEMORY_BYTES_MIN;
use listening::Listening;
use model::EdgeId;
use service::config::{ConfigError, both};
use service::value::ByteSize;
use sites::check_sites;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use upstream::SiteKind;
use values::{
    base_url, count, join_secret, levers, parse_listen, patience, shards, site_url, size, ssd,
    ssd_dirs,
};
use wire::{CONNECTIONS_MAX, Levers, Patience};

/// Most memory for chunks: far beyond any machine, so that a slip is named.
const MEMORY_BYTES_MAX: u64 = 16 << 40;
/// Largest SSD tier: what is known of its chunks takes some 100 MB of memory for each terabyte.
const SSD_BYTES_MAX: u64 = 256 << 40;

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
    /// Whether that tier bypasses the page cache.
    pub ssd_direct: bool,
    /// Planned tier, in bytes.
    pub planned_bytes: u64,
    /// Heads of stored responses on disk, in bytes.
    pub heads_bytes: u64,
    /// The certificate.
    pub certificate: Certificate,
    /// The file with the secret of session tickets.
    pub ticket_secret: Option<PathBuf>,
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
    /// What an operator should know of origins and nodes that may be this edge.
    pub asks_itself: Vec<String>,
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
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            responses: RESPONSES_MAX,
            patience: Patience::default(),
        }
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
/// A million or more.
const HEADS: ByteSize = ByteSize(1 << 30);
/// One part in so many of a larger SSD: a head for every 1 MiB.
const HEADS_SHARE: u64 = 1000;
/// Thousands; with fewer, what is stored is soon not found.
const HEADS_BYTES_MIN: u64 = 16 << 20;
/// Connections or responses that may be allowed at a time: what a machine has descriptors for.
const AT_A_TIME_MAX: usize = 1_000_000;

impl Config {
    /// Checks settings.
    ///
    /// # Errors
    /// Names the keys with a value that is not allowed, or that are missing: those of all sites,
    /// of their origins and rules, and the first of the others.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let sites = match origins(&settings) {
            Ok((titles, any)) => check_sites(&settings.sites, any).map(|sites| (titles, sites)),
            Err(mistake) => both(Err(mistake), check_sites(&settings.sites, None)),
        };
        let heard = both(patience(&settings), listeners(&settings.listen));
        let ((titles, sites), (patience, listen)) = both(sites, heard)?;
        if titles.is_none() && sites.is_empty() {
            let expected = "an http://, https:// or s3:// URL, or a table edge.sites.\"HOST\"";
            return Err(ConfigError::missing("edge.origin", expected));
        }
        let asked = listening::asked(&settings);
        let data_dir = settings.data_dir.unwrap_or_else(|| "nearcast-edge".into());
        ssd_dirs(&settings.ssd_dir, &data_dir)?;
        let certificate = files::certificate(settings.cert, settings.key)?;
        if listen.iter().any(|listen| listen.tls) {
            files::check_tls(&certificate, settings.ticket_secret.as_deref())?;
        }
        files::check_ca(settings.ca.as_deref())?;
        let named =
            |id: String| id.parse().map_err(|_| ConfigError::value("edge.id", &id, ID_EXPECTED));
        let id: Option<EdgeId> = settings.id.map(named).transpose()?;
        let admin = settings.admin.unwrap_or_else(|| ADMIN.to_owned());
        let allowed = "an address and port, 127.0.0.1:8081";
        let admin: SocketAddr =
            admin.parse().map_err(|_| ConfigError::value("edge.admin", &admin, allowed))?;
        let peers = Peers::check(id.as_ref(), &settings.peer_listen, settings.hierarchy)?;
        let listening = Listening::new(&listen, &peers.listen, admin);
        listening.apart()?;
        let asks_itself = listening.asks_others(&asked)?;
        let memory_bytes = MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX;
        let ssd_bytes = ssd(settings.ssd.unwrap_or(SSD), settings.ssd_dir.len(), SSD_BYTES_MAX)?;
        let heads = ByteSize(HEADS.0.max(ssd_bytes / HEADS_SHARE));
        let site = |text: &String| site_url("edge.public-url", text);
        Ok(Self {
            listen,
            titles,
            sites,
            peers,
            join_secret: join_secret(settings.join_secret, settings.join_secret_file)?,
            id,
            data_dir,
            memory_bytes: size("edge.memory", settings.memory, MEMORY, memory_bytes)?,
            ssd_bytes,
            ssd_dirs: settings.ssd_dir,
            ssd_direct: settings.ssd_direct.unwrap_or(true),
            planned_bytes: settings.planned.unwrap_or(PLANNED).0,
            heads_bytes: size("edge.heads", settings.heads, heads, HEADS_BYTES_MIN..=u64::MAX)?,
            certificate,
            ticket_secret: settings.ticket_secret,
            ca: settings.ca,
            public_urls: settings.public_url.iter().map(site).collect::<Result<_, _>>()?,
            admin,
            announce: settings.announce,
            shards: shards(settings.shards)?,
            limits: Limits {
                connections: count(
                    "edge.connections-max",
                    settings.connections_max,
                    CONNECTIONS_MAX,
                    AT_A_TIME_MAX,
                )?,
                responses: count(
                    "edge.responses-max",
                    settings.responses_max,
                    RESPONSES_MAX,
                    AT_A_TIME_MAX,
                )?,
                patience,
            },
            prefetch: prefetch::Settings {
                segments: settings.prefetch_segments.unwrap_or(prefetch::SEGMENTS),
                ..prefetch::Settings::default()
            },
            levers: levers(&settings.write_path_off)?,
            asks_itself,
        })
    }
}

/// Where to serve: as given, or as usual.
fn listeners(given: &[String]) -> Result<Vec<Listen>, ConfigError> {
    let usual = LISTEN.map(str::to_owned);
    let listen = if given.is_empty() { &usual } else { given };
    listen.iter().map(|text| parse_listen("edge.listen", text)).collect()
}

impl Config {
    /// What an operator should know before the first request, each with the key that it is
    /// about. Looks at files and at this machine, asks no server.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let titles = self.titles.iter().flat_map(|titles| titles.upstream.notes());
        titles
            .chain(self.sites.iter().flat_map(SiteConfig::notes))
            .chain(self.own_notes())
            .collect()
    }

    /// Those that are of no site.
    pub(crate) fn own_notes(&self) -> Vec<String> {
        let memory = machine::note(self.memory_bytes, machine::memory_bytes());
        self.asks_itself.iter().cloned().chain(memory).collect()
    }
}

/// What `--origin` stands for: titles where there is a control plane, else a site for any host.
fn origins(
    settings: &Settings,
) -> Result<(Option<TitlesConfig>, Option<SiteSettings>), ConfigError> {
    settings.origin.iter().try_for_each(|url| upstream::check_url("edge.origin", url))?;
    sites::check_cors(settings)?;
    let given = settings.origin.iter().enumerate().map(|(place, url)| upstream::Origin {
        // Tried in the order given.
        priority: u32::try_from(place).unwrap_or(u32::MAX),
        url: url.clone(),
        weight: 1,
    });
    let origins = given.collect();
    let Some(control_plane) = &settings.control_plane else {
        let any = SiteSettings { origins, cors: settings.cors.clone(), ..SiteSettings::default() };
        return Ok((None, (!settings.origin.is_empty()).then_some(any)));
    };
    if settings.origin.is_empty() {
        return Err(ConfigError::missing("edge.origin", "an http:// or https:// URL"));
    }
    let upstream = upstream::Settings { origins, ..upstream::Settings::default() };
    let upstream = upstream::Config::check("edge", "titles", SiteKind::Title, &upstream)?;
    let control_plane = base_url("edge.control-plane", control_plane)?;
    Ok((Some(TitlesConfig { upstream, control_plane }), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::value::Span;
    use std::time::Duration;

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
        assert_eq!(config.heads_bytes, 1 << 30);
        let large = Settings { ssd: Some(ByteSize(10_000 << 30)), ..settings() };
        assert_eq!(Config::check(large.clone()).unwrap().heads_bytes, 10 << 30);
        let heads = Some(ByteSize(2 << 30));
        assert_eq!(Config::check(Settings { heads, ..large }).unwrap().heads_bytes, 2 << 30);
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
                error(|s| s.memory = Some(ByteSize(999 << 40))),
                error(|s| s.ssd = Some(ByteSize(1))),
                error(|s| s.ssd = Some(ByteSize(900 << 40))),
                error(|s| {
                    s.ssd = Some(ByteSize(300 << 20));
                    s.ssd_dir = vec!["a".into(), "b".into()];
                }),
                error(|s| s.public_url = vec!["http://edge.example/path".into()]),
                error(|s| s.cert = Some("cert.pem".into())),
                error(|s| (s.cert, s.key) = (Some("/no/cert".into()), Some("/no/key".into()))),
                error(
                    |s| s.listen = vec!["http://127.0.0.1:1".into(), "https://127.0.0.1:1".into()]
                ),
                error(|s| s.listen = vec!["http://127.0.0.1:1".into(), "http://0.0.0.0:1".into()]),
                error(|s| s.peer_listen = vec!["http://127.0.0.1:8080".into()]),
                error(|s| s.admin = Some("127.0.0.1:8443".into())),
                error(|s| s.ssd_dir = vec!["a".into(), "b".into(), "a".into()]),
                error(|s| {
                    s.data_dir = Some("/srv/../srv/edge".into());
                    s.ssd_dir = vec!["/srv/edge/".into()];
                }),
                error(|s| s.ca = Some("/no/ca".into())),
                error(|s| s.ticket_secret = Some("/no/secret".into())),
                error(|s| s.connections_max = Some(0)),
                error(|s| s.responses_max = Some(0)),
                error(|s| s.handshake_timeout = Some(Span(Duration::ZERO))),
                error(|s| s.head_timeout = Some(Span(Duration::from_secs(601)))),
                error(|s| s.send_timeout = Some(Span(Duration::ZERO))),
                error(|s| s.shards = Some(0)),
                error(|s| s.admin = Some("8081".into())),
                error(|s| s.cors = Some(vec!["*".into()])),
                error(|s| {
                    s.control_plane = None;
                    s.cors = Some(vec!["player.example".into()]);
                }),
                error(|s| s.write_path_off = vec!["cork".into(), "zeal".into()]),
                error(|s| s.join_secret_file = Some("/no/such/file".into())),
            ]
            .join("\n")
        );
    }
}
