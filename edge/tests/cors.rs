//! Players on pages of other hosts than the edge's, as browsers let them read (Fetch standard, section
//! 3.3): what every answer to a GET or HEAD carries where a site says who may, and who answers a
//! preflight.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{SITE, below, fetch, node_with, nodes};
use common::{Answer, CHUNK, Edge, Item, Proxy, Web, WebMisdeed as Misdeed, ask, get, settings};
use http::Method;
use nearcast_edge::{Settings, SiteSettings};
use serde_json::{Value, json};

/// More than an edge has shards, of which each remembers for itself what it answered lately.
const TIMES: usize = 12;
const FILM: &str = "/film.mp4";
const PAGE: (&str, &str) = ("origin", "https://player.example");
const OTHER: (&str, &str) = ("origin", "https://other.example");

fn may_be_read_by(answer: &Answer, origin: &str, what: &str) {
    let allowed = answer.headers.get_all("access-control-allow-origin").iter();
    assert_eq!(allowed.collect::<Vec<_>>(), [origin], "{what}: {answer:?}");
    assert_eq!(answer.header("timing-allow-origin"), origin, "{what}");
    let exposed = answer.header("access-control-expose-headers");
    for name in ["Content-Range", "Cache-Status", "Age"] {
        assert!(exposed.split(", ").any(|one| one == name), "{what}: {exposed}");
    }
    assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{what}");
}

fn may_not_be_read(answer: &Answer) {
    for name in ["access-control-allow-origin", "timing-allow-origin"] {
        assert!(!answer.headers.contains_key(name), "{answer:?}");
    }
}

/// The lines of `Vary`, in one.
fn vary(answer: &Answer) -> String {
    let lines = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap());
    lines.collect::<Vec<_>>().join(", ")
}

async fn preflight(url: &str, origin: (&str, &str), method: &str, names: &str) -> Answer {
    let fields = [
        origin,
        ("access-control-request-method", method),
        ("access-control-request-headers", names),
    ];
    ask(Method::OPTIONS, url, &fields).await
}

/// As S3 does: to a request without `Origin` the origin says nothing of who may read, and so a player
/// that comes later would be given what it may not read.
#[tokio::test]
async fn every_page_may_read_what_was_stored_for_a_client_that_is_none() {
    let proxy = Proxy::with(json!({ "cors": ["*"] })).await;
    let own = Item::of(2 * CHUNK)
        .field("access-control-allow-origin", "https://studio.example")
        .field("access-control-allow-credentials", "true")
        .field("access-control-expose-headers", "X-Own");
    proxy.web.put(FILM, own);
    proxy.web.put("/small.m4s", Item::of(1000));
    for path in [FILM, "/small.m4s"] {
        for fields in [&[][..], &[PAGE], &[OTHER], &[PAGE, ("range", "bytes=5-9")]] {
            let answer = proxy.get_with(path, fields).await;
            may_be_read_by(&answer, "*", path);
            assert_eq!(vary(&answer), "");
        }
    }
    for _ in 0..TIMES {
        let answer = proxy.get_with("/small.m4s", &[OTHER]).await;
        assert_eq!(answer.verdict(), "hit-memory");
        may_be_read_by(&answer, "*", "lately");
    }
    assert_eq!(proxy.web.count("/small.m4s"), 1);
    assert!(proxy.web.asked().iter().all(|asked| asked.field("origin").is_empty()));
}

#[tokio::test]
async fn every_kind_of_answer_may_be_read() {
    let proxy = Proxy::with(json!({ "cors": ["*"], "retries": 0, "ranges-max": 2 })).await;
    proxy.web.put(FILM, Item::of(1000));
    proxy.web.put("/moved", Item::of(0).status(302).field("location", "/film.mp4"));
    proxy.web.put("/own", Item::of(10).cache_control("private"));
    proxy.web.put("/stale", Item::stale(10, ""));
    proxy.get(FILM).await;
    for (path, field, status) in [
        (FILM, ("range", "bytes=1-2,5-6"), 206),
        (FILM, ("range", "bytes=2000-"), 416),
        (FILM, ("range", "bytes=1-2,5-6,8-9"), 416),
        (FILM, ("if-none-match", "\"v1\""), 304),
        (FILM, ("if-match", "\"v0\""), 412),
        ("/moved", ("accept", "*/*"), 302),
        ("/own", ("accept", "*/*"), 200),
        ("/own", ("range", "bytes=0-1"), 206),
        ("/stale", ("accept", "*/*"), 200),
        ("/stale", ("accept", "*/*"), 200),
        ("/nothing", ("accept", "*/*"), 404),
        ("/nothing", ("cache-control", "only-if-cached"), 504),
        ("/a%5Cb", ("accept", "*/*"), 400),
    ] {
        let answer = proxy.get_with(path, &[PAGE, field]).await;
        assert_eq!(answer.status, status, "{path} {field:?}: {answer:?}");
        may_be_read_by(&answer, "*", &format!("{path} {field:?}"));
        let head = ask(Method::HEAD, &proxy.url(path), &[PAGE, field]).await;
        may_be_read_by(&head, "*", &format!("HEAD {path} {field:?}"));
    }
    proxy.web.always(Some(Misdeed::Mute));
    let answer = proxy.get_with("/lost", &[PAGE]).await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (502, "failed"), "{answer:?}");
    may_be_read_by(&answer, "*", "what the edge says itself");
    assert!(proxy.web.asked().iter().all(|asked| asked.field("origin").is_empty()));
}

#[tokio::test]
async fn the_pages_of_a_list_may_read_and_no_others() {
    let list = ["https://player.example", "capacitor://localhost"];
    let proxy = Proxy::with(json!({ "cors": list })).await;
    // Whatever the origin makes of the field that it is not sent.
    proxy.web.put(FILM, Item::of(1000).vary("Origin"));
    proxy.web.put("/plain", Item::of(1000).field("vary", "Accept-Encoding"));
    for path in [FILM, "/plain"] {
        let vary_of_all = if path == FILM { "Origin" } else { "Accept-Encoding, Origin" };
        for _ in 0..3 {
            for origin in list {
                let answer = proxy.get_with(path, &[("origin", origin)]).await;
                may_be_read_by(&answer, origin, path);
                assert_eq!(vary(&answer), vary_of_all);
            }
            for fields in
                [&[][..], &[OTHER], &[("origin", "null")], &[("origin", "https://PLAYER.example")]]
            {
                let answer = proxy.get_with(path, fields).await;
                assert_eq!(answer.status, 200);
                may_not_be_read(&answer);
                assert_eq!(vary(&answer), vary_of_all);
            }
        }
        assert_eq!(proxy.web.count(path), 1, "{path}");
    }
    proxy.web.put("/small", Item::of(10));
    for _ in 0..TIMES {
        let (none, page) = (proxy.get("/small").await, proxy.get_with("/small", &[PAGE]).await);
        may_not_be_read(&none);
        may_be_read_by(&page, PAGE.1, "between those without");
        assert_eq!((vary(&none), vary(&page)), ("Origin".into(), "Origin".into()));
    }
    let told = preflight(&proxy.url(FILM), PAGE, "GET", "range").await;
    assert_eq!((told.status.as_u16(), vary(&told)), (204, "Origin".into()));
    assert_eq!(told.header("access-control-allow-origin"), PAGE.1);
    let told = preflight(&proxy.url(FILM), OTHER, "GET", "range").await;
    assert_eq!((told.status.as_u16(), vary(&told)), (204, "Origin".into()));
    may_not_be_read(&told);
    assert!(!told.headers.contains_key("access-control-allow-methods"));
}

/// What a page may do beside reading, the origin decides, and it is told whose page it is.
#[tokio::test]
async fn preflights_of_reading_are_answered_at_the_edge_and_all_others_by_the_origin() {
    let proxy = Proxy::with(json!({ "cors": ["*"] })).await;
    let url = proxy.url("/api");
    proxy.web.put("/api", Item::of(10).field("access-control-allow-origin", PAGE.1));
    for method in ["GET", "HEAD"] {
        let told = preflight(&url, PAGE, method, "Range,cmcd-request, X-Own-1 ,b@d").await;
        assert_eq!((told.status.as_u16(), told.verdict()), (204, "preflight"), "{told:?}");
        assert_eq!(told.header("access-control-allow-origin"), "*");
        assert_eq!(told.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
        let names = told.header("access-control-allow-headers");
        assert_eq!(names, "range, cmcd-request, x-own-1");
        assert_eq!(told.header("access-control-max-age"), "86400");
    }
    assert_eq!(proxy.web.asked().len(), 0);
    let told = preflight(&url, PAGE, "PUT", "content-type").await;
    assert_eq!(told.header("access-control-allow-origin"), PAGE.1);
    let told = ask(Method::OPTIONS, &url, &[PAGE]).await;
    assert_eq!(told.header("access-control-allow-origin"), PAGE.1);
    let posted = ask(Method::POST, &url, &[PAGE]).await;
    assert_eq!(posted.header("access-control-allow-origin"), PAGE.1);
    let asked = proxy.web.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.field("origin") == PAGE.1), "{asked:?}");
}

#[tokio::test]
async fn a_site_that_says_nothing_passes_on_what_the_origin_says() {
    for site in [json!({}), json!({ "cors": [] })] {
        let proxy = Proxy::with(site).await;
        let item = Item::of(10).vary("Origin").field("access-control-allow-origin", PAGE.1);
        proxy.web.put(FILM, item);
        let answer = proxy.get_with(FILM, &[PAGE]).await;
        assert_eq!(answer.header("access-control-allow-origin"), PAGE.1);
        assert_eq!(proxy.get_with(FILM, &[OTHER]).await.verdict(), "origin");
        let told = preflight(&proxy.url(FILM), PAGE, "GET", "range").await;
        assert_eq!(told.header("access-control-allow-origin"), PAGE.1);
        let asked: Vec<_> = proxy.web.asked();
        let told: Vec<_> = asked.iter().map(|asked| asked.field("origin")).collect();
        assert_eq!(told, [PAGE.1, OTHER.1, PAGE.1]);
    }
}

/// Only the node that players ask need say it.
#[tokio::test]
async fn what_nodes_above_say_or_have_stored_does_not_matter() {
    let (web, all) = (Web::start().await, nodes(["edge-a", "region-1"]));
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [a, parent] = &all;
    let up = below(std::slice::from_ref(parent));
    let nothing = json!({});
    let parent = Edge::start(node_with(&dirs[1], parent, &web.url, below(&[]), &nothing)).await;
    let site = json!({ "cors": ["*"] });
    let child = Edge::start(node_with(&dirs[0], a, &web.url, up, &site)).await;
    web.put(FILM, Item::of(1000).field("access-control-allow-origin", OTHER.1));
    let own = fetch(&parent, FILM, &[OTHER]).await;
    assert_eq!(own.header("access-control-allow-origin"), OTHER.1);
    for fields in [&[][..], &[PAGE]] {
        may_be_read_by(&fetch(&child, FILM, fields).await, "*", "below");
    }
    let told = preflight_of_site(&child).await;
    assert_eq!((told.status.as_u16(), told.header("access-control-allow-origin")), (204, "*"));
    assert_eq!(web.asked().len(), 1);
}

async fn preflight_of_site(edge: &Edge) -> Answer {
    let fields = [("host", SITE), PAGE, ("access-control-request-method", "GET")];
    ask(Method::OPTIONS, &format!("{}{FILM}", edge.http), &fields).await
}

/// A site of buckets alone, which are not asked who may read.
async fn bucket(web: &Web, mut site: Value) -> (tempfile::TempDir, Edge) {
    let dir = tempfile::tempdir().unwrap();
    site["origins"] = json!(["s3://films"]);
    site["s3"] = json!({ "endpoint": web.url, "anonymous": true });
    let site: SiteSettings = serde_json::from_value(site).unwrap();
    let sites = [("*".to_owned(), site)].into();
    let own =
        Settings { control_plane: None, origin: Vec::new(), sites, ..settings(dir.path(), "") };
    (dir, Edge::start(own).await)
}

#[tokio::test]
async fn all_pages_may_read_what_is_in_a_bucket_unless_its_site_says_otherwise() {
    let web = Web::start().await;
    web.put("/films/film.mp4", Item::of(1000).vary("Origin"));
    let (_dir, edge) = bucket(&web, json!({})).await;
    let url = format!("{}{FILM}", edge.http);
    for fields in [&[][..], &[PAGE]] {
        may_be_read_by(&get(&url, fields).await, "*", "by default");
    }
    let told = preflight(&url, PAGE, "GET", "range").await;
    assert_eq!((told.status.as_u16(), told.header("access-control-allow-headers")), (204, "range"));
    let told = preflight(&url, PAGE, "PUT", "range").await;
    assert_eq!((told.status.as_u16(), told.header("allow")), (200, "GET, HEAD"));
    may_not_be_read(&told);
    for (given, allowed) in [(json!([]), ""), (json!(["https://player.example"]), PAGE.1)] {
        let (_dir, edge) = bucket(&web, json!({ "cors": given })).await;
        let answer = get(&format!("{}{FILM}", edge.http), &[PAGE]).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}
