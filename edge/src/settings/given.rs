//! Settings as an operator gives them: as flags, environment or the `[edge]` table.

use super::SiteSettings;
use clap::Args;
use serde::Deserialize;
use service::value::{ByteSize, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Origins of pages on other hosts that may read what --origin has, as `https://player.example`,
    /// or * for all; none: the origin says which [default: none, * for s3://]. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_CORS", value_delimiter = ',', value_name = "ORIGIN")]
    pub cors: Option<Vec<String>>,
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
    /// Whether that bypasses the page cache (O_DIRECT), where the filesystem can [default: true]
    #[arg(long, env = "NEARCAST_EDGE_SSD_DIRECT", value_name = "BOOL")]
    pub ssd_direct: Option<bool>,
    /// SSD for the fill plan's files [default: 10GiB]
    #[arg(long, env = "NEARCAST_EDGE_PLANNED", value_name = "SIZE")]
    pub planned: Option<ByteSize>,
    /// Disk for what is known of stored responses, in the data folder [default: 1GiB, or a
    /// thousandth of --ssd where that is more]
    #[arg(long, env = "NEARCAST_EDGE_HEADS", value_name = "SIZE")]
    pub heads: Option<ByteSize>,
    /// Certificate chain, PEM; without it one is generated in the data folder
    #[arg(long, env = "NEARCAST_EDGE_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "NEARCAST_EDGE_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// File with a secret of 32 bytes or more that the edges of a cluster share: each resumes the
    /// TLS sessions of the others. Without it, each resumes its own
    #[arg(long, env = "NEARCAST_EDGE_TICKET_SECRET", value_name = "FILE")]
    pub ticket_secret: Option<PathBuf>,
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
    /// From accepting a client to the end of its TLS handshake, or without TLS to its first bytes
    /// [default: 10s]
    #[arg(long, env = "NEARCAST_EDGE_HANDSHAKE_TIMEOUT", value_name = "TIME")]
    pub handshake_timeout: Option<Span>,
    /// To the end of a request's head, from its first byte or from the answer before [default: 60s]
    #[arg(long, env = "NEARCAST_EDGE_HEAD_TIMEOUT", value_name = "TIME")]
    pub head_timeout: Option<Span>,
    /// For a client that takes no byte of what it asked for [default: 30s]
    #[arg(long, env = "NEARCAST_EDGE_SEND_TIMEOUT", value_name = "TIME")]
    pub send_timeout: Option<Span>,
    /// Segments of a title fetched ahead of who watches it, 0 for none [default: 2]
    #[arg(long, env = "NEARCAST_EDGE_PREFETCH_SEGMENTS", value_name = "N")]
    pub prefetch_segments: Option<u32>,
    /// For measurements: parts of the write path to leave out, cork, seal, frames, sendfile, direct, merge. Repeatable
    #[arg(long, env = "NEARCAST_EDGE_WRITE_PATH_OFF", value_delimiter = ',', value_name = "PART")]
    pub write_path_off: Vec<String>,
    /// Proxy sites by host name; in the file only
    #[arg(skip)]
    pub sites: BTreeMap<String, SiteSettings>,
    /// Siblings, parents and shield; in the file only
    #[arg(skip)]
    pub hierarchy: upstream::hierarchy::Settings,
}

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
            cors: self.cors.or(file.cors),
            join_secret_file: if own { self.join_secret_file } else { file.join_secret_file },
            join_secret: self.join_secret,
            id: self.id.or(file.id),
            data_dir: self.data_dir.or(file.data_dir),
            memory: self.memory.or(file.memory),
            ssd: self.ssd.or(file.ssd),
            ssd_dir: if self.ssd_dir.is_empty() { file.ssd_dir } else { self.ssd_dir },
            ssd_direct: self.ssd_direct.or(file.ssd_direct),
            planned: self.planned.or(file.planned),
            heads: self.heads.or(file.heads),
            cert,
            key,
            ticket_secret: self.ticket_secret.or(file.ticket_secret),
            ca: self.ca.or(file.ca),
            public_url: list(self.public_url, file.public_url),
            admin: self.admin.or(file.admin),
            announce: self.announce.or(file.announce),
            shards: self.shards.or(file.shards),
            connections_max: self.connections_max.or(file.connections_max),
            responses_max: self.responses_max.or(file.responses_max),
            handshake_timeout: self.handshake_timeout.or(file.handshake_timeout),
            head_timeout: self.head_timeout.or(file.head_timeout),
            send_timeout: self.send_timeout.or(file.send_timeout),
            prefetch_segments: self.prefetch_segments.or(file.prefetch_segments),
            write_path_off: list(self.write_path_off, file.write_path_off),
            // Flags have none.
            sites: file.sites,
            hierarchy: file.hierarchy,
        }
    }
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
