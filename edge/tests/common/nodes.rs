//! Nodes that are below, beside and above each other.

use super::{Answer, Edge, Web, get, proxy_settings};
use nearcast_edge::Settings;
use serde_json::{Value, json};
use service::value::ByteSize;
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

/// What they all cache.
pub const SITE: &str = "films.example";

/// A URL that nobody listens at yet, and nobody else will: on a loopback address of its own.
pub fn free_url() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let own = [127, 100 + (process % 100) as u8, (process / 100 % 250) as u8];
    let ip = [own[0], own[1], own[2], NEXT.fetch_add(1, Ordering::Relaxed)];
    let listener = std::net::TcpListener::bind(std::net::SocketAddr::from((ip, 0))).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Nodes by id, at the URLs where they will be.
pub fn nodes<const N: usize>(ids: [&str; N]) -> [Peer; N] {
    ids.map(|id| Peer { id: id.to_owned(), url: free_url() })
}

/// A node that caches [`SITE`].
pub fn node(dir: &TempDir, node: &Peer, origin: &str, hierarchy: hierarchy::Settings) -> Settings {
    node_with(dir, node, origin, hierarchy, &json!({}))
}

/// The same, with these settings of the site.
pub fn node_with(
    dir: &TempDir,
    node: &Peer,
    origin: &str,
    hierarchy: hierarchy::Settings,
    site: &Value,
) -> Settings {
    let mut settings = proxy_settings(dir.path(), origin, site);
    let site = settings.sites.remove("*").unwrap();
    Settings {
        sites: [(SITE.to_owned(), site)].into(),
        id: Some(node.id.clone()),
        peer_listen: vec![node.url.clone()],
        memory: Some(ByteSize(160 << 20)),
        // However busy the machine is, who listens is reached.
        hierarchy: hierarchy::Settings { connect_timeout: "10s".parse().ok(), ..hierarchy },
        ..settings
    }
}

pub fn region(siblings: &[Peer]) -> hierarchy::Settings {
    hierarchy::Settings { siblings: siblings.to_vec(), ..Default::default() }
}

pub fn below(parents: &[Peer]) -> hierarchy::Settings {
    hierarchy::Settings { parents: parents.to_vec(), ..Default::default() }
}

pub async fn fetch(edge: &Edge, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields = [&[("host", SITE)], fields].concat();
    get(&format!("{}{path}", edge.http), &fields).await
}

/// What the node says of its part in an answer.
pub fn verdict(answer: &Answer, id: &str) -> String {
    let values = answer.headers.get_all("cache-status").iter();
    let members = values.flat_map(|value| value.to_str().unwrap().split(','));
    let own = members.map(str::trim).rfind(|member| member.split(';').next() == Some(id));
    let own = own.unwrap_or_else(|| panic!("{id} says nothing: {:?}", answer.headers));
    own.split("detail=").nth(1).unwrap_or("").trim_matches('"').to_owned()
}

/// An edge, and what is above it, to the number of `levels`; then its sibling.
pub async fn chain(levels: usize, web: &Web, site: &Value) -> (Vec<TempDir>, Vec<Edge>) {
    let all = nodes(["edge-a", "region-1", "shield-1", "edge-b"]);
    let [a, parent, shield, b] = &all;
    let up = |from: usize| hierarchy::Settings {
        parents: if from < 1 && levels > 1 { vec![parent.clone()] } else { Vec::new() },
        shields: if from < 2 && levels > 2 { vec![shield.clone()] } else { Vec::new() },
        ..Default::default()
    };
    let beside = |settings| match levels {
        4 => hierarchy::Settings { siblings: vec![a.clone(), b.clone()], ..settings },
        _ => settings,
    };
    let arounds = [beside(up(0)), up(1), up(2), beside(up(0))];
    let (mut dirs, mut edges) = (Vec::new(), Vec::new());
    for (peer, around) in all.iter().zip(arounds).take(levels) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = node_with(&dir, peer, &web.url, around, site);
        // Asks no other hop beside one that takes long.
        settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
        edges.push(Edge::start(settings).await);
        dirs.push(dir);
    }
    (dirs, edges)
}
