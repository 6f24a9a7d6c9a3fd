//! Stories of what an edge tells of how it came by an answer: `Cache-Status`, counters, and what is
//! for caches alone.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::extract::Request;
use axum::response::IntoResponse;
use common::{
    CHUNK, Edge, Item, Proxy, Scripted, Validator, Web, WebMisdeed as Misdeed, ask, get,
    proxy_settings, until,
};
use http::Method;
use model::admin::Explanation;
use nearcast_edge::Settings;
use serde_json::json;
use service::value::ByteSize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const FILM: &str = "/film";
const BYTES: u64 = 3 * CHUNK + 4321;

async fn once() -> Proxy {
    Proxy::with(json!({ "retries": 0, "hedge": false })).await
}

/// RFC 9211 section 2.3: the origin has answered, though its body broke before any of it was here.
#[tokio::test]
async fn a_body_that_breaks_at_once_is_told_with_the_status_that_it_came_with() {
    for validator in [Validator::Strong, Validator::Weak, Validator::None] {
        for item in [Item::of(BYTES), Item::of(BYTES).chunked()] {
            let proxy = once().await;
            proxy.web.put(FILM, item.clone().validator(validator));
            proxy.web.always(Some(Misdeed::Cut(0)));
            let broken = proxy.get(FILM).await;
            assert_eq!(broken.status, 502, "{item:?}: {broken:?}");
            let told = "edge-a;fwd=uri-miss;fwd-status=200;detail=\"failed\"";
            assert_eq!(broken.header("cache-status"), told, "{item:?}");
        }
    }
    let proxy = once().await;
    proxy.web.put(FILM, Item::of(BYTES));
    proxy.web.misbehave(&[Misdeed::Cut(0)]);
    let part = proxy.part(FILM, 0..10).await;
    let told = "edge-a;fwd=uri-miss;fwd-status=206;detail=\"failed\"";
    assert_eq!((part.status.as_u16(), part.header("cache-status")), (502, told));
    // What is stored in part is asked for more of.
    assert_eq!(proxy.part(FILM, 0..10).await.status, 206);
    proxy.web.always(Some(Misdeed::Mute));
    let rest = proxy.part(FILM, CHUNK..CHUNK + 10).await;
    let told = "edge-a;fwd=partial;detail=\"failed\"";
    assert_eq!((rest.status.as_u16(), rest.header("cache-status")), (502, told));
}

/// RFC 9211 section 2.2.
#[tokio::test]
async fn what_is_passed_on_by_its_method_is_told_so_also_where_it_fails() {
    let proxy = once().await;
    proxy.web.put(FILM, Item::of(BYTES));
    for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND", "OPTIONS"] {
        let method: Method = method.parse().unwrap();
        let done = ask(method.clone(), &proxy.url(FILM), &[]).await;
        let told = "edge-a;fwd=method;fwd-status=204;detail=\"bypass\"";
        assert_eq!(done.header("cache-status"), told, "{method}");
        proxy.web.always(Some(Misdeed::Mute));
        let failed = ask(method.clone(), &proxy.url(FILM), &[]).await;
        let told = "edge-a;fwd=method;detail=\"failed\"";
        assert_eq!((failed.status.as_u16(), failed.header("cache-status")), (502, told));
        proxy.web.always(None);
    }
}

#[tokio::test]
async fn bytes_of_the_origin_are_counted_also_where_the_client_wants_none_of_them() {
    let proxy = once().await;
    proxy.web.put(FILM, Item::of(BYTES).cache_control("no-store"));
    let part = proxy.part(FILM, 1_000_000..1_000_100).await;
    assert_eq!((part.status.as_u16(), part.verdict()), (206, "bypass"));
    let counted = proxy.edge.metric("nearcast_edge_origin_bytes_total ").await;
    let sent = proxy.web.sent(FILM);
    assert!(counted >= 1_000_100.0 && counted <= CHUNK as f64, "{counted} of {sent}");
}

/// It is for the surrogates on the way, of which this node is the last, unless the one that asks
/// says that it is one, as other nodes do.
#[tokio::test]
async fn what_is_said_to_surrogates_ends_at_the_last_of_them() {
    let proxy = once().await;
    let says = |item: Item| item.field("surrogate-control", "max-age=60");
    let kinds = [
        (Method::GET, says(Item::of(1000))),
        (Method::GET, says(Item::of(1000).validator(Validator::None))),
        (Method::GET, Item::of(1000).field("surrogate-control", "no-store")),
        (Method::HEAD, says(Item::of(1000))),
        (Method::POST, says(Item::of(1000))),
    ];
    for (number, (method, item)) in kinds.into_iter().enumerate() {
        let path = format!("{FILM}/{number}");
        proxy.web.put(&path, item.clone());
        let surrogate = [("surrogate-capability", "a=\"Surrogate/1.0\"")];
        let said = &item.fields.last().unwrap().1;
        for (fields, told) in [(&[][..], ""), (&surrogate, said), (&[], ""), (&surrogate, said)] {
            let answer = ask(method.clone(), &proxy.url(&path), fields).await;
            assert_eq!(answer.header("surrogate-control"), told, "{method} {item:?} {answer:?}");
        }
    }
}

/// What an operator with a low hit ratio asks for.
#[tokio::test]
async fn why_an_answer_is_not_stored_is_counted_and_explained() {
    let answers = |request: &Request| {
        let fields = match request.uri().path() {
            "/login" => [("set-cookie", "a=1"), ("etag", "\"1\"")],
            "/page" => [("cache-control", "no-store"), ("etag", "\"1\"")],
            _ => [("cache-control", "max-age=60"), ("etag", "\"1\"")],
        };
        (fields, "text").into_response()
    };
    let proxy = Scripted::new(answers).await;
    for (path, why) in [("/login", Some("set-cookie")), ("/page", Some("no-store")), ("/a", None)] {
        assert_eq!(proxy.get(path, &[]).await.status, 200);
        assert_eq!(not_stored(&proxy.edge, path).await.as_deref(), why, "{path}");
    }
    for reason in ["set-cookie", "no-store"] {
        assert_eq!(unstored(&proxy.edge, reason).await, 1.0, "{reason}");
    }
    proxy.edge.stop().await;
}

async fn not_stored(edge: &Edge, path: &str) -> Option<String> {
    let url = format!("{}/v1/explain?url={}{path}", edge.admin, edge.http);
    let told: Explanation = serde_json::from_slice(get(&url, &[]).await.bytes()).unwrap();
    told.not_stored
}

async fn unstored(edge: &Edge, reason: &str) -> f64 {
    edge.metric(&format!("nearcast_edge_answers_unstored_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn what_is_too_long_to_be_kept_whole_is_not_whether_or_not_it_says_how_long_it_is() {
    let proxy = Proxy::with(json!({ "unvalidated-max": "2MiB" })).await;
    let weak = |bytes| Item::of(bytes).validator(Validator::Weak);
    let long = 2 * CHUNK + 1;
    for (path, item, is_kept) in [
        ("/length", weak(long), false),
        ("/chunked", weak(long).chunked(), false),
        ("/chunked-fits", weak(long - 1).chunked(), true),
        ("/strong", Item::of(long), true),
        ("/strong-chunked", Item::of(long).chunked(), true),
    ] {
        proxy.web.put(path, item);
        let before = unstored(&proxy.edge, "too-long").await;
        assert_eq!(proxy.get(path).await.bytes(), &proxy.web.whole(path), "{path}");
        let told = || async {
            let is_told = not_stored(&proxy.edge, path).await.as_deref() == Some("too-long");
            (is_told != is_kept).then_some(())
        };
        until(path, told).await;
        let counted = unstored(&proxy.edge, "too-long").await - before;
        assert_eq!(counted, f64::from(!is_kept), "{path}");
        proxy.has_filled().await;
        assert_eq!(proxy.get(path).await.bytes(), &proxy.web.whole(path), "{path}");
        assert_eq!(proxy.web.count(path), if is_kept { 1 } else { 2 }, "{path}");
    }
}

#[tokio::test]
async fn a_part_that_nothing_can_be_joined_with_is_counted_as_not_stored() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES).validator(Validator::Weak));
    assert_eq!(proxy.part(FILM, 0..10).await.status, 206);
    assert_eq!(not_stored(&proxy.edge, FILM).await.as_deref(), Some("unvalidated"));
    assert_eq!(unstored(&proxy.edge, "unvalidated").await, 1.0);
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_counted_as_not_stored() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let settings = proxy_settings(dir.path(), &web.url, &json!({}));
    let edge = Edge::start(Settings { memory: Some(ByteSize(16 << 20)), ..settings }).await;
    web.put(FILM, Item::of(12 * CHUNK).validator(Validator::Weak).chunked());
    assert_eq!(get(&format!("{}{FILM}", edge.http), &[]).await.bytes(), &web.whole(FILM));
    until("it is told", || async {
        (not_stored(&edge, FILM).await.as_deref() == Some("no-room")).then_some(())
    })
    .await;
    assert_eq!(unstored(&edge, "no-room").await, 1.0);
}

/// As HTTP/1.0 sends it.
#[tokio::test]
async fn what_ends_with_its_connection_is_counted_as_not_stored() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            let answer = b"HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\ntext";
            stream.write_all(answer).await.unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(proxy_settings(dir.path(), &origin, &json!({}))).await;
    assert_eq!(get(&format!("{}{FILM}", edge.http), &[]).await.text(), "text");
    assert_eq!(not_stored(&edge, FILM).await.as_deref(), Some("undelimited"));
    assert_eq!(unstored(&edge, "undelimited").await, 1.0);
    serving.abort();
}
