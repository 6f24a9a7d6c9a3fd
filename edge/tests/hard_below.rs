//! Stories of a hard purge at a node whose parents were not purged: bytes from before it are had of
//! none of these again, whatever their validator says, and nobody but a node gets any fetched anew.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{SITE, below, fetch, node, nodes, region, verdict};
use common::{Asked, Edge, Hold, Item, Validator, Web, ask, get, until};
use http::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

const RUN: u64 = 64 << 20;

/// Nothing tells its versions apart but their bytes.
fn film(bytes: u64) -> Item {
    Item::of(bytes).dated(SystemTime::now() - Duration::from_secs(300), 200)
}

async fn purge(edge: &Edge, path: &str) {
    edge.purge(&json!({ "url": format!("http://{SITE}{path}") })).await;
}

/// An edge below a parent below a shield.
async fn chain(web: &Web) -> (Vec<TempDir>, Vec<Edge>) {
    let all = nodes(["edge-a", "region-1", "shield-1"]);
    let [_, parent, shield] = &all;
    let shields = hierarchy::Settings { shields: vec![shield.clone()], ..Default::default() };
    let arounds = [below(std::slice::from_ref(parent)), shields, hierarchy::Settings::default()];
    let (mut dirs, mut edges) = (Vec::new(), Vec::new());
    for (peer, around) in all.iter().zip(arounds) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = node(&dir, peer, &web.url, around);
        settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
        edges.push(Edge::start(settings).await);
        dirs.push(dir);
    }
    (dirs, edges)
}

/// What an edge tells of a URL.
async fn explained(edge: &Edge, path: &str) -> Value {
    let url = format!("{}/v1/explain?url=http://{SITE}{path}", edge.admin);
    serde_json::from_slice(get(&url, &[]).await.bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_before_a_hard_purge_are_had_of_no_node_again() {
    const FILM: &str = "/film.mp4";
    let web = Web::start().await;
    let (_dirs, edges) = chain(&web).await;
    web.put(FILM, film(3 << 20));
    let old = web.whole(FILM);
    assert!(fetch(&edges[0], FILM, &[]).await.bytes() == &old);
    web.change(FILM);
    let new = web.whole(FILM);
    purge(&edges[0], FILM).await;
    // The others ask about it meanwhile, and it is the same, as far as its validator tells.
    for edge in &edges[1..] {
        let answer = fetch(edge, FILM, &[("cache-control", "no-cache")]).await;
        assert!(answer.bytes() == &old, "it was purged below, not here");
    }
    let before = (web.count(FILM), web.sent(FILM));
    assert_eq!(before.1, 3 << 20, "304s");
    let answer = fetch(&edges[0], FILM, &[]).await;
    assert!(answer.bytes() == &new, "{:?}", answer.headers);
    for id in ["edge-a", "region-1"] {
        assert_eq!(verdict(&answer, id), "parent", "it goes by the nodes above");
    }
    assert_eq!((web.count(FILM), web.sent(FILM)), (before.0 + 1, 6 << 20), "once");
    for edge in &edges {
        assert!(fetch(edge, FILM, &[]).await.bytes() == &new, "{}", edge.http);
    }
    assert_eq!(web.count(FILM), before.0 + 1);
    for (edge, told) in edges.iter().zip([0.0, 1.0, 1.0]) {
        let line = "nearcast_edge_purges_told_total{strength=\"hard\"}";
        assert_eq!(edge.metric(line).await, told, "{}", edge.http);
        assert_eq!(edge.metric("nearcast_edge_nodes_passed_by_total").await, 0.0);
    }
    let told = explained(&edges[0], FILM).await;
    let (hard_ms, fetched_ms) = (&told["others_hard_ms"], &told["variants"][0]["fetched_ms"]);
    assert!(fetched_ms.as_i64().unwrap() > hard_ms.as_i64().unwrap(), "{told}");
}

/// The head, and the first part, come of the one parent, the other part of the other.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_parents_neither_gives_its_part_of_before_a_hard_purge() {
    let web = Web::start().await;
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [child, one, two] = nodes(["edge-a", "region-1", "region-2"]);
    let alone = hierarchy::Settings::default;
    let _parents = [
        Edge::start(node(&dirs[1], &one, &web.url, alone())).await,
        Edge::start(node(&dirs[2], &two, &web.url, alone())).await,
    ];
    let edge = Edge::start(node(&dirs[0], &child, &web.url, below(&[one, two]))).await;
    let starts = [5, RUN + 5];
    let part = |path: String, start: u64| {
        let range = format!("bytes={start}-{}", start + 99);
        let edge = &edge;
        async move { fetch(edge, &path, &[("range", &range)]).await }
    };
    for path in (0..).map(|number| format!("/{number}.mp4")) {
        web.put(&path, film(RUN + (2 << 20)));
        for start in starts {
            part(path.clone(), start).await;
        }
        let by = |asked: &Asked| asked.fields.get_all("cdn-loop").iter().next_back().cloned();
        let owners: HashSet<_> = web.asked_for(&path).iter().map(by).collect();
        if owners.len() < 2 {
            continue;
        }
        web.change(&path);
        purge(&edge, &path).await;
        for start in starts {
            let new = web.part(&path, start..start + 100);
            assert_eq!(part(path.clone(), start).await.bytes(), &new, "from byte {start}");
        }
        return;
    }
}

/// To the parent what it has is not stored for who asks, and is for its other clients.
#[tokio::test]
async fn what_is_gone_after_a_hard_purge_below_is_gone_for_all() {
    let web = Web::start().await;
    let (_dirs, edges) = chain(&web).await;
    web.put("/a", film(1_000));
    fetch(&edges[0], "/a", &[]).await;
    web.put("/a", film(10).cache_control("no-store").status(404));
    purge(&edges[0], "/a").await;
    for edge in &edges {
        assert_eq!(fetch(edge, "/a", &[]).await.status, 404, "{}", edge.http);
    }
}

#[tokio::test]
async fn no_stranger_gets_anything_fetched_again() {
    let web = Web::start().await;
    let (_dirs, edges) = chain(&web).await;
    web.put("/a", film(1_000));
    fetch(&edges[0], "/a", &[]).await;
    let told = [("nearcast-purged", "0"), ("nearcast-newer-than", "0"), ("cdn-loop", "edge-x")];
    for edge in &edges {
        for told in [&told[..1], &told[..]] {
            let answer = fetch(edge, "/a", told).await;
            assert_eq!((answer.status.as_u16(), answer.header("nearcast-purged")), (200, ""));
        }
        assert_eq!(fetch(edge, "/a", &[]).await.header("nearcast-fetched"), "");
    }
    assert_eq!(web.sent("/a"), 1_000, "its bytes came once");
}

/// Nor is a stranger told what nodes tell each other, also where clients are heeded.
#[tokio::test]
async fn a_stranger_is_told_no_more_than_whether_the_origin_was_asked_since() {
    let web = Web::start().await;
    let dir = tempfile::tempdir().unwrap();
    let [id] = nodes(["edge-a"]);
    let edge = Edge::start(node(&dir, &id, &web.url, hierarchy::Settings::default())).await;
    web.put("/stored", film(1_000));
    web.put("/growing", film(1_000).chunked().validator(Validator::None));
    web.put("/passed", film(1_000).cache_control("no-store"));
    let ages = [("nearcast-newer-than", "86400000"), ("nearcast-purged", "86400000")];
    let loops = [("cdn-loop", "edge-x"), ("nearcast-answer-within", "5000")];
    for path in ["/stored", "/growing", "/passed"] {
        for told in [&ages[..], &ages[1..], &loops[..], &[&ages[..], &loops[..]].concat()] {
            for method in [Method::GET, Method::HEAD, Method::POST] {
                let url = format!("{}{path}", edge.http);
                let answer = ask(method.clone(), &url, &[&[("host", SITE)], told].concat()).await;
                let names =
                    answer.headers.keys().filter(|name| name.as_str().starts_with("nearcast"));
                let names: Vec<_> = names.map(|name| name.as_str()).collect();
                assert!(
                    names.iter().all(|name| *name == "nearcast-newer-than"),
                    "{method} {path}: {names:?}"
                );
            }
        }
    }
}

/// By a listener for clients nobody knows that it is a node that asks.
#[tokio::test]
async fn a_parent_that_takes_a_node_for_a_client_is_passed_by() {
    let web = Web::start().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "region-1"]);
    let parent = node(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    let parent = Edge::start(parent).await;
    let outer = below(&[Peer { id: above.id.clone(), url: parent.http.clone() }]);
    let edge = Edge::start(node(&dirs[0], &child, &web.url, outer)).await;
    web.put("/a", film(1_000));
    assert_eq!(verdict(&fetch(&edge, "/a", &[]).await, "edge-a"), "parent");
    web.change("/a");
    purge(&edge, "/a").await;
    let answer = fetch(&edge, "/a", &[]).await;
    assert_eq!((answer.bytes(), verdict(&answer, "edge-a").as_str()), (&web.whole("/a"), "origin"));
    assert_eq!(edge.metric("nearcast_edge_nodes_passed_by_total").await, 1.0);
}

/// Of the two runs of a film the first belongs to the parent, the second to its sibling, which has an
/// older copy. The parent has begun to ask for that for a client, before or after it was told of the
/// purge, when the purged edge wants the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_parent_fetches_for_a_client_meanwhile_is_not_of_before_a_hard_purge_below() {
    let web = Web::start().await;
    let [child, parent, beside] = nodes(["edge-a", "region-1", "region-2"]);
    let both = region(&[parent.clone(), beside.clone()]);
    let (mut dirs, mut edges) = (Vec::new(), Vec::new());
    let arounds = [below(std::slice::from_ref(&parent)), both.clone(), both];
    for (peer, around) in [child, parent, beside].iter().zip(arounds) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = node(&dir, peer, &web.url, around);
        settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
        edges.push(Arc::new(Edge::start(settings).await));
        dirs.push(dir);
    }
    let part = |edge: &Arc<Edge>, path: &str, range: Range<u64>| {
        let (edge, path) = (Arc::clone(edge), path.to_owned());
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        async move { fetch(&edge, &path, &[("range", &range)]).await }
    };
    let second = RUN..RUN + (2 << 20);
    let mut paths = (0..).map(|number| format!("/{number}.mp4"));
    for is_told_before in [true, false] {
        let path = loop {
            let path = paths.next().unwrap();
            web.put(&path, film(RUN + (4 << 20)));
            part(&edges[1], &path, 0..1).await;
            part(&edges[1], &path, RUN..RUN + 1).await;
            let by = |asked: &Asked| asked.fields.get_all("cdn-loop").iter().count();
            if web.asked_for(&path).iter().map(by).eq([1, 2]) {
                break path;
            }
        };
        for edge in &edges[1..] {
            purge(edge, &path).await;
        }
        let old = part(&edges[2], &path, second.end - 100..second.end).await;
        assert_eq!(verdict(&old, "region-2"), "origin");
        web.change(&path);
        purge(&edges[0], &path).await;
        // Ages are told in milliseconds, and to the safe side.
        let purged = Instant::now();
        let is_past = || async { (purged.elapsed() > Duration::from_millis(5)).then_some(()) };
        until("the purge's millisecond is over", is_past).await;
        let teller = if is_told_before { &edges[0] } else { &edges[1] };
        assert_eq!(part(teller, &path, 0..100).await.bytes(), &web.part(&path, 0..100));
        web.hold(Hold::Byte(RUN));
        let of_client = tokio::spawn(part(&edges[1], &path, second.clone()));
        until("the sibling's ask", || async { (web.held() == 1).then_some(()) }).await;
        let of_edge = tokio::spawn(part(&edges[0], &path, second.clone()));
        let both =
            || async { (edges[1].metric("nearcast_edge_responses").await >= 2.0).then_some(()) };
        until("the edge's request at its parent", both).await;
        web.release();
        assert_eq!(of_client.await.unwrap().status, 206);
        let new = web.part(&path, second.clone());
        assert!(of_edge.await.unwrap().bytes() == &new, "told before: {is_told_before}");
        assert!(part(&edges[0], &path, second.clone()).await.bytes() == &new);
    }
}
