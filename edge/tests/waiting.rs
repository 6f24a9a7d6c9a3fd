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
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// A packager ends a reload for a segment that does not come by 503, once it has held it for long
/// enough (HLS 2nd edition, section 6.2.5.2). All who waited are told so then, and the other
/// packager is not to hold it once more.
#[tokio::test]
async fn a_reload_that_never_comes_is_held_by_one_packager_once() {
    /// For three target durations by the standard; more than a second as any.
    const HELD: Duration = Duration::from_millis(1200);
    let asked = Asked::default();
    let held = async |State(asked): State<Asked>, request: Request| {
        *asked.lock().unwrap().entry(request.uri().to_string()).or_default() += 1;
        tokio::time::sleep(HELD).await;
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut origins = Vec::new();
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        origins.push(format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(held).with_state(Arc::clone(&asked));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let dir = tempfile::tempdir().unwrap();
    let rule = json!({ "path": "*.m3u8", "query": "_HLS_msn", "fixed": "6s", "negative": "1s" });
    let site = json!({ "origins": origins, "hedge": false, "ttl": [rule] });
    let site = serde_json::from_value(site).unwrap();
    let settings = Settings {
        origin: Vec::new(),
        control_plane: None,
        sites: [("*".to_owned(), site)].into(),
        ..settings(dir.path(), "")
    };
    let edge = Edge::start(settings).await;
    let reload = "/live.m3u8?_HLS_msn=7";
    let url = format!("{}{reload}", edge.http);
    let answers = join_all((0..30).map(|_| get(&url, &[]))).await;
    assert!(answers.iter().all(|answer| answer.status == 503), "{answers:?}");
    assert_eq!(asked.lock().unwrap()[reload], 1);
    edge.stop().await;
}
