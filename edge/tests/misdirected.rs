//! Requests by a connection that was opened for another host are answered where its certificate is
//! good for both, and sent away where it is not.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, Item, Web, get, get_as, proxy_settings};
use http::HeaderValue;
use nearcast_edge::Settings;

const NAMES: [&str; 3] = ["films.test", "*.clips.test", "127.0.0.1"];

#[tokio::test]
async fn a_host_that_the_connection_is_not_for_is_misdirected_by_every_protocol() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    web.put("/page", Item::of(1_000));
    let (cert, key) = (dir.path().join("own.pem"), dir.path().join("own.key"));
    let own = rcgen::generate_simple_self_signed(NAMES.map(String::from)).unwrap();
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let settings = Settings { cert: Some(cert.clone()), key: Some(key), ..settings };
    let edge = Edge::start(settings).await;
    let addr = edge.https.strip_prefix("https://").unwrap().parse().unwrap();
    for protocol in ["http/1.1", "h2", "h3"] {
        let ask = async |name: &str, host: &str| -> Answer {
            get_as(protocol, &format!("https://{host}/page"), &cert, name, addr).await
        };
        for (name, host) in [
            ("films.test", "films.test"),
            ("films.test", "FILMS.test.:8443"),
            ("films.test", "new.clips.test"),
            ("a.clips.test", "b.clips.test:443"),
            ("films.test", "127.0.0.1:1"),
            // A client that names none gets what it asks for.
            ("127.0.0.1", "other.test"),
        ] {
            let answer = ask(name, host).await;
            assert_eq!(answer.bytes(), &web.whole("/page"), "{protocol}: {host} by {name}");
        }
        let asked = web.asked().len();
        for host in ["other.test", "clips.test", "a.b.clips.test", "127.0.0.2", "[::1]:8443"] {
            let answer = ask("films.test", host).await;
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (421, "misdirected".to_owned()), "{protocol}: {host}");
        }
        assert_eq!(web.asked().len(), asked, "the origin is left alone");
    }
}

#[tokio::test]
async fn a_child_asks_its_parent_for_any_host_by_the_parents_own_name() {
    let (dir, data, web) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Web::start().await);
    web.put("/page", Item::of(1_000));
    let site = serde_json::json!({});
    let parent = Edge::start(proxy_settings(dir.path(), &web.url, &site)).await;
    let port = parent.https.rsplit_once(':').unwrap().1;
    let around = serde_json::json!({
        "parents": [{ "id": "parent", "url": format!("https://localhost:{port}") }],
    });
    let settings = Settings {
        id: Some("child".into()),
        ca: Some(parent.dir.join("tls/cert.pem")),
        hierarchy: serde_json::from_value(around).unwrap(),
        ..proxy_settings(data.path(), &web.url, &site)
    };
    let child = Edge::start(settings).await;
    let answer = get(&format!("{}/page", child.http), &[("host", "films.test")]).await;
    let by_parent = |told: &HeaderValue| told.to_str().unwrap().contains("detail=\"parent\"");
    assert!(answer.headers.get_all("cache-status").iter().any(by_parent), "{:?}", answer.headers);
    assert_eq!(answer.bytes(), &web.whole("/page"));
}
