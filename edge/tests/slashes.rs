//! Escaped slashes in paths: octets of a segment (RFC 3986 section 2.2), as names of packages and keys
//! of objects have them; and those by which an origin that decodes them would leave its root.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Item, Proxy};
use serde_json::json;

const NAMED: &str = "/@scope%2Fname";
const BELOW: &str = "/@scope/name";

#[tokio::test]
async fn an_escaped_slash_reaches_the_origin_as_it_is_and_is_one_key_in_either_case() {
    let proxy = Proxy::new().await;
    proxy.web.put(NAMED, Item::of(100));
    proxy.web.put(BELOW, Item::of(200));
    for (path, bytes, verdict) in [
        ("/@scope%2fname", 100, "origin"),
        (NAMED, 100, "hit-memory"),
        ("/@scope%2fn%61me", 100, "hit-memory"),
        (BELOW, 200, "origin"),
        (BELOW, 200, "hit-memory"),
        (NAMED, 100, "hit-memory"),
    ] {
        let answer = proxy.get(path).await;
        assert_eq!((answer.bytes().len(), answer.verdict()), (bytes, verdict), "{path}");
    }
    let asked = proxy.web.asked();
    let targets: Vec<&str> = asked.iter().map(|asked| &*asked.target).collect();
    assert_eq!(targets, [NAMED, BELOW]);
}

#[tokio::test]
async fn it_separates_nothing_for_rules_and_is_meant_by_a_purge_of_what_a_slash_names() {
    let ttl =
        json!([{ "path": "/@scope/*", "fixed": "1h" }, { "path": "/@scope%2F*", "max": "2h" }]);
    let proxy = Proxy::with(json!({ "ttl": ttl })).await;
    for path in [NAMED, BELOW] {
        proxy.web.put(path, Item::of(100).cache_control("max-age=20000"));
        proxy.get(path).await;
    }
    let lifetime = async |path: &str| {
        let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(path));
        let url = url.replace("%2F", "%252F");
        let told: serde_json::Value =
            serde_json::from_slice(common::get(&url, &[]).await.bytes()).unwrap();
        told["variants"][0]["lifetime_ms"].as_i64()
    };
    assert_eq!(lifetime(BELOW).await, Some(3_600_000));
    assert_eq!(lifetime(NAMED).await, Some(7_200_000));
    let verdict = async |path: &str| proxy.get(path).await.verdict().to_owned();
    // An origin may take it for a slash.
    let of_a_query = "/@scope%2Fname?next=%2Fhome";
    proxy.web.put(of_a_query, Item::of(100).cache_control("max-age=20000"));
    for url in ["/@scope/name?next=/home", "/@scope/name?next=%2Fhome"] {
        proxy.get(of_a_query).await;
        proxy.edge.purge(&json!({ "url": proxy.url(url) })).await;
        let expected = if url.contains('%') { "origin" } else { "hit-memory" };
        assert_eq!(verdict(of_a_query).await, expected, "{url}");
    }
    for purge in [json!({ "prefix": proxy.url("/@scope/") }), json!({ "url": proxy.url(BELOW) })] {
        proxy.edge.purge(&purge).await;
        assert_eq!(
            (verdict(NAMED).await, verdict(BELOW).await),
            ("origin".into(), "origin".into())
        );
    }
    proxy.edge.purge(&json!({ "url": proxy.url("/@scope%2fname") })).await;
    assert_eq!(
        (verdict(NAMED).await, verdict(BELOW).await),
        ("origin".into(), "hit-memory".into())
    );
    proxy.edge.purge(&json!({ "prefix": proxy.url("/@scope%2f") })).await;
    assert_eq!(
        (verdict(NAMED).await, verdict(BELOW).await),
        ("origin".into(), "hit-memory".into())
    );
}

#[tokio::test]
async fn what_an_origin_could_take_for_a_way_up_is_refused() {
    let proxy = Proxy::new().await;
    for (path, code) in [
        ("/..%2Fa", "path-hidden-dots"),
        ("/a%2f..", "path-hidden-dots"),
        ("/a/b%2F..%2fc", "path-hidden-dots"),
        ("/a%2F./b", "path-hidden-dots"),
        ("/%2e%2e%2fa", "path-hidden-dots"),
        ("/a%2F%2e%2e", "path-hidden-dots"),
        ("/a%5Cb", "path-hidden-separator"),
        ("/..%5c%2F", "path-hidden-separator"),
        ("/a%2F%00", "path-control-byte"),
    ] {
        let answer = proxy.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code.into()), "{path}");
    }
    assert_eq!(proxy.web.asked().len(), 0);
}
