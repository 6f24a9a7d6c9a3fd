//! What all sites of an edge share: its name, its trust, its metrics, and its peers with
//! what is known of their health.

use crate::Error;
use crate::ask::{HopId, HopKind};
use crate::breaker;
use crate::circle::AtNodes;
use crate::connect::{Connector, Tls, h2_stream_bytes};
use crate::hierarchy;
use crate::hop::{Hop, Limits, Target};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::pulse::Pulse;
use crate::settings::Place;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Uri, header};
use prometheus::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Requests under way at a peer. None waits: there is another way.
const PEER_IN_FLIGHT_MAX: usize = 1024;
const PEER_QUEUE_MAX: usize = 0;

/// An edge among others. Cheap to clone.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) id: String,
    pub(crate) tls: Tls,
    /// How much of a body over HTTP/2 may come that nobody has read.
    pub(crate) h2_stream_bytes: u32,
    pub(crate) metrics: Metrics,
    pub(crate) siblings: Vec<Arc<Hop>>,
    pub(crate) parents: Vec<Arc<Hop>>,
    pub(crate) shields: Vec<Arc<Hop>>,
    /// Requests that go up since this node is the owner among its siblings.
    pub(crate) own_load: Arc<AtomicUsize>,
    pub(crate) at_nodes: AtNodes,
}

impl Node {
    /// The edge of `config`. TLS servers are trusted by the system's roots, or by those in
    /// `ca_pem` alone where that is given. It has `memory_bytes` for what it caches: with less than
    /// 512 MiB, less of each answer over HTTP/2 is let come before it is read. Once per registry.
    ///
    /// # Errors
    /// [`Error::Tls`] for a bad `ca_pem`, [`Error::Metrics`] for a second node on a registry.
    pub fn new(
        config: hierarchy::Config,
        ca_pem: Option<&[u8]>,
        memory_bytes: u64,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let h2_stream_bytes = h2_stream_bytes(memory_bytes);
        let tls =
            service::client::connector(ca_pem).map_err(|error| Error::Tls(error.to_string()))?;
        let metrics = Metrics::new(registry)?;
        let peers = |peers: Vec<(String, Place)>, kind| {
            let hop = |(id, place): (String, Place)| {
                let pulse = Pulse::new(config.connect, metrics.pulse(&id));
                let (target, uri) = http_target(&place);
                let connector = Connector::new(&tls, uri, config.connect, h2_stream_bytes);
                let pool = Pool::new(connector, metrics.anew(&id));
                Arc::new(peer((id, kind), target, pool, pulse))
            };
            peers.into_iter().map(hop).collect()
        };
        let siblings: Vec<Arc<Hop>> = peers(config.siblings, HopKind::Sibling);
        let parents: Vec<Arc<Hop>> = peers(config.parents, HopKind::Parent);
        let shields: Vec<Arc<Hop>> = peers(config.shields, HopKind::Parent);
        let splits_runs = !siblings.is_empty() || parents.len() > 1 || shields.len() > 1;
        Ok(Self(Arc::new(Inner {
            siblings,
            parents,
            shields,
            own_load: Arc::default(),
            at_nodes: AtNodes::new(splits_runs),
            metrics,
            id: config.id,
            tls,
            h2_stream_bytes,
        })))
    }

    /// An edge without peers, and with all the memory it may need.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn alone(id: &str, ca_pem: Option<&[u8]>, registry: &Registry) -> Result<Self, Error> {
        Self::new(hierarchy::Config::alone(id)?, ca_pem, u64::MAX, registry)
    }

    /// Whether the runs of one object belong to different nodes: whoever asks for an object
    /// asks for one run at a time.
    #[must_use]
    pub fn splits_runs(&self) -> bool {
        self.0.at_nodes.splits_runs()
    }

    /// Whether any other node is asked before an origin.
    #[must_use]
    pub fn has_others(&self) -> bool {
        [&self.0.siblings, &self.0.parents, &self.0.shields].into_iter().any(|all| !all.is_empty())
    }

    /// Whether the node of this id is one of its siblings.
    #[must_use]
    pub fn is_beside(&self, id: &[u8]) -> bool {
        self.0.siblings.iter().any(|hop| hop.id.as_str().as_bytes() == id)
    }

    /// Whether one of the nodes that a request of theirs says to have passed is asked for the same by
    /// this one, whose answer has not ended: each would wait for the other. A run of what is asked for
    /// has `run_bytes`.
    #[must_use]
    pub fn is_waiting_for(&self, head: &Parts, run_bytes: u64) -> bool {
        let fields = &head.headers;
        let length = fields.get(header::CONTENT_LENGTH);
        if fields.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|it| it != "0") {
            // Nothing is joined by what has a body, nor asked for twice.
            return false;
        }
        let host = || fields.get(header::HOST)?.to_str().ok();
        let host = head.uri.authority().map(Authority::as_str).or_else(host);
        let path = head.uri.path_and_query().map(PathAndQuery::as_str);
        let (Some(host), Some(path)) = (host, path) else { return false };
        let run = caching::asks_from(fields) / run_bytes;
        head.method.is_safe() && self.0.at_nodes.has((host, path), run, fields)
    }

    /// Its name in `CDN-Loop`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }
}

fn peer((id, kind): (String, HopKind), target: Target, pool: Pool, pulse: Pulse) -> Hop {
    let limits = Limits {
        in_flight_max: PEER_IN_FLIGHT_MAX,
        queue_max: PEER_QUEUE_MAX,
        breaker: breaker::PEER,
    };
    Hop::new((HopId(id.into()), kind), target, pool, Some(pulse), limits)
}

/// How requests to an HTTP place are made, and where its connections go.
pub(crate) fn http_target(place: &Place) -> (Target, Uri) {
    match place {
        Place::Http { scheme, authority, prefix } => {
            let target =
                Target::Http { scheme, authority: authority.clone(), prefix: prefix.clone() };
            (target, connection_uri(scheme, authority))
        }
        Place::S3 { .. } => unreachable!("a peer's URL was checked to be http"),
    }
}

pub(crate) fn connection_uri(scheme: &str, authority: &str) -> Uri {
    format!("{scheme}://{authority}/").parse().expect("scheme and authority were checked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn a_node_that_is_asked_for_the_same_is_known_by_the_run_and_without_a_body() {
        let peer = |id: &str| hierarchy::Peer { id: id.to_owned(), url: format!("http://{id}:1") };
        let siblings = vec![peer("edge-a"), peer("edge-b")];
        let peers = hierarchy::Settings { siblings, ..Default::default() };
        let config = hierarchy::Config::check("edge.hierarchy", "edge-a", &peers).unwrap();
        let node = Node::new(config, None, u64::MAX, &Registry::new()).unwrap();
        let hop = HopId("edge-b".into());
        let _held = node.0.at_nodes.enter(&hop, ("a.example", "/film?a=1"), 1);
        for (method, name, value, run_bytes, is_asked) in [
            ("GET", "range", "bytes=100-", 100, true),
            ("GET", "range", "bytes=199-199", 100, true),
            ("HEAD", "range", "bytes=150-160,900-", 100, true),
            ("GET", "range", "bytes=99-", 100, false),
            ("GET", "range", "bytes=200-", 100, false),
            ("GET", "range", "bytes=200-", 200, true),
            ("GET", "range", "bytes=-100", 100, false),
            ("GET", "range", "bytes=x", 100, false),
            ("GET", "accept", "*/*", 100, false),
            ("POST", "range", "bytes=100-", 100, false),
        ] {
            let request = Request::builder().method(method).uri("/film?a=1");
            let request = request.header("host", "a.example").header("cdn-loop", "edge-b");
            let mut head = request.header(name, value).body(()).unwrap().into_parts().0;
            assert_eq!(node.is_waiting_for(&head, run_bytes), is_asked, "{method} {value}");
            for (name, length) in [("content-length", "1"), ("transfer-encoding", "chunked")] {
                let mut head = head.clone();
                head.headers.insert(name, length.parse().unwrap());
                assert!(!node.is_waiting_for(&head, run_bytes), "{name}");
            }
            head.headers.insert("content-length", "0".parse().unwrap());
            assert_eq!(node.is_waiting_for(&head, run_bytes), is_asked, "{method} {value}");
        }
    }
}
