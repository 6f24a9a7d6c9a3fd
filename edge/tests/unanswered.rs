//! Stories of nodes whose origin hangs: who gives up first, and who asks it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{SITE, below, chain, fetch, node_with, nodes};
use common::{Edge, Hold, Item, Web, get, until};
use futures::future::join_all;
use serde_json::json;
use upstream::hierarchy;

/// Were each node to give up at once, each would ask the origin itself.
#[tokio::test]
async fn what_hangs_is_asked_for_once_however_many_nodes_are_between() {
    // Between two nodes' ends is a twelfth of it.
    let site = json!({ "first-byte-timeout": "4s" });
    let site = &site;
    join_all((1..5).map(async |levels| {
        let web = Web::start().await;
        let (_dirs, edges) = chain(levels, &web, site).await;
        web.put("/known", Item::of(3 << 20));
        fetch(&edges[0], "/known", &[("range", "bytes=0-9")]).await;
        let before = web.count("/known");
        web.hold(Hold::Head);
        let new = (0..4).map(|number| format!("/{number}.m4s"));
        let asked = [("/known".to_owned(), before)].into_iter().chain(new.map(|path| (path, 0)));
        join_all(asked.map(async |(path, before)| {
            let answer = fetch(&edges[0], &path, &[("range", "bytes=2000000-2000009")]).await;
            let told = (answer.status.as_u16(), answer.header("proxy-status"), web.count(&path));
            let expected = (504, "edge-a;error=http_response_timeout", before + 1);
            assert_eq!(told, expected, "{path}, {levels} levels: {answer:?}");
        }))
        .await;
    }))
    .await;
}

/// Origins that hang are waited for one after the other: for two that takes longer than the node below
/// waits.
#[tokio::test]
async fn what_is_missing_of_what_is_known_is_asked_of_each_origin_that_hangs_once() {
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let webs = [Web::start().await, Web::start().await];
    let origins = json!([webs[0].url, webs[1].url]);
    let site = json!({ "first-byte-timeout": "4s", "hedge": false });
    let start = async |peer, around| {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = node_with(&dir, peer, &webs[0].url, around, &site);
        let of_site = settings.sites.get_mut(SITE).unwrap();
        of_site.origins = serde_json::from_value(origins.clone()).unwrap();
        (Edge::start(settings).await, dir)
    };
    let _above = start(&parent, hierarchy::Settings::default()).await;
    let (edge, _dir) = start(&child, below(std::slice::from_ref(&parent))).await;
    webs.iter().for_each(|web| web.put("/known", Item::of(3 << 20)));
    fetch(&edge, "/known", &[("range", "bytes=0-9")]).await;
    let before = webs.each_ref().map(|web| web.count("/known"));
    webs.iter().for_each(|web| web.hold(Hold::Head));
    let answer = fetch(&edge, "/known", &[("range", "bytes=2000000-2000009")]).await;
    let told = (answer.status.as_u16(), answer.header("proxy-status"));
    assert_eq!(told, (504, "edge-a;error=http_response_timeout"), "{answer:?}");
    let asked = webs.each_ref().map(|web| web.count("/known"));
    assert_eq!(asked, before.map(|count| count + 1));
}

/// A node that others ask, whose origin hangs.
struct Region {
    _dir: tempfile::TempDir,
    web: Web,
    edge: Edge,
    /// What is asked for, by its listener for nodes.
    url: String,
}

impl Region {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [own] = nodes(["region-1"]);
        let web = Web::start().await;
        web.put("/a", Item::of(1_000));
        let site = json!({ "first-byte-timeout": "600s" });
        let settings = node_with(&dir, &own, &web.url, hierarchy::Settings::default(), &site);
        let edge = Edge::start(settings).await;
        web.hold(Hold::Head);
        Self { _dir: dir, web, edge, url: format!("{}/a", own.url) }
    }
}

/// A node that waits no longer than a moment is answered within it, and no client has a say.
#[tokio::test]
async fn a_parent_answers_while_its_child_waits() {
    let Region { web, edge, url, .. } = &Region::start().await;
    let fields = [("host", SITE), ("nearcast-answer-within", "200")];
    let by_node = [&fields[..], &[("cdn-loop", "edge-a")]].concat();
    let url = url.clone();
    let asking = tokio::spawn(async move { get(&url, &by_node).await });
    until("it has an answer", || async { asking.is_finished().then_some(()) }).await;
    let answer = asking.await.unwrap();
    let told = (answer.status.as_u16(), answer.header("proxy-status"));
    assert_eq!(told, (504, "region-1;error=http_response_timeout"));
    assert_eq!(web.count("/a"), 1);
    let asking = fetch(edge, "/a", &[("nearcast-answer-within", "1")]);
    let release = async {
        until("the origin is asked", || async { (web.count("/a") > 1).then_some(()) }).await;
        web.release();
    };
    let (answer, ()) = tokio::join!(asking, release);
    assert_eq!(answer.bytes(), &web.whole("/a"));
    assert_eq!(web.asked_for("/a")[1].field("nearcast-answer-within"), "");
}

/// Nor do others share the end of one that waits for less than the origin may take.
#[tokio::test]
async fn who_waits_for_less_than_a_try_takes_nothing_from_the_others() {
    let Region { web, edge, url, .. } = &Region::start().await;
    let fields = [("host", SITE), ("nearcast-answer-within", "3000"), ("cdn-loop", "edge-a")];
    let url = url.clone();
    let hurried = tokio::spawn(async move { get(&url, &fields).await });
    until("the origin is asked", || async { (web.count("/a") > 0).then_some(()) }).await;
    let release = async {
        until("it is asked again", || async { (web.count("/a") > 1).then_some(()) }).await;
        assert_eq!(hurried.await.unwrap().status, 504);
        web.release();
    };
    let (answer, ()) = tokio::join!(fetch(edge, "/a", &[]), release);
    assert_eq!((answer.status.as_u16(), answer.bytes()), (200, &web.whole("/a")));
}
