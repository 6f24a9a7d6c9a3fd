//! Stories of a node whose parent has no answer for it: whose fault that is, and who asks the
//! origin then, how often.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::nodes::{SITE, below, fetch, node, node_with, nodes, verdict};
use common::{Edge, Hold, Item, Web, WebMisdeed, ask_with_body, get, until};
use futures::future::join_all;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use upstream::hierarchy;

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

/// An edge, and what is above it, to the number of `levels`; then its sibling.
async fn chain(levels: usize, web: &Web) -> (Vec<TempDir>, Vec<Edge>) {
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
        let mut settings = node(&dir, peer, &web.url, around);
        // Asks no other hop beside one that takes long.
        settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
        edges.push(Edge::start(settings).await);
        dirs.push(dir);
    }
    (dirs, edges)
}

/// What one client's request for what its origin fails at costs that, however many nodes are
/// between: its `retries`, and once more by the node that the client asked.
#[tokio::test]
async fn tries_do_not_multiply_from_level_to_level() {
    for misdeed in [WebMisdeed::Mute, WebMisdeed::Cut(1_000)] {
        for (levels, most) in [(1, 3), (2, 4), (3, 4), (4, 4)] {
            let web = Web::start().await;
            let (_dirs, edges) = chain(levels, &web).await;
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
