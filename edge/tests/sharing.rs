//! Stories of one answer and several who wait for it: each gets what the origin meant for them.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use common::{Answer, Edge, get, settings, until};
use http::header;
use nearcast_edge::Settings;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Players who ask at the same time.
const PLAYERS: usize = 5;

/// An origin that holds its first answer back, and answers with the cookie it was sent.
#[derive(Clone)]
struct Origin {
    caching: &'static str,
    asked: Arc<Mutex<usize>>,
    open: Arc<watch::Sender<bool>>,
}

async fn answer(State(origin): State<Origin>, request: Request) -> Response {
    *origin.asked.lock().unwrap() += 1;
    origin.open.subscribe().wait_for(|open| *open).await.unwrap();
    let cookie = request.headers().get(header::COOKIE);
    let cookie = cookie.map_or("none".to_owned(), |value| value.to_str().unwrap().to_owned());
    Response::builder()
        .header(header::ETAG, format!("\"{cookie}\""))
        .header(header::CACHE_CONTROL, origin.caching)
        .header("x-from", "origin")
        .body(cookie.into())
        .unwrap()
}

/// What the players got, in their order, and how often the origin was asked.
async fn together(caching: &'static str) -> (Vec<Answer>, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(watch::channel(false).0);
    let origin = Origin { caching, asked: Arc::default(), open };
    let router = Router::new().fallback(answer).with_state(origin.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    let edge =
        Edge::start(Settings { control_plane: None, id: None, ..settings(dir.path(), &url) }).await;
    let ask = |player: usize| {
        let url = format!("{}/page", edge.http);
        tokio::spawn(async move { get(&url, &[("cookie", &format!("p={player}"))]).await })
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

#[tokio::test]
async fn who_waits_for_an_answer_that_must_be_validated_asks_for_himself() {
    for caching in ["no-cache", "max-age=0", "private, max-age=60", "no-store"] {
        let (answers, asked) = together(caching).await;
        for (player, answer) in answers.iter().enumerate() {
            assert_eq!(answer.text(), format!("p={player}"), "{caching}");
        }
        assert_eq!(asked, PLAYERS, "{caching}");
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_that_may_be_shared_gets_it_without_what_may_not() {
    let (answers, asked) = together("max-age=60, no-cache=\"x-from\"").await;
    let first = answers[0].text();
    assert!(answers.iter().all(|answer| answer.text() == first));
    assert_eq!(asked, 1);
    let told = answers.iter().filter(|answer| answer.headers.contains_key("x-from")).count();
    assert_eq!(told, 1, "only who asked the origin");
}
