//! A regional edge and a shield above an edge, and circles.

use crate::common::nodes::{SITE, below, fetch, node, node_with, nodes, verdict};
use crate::common::{
    Asked, DEADLINE, Edge, Hold, Item, Web, WebMisdeed, get, open, proxy_settings, until,
};
use futures::future::join_all;
use nearcast_edge::Settings;
use std::ops::Range;
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

#[tokio::test]
async fn the_way_up_is_regional_edge_shield_origin() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent, shield] = nodes(["edge-a", "region-1", "shield-1"]);
    let web = Web::start().await;
    for path in ["/a", "/b", "/c"] {
        web.put(path, Item::of(3 << 20));
    }
    let shields = hierarchy::Settings { shields: vec![shield.clone()], ..Default::default() };
    let _shield = Edge::start(node(&dirs[2], &shield, &web.url, hierarchy::Settings::default()));
    let _shield = _shield.await;
    let above = Edge::start(node(&dirs[1], &parent, &web.url, shields)).await;
    let edge = Edge::start(node(&dirs[0], &edge, &web.url, below(&[parent]))).await;

    let first = fetch(&edge, "/a", &[]).await;
    assert_eq!(first.bytes(), &web.whole("/a"));
    for (node, expected) in [("edge-a", "parent"), ("region-1", "parent"), ("shield-1", "origin")] {
        assert_eq!(verdict(&first, node), expected);
    }
    let asked = &web.asked_for("/a")[0];
    let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().collect();
    assert_eq!(passed, ["edge-a", "region-1", "shield-1"]);
    // The client, by the node that it asked; not those that asked each other.
    assert_eq!(asked.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(verdict(&fetch(&edge, "/a", &[]).await, "edge-a"), "hit-memory");
    assert_eq!(web.sent("/a"), 3 << 20);

    // Of what is here in part the rest is a parent's, too, and the head says so before it is asked.
    let part = fetch(&edge, "/c", &[("range", "bytes=0-99")]).await;
    assert_eq!(verdict(&part, "edge-a"), "parent");
    until("the chunk is here", async || {
        let part = fetch(&edge, "/c", &[("range", "bytes=0-99")]).await;
        (verdict(&part, "edge-a") == "hit-memory").then_some(())
    })
    .await;
    let rest = fetch(&edge, "/c", &[]).await;
    assert!(rest.bytes() == &web.whole("/c"), "the bytes");
    assert_eq!(verdict(&rest, "edge-a"), "parent");

    // A parent that is down is passed over within the request.
    above.stop().await;
    let answer = fetch(&edge, "/b", &[]).await;
    assert_eq!(answer.bytes(), &web.whole("/b"));
    assert_eq!(verdict(&answer, "edge-a"), "origin");
}

#[tokio::test]
async fn a_circle_of_parents_ends_at_the_origin_and_a_circle_of_origins_in_508() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [a, b, c, d] = nodes(["edge-a", "edge-b", "edge-c", "edge-d"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1000));
    let over_a = Edge::start(node(&dirs[0], &a, &web.url, below(std::slice::from_ref(&b)))).await;
    let over_b = Edge::start(node(&dirs[1], &b, &web.url, below(&[a]))).await;
    for edge in [&over_a, &over_b] {
        assert_eq!(fetch(edge, "/a", &[]).await.bytes(), &web.whole("/a"));
    }
    assert_eq!(web.count("/a"), 1);

    let before = |dir: &TempDir, node: &Peer, origin: &Peer| Settings {
        id: Some(node.id.clone()),
        peer_listen: vec![node.url.clone()],
        ..proxy_settings(dir.path(), &origin.url, &serde_json::json!({}))
    };
    let over_c = Edge::start(before(&dirs[2], &c, &d)).await;
    let over_d = Edge::start(before(&dirs[3], &d, &c)).await;
    for _ in 0..2 {
        assert_eq!(fetch(&over_c, "/a", &[]).await.status, 508);
    }
    let refused = |edge: &Edge| {
        let line = "nearcast_edge_requests_total{protocol=\"http/1.1\",site=\"*\",\
                    status=\"508\",verdict=\"refused\"}";
        let admin = edge.admin.clone();
        async move {
            let text = get(&format!("{admin}/metrics"), &[]).await.text();
            let value =
                text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
            value.unwrap_or(0.0)
        }
    };
    // Each went round once.
    assert_eq!((refused(&over_c).await, refused(&over_d).await), (2.0, 0.0));
}

/// Two nodes, each of which takes the other one for its parent.
struct Pair {
    dirs: [TempDir; 2],
    peers: [Peer; 2],
    site: serde_json::Value,
}

impl Pair {
    fn new(site: serde_json::Value) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { dirs, peers: nodes(["edge-a", "edge-b"]), site }
    }

    /// Starts one of them.
    async fn start(&self, place: usize, web: &Web) -> Edge {
        let parents = below(std::slice::from_ref(&self.peers[1 - place]));
        let (dir, own) = (&self.dirs[place], &self.peers[place]);
        Edge::start(node_with(dir, own, &web.url, parents, &self.site)).await
    }

    async fn both(&self, web: &Web) -> [Edge; 2] {
        [self.start(0, web).await, self.start(1, web).await]
    }
}

/// No timeout helps, nor ends before a test does.
fn patient() -> serde_json::Value {
    serde_json::json!({ "stall-timeout": "60s", "first-byte-timeout": "60s" })
}

/// So many paths, of which there is this.
fn paths(web: &Web, count: usize, item: &Item) -> Vec<String> {
    let paths: Vec<String> = (0..count).map(|number| format!("/{number}")).collect();
    paths.iter().for_each(|path| web.put(path, item.clone()));
    paths
}

/// Found by an audit: the request of each joined what the other's client waited for.
#[tokio::test]
async fn nodes_that_take_each_other_for_a_parent_do_not_wait_for_each_other() {
    let (pair, web) = (Pair::new(patient()), Web::start().await);
    let paths = paths(&web, 16, &Item::of(3 << 20));
    let [over_a, over_b] = pair.both(&web).await;
    let both = paths.iter().flat_map(|path| [(&over_a, path), (&over_b, path)]);
    let all = join_all(both.map(async |(edge, path)| {
        assert_eq!(fetch(edge, path, &[]).await.bytes(), &web.whole(path));
    }));
    tokio::time::timeout(DEADLINE, all).await.unwrap();
}

/// Found by a review: the heads of what nobody knows are joined, whatever range is asked for.
#[tokio::test]
async fn nor_do_they_where_different_parts_of_what_is_new_are_asked_for() {
    let (pair, web) = (Pair::new(patient()), Web::start().await);
    let paths = paths(&web, 8, &Item::of(9 << 20));
    let [over_a, over_b] = pair.both(&web).await;
    let both = paths.iter().flat_map(|path| [(&over_a, path, 0), (&over_b, path, 8_000_000)]);
    let all = join_all(both.map(async |(edge, path, first)| {
        let range = format!("bytes={first}-{}", first + 999);
        let answer = fetch(edge, path, &[("range", &range)]).await;
        assert_eq!(answer.bytes(), &web.whole(path).slice(first..first + 1000));
    }));
    tokio::time::timeout(DEADLINE, all).await.unwrap();
}

/// Found by a review: viewers were told of a circle, where what is stored outlives an origin that is down.
#[tokio::test]
async fn a_circle_hides_no_origin_that_is_down() {
    let (pair, web) = (Pair::new(serde_json::json!({})), Web::start().await);
    let paths = paths(&web, 8, &Item::stale(1000, "stale-if-error=600"));
    let [over_a, over_b] = pair.both(&web).await;
    for path in &paths {
        for edge in [&over_a, &over_b] {
            assert_eq!(fetch(edge, path, &[]).await.status, 200);
        }
    }
    web.always(Some(WebMisdeed::Mute));
    let both = paths.iter().flat_map(|path| [(&over_a, path), (&over_b, path)]);
    let all = join_all(both.map(async |(edge, path)| fetch(edge, path, &[]).await.status));
    let all = tokio::time::timeout(DEADLINE, all).await.unwrap();
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
}

/// Found by a review: each waited in mid-body for what the other one's client had asked for.
#[tokio::test]
async fn nor_do_they_behind_the_head_of_an_answer() {
    const MIB: u64 = 1 << 20;
    let (pair, web) = (Pair::new(patient()), Web::start().await);
    web.put("/film", Item::of(20 * MIB));
    let range = |of: Range<u64>| format!("bytes={}-{}", of.start * MIB, of.end * MIB - 1);
    let whole = web.whole("/film");
    let part = |of: Range<u64>| whole.slice((of.start * MIB) as usize..(of.end * MIB) as usize);

    // The fifth MiB is at the second node alone.
    let [over_a, over_b] = pair.both(&web).await;
    assert_eq!(fetch(&over_b, "/film", &[("range", &range(4..5))]).await.bytes(), &part(4..5));
    over_a.stop().await;
    let over_a = pair.start(0, &web).await;

    web.hold(Hold::Byte(3 * MIB));
    let url = format!("{}/film", over_a.http);
    let mut of_a = open(&url, &[("host", SITE), ("range", &range(2..18))]).await;
    let asked = async {
        let is_it =
            |asked: &Asked| asked.field("range").starts_with(&format!("bytes={}-", 5 * MIB));
        let is_asked = || async { web.asked().iter().any(is_it).then_some(()) };
        until("the origin is asked beside the other node", is_asked).await;
        web.release();
    };
    let wanted = range(5..12);
    let wanted = [("range", &*wanted)];
    let (of_b, ()) = tokio::join!(fetch(&over_b, "/film", &wanted), asked);
    assert_eq!(of_b.bytes(), &part(5..12));
    assert_eq!(of_a.rest().await.unwrap(), part(2..18));
}

#[tokio::test]
async fn edges_that_nobody_named_are_no_loop() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let web = Web::start().await;
    web.put("/a", Item::of(1000));
    let unnamed = |dir: &TempDir, origin: &str| {
        let settings = proxy_settings(dir.path(), origin, &serde_json::json!({}));
        Settings { id: None, ..settings }
    };
    let upper = Edge::start(unnamed(&dirs[0], &web.url)).await;
    let lower = Edge::start(unnamed(&dirs[1], &upper.http)).await;
    let answer = get(&format!("{}/a", lower.http), &[]).await;
    assert_eq!((answer.status.as_u16(), answer.bytes()), (200, &web.whole("/a")));
    let asked = &web.asked_for("/a")[0];
    let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().cloned().collect();
    let kept =
        dirs.each_ref().map(|dir| std::fs::read_to_string(dir.path().join("node-id")).unwrap());
    // By a listener for clients the upper one can't know who the lower one is.
    assert_eq!(passed, [kept[1].clone(), format!("{};entry=1", kept[0])]);
}
