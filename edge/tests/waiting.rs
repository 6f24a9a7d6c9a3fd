//! Stories of many who wait for one small answer of an origin: each gets it, whether it comes
//! first, joins while it arrives, or wakes when it has just ended.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use common::{Edge, get, settings};
use futures::future::join_all;
use http::StatusCode;
use nearcast_edge::Settings;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// How often each path was asked for.
type Asked = Arc<Mutex<HashMap<String, usize>>>;

const ROUNDS: usize = 100;
const WAITERS: usize = 50;

/// A segment that is not there yet, as live origins answer: briefly kept, without a validator,
/// without a body. Other paths have a short one.
async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    *asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    let fields = [("cache-control", "max-age=60")];
    if path.starts_with("/absent") {
        return (StatusCode::NOT_FOUND, fields).into_response();
    }
    (fields, path).into_response()
}

/// On several threads: what waits may wake at any step of the fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_who_wait_for_a_small_answer_get_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { control_plane: None, ..settings(dir.path(), &url) };
    let edge = Edge::start(settings).await;
    for round in 0..ROUNDS {
        for (kind, status) in [("absent", 404), ("short", 200)] {
            let path = format!("/{kind}-{round}");
            let url = format!("{}{path}", edge.http);
            let waiting = (0..WAITERS).map(|_| {
                let url = url.clone();
                tokio::spawn(async move { get(&url, &[]).await })
            });
            for answer in join_all(waiting).await {
                let answer = answer.unwrap();
                assert_eq!(answer.status, status, "{path}: {}", answer.text());
                let body = if status == 200 { path.as_str() } else { "" };
                assert_eq!(answer.text(), body);
            }
            assert_eq!(asked.lock().unwrap()[&path], 1, "{path}");
        }
    }
    edge.stop().await;
}

const RELOAD: &str = "/live.m3u8?_HLS_msn=7";

/// An edge before two packagers that end each reload by 503 with these fields, once they have held it
/// for as long as they are to.
async fn in_vain(fields: [(&'static str, &'static str); 3], site: Value) -> (Edge, Asked, TempDir) {
    in_vain_together(fields, site, 1).await
}

/// The same; of so many requests each, all but the very first are held until all of these are there.
async fn in_vain_together(
    fields: [(&'static str, &'static str); 3],
    site: Value,
    together: usize,
) -> (Edge, Asked, TempDir) {
    /// For three target durations by the standard; more than a second as any.
    const HELD: Duration = Duration::from_millis(1200);
    let asked = Asked::default();
    let all = watch::Sender::new(0);
    let held = async move |State(asked): State<Asked>, request: Request| {
        *asked.lock().unwrap().entry(request.uri().to_string()).or_default() += 1;
        all.send_modify(|count| *count += 1);
        let number = *all.borrow();
        let with = if number == 1 { 1 } else { usize::next_multiple_of(number, together) };
        all.subscribe().wait_for(|count| *count >= with).await.unwrap();
        tokio::time::sleep(HELD).await;
        (StatusCode::SERVICE_UNAVAILABLE, fields)
    };
    let mut origins = Vec::new();
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        origins.push(json!(format!("http://{}", listener.local_addr().unwrap())));
        let router = Router::new().fallback(held.clone()).with_state(Arc::clone(&asked));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let dir = tempfile::tempdir().unwrap();
    let mut site = site;
    site["origins"] = Value::Array(origins);
    let site = serde_json::from_value(site).unwrap();
    let settings = Settings {
        origin: Vec::new(),
        control_plane: None,
        sites: [("*".to_owned(), site)].into(),
        ..settings(dir.path(), "")
    };
    (Edge::start(settings).await, asked, dir)
}

const PLAIN: [(&str, &str); 3] =
    [("retry-after", "4"), ("access-control-allow-origin", "*"), ("set-cookie", "a=1")];

/// A packager ends a reload for a segment that does not come by 503, once it has held it for long
/// enough (HLS 2nd edition, section 6.2.5.2). All who waited are told so then, and the other
/// packager is not to hold it once more.
#[tokio::test]
async fn a_reload_that_never_comes_is_held_by_one_packager_once() {
    let rule = json!({ "path": "*.m3u8", "query": "_HLS_msn", "fixed": "6s", "negative": "250ms" });
    for site in [json!({}), json!({ "hedge": false, "ttl": [rule] })] {
        let (edge, asked, _dir) = in_vain(PLAIN, site.clone()).await;
        let url = format!("{}{RELOAD}", edge.http);
        let answers = join_all((0..30).map(|_| get(&url, &[]))).await;
        for answer in &answers {
            let told = (answer.status.as_u16(), answer.header("retry-after"));
            assert_eq!(told, (503, "4"), "{site}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
        // The packager's cookie is for the one that it gave it to.
        let given = answers.iter().filter(|answer| !answer.header("set-cookie").is_empty()).count();
        assert!(given <= 1, "{site}: {given}");
        assert_eq!(asked.lock().unwrap()[RELOAD], 1, "{site}");
        edge.stop().await;
    }
}

/// Nothing of it is kept: who comes later asks, and those who come with that one share it again.
#[tokio::test]
async fn what_a_reload_was_told_in_vain_is_told_to_who_waited_alone() {
    let (edge, asked, _dir) = in_vain(PLAIN, json!({})).await;
    let url = format!("{}{RELOAD}", edge.http);
    for count in 1..3 {
        let answers = join_all((0..5).map(|_| get(&url, &[]))).await;
        assert!(answers.iter().all(|answer| answer.status == 503), "{answers:?}");
        assert_eq!(asked.lock().unwrap()[RELOAD], count);
    }
    edge.stop().await;
}

/// Of what is about one client, by what that or the packager says, others are told nothing.
#[tokio::test]
async fn what_a_reload_was_told_for_one_client_is_that_ones() {
    const WAITERS: usize = 3;
    let private = ("cache-control", "private, no-store");
    let all = [PLAIN[0], PLAIN[1], ("vary", "*")];
    for (fields, by) in [
        ([PLAIN[0], PLAIN[1], private], None),
        (all, None),
        (PLAIN, Some(("authorization", "Bearer x"))),
    ] {
        let (edge, asked, _dir) = in_vain(fields, json!({})).await;
        let url = format!("{}{RELOAD}", edge.http);
        let by = by.as_slice();
        let answers = join_all((0..WAITERS).map(|_| get(&url, by))).await;
        assert!(answers.iter().all(|answer| answer.status == 503), "{answers:?}");
        assert_eq!(asked.lock().unwrap()[RELOAD], WAITERS, "{fields:?} {by:?}");
        edge.stop().await;
    }
}

/// A packager may tell its clients apart: each kind is held once.
#[tokio::test]
async fn a_reload_that_never_comes_is_held_once_for_each_variant() {
    let fields = [PLAIN[0], PLAIN[1], ("vary", "x-kind")];
    let (edge, asked, _dir) = in_vain(fields, json!({})).await;
    let url = format!("{}{RELOAD}", edge.http);
    let kinds = (0..12).map(|number| if number % 2 == 0 { "a" } else { "b" });
    let fields: Vec<_> = kinds.map(|kind| [("x-kind", kind)]).collect();
    let answers = join_all(fields.iter().map(|fields| get(&url, fields))).await;
    assert!(answers.iter().all(|answer| answer.status == 503), "{answers:?}");
    assert_eq!(asked.lock().unwrap()[RELOAD], 2);
    edge.stop().await;
}

/// Found by an audit: four kinds of players took the packager four holds one after the other, since
/// nothing is stored that would tell its `Vary`. The first reload tells it, of the next ones, too.
#[tokio::test]
async fn variants_of_a_reload_that_never_comes_are_held_beside_one_another() {
    const KINDS: [&str; 4] = ["a", "b", "c", "d"];
    let fields = [PLAIN[0], PLAIN[1], ("vary", "x-kind")];
    let (edge, asked, _dir) = in_vain_together(fields, json!({}), KINDS.len()).await;
    for reload in [RELOAD, "/live.m3u8?_HLS_msn=8"] {
        let url = format!("{}{reload}", edge.http);
        let kinds = KINDS.map(|kind| [("x-kind", kind)]);
        let answers = join_all(kinds.iter().map(|fields| get(&url, fields))).await;
        let told =
            |answer: &common::Answer| answer.status == 503 && answer.header("retry-after") == "4";
        assert!(answers.iter().all(told), "{reload}: {answers:?}");
        assert_eq!(asked.lock().unwrap()[reload], KINDS.len());
    }
    edge.stop().await;
}
