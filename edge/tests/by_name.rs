//! Stories of the names by which clients ask for a site: one for one host is one thing, whatever port or
//! scheme they come by, and so is one for any host, unless its origin is told which.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{below, node, nodes, verdict};
use common::{
    Answer, Edge, Hold, Item, Proxy, Web, ask, get, get_over, open, proxy_settings, until,
};
use http::Method;
use model::admin::Explanation;
use nearcast_edge::Settings;
use serde_json::{Value, json};
use service::value::ByteSize;
use tempfile::TempDir;
use upstream::hierarchy;

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

/// Names that an edge's clients may come by, also those that it never heard of.
const HOSTS: [&str; 4] = ["films.example", "films.example:8443", "invented.example", "[::1]:1"];

async fn by(edge: &Edge, host: &str, path: &str) -> Answer {
    get(&format!("{}{path}", edge.http), &[("host", host)]).await
}

async fn explain(edge: &Edge, url: &str) -> Explanation {
    let answer = get(&format!("{}/v1/explain?url={url}", edge.admin), &[]).await;
    serde_json::from_slice(answer.bytes()).unwrap()
}

/// README's two listeners, and whatever else clients call it: an origin that is told no host can't
/// answer one otherwise than the other.
#[tokio::test]
async fn all_hosts_are_one_where_the_origin_is_told_none() {
    let proxy = Proxy::new().await;
    let Proxy { web, edge, .. } = &proxy;
    web.put(PAGE, Item::of(1000));
    let certificate = edge.dir.join("tls/cert.pem");
    let (http, https) = (format!("{}{PAGE}", edge.http), format!("{}{PAGE}", edge.https));
    let all = async || {
        let mut all = vec![get(&http, &[]).await, get_over("h2", &https, &certificate).await];
        all.push(get_over("h3", &https, &certificate).await);
        for host in HOSTS {
            all.push(by(edge, host, PAGE).await);
        }
        all.iter().map(|answer| answer.verdict().to_owned()).collect::<Vec<_>>()
    };
    let mut expected = vec!["hit-memory"; 3 + HOSTS.len()];
    expected[0] = "origin";
    assert_eq!(all().await, expected);
    let told = explain(edge, &http).await;
    assert_eq!((&*told.site, &*told.url, told.variants.len()), ("*", "*/page", 1));
    for url in [&*https, "http://never.example/page"] {
        assert_eq!(explain(edge, url).await.key, told.key, "{url}");
    }
    for purge in [
        json!({ "url": http }),
        json!({ "url": https }),
        json!({ "url": "https://never.example/page" }),
        json!({ "prefix": "http://never.example/pa" }),
        json!({ "url": http, "site": "*" }),
    ] {
        edge.purge(&purge).await;
        assert_eq!(all().await, expected, "{purge}");
    }
    assert_eq!(ask(Method::POST, &http, &[("host", "edit.example")]).await.status, 204);
    assert_eq!(all().await, expected);
    let own = web.url.strip_prefix("http://").unwrap();
    let asked = web.asked();
    assert_eq!(asked.len(), 8, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.field("host") == own), "{asked:?}");
    // As it is found again after a restart.
    let rows = async || (edge.metric("nearcast_edge_head_rows").await >= 1.0).then_some(());
    until("the row", rows).await;
    let Proxy { dir, web, edge } = proxy;
    edge.kill().await;
    let edge = Edge::start(proxy_settings(dir.path(), &web.url, &json!({}))).await;
    let found = explain(&edge, "http://other.example/page").await;
    assert_eq!((found.key, found.variants.len()), (told.key, 1));
}

#[tokio::test]
async fn a_purge_by_one_host_ends_what_arrives_by_another() {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, Item::of(1 << 20));
    proxy.web.hold(Hold::Byte(500_000));
    let fields = [("host", "films.example")];
    let mut first = open(&proxy.url(PAGE), &fields).await;
    assert_eq!(first.take(1000).await.unwrap(), proxy.web.part(PAGE, 0..1000));
    let joined = explain(&proxy.edge, "http://other.example/page").await;
    assert_eq!(joined.variants.len(), 1, "{joined:?}");
    proxy.edge.purge(&json!({ "url": "http://other.example/page" })).await;
    proxy.web.put(PAGE, Item::of(100).version(2));
    proxy.web.release();
    for verdict in ["origin", "hit-memory"] {
        let answer = by(&proxy.edge, "films.example", PAGE).await;
        assert_eq!((answer.verdict(), answer.bytes()), (verdict, &proxy.web.whole(PAGE)));
    }
}

/// There a host may be another site.
#[tokio::test]
async fn hosts_are_apart_where_the_origin_is_told_them() {
    let proxy = Proxy::with(json!({ "pass-host": true })).await;
    let Proxy { web, edge, .. } = &proxy;
    web.put(PAGE, Item::of(1000));
    let verdicts = async || {
        let mut verdicts = Vec::new();
        for host in HOSTS {
            verdicts.push(by(edge, host, PAGE).await.verdict().to_owned());
        }
        verdicts
    };
    assert_eq!(verdicts().await, ["origin"; HOSTS.len()]);
    assert!(web.asked().iter().map(|asked| asked.field("host")).eq(HOSTS));
    edge.purge(&json!({ "url": format!("http://{}{PAGE}", HOSTS[1]) })).await;
    assert_eq!(verdicts().await, ["hit-memory", "origin", "hit-memory", "hit-memory"]);
    assert_eq!(explain(edge, "http://FILMS.example/page").await.url, "films.example/page");
}

/// Clients send it in ASCII, whatever their address line shows.
#[tokio::test]
async fn a_name_in_other_letters_is_purged_as_it_is_written() {
    let proxy = Proxy::with(json!({ "pass-host": true })).await;
    let Proxy { web, edge, .. } = &proxy;
    web.put(PAGE, Item::of(1000));
    let ask = async || by(edge, "xn--bcher-kva.example:8080", PAGE).await.verdict().to_owned();
    assert_eq!([ask().await, ask().await], ["origin", "hit-memory"]);
    let url = format!("http://B\u{fc}cher.example:8080{PAGE}");
    assert_eq!(explain(edge, &url).await.url, "xn--bcher-kva.example:8080/page");
    edge.purge(&json!({ "url": url })).await;
    assert_eq!(ask().await, "origin");
}

/// A node of any host, or of these.
fn any(dir: &TempDir, node: &hierarchy::Peer, web: &Web, site: &Value) -> Settings {
    Settings {
        id: Some(node.id.clone()),
        peer_listen: vec![node.url.clone()],
        ..proxy_settings(dir.path(), &web.url, site)
    }
}

fn under(parent: &hierarchy::Peer, settings: Settings) -> Settings {
    let above = below(std::slice::from_ref(parent));
    // However busy the machine is, who listens is reached.
    let above = hierarchy::Settings { connect_timeout: "10s".parse().ok(), ..above };
    Settings { hierarchy: above, ..settings }
}

#[tokio::test]
async fn a_child_and_its_parent_have_one_copy_and_a_purge_by_any_host_ends_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [a, b, parent] = nodes(["edge-a", "edge-b", "region-1"]);
    let web = Web::start().await;
    web.put(PAGE, Item::of(1000));
    let above = Edge::start(any(&dirs[2], &parent, &web, &json!({}))).await;
    let edge = Edge::start(under(&parent, any(&dirs[0], &a, &web, &json!({})))).await;
    // Beside it is one that has a name for the site, and its parent none.
    let named = node(&dirs[1], &b, &web.url, hierarchy::Settings::default());
    let named = Edge::start(under(&parent, named)).await;
    let verdicts = async || {
        let mut verdicts = Vec::new();
        for host in ["films.example", "films.example:8443", "invented.example"] {
            verdicts.push(verdict(&by(&edge, host, PAGE).await, "edge-a"));
        }
        verdicts.push(verdict(&by(&named, "films.example", PAGE).await, "edge-b"));
        verdicts.push(by(&above, "other.example", PAGE).await.verdict().to_owned());
        verdicts
    };
    let first = ["parent", "hit-memory", "hit-memory", "parent", "hit-memory"];
    assert_eq!(verdicts().await, first);
    assert_eq!(web.count(PAGE), 1);
    // Purged below, the parent is told.
    web.put(PAGE, Item::of(1000).version(2));
    edge.purge(&json!({ "url": "http://third.example/page" })).await;
    let answer = by(&edge, "films.example", PAGE).await;
    assert_eq!((verdict(&answer, "edge-a"), answer.bytes()), ("parent".into(), &web.whole(PAGE)));
    assert_eq!(web.count(PAGE), 2);
    assert_eq!(by(&above, "other.example", PAGE).await.bytes(), &web.whole(PAGE));
    // And purged above.
    web.put(PAGE, Item::of(1000).version(3));
    for edge in [&above, &named, &edge] {
        edge.purge(&json!({ "url": "https://films.example:8443/page" })).await;
    }
    assert_eq!(by(&edge, "invented.example", PAGE).await.bytes(), &web.whole(PAGE));
    assert_eq!(web.count(PAGE), 3);
}

/// It would have the one copy be of a host that no client named, and purges there would miss it.
#[tokio::test]
async fn a_parent_that_passes_hosts_is_gone_around_for_what_is_of_any() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put(PAGE, Item::of(1000));
    let above = Edge::start(any(&dirs[1], &parent, &web, &json!({ "pass-host": true }))).await;
    let edge = Edge::start(under(&parent, any(&dirs[0], &edge, &web, &json!({})))).await;
    assert_eq!(verdict(&by(&edge, "films.example", PAGE).await, "edge-a"), "origin");
    assert_eq!(by(&above, "Any.Invalid", PAGE).await.status, 421);
    let own = web.url.strip_prefix("http://").unwrap().to_owned();
    let told: Vec<_> = web.asked().iter().map(|asked| asked.field("host").to_owned()).collect();
    assert_eq!(told, [own]);
}

/// It can't know which of its sites is meant.
#[tokio::test]
async fn a_parent_that_has_no_site_for_any_host_is_gone_around() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent] = nodes(["edge-a", "region-1"]);
    let web = Web::start().await;
    web.put(PAGE, Item::of(1000));
    let above = node(&dirs[1], &parent, &web.url, hierarchy::Settings::default());
    let _above = Edge::start(above).await;
    let edge = Edge::start(under(&parent, any(&dirs[0], &edge, &web, &json!({})))).await;
    for expected in ["origin", "hit-memory"] {
        let answer = by(&edge, "films.example", PAGE).await;
        assert_eq!(
            (verdict(&answer, "edge-a"), answer.bytes()),
            (expected.into(), &web.whole(PAGE))
        );
    }
    assert_eq!(web.count(PAGE), 1);
}

/// Found by an audit: chunks that come slowly are written slowly, and there were no turns left to write
/// those of others.
#[tokio::test]
async fn an_origin_that_is_slow_takes_no_room_from_that_of_another_host() {
    let (dir, slow, good) = (tempfile::tempdir().unwrap(), Web::start().await, Web::start().await);
    let mut settings = proxy_settings(dir.path(), &good.url, &json!({}));
    let of_slow = proxy_settings(dir.path(), &slow.url, &json!({ "hedge": false }));
    settings.sites.extend(of_slow.sites.into_values().map(|site| ("slow".to_owned(), site)));
    settings.memory = Some(ByteSize(16 << 20));
    let edge = Edge::start(settings).await;
    good.put(PAGE, Item::of(1000));
    slow.hold(Hold::Byte(1000));
    let paths: Vec<String> = (0..12).map(|number| format!("/{number}")).collect();
    let of_slow = paths.iter().map(|path| {
        slow.put(path, Item::of(100_000));
        let url = format!("{}{path}", edge.http);
        async move { get(&url, &[("host", "slow")]).await }
    });
    let all = tokio::join!(futures::future::join_all(of_slow), async {
        until("all come", || async { (slow.held() == 12).then_some(()) }).await;
        let of_good = get(&format!("{}{PAGE}", edge.http), &[]).await;
        slow.release();
        of_good
    });
    assert!(all.1.bytes() == &good.whole(PAGE));
    for (answer, path) in all.0.iter().zip(&paths) {
        assert!(answer.bytes() == &slow.whole(path), "{path}");
    }
}
