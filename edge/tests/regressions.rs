//! What the histories of `any_order` and reviews found, each told by itself.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod versions;

use bytes::Bytes;
use common::{Edge, Item, Proxy, ask, get, head, settings, until};
use futures::future::join_all;
use http::{Method, StatusCode};
use service::value::ByteSize;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use versions::{Known, Misdeed, Origin, Thing};

const MIB: usize = 1 << 20;

struct Stage {
    origin: Origin,
    edge: Edge,
    _dir: TempDir,
}

impl Stage {
    /// An edge with the smallest memory before an origin with these.
    async fn new(things: &[Thing]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(things.to_vec()).await;
        let mut settings = settings(dir.path(), &origin.url);
        settings.control_plane = None;
        settings.listen = vec!["http://127.0.0.1:0".into()];
        settings.memory = Some(ByteSize(16 << 20));
        let edge = Edge::start(settings).await;
        Self { origin, edge, _dir: dir }
    }

    fn url(&self, number: usize) -> String {
        format!("{}/{number}", self.edge.http)
    }

    async fn get(&self, number: usize) -> common::Answer {
        get(&self.url(number), &[]).await
    }

    async fn range(&self, number: usize, range: &str) -> common::Answer {
        get(&self.url(number), &[("range", range)]).await
    }

    fn content(&self, number: usize) -> Bytes {
        self.origin.content(number, 1)
    }

    /// Asks, and is gone before the answer.
    async fn ask_and_leave(&self, number: usize) {
        let addr = self.edge.http.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let before = self.origin.requests();
        let request = format!("GET /{number} HTTP/1.1\r\nhost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        until("the request at the origin", || async {
            (self.origin.requests() > before).then_some(())
        })
        .await;
    }

    async fn nothing_is_held(&self) {
        for gauge in ["growing_bytes", "filling_chunks", "memory_held_bytes"] {
            until(gauge, || async {
                let name = format!("nearcast_edge_{gauge} ");
                (self.edge.metric(&name).await == 0.0).then_some(())
            })
            .await;
        }
    }
}

fn thing(known: Known, bytes: usize) -> Thing {
    Thing { known, ..Thing::strong(bytes) }
}

#[tokio::test]
async fn a_part_without_a_length_is_what_was_asked_for() {
    let chunked = |known| Thing { has_length: false, ..thing(known, 3 * MIB) };
    let stage = Stage::new(&[chunked(Known::Strong), chunked(Known::Weak)]).await;
    for number in [0, 1] {
        let part = stage.range(number, "bytes=1500000-1500099").await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.bytes(), &stage.content(number).slice(1_500_000..1_500_100));
        let said = format!("bytes 1500000-1500099/{}", stage.content(number).len());
        assert_eq!(part.header("content-range"), said);
    }
    // The strong one was stored, as far as it was fetched.
    let requests = stage.origin.requests();
    assert!(stage.range(0, "bytes=1500200-1500299").await.verdict().contains("hit-memory"));
    assert_eq!(stage.origin.requests(), requests);
}

#[tokio::test]
async fn several_ranges_of_what_cannot_be_joined_are_answered_from_the_whole() {
    let stage = Stage::new(&[thing(Known::Weak, 3 * MIB)]).await;
    let answer = stage.range(0, "bytes=0-9,2000000-2000009").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.bytes(), &stage.content(0));
}

#[tokio::test]
async fn a_range_far_into_a_growing_answer_waits_for_nobody_behind_it() {
    let growing = Thing { has_ranges: false, ..thing(Known::Nothing, 12 * MIB) };
    let stage = Stage::new(&[growing]).await;
    let part = stage.range(0, "bytes=9000000-9000099").await;
    assert_eq!(part.bytes(), &stage.content(0).slice(9_000_000..9_000_100));
    stage.nothing_is_held().await;
}

#[tokio::test]
async fn a_growing_answer_whose_client_left_before_its_head_is_given_up() {
    let growing = Thing { has_length: false, ..thing(Known::Nothing, 12 * MIB) };
    let stage = Stage::new(&[growing]).await;
    stage.origin.misbehave(Misdeed::Hold);
    stage.ask_and_leave(0).await;
    until("the client is gone", || async {
        (stage.edge.metric("nearcast_edge_connections ").await == 0.0).then_some(())
    })
    .await;
    stage.origin.release();
    stage.nothing_is_held().await;
    let site = format!("{{hop=\"{}\",site=\"*\"}}", stage.origin.url);
    until("the origin is let go", || async {
        let name = format!("nearcast_edge_upstream_in_flight_requests{site}");
        (stage.edge.metric(&name).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(get(&stage.url(0), &[]).await.bytes(), &stage.content(0));
}

#[tokio::test]
async fn a_head_of_unknown_length_names_none() {
    let stage = Stage::new(&[Thing { has_length: false, ..thing(Known::Strong, 5_000) }]).await;
    let answer = head(Method::HEAD, &stage.url(0)).await;
    assert_eq!((answer.status, answer.header("content-length")), (StatusCode::OK, ""));
}

#[tokio::test]
async fn small_answers_that_arrive_together_are_all_kept() {
    let stage = Stage::new(&[thing(Known::Nothing, 5_000); 12]).await;
    let all = || join_all((0..12).map(|number| stage.get(number)));
    for _ in 0..12 {
        stage.origin.misbehave(Misdeed::Stall(100));
    }
    let released = async {
        until("all at the origin", || async { (stage.origin.requests() == 12).then_some(()) })
            .await;
        stage.origin.release();
    };
    let (answers, ()) = tokio::join!(all(), released);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.bytes(), &stage.content(number));
    }
    stage.nothing_is_held().await;
    until("hits of all", || async {
        let hits = all().await.iter().all(|answer| answer.verdict().contains("hit-memory"));
        hits.then_some(())
    })
    .await;
    assert_eq!(stage.origin.requests(), 12);
}

/// RFC 9110 section 7.6.2.
#[tokio::test]
async fn max_forwards_counts_down_to_who_answers() {
    let proxy = Proxy::new().await;
    proxy.web.put("/page", Item::of(100));
    let options =
        async |most| ask(Method::OPTIONS, &proxy.url("/page"), &[("max-forwards", most)]).await;
    let here = options("0").await;
    let allowed = here.header("allow");
    assert_eq!((here.status.as_u16(), here.verdict()), (200, "preflight"));
    assert_eq!(proxy.web.count("/page"), 0);
    options("7").await;
    assert_eq!(proxy.web.asked_for("/page")[0].field("max-forwards"), "6");
    // Each method that it names is passed on, and no usual one is missing.
    assert_eq!(allowed, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    for method in allowed.split(", ") {
        let path = format!("/{method}");
        proxy.web.put(&path, Item::of(100));
        ask(method.parse().unwrap(), &proxy.url(&path), &[]).await;
        assert_eq!(proxy.web.asked_for(&path)[0].method, method);
    }
    // Of other methods it says nothing.
    proxy.get_with("/page", &[("max-forwards", "0")]).await;
    assert_eq!(proxy.web.count("/page"), 2);
}
