//! Stories of one answer and several who wait for it: each gets what the origin meant for them.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use common::{Answer, Edge, get, settings, until};
use nearcast_edge::Settings;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Players who ask at the same time.
const PLAYERS: usize = 5;

/// A field that tells an origin who asks.
const COOKIE: &str = "cookie";
const API_KEY: &str = "x-api-key";

/// An origin that holds its first answer back, and answers with what it was sent in a field.
#[derive(Clone)]
struct Origin {
    told: &'static str,
    caching: &'static [(&'static str, &'static str)],
    asked: Arc<Mutex<usize>>,
    open: Arc<watch::Sender<bool>>,
}

async fn answer(State(origin): State<Origin>, request: Request) -> Response {
    *origin.asked.lock().unwrap() += 1;
    origin.open.subscribe().wait_for(|open| *open).await.unwrap();
    let told = request.headers().get(origin.told);
    let told = told.map_or("none".to_owned(), |value| value.to_str().unwrap().to_owned());
    let mut response = Response::builder().header("x-from", "origin");
    for (name, value) in origin.caching {
        response = response.header(*name, value.replace('*', &told));
    }
    response.body(told.into()).unwrap()
}

/// What the players got who told themselves apart by a field, in their order, and how often the
/// origin was asked. `*` in its fields is what it was told.
async fn together(
    told: &'static str,
    caching: &'static [(&'static str, &'static str)],
) -> (Vec<Answer>, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(watch::channel(false).0);
    let origin = Origin { told, caching, asked: Arc::default(), open };
    let router = Router::new().fallback(answer).with_state(origin.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    let edge =
        Edge::start(Settings { control_plane: None, id: None, ..settings(dir.path(), &url) }).await;
    let ask = |player: usize| {
        let url = format!("{}/page", edge.http);
        tokio::spawn(async move { get(&url, &[(told, &format!("p={player}"))]).await })
    };
    let players: Vec<_> = (0..PLAYERS).map(ask).collect();
    until("all players' connections", || async {
        let here = edge.metric("nearcast_edge_connections ").await >= PLAYERS as f64;
        (here && *origin.asked.lock().unwrap() > 0).then_some(())
    })
    .await;
    origin.open.send_replace(true);
    let mut answers = Vec::new();
    for player in players {
        answers.push(player.await.unwrap());
    }
    edge.stop().await;
    let asked = *origin.asked.lock().unwrap();
    (answers, asked)
}

async fn each_gets_his_own(told: &'static str, caching: &'static [(&'static str, &'static str)]) {
    let (answers, asked) = together(told, caching).await;
    for (player, answer) in answers.iter().enumerate() {
        assert_eq!(answer.text(), format!("p={player}"), "{caching:?}");
    }
    assert_eq!(asked, PLAYERS, "{caching:?}");
}

#[tokio::test]
async fn who_waits_for_an_answer_that_must_be_validated_asks_for_himself() {
    for caching in [
        &[("etag", "\"*\""), ("cache-control", "no-cache")],
        &[("etag", "\"*\""), ("cache-control", "max-age=0")],
        &[("etag", "\"*\""), ("cache-control", "private, max-age=60")],
        &[("etag", "\"*\""), ("cache-control", "no-store")],
    ] {
        each_gets_his_own(COOKIE, caching).await;
    }
}

#[tokio::test]
async fn an_origin_that_says_nothing_means_only_the_one_who_asked() {
    for told in [COOKIE, API_KEY] {
        each_gets_his_own(told, &[("etag", "W/\"*\"")]).await;
        each_gets_his_own(told, &[("etag", "\"*\"")]).await;
        each_gets_his_own(told, &[]).await;
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_that_may_be_shared_gets_it_without_what_may_not() {
    let caching = &[("etag", "\"*\""), ("cache-control", "max-age=60, no-cache=\"x-from\"")];
    let (answers, asked) = together(COOKIE, caching).await;
    let first = answers[0].text();
    assert!(answers.iter().all(|answer| answer.text() == first));
    assert_eq!(asked, 1);
    let told = answers.iter().filter(|answer| answer.headers.contains_key("x-from")).count();
    assert_eq!(told, 1, "only who asked the origin");
}
