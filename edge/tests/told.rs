//! Stories of what an edge tells of how it came by an answer: `Cache-Status`, counters, and what is
//! for caches alone.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::extract::Request;
use axum::response::IntoResponse;
use common::{CHUNK, Item, Proxy, Scripted, Validator, WebMisdeed as Misdeed, ask, get};
use http::Method;
use model::admin::Explanation;

const FILM: &str = "/film";
const BYTES: u64 = 3 * CHUNK + 4321;

async fn once() -> Proxy {
    Proxy::with(serde_json::json!({ "retries": 0, "hedge": false })).await
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
        let url = format!("{}/v1/explain?url={}{path}", proxy.edge.admin, proxy.edge.http);
        let told: Explanation = serde_json::from_slice(get(&url, &[]).await.bytes()).unwrap();
        assert_eq!(told.not_stored.as_deref(), why, "{path}");
    }
    for reason in ["set-cookie", "no-store"] {
        let line = format!("nearcast_edge_answers_unstored_total{{reason=\"{reason}\"}}");
        assert_eq!(proxy.edge.metric(&line).await, 1.0, "{reason}");
    }
    proxy.edge.stop().await;
}
