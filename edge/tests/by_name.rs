//! Stories of a site for one host: whatever port or scheme its clients come by, it is one thing.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Edge, Item, Web, ask, get, get_over, proxy_settings};
use http::Method;
use serde_json::json;

const PAGE: &str = "/page";

#[tokio::test]
async fn ports_make_no_copies_and_a_purge_ends_what_came_by_any() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    web.put(PAGE, Item::of(1000));
    web.put("/edit", Item::of(3).field("location", "http://keep.example:9999/page"));
    let mut settings = proxy_settings(dir.path(), &web.url, &json!({}));
    let site = settings.sites.remove("*").unwrap();
    settings.sites.insert("keep.example".to_owned(), site);
    let edge = Edge::start(settings).await;
    let url = format!("{}{PAGE}", edge.http);
    let verdict = async |host: &str| get(&url, &[("host", host)]).await.verdict().to_owned();
    let hosts = ["keep.example", "keep.example:8080", "KEEP.example:9999", "keep.example.:80"];
    for round in 0..3 {
        for (number, host) in hosts.iter().enumerate() {
            let expected = if number == 0 { "origin" } else { "hit-memory" };
            assert_eq!(verdict(host).await, expected, "{round}: {host}");
        }
        // By whatever port it is named.
        let named = ["keep.example", "keep.example:8080"].get(round);
        let Some(named) = named else { break };
        let purge = json!({ "url": format!("http://{named}{PAGE}") });
        edge.purge(&purge).await;
    }
    // What an origin names by the host that the client named (RFC 9111 section 4.4).
    let edit = format!("{}/edit", edge.http);
    assert_eq!(ask(Method::POST, &edit, &[("host", "keep.example:9999")]).await.status, 204);
    assert_eq!(verdict("keep.example").await, "origin");
    assert_eq!(web.count(PAGE), 4);
}

/// An origin is not told by which its clients come: it can't answer one otherwise than the other.
#[tokio::test]
async fn schemes_make_no_copies_and_a_purge_ends_what_came_by_either() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    web.put(PAGE, Item::of(1000));
    let mut settings = proxy_settings(dir.path(), &web.url, &json!({}));
    let site = settings.sites.remove("*").unwrap();
    settings.sites.insert("127.0.0.1".to_owned(), site);
    let edge = Edge::start(settings).await;
    let certificate = edge.dir.join("tls/cert.pem");
    let http = async || get(&format!("{}{PAGE}", edge.http), &[]).await.verdict().to_owned();
    let https = async || {
        let url = format!("{}{PAGE}", edge.https);
        get_over("h2", &url, &certificate).await.verdict().to_owned()
    };
    for scheme in ["https", "http"] {
        assert_eq!([http().await, https().await], ["origin", "hit-memory"]);
        edge.purge(&json!({ "url": format!("{scheme}://127.0.0.1{PAGE}") })).await;
        assert_eq!([https().await, http().await], ["origin", "hit-memory"]);
        edge.purge(&json!({ "prefix": format!("{scheme}://127.0.0.1/") })).await;
    }
    for asked in web.asked() {
        for name in ["forwarded", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-host"] {
            assert_eq!(asked.field(name), "", "{name}");
        }
    }
    edge.stop().await;
}
