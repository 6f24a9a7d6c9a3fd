//! Stories of requests that an origin lets hang: what they take from all others, who need another
//! path of it, and from those that wait long for a good reason.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::Router;
use axum::extract::{Request, State};
use common::{Answer, Edge, ask, get, proxy_settings, until};
use futures::future::join_all;
use http::Method;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Requests that the origin is asked at a time.
const PLACES: usize = 8;
/// How long the packager holds its first reload.
const SEGMENT: Duration = Duration::from_millis(1200);

struct Origin {
    url: String,
    at: Arc<At>,
}

struct At {
    asked: Mutex<Vec<String>>,
    /// Whether what hangs is answered.
    is_well: watch::Sender<bool>,
    /// The last segment that there is.
    segment: watch::Sender<u64>,
}

impl Origin {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (is_well, segment) = (watch::channel(false).0, watch::channel(0).0);
        let at = Arc::new(At { asked: Mutex::default(), is_well, segment });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&at));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, at }
    }

    /// Requests so far whose target begins so.
    fn asked(&self, start: &str) -> usize {
        self.at.asked.lock().unwrap().iter().filter(|target| target.starts_with(start)).count()
    }
}

/// `/good` at once, `/live.m3u8` when it has the segment, all else never, as long as that hangs.
async fn answer(
    State(at): State<Arc<At>>,
    request: Request,
) -> ([(&'static str, String); 1], String) {
    let target = request.uri().to_string();
    at.asked.lock().unwrap().push(target.clone());
    let fields = |control: &str| [("cache-control", control.to_owned())];
    if target.starts_with("/good") {
        return (fields("no-store"), target);
    }
    if let Some((_, number)) = target.split_once("_HLS_msn=") {
        let number: u64 = number.parse().unwrap();
        if number == 1 {
            tokio::time::sleep(SEGMENT).await;
            at.segment.send_replace(1);
        }
        at.segment.subscribe().wait_for(|last| *last >= number).await.unwrap();
        return (fields("max-age=60"), target);
    }
    at.is_well.subscribe().wait_for(|is_well| *is_well).await.unwrap();
    (fields("no-store"), target)
}

struct Story {
    _dir: TempDir,
    origin: Origin,
    edge: Edge,
}

impl Story {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start().await;
        let site = json!({ "in-flight-max": PLACES, "queue-max": 100, "retries": 0 });
        let edge = Edge::start(proxy_settings(dir.path(), &origin.url, &site)).await;
        Self { _dir: dir, origin, edge }
    }

    fn ask(
        &self,
        method: Method,
        target: &str,
        fields: &'static [(&str, &str)],
    ) -> JoinHandle<Answer> {
        let url = format!("{}{target}", self.edge.http);
        tokio::spawn(async move { ask(method, &url, fields).await })
    }

    /// So many requests that share nothing, four kinds of them, for what hangs.
    fn hang(&self, round: usize, count: usize) -> Vec<JoinHandle<Answer>> {
        const WHO: &[(&str, &str)] = &[("authorization", "Bearer a")];
        let ask = |number: usize| match number % 4 {
            0 => self.ask(Method::GET, &format!("/slow?id={round}-{number}"), &[]),
            1 => self.ask(Method::GET, &format!("/slow/{round}-{number}"), &[]),
            2 => self.ask(Method::POST, &format!("/form/{round}-{number}"), &[]),
            _ => self.ask(Method::GET, "/private", WHO),
        };
        (0..count).map(ask).collect()
    }

    async fn good(&self, name: &str) {
        let began = Instant::now();
        let answer = get(&format!("{}/good/{name}", self.edge.http), &[]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("/good/{name}")));
        println!("/good/{name} after {} ms", began.elapsed().as_millis());
    }

    async fn has_asked(&self, start: &str, count: usize) {
        until(start, async || (self.origin.asked(start) >= count).then_some(())).await;
    }

    async fn made_way(&self) -> f64 {
        let url = &self.origin.url;
        let outcome = format!("hop=\"{url}\",outcome=\"made-way\",site=\"*\"");
        let line = format!("nearcast_edge_upstream_requests_total{{{outcome}}}");
        self.edge.metric(&line).await
    }
}

#[tokio::test]
async fn what_hangs_takes_nothing_else_from_its_origin() {
    let story = Story::new().await;
    // As many as show how long it takes: who waits for a place has 5 s for that.
    for number in 0..8 {
        story.good(&format!("before-{number}")).await;
    }
    let mut hung = story.hang(0, PLACES + 4);
    story.has_asked("/", 8 + PLACES).await;
    story.good("first").await;
    for round in 1..4 {
        hung.extend(story.hang(round, PLACES + 4));
        story.good(&format!("{round}")).await;
    }
    assert!(story.made_way().await > 0.0);
    // What still waits is answered once the hang is over, and all others have been told.
    story.origin.at.is_well.send_replace(true);
    let count = hung.len();
    let answers: Vec<Answer> = join_all(hung).await.into_iter().map(Result::unwrap).collect();
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let told = (answer.status.as_u16(), answer.verdict(), answer.header("retry-after"));
        assert_eq!(told, (503, "busy", "2"), "{answer:?}");
    }
    let whole = answers.iter().filter(|answer| answer.status == 200).count();
    // Three quarters of the places were theirs all the time.
    assert!((PLACES * 3 / 4..count).contains(&whole), "{whole} of {count}");
    // One of each kind shows that it is over.
    for answer in join_all(story.hang(4, 4)).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    let before = story.made_way().await;
    for answer in join_all(story.hang(5, 4 * PLACES)).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(story.made_way().await, before);
    story.edge.stop().await;
}

/// Reloads of a playlist take as long as a segment does.
#[tokio::test]
async fn a_reload_that_is_held_outlasts_what_hangs() {
    let story = Story::new().await;
    let reload = |number| story.ask(Method::GET, &format!("/live.m3u8?_HLS_msn={number}"), &[]);
    assert_eq!(reload(1).await.unwrap().status, 200);
    let mut hung = story.hang(0, PLACES);
    story.has_asked("/", PLACES + 1).await;
    let held = reload(2);
    story.has_asked("/live.m3u8?_HLS_msn=2", 1).await;
    let mut pace = tokio::time::interval(SEGMENT / 8);
    for round in 1..16 {
        pace.tick().await;
        hung.extend(story.hang(round, 2));
        story.good(&format!("{round}")).await;
    }
    assert!(story.made_way().await > 0.0);
    story.origin.at.segment.send_replace(2);
    let answer = held.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "/live.m3u8?_HLS_msn=2".into()));
    assert_eq!(story.origin.asked("/live.m3u8?_HLS_msn=2"), 1);
    story.origin.at.is_well.send_replace(true);
    join_all(hung).await;
    story.edge.stop().await;
}

/// Without anybody who waits for their places, those that wait long go on.
#[tokio::test]
async fn what_waits_long_is_left_alone_while_nobody_needs_its_place() {
    let story = Story::new().await;
    let hung = story.hang(0, PLACES);
    story.has_asked("/", PLACES).await;
    // Longer than what makes a wait a long one.
    tokio::time::sleep(SEGMENT).await;
    story.origin.at.is_well.send_replace(true);
    for answer in join_all(hung).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(story.made_way().await, 0.0);
    story.edge.stop().await;
}
