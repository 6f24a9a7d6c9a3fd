//! The other nodes that this one may ask before an origin: siblings, regional edges, a shield.

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
    /// The longest time to a connection with one of these, and to a sign of life of one that is
    /// waited for (default: 300ms).
    pub connect_timeout: Option<Span>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, expecting = "{ id, url }")]
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
        let mut known = Known { id, nodes: Vec::new(), before: 0 };
        let mut group = |name: &str, given: &[Peer]| {
            let key = format!("{key}.{name}");
            if given.len() > PEERS_MAX {
                return Err(ConfigError::value(&key, given.len(), format!("at most {PEERS_MAX}")));
            }
            let is_shared = name == "siblings";
            known.before = known.nodes.len();
            let peers = given.iter().enumerate();
            let peers = peers.map(|(n, peer)| known.add(&format!("{key}[{n}]"), peer, is_shared));
            let peers: Vec<_> = peers.collect::<Result<_, _>>()?;
            Ok(peers.into_iter().filter(|(peer, _)| peer != id).collect::<Vec<_>>())
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

/// Whether `id` may name a node in `CDN-Loop` and `Via` alike.
fn is_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(allowed)
}

/// The nodes that were named so far.
struct Known<'a> {
    /// This one's own name.
    id: &'a str,
    nodes: Vec<(String, Place)>,
    /// How many of them are of other lists.
    before: usize,
}

impl Known<'_> {
    /// Takes in the peer that stands at `key`. In a list that all nodes share (`is_shared`) one
    /// may be this node.
    fn add(
        &mut self,
        key: &str,
        peer: &Peer,
        is_shared: bool,
    ) -> Result<(String, Place), ConfigError> {
        let refused = |expected: &str| ConfigError::value(&format!("{key}.id"), &peer.id, expected);
        if !is_id(&peer.id) {
            return Err(refused("letters, digits, - and ."));
        }
        if self.nodes.iter().any(|(id, _)| *id == peer.id) {
            return Err(refused("each node once"));
        }
        if peer.id == self.id && !is_shared {
            return Err(refused("another node than this one, whose name it is"));
        }
        let key = format!("{key}.url");
        let place = place(&key, &peer.url)?;
        if matches!(place, Place::S3 { .. }) {
            let expected = "http://host[:port] or https://host[:port]";
            return Err(ConfigError::value(&key, &peer.url, expected));
        }
        let listed = &self.nodes[self.before..];
        if let Some((id, _)) = listed.iter().find(|(_, known)| *known == place) {
            let expected = format!("a URL of its own: {id} has it");
            return Err(ConfigError::value(&key, &peer.url, expected));
        }
        self.nodes.push((peer.id.clone(), place.clone()));
        Ok((peer.id.clone(), place))
    }
}
