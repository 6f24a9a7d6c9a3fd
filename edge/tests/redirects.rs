//! Where an origin names itself, clients are kept on the site: an origin that is told its own host
//! makes its redirects of that.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{below, fetch, node, nodes};
use common::{Edge, Item, Web, ask, get, proxy_settings};
use http::Method;
use serde_json::json;

fn redirect(to: &str) -> Item {
    Item::of(0).status(301).field("location", to).field("content-location", to)
}

/// Location and Content-Location, twice: as it comes, and as it was kept.
async fn told(edge: &Edge, path: &str) -> String {
    let [first, second] = [(); 2].map(|()| format!("{}{path}", edge.http));
    let (first, second) = (get(&first, &[]).await, get(&second, &[]).await);
    assert_eq!((first.verdict(), second.verdict()), ("origin", "hit-memory"), "{first:?}");
    for answer in [&first, &second] {
        assert_eq!(answer.header("location"), answer.header("content-location"));
    }
    assert_eq!(first.header("location"), second.header("location"));
    first.header("location").to_owned()
}

async fn edge_at(web: &Web, base: &str, site: serde_json::Value) -> (tempfile::TempDir, Edge) {
    let dir = tempfile::tempdir().unwrap();
    let settings = proxy_settings(dir.path(), &format!("{}{base}", web.url), &site);
    let edge = Edge::start(settings).await;
    (dir, edge)
}

#[tokio::test]
async fn a_redirect_to_the_origins_own_address_stays_on_the_site() {
    let web = Web::start().await;
    web.put("/dir", redirect(&format!("{}/dir/?a#b", web.url)));
    web.put("/away", redirect("http://elsewhere.example/dir/"));
    // What a client would take for another host.
    web.put("/slashes", redirect(&format!("{}//evil.example/", web.url)));
    let (_dir, edge) = edge_at(&web, "", json!({})).await;
    assert_eq!(told(&edge, "/dir").await, "/dir/?a#b");
    assert_eq!(told(&edge, "/away").await, "http://elsewhere.example/dir/");
    assert_eq!(told(&edge, "/slashes").await, "/.//evil.example/");
    // What goes to one client alone, too.
    let answer = ask(Method::POST, &format!("{}/dir", edge.http), &[]).await;
    assert_eq!(answer.header("location"), "/dir/?a#b");
    let answer = get(&format!("{}/dir", edge.http), &[("authorization", "Basic YTpi")]).await;
    assert_eq!(answer.header("location"), "/dir/?a#b");
    edge.stop().await;
}

#[tokio::test]
async fn the_path_of_an_origins_url_is_none_of_the_sites() {
    let web = Web::start().await;
    web.put("/base/dir", redirect(&format!("{}/base/dir/", web.url)));
    web.put("/base/bare", redirect("/base/dir/"));
    web.put("/base/beside", redirect(&format!("{}/other/", web.url)));
    let (_dir, edge) = edge_at(&web, "/base", json!({})).await;
    assert_eq!(told(&edge, "/dir").await, "/dir/");
    assert_eq!(told(&edge, "/bare").await, "/dir/");
    assert_eq!(told(&edge, "/beside").await, format!("{}/other/", web.url));
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_is_told_the_clients_host_is_taken_at_its_word() {
    let web = Web::start().await;
    let to = format!("{}/dir/", web.url);
    web.put("/dir", redirect(&to));
    let (_dir, edge) = edge_at(&web, "", json!({ "pass-host": true })).await;
    assert_eq!(told(&edge, "/dir").await, to);
    edge.stop().await;
}

#[tokio::test]
async fn what_comes_by_a_parent_stays_on_the_site() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put("/base/dir", redirect(&format!("{}/base/dir/", web.url)));
    let origin = format!("{}/base", web.url);
    let _above = Edge::start(node(&dirs[1], &parent, &origin, Default::default())).await;
    // That one knows the origin by another address.
    let edge = node(&dirs[0], &edge, "http://127.0.0.1:9", below(&[parent]));
    let edge = Edge::start(edge).await;
    for _ in 0..2 {
        assert_eq!(fetch(&edge, "/dir", &[]).await.header("location"), "/dir/");
    }
    assert_eq!(web.count("/base/dir"), 1);
}
