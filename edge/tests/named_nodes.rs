//! Stories of clients that name nodes which their requests did not pass: nobody is kept from a node
//! by that, and no byte is fetched twice for it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, Item, Web, get, log, proxy_settings};
use futures::future::join_all;
use nearcast_edge::Settings;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;
use tracing::field::{Field, Visit};
use upstream::hierarchy::{self, Peer};

const SITE: &str = "films.example";
/// As many as a request may have passed.
const NODES_MAX: usize = 16;

/// A node at a URL where nobody else will listen: on a loopback address of its own.
fn named(id: &str) -> Peer {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let own = [127, 100 + (process % 100) as u8, (process / 100 % 250) as u8];
    let ip = [own[0], own[1], own[2], NEXT.fetch_add(1, Ordering::Relaxed)];
    let listener = std::net::TcpListener::bind(std::net::SocketAddr::from((ip, 0))).unwrap();
    Peer { id: id.into(), url: format!("http://{}", listener.local_addr().unwrap()) }
}

async fn start(dir: &TempDir, node: &Peer, web: &Web, around: hierarchy::Settings) -> Edge {
    let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let site = settings.sites.remove("*").unwrap();
    Edge::start(Settings {
        sites: [(SITE.to_owned(), site)].into(),
        id: Some(node.id.clone()),
        peer_listen: vec![node.url.clone()],
        // However busy the machine is, who listens is reached.
        hierarchy: hierarchy::Settings { connect_timeout: "10s".parse().ok(), ..around },
        ..settings
    })
    .await
}

async fn fetch(edge: &Edge, path: &str, passed: &str) -> Answer {
    get(&format!("{}{path}", edge.http), &[("host", SITE), ("cdn-loop", passed)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_fetches_each_byte_once_whatever_clients_say_of_its_nodes() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let nodes = ["edge-a", "edge-b", "edge-c"].map(named);
    let web = Web::start().await;
    let around = || hierarchy::Settings { siblings: nodes.to_vec(), ..Default::default() };
    let starting = (0..3).map(|n| start(&dirs[n], &nodes[n], &web, around()));
    let edges = join_all(starting).await;
    let crowd = vec!["x"; NODES_MAX].join(", ");
    for n in 0..8 {
        let path = format!("/{n}");
        web.put(&path, Item::of((1 << 20) + 17));
        for (edge, others) in edges.iter().zip(["edge-b, edge-c", "edge-a, edge-c", &crowd]) {
            let answer = fetch(edge, &path, others).await;
            assert_eq!((answer.status.as_u16(), answer.bytes()), (200, &web.whole(&path)));
        }
        assert_eq!((web.count(&path), web.sent(&path)), (1, (1 << 20) + 17), "{path}");
    }
    // The node that is asked is in a circle, as far as it can know.
    web.put("/a", Item::of(1_000));
    assert_eq!(fetch(&edges[0], "/a", "edge-b, edge-a").await.status, 508);
    assert_eq!(web.count("/a"), 0);
}

#[tokio::test]
async fn a_client_goes_by_no_node_above_the_one_that_it_asks() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent, shield] = ["edge-a", "region-1", "shield-1"].map(named);
    let web = Web::start().await;
    let shields = hierarchy::Settings { shields: vec![shield.clone()], ..Default::default() };
    let parents = hierarchy::Settings { parents: vec![parent.clone()], ..Default::default() };
    let _shield = start(&dirs[2], &shield, &web, hierarchy::Settings::default()).await;
    let _parent = start(&dirs[1], &parent, &web, shields).await;
    let edge = start(&dirs[0], &edge, &web, parents).await;
    let crowd = vec!["x"; NODES_MAX].join(", ");
    let asked = ["region-1", "shield-1", "region-1, shield-1", "region-1;entry=1", &crowd];
    for (n, said) in asked.into_iter().enumerate() {
        let path = format!("/{n}");
        web.put(&path, Item::of(1_000));
        assert_eq!(fetch(&edge, &path, said).await.bytes(), &web.whole(&path), "{said}");
        let asked = web.asked_for(&path);
        let passed: Vec<_> = asked[0].fields.get_all("cdn-loop").iter().collect();
        // The origin is told all of it.
        assert_eq!(passed, [said, "edge-a;entry=1", "region-1", "shield-1"]);
        assert_eq!(asked.len(), 1, "{said}");
    }
}

/// What was logged of nodes' answers: of which, and why.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if matches!(field.name(), "hop" | "why") {
            self.0 += &format!("{value:?} ");
        }
    }
}

fn watch() {
    log::watch("nearcast_upstream", |event| {
        let mut line = Line::default();
        event.record(&mut line);
        TOLD.lock().unwrap_or_else(PoisonError::into_inner).push(line.0);
    });
}

/// Lines that name both.
fn told(hop: &str, why: &str) -> usize {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.iter().filter(|line| line.contains(hop) && line.contains(why)).count()
}

/// Found by an audit: it served, and what was purged below it could come back from it.
#[tokio::test]
async fn a_node_that_is_named_by_its_listener_for_clients_is_told_of_once() {
    watch();
    for (id, is_mistaken) in [("by-clients", true), ("by-nodes", false)] {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [edge, parent] = ["edge-a", id].map(named);
        let web = Web::start().await;
        let above = start(&dirs[1], &parent, &web, hierarchy::Settings::default()).await;
        let url = if is_mistaken { above.http.clone() } else { parent.url.clone() };
        let parents = vec![Peer { url, ..parent }];
        let around = hierarchy::Settings { parents, ..Default::default() };
        let below = start(&dirs[0], &edge, &web, around).await;
        TOLD.lock().unwrap().clear();
        for path in ["/a", "/b"] {
            web.put(path, Item::of(1_000));
            for edge in [&above, &below] {
                assert_eq!(fetch(edge, path, "").await.bytes(), &web.whole(path));
            }
            assert_eq!(web.count(path), 1, "the parent has it");
        }
        assert_eq!(told(id, "peer-listen"), usize::from(is_mistaken));
    }
}

/// Found by an audit: what it said of itself was taken for its origin's answer, and given to viewers.
#[tokio::test]
async fn a_node_that_is_named_otherwise_than_it_calls_itself_is_gone_around_and_told_of() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent] = ["edge-a", "region-1"].map(named);
    let (web, gone) = (Web::start().await, named("gone"));
    let mut settings = proxy_settings(dirs[1].path(), &gone.url, &serde_json::json!({}));
    let site = settings.sites.remove("*").unwrap();
    let sites = [(SITE.to_owned(), site)].into();
    let (id, peer_listen) = (Some(parent.id.clone()), vec![parent.url.clone()]);
    let _above = Edge::start(Settings { sites, id, peer_listen, ..settings }).await;
    let mistaken = Peer { id: "region-one".into(), ..parent };
    let around = hierarchy::Settings { parents: vec![mistaken], ..Default::default() };
    watch();
    let below = start(&dirs[0], &edge, &web, around).await;
    for path in ["/a", "/b"] {
        web.put(path, Item::of(1_000));
        assert_eq!(fetch(&below, path, "").await.bytes(), &web.whole(path));
    }
    assert_eq!(told("region-one", "edge.id"), 1);
}
