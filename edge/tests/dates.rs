//! `Last-Modified` as a validator: it has whole seconds, so it names the bytes of a version only
//! where these came long after it (RFC 9110 section 8.8.2.2), whatever is said of them later.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{CHUNK, DEADLINE, Edge, Item, Proxy, Web, ask, get, proxy_settings, until};
use http::Method;
use model::admin::PurgeDone;
use nearcast_edge::Settings;
use serde_json::{Value, json};
use service::client::Client;
use std::path::Path;
use std::time::{Duration, SystemTime};
use upstream::hierarchy::{self, Peer};

const FILM: &str = "/film";
const BYTES: u64 = 3 * CHUNK + 4321;
/// Before a date is strong, and then.
const SOON_S: u64 = 1;
const LATER_S: u64 = 60;

/// By an origin's clock that is fast: whatever the time, what it says decides.
fn fast() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3600)
}

/// Sent while another version may yet come within the same second.
fn young(modified: SystemTime) -> Item {
    Item::stale(BYTES, "stale-if-error=100000").dated(modified, SOON_S)
}

/// What came within that second, and was sent long after it.
fn next(modified: SystemTime) -> Item {
    Item::stale(BYTES, "").version(2).dated(modified, LATER_S)
}

fn statuses(web: &Web, method: &str) -> Vec<u16> {
    let asked = web.asked_for(FILM).into_iter();
    asked.filter(|asked| asked.method == method).map(|asked| asked.status).collect()
}

/// A 304 by such a date does not say that the bytes here are those that are there.
#[tokio::test]
async fn a_304_makes_no_weak_date_strong() {
    let (proxy, modified) = (Proxy::new().await, fast());
    proxy.web.put(FILM, young(modified));
    for _ in 0..2 {
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    }
    assert_eq!(statuses(&proxy.web, "GET"), [200, 304], "as long as it stays weak, a 304 will do");
    proxy.web.put(FILM, next(modified));
    let answer = proxy.get(FILM).await;
    assert!(answer.bytes() == &proxy.web.whole(FILM), "{answer:?}");
    assert_eq!(statuses(&proxy.web, "GET"), [200, 304, 304, 200]);
    // What came has a strong one: from now on it will do.
    assert_eq!(proxy.get(FILM).await.verdict(), "revalidated");
    assert_eq!(statuses(&proxy.web, "GET"), [200, 304, 304, 200, 304]);
}

/// RFC 9111 section 4.3.5: nor does the answer to a HEAD.
#[tokio::test]
async fn a_head_makes_no_weak_date_strong() {
    let (proxy, modified) = (Proxy::new().await, fast());
    proxy.web.put(FILM, young(modified));
    proxy.get(FILM).await;
    proxy.web.put(FILM, next(modified));
    proxy.web.misbehave(&[Misdeed::Unconditional]);
    assert_eq!(ask(Method::HEAD, &proxy.url(FILM), &[]).await.status, 200);
    assert_eq!(statuses(&proxy.web, "HEAD"), [200]);
    let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(FILM));
    let told: Value = serde_json::from_str(&get(&url, &[]).await.text()).unwrap();
    let variants = told["variants"].as_array().unwrap();
    assert!(variants.iter().all(|variant| variant["validator"].is_null()), "{told}");
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
}

/// Once the date would be strong it is asked for whole, and what is here stands in meanwhile.
#[tokio::test]
async fn what_a_304_could_not_renew_is_asked_for_without_a_condition() {
    let (proxy, modified) = (Proxy::with(json!({ "retries": 0 })).await, an_hour_ago());
    proxy.web.put(FILM, young(modified));
    let first = proxy.get(FILM).await;
    proxy.web.put(FILM, next(modified));
    proxy.web.misbehave(&[Misdeed::Status(503)]);
    let stands_in = proxy.get(FILM).await;
    assert_eq!((stands_in.verdict(), stands_in.bytes()), ("stale", first.bytes()));
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    assert_eq!(statuses(&proxy.web, "GET"), [200, 503, 200]);
}

/// RFC 9110 section 13.1.5: where a date is weak, a part by it may be another version's, whatever
/// stands beside it.
#[tokio::test]
async fn a_weak_date_beside_a_tag_is_no_condition_of_a_range() {
    for (later_s, status) in [(SOON_S, 200), (LATER_S, 206)] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(BYTES).dated(fast(), later_s).field("etag", "\"1\""));
        let modified = proxy.get(FILM).await.header("last-modified").to_owned();
        let fields = [("range", "bytes=500-"), ("if-range", &*modified)];
        assert_eq!(proxy.get_with(FILM, &fields).await.status, status, "{later_s}");
    }
}

async fn node(dir: &Path, origin: &str, id: &str, parents: Vec<Peer>) -> Edge {
    let settings = proxy_settings(dir, origin, &json!({}));
    let hierarchy = hierarchy::Settings {
        parents,
        // However busy the machine is, who listens is reached.
        connect_timeout: "10s".parse().ok(),
        ..Default::default()
    };
    let peer_listen = vec!["http://127.0.0.1:0".to_owned()];
    Edge::start(Settings { id: Some(id.to_owned()), peer_listen, hierarchy, ..settings }).await
}

/// What a node was told by a 304 it does not tell those below it of bytes that came before.
#[tokio::test]
async fn nodes_make_no_weak_date_strong_for_each_other() {
    let (web, modified) = (Web::start().await, fast());
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let above = node(dirs[0].path(), &web.url, "above", Vec::new()).await;
    let parents = vec![Peer { id: "above".to_owned(), url: above.peer.clone() }];
    let below = node(dirs[1].path(), &web.url, "below", parents).await;
    let host = [("host", "films.example")];
    let ask = async |edge: &Edge, fields: &[(&str, &str)]| {
        get(&format!("{}{FILM}", edge.http), &[&host[..], fields].concat()).await
    };
    web.put(FILM, young(modified));
    assert!(ask(&above, &[]).await.bytes() == &web.whole(FILM));
    web.put(FILM, Item::of(BYTES).version(2).dated(modified, LATER_S));
    ask(&above, &[]).await;
    // A part of what is above, and once that is gone, the rest of what is there.
    assert_eq!(ask(&below, &[("range", "bytes=0-99")]).await.status, 206);
    let filling = || async { below.metric("nearcast_edge_filling_chunks ").await };
    until("the chunk is whole", || async { (filling().await == 0.0).then_some(()) }).await;
    let admin = Client::new(DEADLINE, None, None).unwrap();
    let purge = json!({ "url": format!("http://films.example{FILM}") });
    let url = format!("{}/v1/purge", above.admin);
    admin.post_json::<_, PurgeDone>(&url, &purge).await.unwrap();
    let whole = ask(&below, &[]).await;
    assert!(whole.bytes() == &web.whole(FILM), "of two versions: {whole:?}");
}
