//! Stories of a node whose parent has no answer for it: whose fault that is, and who asks the
//! origin then, how often.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::nodes::{SITE, below, chain, fetch, node, node_with, nodes, verdict};
use common::{
    Answer, Asked, Edge, Hold, Item, Validator, Web, WebMisdeed, ask, ask_with_body, get, open,
    until,
};
use futures::future::join_all;
use http::Method;
use serde_json::json;
use std::collections::HashSet;
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

#[tokio::test]
async fn what_a_full_parent_says_is_final_below_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    let paths: Vec<String> = (0..6).map(|number| format!("/{number}.m4s")).collect();
    paths.iter().for_each(|path| web.put(path, Item::of(1_000)));
    let few = json!({ "in-flight-max": 2, "queue-max": 0 });
    let above = node_with(&dirs[1], &parent, &web.url, hierarchy::Settings::default(), &few);
    let _parent = Edge::start(above).await;
    let edge = Edge::start(node(&dirs[0], &child, &web.url, below(&[parent]))).await;
    web.hold(Hold::Head);
    let (first, rest) = paths.split_at(2);
    let busy = async {
        until("its places are taken", || async { (web.held() == 2).then_some(()) }).await;
        for path in rest {
            let answer = fetch(&edge, path, &[]).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "busy"), "{path}");
            assert_ne!(answer.header("retry-after"), "");
            assert_eq!(answer.header("proxy-status"), "edge-a;error=connection_limit_reached");
            assert_eq!(verdict(&answer, "edge-a"), "busy");
        }
        web.release();
    };
    let (served, ()) =
        tokio::join!(join_all(first.iter().map(|path| fetch(&edge, path, &[]))), busy);
    for (path, answer) in first.iter().zip(served) {
        assert!(answer.bytes() == &web.whole(path), "{path}: {answer:?}");
    }
    assert_eq!((web.asked().len(), web.busy_max()), (2, 2), "nobody goes by the parent");
    // What the alert goes by.
    let text = get(&format!("{}/metrics", edge.admin), &[]).await.text();
    let counted =
        |line: &&str| line.contains("requests_total{") && line.contains("verdict=\"busy\"");
    let counted: Vec<_> = text.lines().filter(counted).collect();
    assert!(counted.len() == 1 && counted[0].ends_with(" 4"), "{counted:?}");
}

/// What one client's request for what its origin fails at costs that, however many nodes are
/// between: its `retries`, and once more by the node that the client asked.
#[tokio::test]
async fn tries_do_not_multiply_from_level_to_level() {
    for misdeed in [WebMisdeed::Mute, WebMisdeed::Cut(1_000)] {
        for (levels, most) in [(1, 3), (2, 4), (3, 4), (4, 4)] {
            let web = Web::start().await;
            let (_dirs, edges) = chain(levels, &web, &json!({})).await;
            web.always(Some(misdeed));
            for number in 0..2 {
                let path = format!("/{levels}/{number}.m4s");
                web.put(&path, Item::of(2_000_000));
                let answer = fetch(&edges[0], &path, &[]).await;
                let asked = web.count(&path);
                let told = format!("{misdeed:?}, {levels} levels: {asked} requests, {answer:?}");
                assert!((3..=most).contains(&asked), "{told}");
                assert!(answer.status == 502 || answer.body.is_err(), "{told}");
            }
        }
    }
}

/// It is cut off in the first chunk, with more of such requests than the budget pays for.
#[tokio::test]
async fn what_a_parent_leaves_undone_that_is_killed_costs_no_budget() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    let paths: Vec<String> = (0..4).map(|number| format!("/{number}.m4s")).collect();
    paths.iter().for_each(|path| web.put(path, Item::of(300_000)));
    let above =
        Edge::start(node(&dirs[1], &parent, &web.url, hierarchy::Settings::default())).await;
    let none = json!({ "retries": 0 });
    let edge = node_with(&dirs[0], &child, &web.url, below(&[parent]), &none);
    let edge = Edge::start(edge).await;
    web.hold(Hold::Byte(100_000));
    let asking = join_all(paths.iter().map(|path| fetch(&edge, path, &[])));
    let killing = async {
        until("all have begun", || async { (web.held() == paths.len()).then_some(()) }).await;
        above.kill().await;
        web.release();
    };
    let (answers, ()) = tokio::join!(asking, killing);
    for (path, answer) in paths.iter().zip(answers) {
        assert!(answer.bytes() == &web.whole(path), "{path}");
    }
}

/// Nothing of it has gone out, since it begins behind what has come; and it can't be gone on with.
#[tokio::test]
async fn what_a_parent_leaves_undone_that_is_killed_is_had_anew_where_it_has_no_validator() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put("/film", Item::of(3_000_000).validator(Validator::Weak).no_ranges());
    let above = node(&dirs[1], &parent, &web.url, hierarchy::Settings::default());
    let above = Edge::start(above).await;
    let edge = Edge::start(node(&dirs[0], &child, &web.url, below(&[parent]))).await;
    web.hold(Hold::Byte(100));
    let mut whole = open(&format!("{}/film", edge.http), &[("host", SITE)]).await;
    let joining = fetch(&edge, "/film", &[("range", "bytes=2000000-2999999")]);
    let killing = async {
        let asked = async || (edge.metric("nearcast_edge_connections ").await == 2.0).then_some(());
        until("both have asked", asked).await;
        above.kill().await;
        web.release();
    };
    let (whole, part, ()) = tokio::join!(whole.rest(), joining, killing);
    assert!(whole.is_err(), "some of it has gone out");
    assert_eq!(part.status.as_u16(), 206, "{part:?}");
    assert!(part.bytes() == &web.part("/film", 2_000_000..3_000_000), "{part:?}");
    assert_eq!(web.count("/film"), 2);
}

const RUN: u64 = 64 << 20;

/// An edge below two parents, and a film of two runs of which each has its own parent for owner.
struct Two {
    web: Web,
    edge: Edge,
    path: String,
    above: [Peer; 2],
    _parents: [Edge; 2],
    dirs: [TempDir; 3],
}

impl Two {
    async fn new() -> Self {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let above = nodes(["region-1", "region-2"]);
        let web = Web::start().await;
        let alone = hierarchy::Settings::default;
        let parents = [
            Edge::start(node(&dirs[1], &above[0], &web.url, alone())).await,
            Edge::start(node(&dirs[2], &above[1], &web.url, alone())).await,
        ];
        let edge = Self::child(&dirs[0], &web, &above).await;
        let mut two = Self { web, edge, path: String::new(), above, _parents: parents, dirs };
        for number in 0.. {
            two.path = format!("/{number}.mp4");
            two.web.put(&two.path, Item::of(RUN + (2 << 20)));
            for start in [5, RUN] {
                two.part(start, 100).await;
            }
            let by = |asked: &Asked| asked.fields.get_all("cdn-loop").iter().next_back().cloned();
            let owners: HashSet<_> = two.web.asked_for(&two.path).iter().map(by).collect();
            if owners.len() == 2 {
                break;
            }
        }
        two
    }

    async fn child(dir: &TempDir, web: &Web, above: &[Peer]) -> Edge {
        let [child] = nodes(["edge-a"]);
        Edge::start(node(dir, &child, &web.url, below(above))).await
    }

    /// The edge is killed, and is there again.
    async fn restarted(self) -> Self {
        let Self { web, edge, path, above, _parents, dirs } = self;
        edge.kill().await;
        let edge = Self::child(&dirs[0], &web, &above).await;
        Self { web, edge, path, above, _parents, dirs }
    }

    async fn part(&self, start: u64, bytes: u64) -> Answer {
        let range = format!("bytes={start}-{}", start + bytes - 1);
        fetch(&self.edge, &self.path, &[("range", &range)]).await
    }
}

/// The owner of the first part has the old one, fresh, and the other one the new.
#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_replaced_is_whole_and_new_at_the_second_try_through_two_parents() {
    let two = Two::new().await;
    assert_eq!(two.part(0, RUN).await.bytes().len() as u64, RUN);
    two.web.change(&two.path);
    assert!(fetch(&two.edge, &two.path, &[]).await.body.is_err(), "nobody can know in time");
    let answer = fetch(&two.edge, &two.path, &[]).await;
    assert!(answer.body.as_ref() == Ok(&two.web.whole(&two.path)), "{:?}", answer.headers);
}

/// The other parent knows nothing of the POST.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_passed_a_post_for_it_takes_from_no_node_in_its_old_version() {
    let two = Two::new().await;
    two.web.change(&two.path);
    let url = format!("{}{}", two.edge.http, two.path);
    assert_eq!(ask(Method::POST, &url, &[("host", SITE)]).await.status, 204);
    for start in [RUN, 5] {
        let new = two.web.part(&two.path, start..start + 100);
        assert_eq!(two.part(start, 100).await.bytes(), &new, "from byte {start}");
    }
}

/// Neither parent is asked for anything between the POST and the end of the edge.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_after_a_post_takes_the_old_from_no_node() {
    let two = Two::new().await;
    two.web.change(&two.path);
    let url = format!("{}{}", two.edge.http, two.path);
    assert_eq!(ask(Method::POST, &url, &[("host", SITE)]).await.status, 204);
    let two = two.restarted().await;
    for start in [RUN, 5] {
        let new = two.web.part(&two.path, start..start + 100);
        assert_eq!(two.part(start, 100).await.bytes(), &new, "from byte {start}");
    }
}

/// A node that stands in for the owner has the old version, fresh; those below know the new one.
#[tokio::test]
async fn parts_of_a_newer_version_than_is_stored_are_kept_from_the_second_on() {
    let dir = tempfile::tempdir().unwrap();
    let [own] = nodes(["edge-a"]);
    let web = Web::start().await;
    web.put("/film.mp4", Item::of(3 << 20));
    let edge = Edge::start(node(&dir, &own, &web.url, hierarchy::Settings::default())).await;
    fetch(&edge, "/film.mp4", &[]).await;
    web.change("/film.mp4");
    let url = format!("{}/film.mp4", own.url);
    let fields = [
        ("host", SITE),
        ("cdn-loop", "edge-b"),
        ("if-match", "\"v2\""),
        ("range", "bytes=100-199"),
    ];
    for _ in 0..4 {
        let answer = get(&url, &fields).await;
        assert_eq!(answer.bytes(), &web.part("/film.mp4", 100..200), "{answer:?}");
    }
    assert_eq!(web.count("/film.mp4"), 3, "the first, the one that told, and the one that is kept");
    assert_eq!(fetch(&edge, "/film.mp4", &[]).await.bytes(), &web.whole("/film.mp4"));
}

/// The node next to the origin loses its connection with the answer: to what it sends anew there is
/// nothing left to do.
#[tokio::test]
async fn what_may_have_been_carried_out_ends_at_every_node_on_the_way() {
    let web = Web::start().await;
    let (_dirs, edges) = chain(3, &web, &json!({})).await;
    for (path, by) in [("/a", &edges[0].http), ("/b", &edges[0].peer)] {
        web.put(path, Item::of(1_000));
        for edge in &edges {
            assert_eq!(fetch(edge, path, &[]).await.bytes(), &web.whole(path));
        }
        web.remove(path);
        web.misbehave(&[WebMisdeed::Mute]);
        let answer = ask(Method::DELETE, &format!("{by}{path}"), &[("host", SITE)]).await;
        assert_eq!((answer.status.as_u16(), web.count(path)), (404, 3), "{answer:?}");
        assert_eq!(answer.header("nearcast-carried-out"), "", "of no use to a client");
        for edge in &edges {
            assert_eq!(fetch(edge, path, &[]).await.status, 404, "{} at {}", path, edge.http);
        }
    }
}

/// A new site comes to the edges first.
#[tokio::test]
async fn a_request_with_a_body_goes_by_a_parent_that_does_not_know_the_site() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put("/form", Item::of(1_000));
    let mut above = node(&dirs[1], &parent, &web.url, hierarchy::Settings::default());
    let site = above.sites.remove(SITE).unwrap();
    above.sites.insert("other.example".to_owned(), site);
    let _parent = Edge::start(above).await;
    let edge = Edge::start(node(&dirs[0], &child, &web.url, below(&[parent]))).await;
    let url = format!("{}/form", edge.http);
    for method in [Method::POST, Method::PUT] {
        let body = Bytes::from_static(b"a form");
        let answer = ask_with_body(method.clone(), &url, &[("host", SITE)], body).await;
        assert_eq!(answer.status, 204, "{method}: {answer:?}");
        assert_eq!(verdict(&answer, "edge-a"), "bypass");
    }
    let methods: Vec<_> = web.asked().iter().map(|asked| asked.method.clone()).collect();
    assert_eq!(methods, ["POST", "PUT"]);
    assert_eq!(fetch(&edge, "/form", &[]).await.bytes(), &web.whole("/form"));
}
