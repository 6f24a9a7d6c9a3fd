//! A purge below other nodes: what of it goes up, how often, and by whose word.

use crate::common::nodes::{SITE, below, fetch, node, nodes, verdict};
use crate::common::{Edge, Item, Web, ask, get};
use futures::future::join_all;
use http::Method;
use nearcast_edge::Settings;
use serde_json::json;
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

/// Eight clients of each node ask one time after another: every body is what the origin has.
async fn storm(web: &Web, edges: &[&Edge], path: &str) {
    let whole = web.whole(path);
    let client = |edge: &Edge| {
        let (edge, whole) = (edge.http.clone(), whole.clone());
        let url = format!("{edge}{path}");
        async move {
            for _ in 0..12 {
                let answer = get(&url, &[("host", SITE)]).await;
                assert_eq!((answer.status.as_u16(), answer.bytes() == &whole), (200, true));
            }
        }
    };
    join_all(edges.iter().flat_map(|edge| (0..8).map(|_| client(edge)))).await;
}

/// What each kind of purge comes to at the origin: objects that stay as they are, and such as have
/// changed before. `lower` get the requests; the purge is at so many of `all`, which begin with
/// them.
async fn purges_end_in_few_requests(web: &Web, all: &[&Edge], lower: usize, few: usize) {
    let mut number = 0;
    for purged in [lower, all.len()] {
        for (soft, changes) in [(true, false), (true, true), (false, false), (false, true)] {
            for by_tag in [false, true] {
                number += 1;
                let (path, tag) = (format!("/{number}.m4s"), format!("tag-{number}"));
                web.put(&path, Item::of(300_000).field("surrogate-key", &tag));
                storm(web, &all[..lower], &path).await;
                assert_eq!(web.count(&path), 1);
                if changes {
                    web.change(&path);
                }
                let url = format!("http://{SITE}{path}");
                let what = if by_tag { json!({ "tag": tag }) } else { json!({ "url": url }) };
                let mut request = what;
                request["soft"] = soft.into();
                for edge in &all[..purged] {
                    edge.purge(&request).await;
                }
                storm(web, &all[..lower], &path).await;
                let asked = web.count(&path) - 1;
                let told = format!("{request} at {purged}, changes: {changes}: {asked}");
                assert!((1..=few).contains(&asked), "{told}");
            }
        }
    }
}

/// Asks no other hop beside one that takes long: how often the origin is asked is counted.
fn counted(dir: &TempDir, peer: &Peer, origin: &str, around: hierarchy::Settings) -> Settings {
    let mut settings = node(dir, peer, origin, around);
    settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
    settings
}

/// Requests of the first second after a purge went up one by one, since what had just been
/// revalidated looked older than the purge.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_below_a_shield_is_one_request_to_the_origin() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    let shields = hierarchy::Settings { shields: vec![above.clone()], ..Default::default() };
    let shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, shields)).await;
    purges_end_in_few_requests(&web, &[&edge, &shield], 1, 1).await;
}

/// Nodes are purged one after another: each purge may want its own request.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_two_siblings_a_parent_and_a_shield_is_a_request_a_node_at_most() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [a, b, parent, above] = nodes(["edge-a", "edge-b", "region-1", "shield-1"]);
    let web = Web::start().await;
    let shields = vec![above.clone()];
    let lower = hierarchy::Settings {
        siblings: vec![a.clone(), b.clone()],
        parents: vec![parent.clone()],
        shields: shields.clone(),
        ..Default::default()
    };
    let middle = hierarchy::Settings { shields, ..Default::default() };
    let top = hierarchy::Settings::default();
    let starts = [(&a, lower.clone()), (&b, lower), (&parent, middle), (&above, top)];
    let starts = starts.into_iter().zip(&dirs);
    let edges =
        starts.map(|((peer, around), dir)| Edge::start(counted(dir, peer, &web.url, around)));
    let edges = join_all(edges).await;
    let all: Vec<&Edge> = edges.iter().collect();
    purges_end_in_few_requests(&web, &all, 2, all.len()).await;
}

/// Clients' wishes are no load for the origin there, but a node's word of a purge counts.
#[tokio::test]
async fn a_node_that_does_not_heed_clients_heeds_a_purge_below_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [child, above, other] = nodes(["edge-a", "shield-1", "edge-b"]);
    let web = Web::start().await;
    let deaf = |dir, peer, around| {
        let mut settings = counted(dir, peer, &web.url, around);
        settings.sites.get_mut(SITE).unwrap().heed_client = Some(false);
        settings
    };
    let shield = Edge::start(deaf(&dirs[1], &above, hierarchy::Settings::default())).await;
    let edge = Edge::start(deaf(&dirs[0], &child, below(std::slice::from_ref(&above)))).await;
    // By a listener for clients, where nobody knows who asks.
    let outer = below(&[Peer { id: "shield-1".into(), url: shield.http.clone() }]);
    let outer = Edge::start(deaf(&dirs[2], &other, outer)).await;
    for (edge, path) in [(&edge, "/a"), (&outer, "/b")] {
        web.put(path, Item::of(1_000));
        fetch(edge, path, &[]).await;
        web.change(path);
        edge.purge(&json!({ "url": format!("http://{SITE}{path}") })).await;
        for _ in 0..3 {
            assert!(fetch(edge, path, &[]).await.bytes() == &web.whole(path), "{path}");
        }
        assert_eq!(web.count(path), 2, "{path}");
    }
    // It has "/b" from before, and no client gets it to ask.
    let told = [("nearcast-newer-than", "0"), ("cdn-loop", "edge-x")];
    let answer = fetch(&shield, "/b", &told).await;
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/b")), ("", 2));
    assert_eq!(fetch(&shield, "/a", &told).await.header("nearcast-newer-than"), "");
    // A condition that fails is passed on, but not to who has that version from before the purge.
    assert_eq!(fetch(&shield, "/b", &[("if-match", "\"v1\"")]).await.status, 200);
    for method in [Method::GET, Method::HEAD] {
        let url = format!("{}/b", outer.http);
        let answer = ask(method, &url, &[("host", SITE), ("if-match", "\"v1\"")]).await;
        assert_eq!((answer.status.as_u16(), verdict(&answer, "edge-b").as_str()), (412, "bypass"));
    }
    assert_eq!(web.count("/b"), 4);
}

/// Once a purge has been heeded above, a condition that fails goes the way of all requests again.
#[tokio::test]
async fn a_condition_that_fails_after_a_purge_goes_by_the_nodes_above() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1_000));
    let shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, below(&[above]))).await;
    let old = fetch(&edge, "/a", &[]).await;
    web.change("/a");
    edge.purge(&json!({ "url": format!("http://{SITE}/a") })).await;
    for method in [Method::GET, Method::HEAD] {
        let fields = [("host", SITE), ("if-match", old.header("etag"))];
        let answer = ask(method.clone(), &format!("{}/a", edge.http), &fields).await;
        assert_eq!((answer.status.as_u16(), verdict(&answer, "edge-a").as_str()), (412, "bypass"));
        let asked = web.asked_for("/a").pop().unwrap();
        let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().collect();
        assert!(passed.iter().any(|node| *node == "shield-1"), "{method}: {passed:?}");
    }
    drop(shield);
}

/// What a client says of a purge is told to the nodes above as a client's wish, not as this node's
/// word.
#[tokio::test]
async fn no_client_speaks_for_a_node() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1_000));
    let mut shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    shield.sites.get_mut(SITE).unwrap().heed_client = Some(false);
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, below(&[above]))).await;
    assert_eq!(verdict(&fetch(&edge, "/a", &[]).await, "shield-1"), "origin");
    let newer = ("nearcast-newer-than", "0");
    let answer = fetch(&edge, "/a", &[newer]).await;
    assert_eq!(verdict(&answer, "edge-a"), "revalidated");
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/a")), ("", 1));
    // No origin is to be asked: there is nothing to answer from.
    let none = fetch(&edge, "/a", &[newer, ("cache-control", "only-if-cached")]).await;
    assert_eq!((none.status.as_u16(), web.count("/a")), (504, 1));
    // By the listener for nodes it is a node's word.
    let answer = get(&format!("{}/a", edge.peer), &[("host", SITE), newer]).await;
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/a")), ("0", 2));
    drop(shield);
}
