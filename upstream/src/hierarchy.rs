//! The other nodes that this one may ask before an origin: siblings, regional edges, a shield.

use crate::cdn_loop::is_id;
use crate::settings::{Place, place};
use serde::Deserialize;
use service::config::ConfigError;
use service::value::Span;
use std::time::Duration;

/// Nodes of each kind.
pub const PEERS_MAX: usize = 256;
/// A node nearby accepts at once; for one that is down nobody waits long.
const CONNECT: Duration = Duration::from_millis(300);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The nodes around this one, as given: the table `[edge.hierarchy]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Edges of the same site: each asks the owner among them. All name the same ones (a list
    /// may hold this node, too).
    pub siblings: Vec<Peer>,
    /// Regional edges above them.
    pub parents: Vec<Peer>,
    /// The shield before the origin.
    pub shields: Vec<Peer>,
    /// The longest time to a connection with one of these (default: 300ms).
    pub connect_timeout: Option<Span>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Peer {
    /// Its name in `CDN-Loop`.
    pub id: String,
    /// `http://host[:port]` or `https://...`.
    pub url: String,
}

/// [`Settings`], checked, and this node's own name.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) id: String,
    pub(crate) siblings: Vec<(String, Place)>,
    pub(crate) parents: Vec<(String, Place)>,
    pub(crate) shields: Vec<(String, Place)>,
    pub(crate) connect: Duration,
}

impl Config {
    /// Checks the settings that stand at `key` (`edge.hierarchy`) for the node `id`: its name
    /// in `CDN-Loop`, unique among all that a request may pass.
    ///
    /// # Errors
    /// The first key whose value is not allowed, and what is.
    pub fn check(key: &str, id: &str, settings: &Settings) -> Result<Self, ConfigError> {
        if !is_id(id) {
            return Err(ConfigError::value("edge.id", id, "letters, digits, - and ."));
        }
        let mut ids: Vec<String> = vec![id.to_owned()];
        let mut group = |name: &str, given: &[Peer]| {
            let key = format!("{key}.{name}");
            if given.len() > PEERS_MAX {
                return Err(ConfigError::value(&key, given.len(), format!("at most {PEERS_MAX}")));
            }
            let others = given.iter().enumerate().filter(|(_, peer)| peer.id != id);
            others.map(|(n, peer)| check_peer(&format!("{key}[{n}]"), peer, &mut ids)).collect()
        };
        let siblings = group("siblings", &settings.siblings)?;
        let parents = group("parents", &settings.parents)?;
        let shields = group("shields", &settings.shields)?;
        let connect = settings.connect_timeout.map_or(CONNECT, |Span(time)| time);
        if connect.is_zero() || connect > CONNECT_MAX {
            let key = format!("{key}.connect-timeout");
            return Err(ConfigError::value(&key, Span(connect), "1ms to 10s"));
        }
        Ok(Self { id: id.to_owned(), siblings, parents, shields, connect })
    }

    /// No other nodes.
    ///
    /// # Errors
    /// When `id` can't stand in `CDN-Loop`.
    pub fn alone(id: &str) -> Result<Self, ConfigError> {
        Self::check("edge.hierarchy", id, &Settings::default())
    }
}

fn check_peer(
    key: &str,
    peer: &Peer,
    ids: &mut Vec<String>,
) -> Result<(String, Place), ConfigError> {
    if !is_id(&peer.id) {
        return Err(ConfigError::value(&format!("{key}.id"), &peer.id, "letters, digits, - and ."));
    }
    if ids.contains(&peer.id) {
        return Err(ConfigError::value(&format!("{key}.id"), &peer.id, "each node once"));
    }
    ids.push(peer.id.clone());
    let key = format!("{key}.url");
    match place(&key, &peer.url)? {
        place @ Place::Http { .. } => Ok((peer.id.clone(), place)),
        Place::S3 { .. } => {
            Err(ConfigError::value(&key, &peer.url, "http://host[:port] or https://host[:port]"))
        }
    }
}
