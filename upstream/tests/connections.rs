//! Connections that the other side gives up: what is sent anew, what is not, and that none of it
//! is held against the server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::*;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use nearcast_upstream::{Ask, BreakerState, RequestBody, SiteKind};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use tokio::sync::Notify;

/// A site with one origin, and no tries that the budget pays.
fn alone(url: &str) -> Site {
    site(SiteKind::Proxy, &format!("origins = [{url:?}]\nretries = 0"))
}

/// Answers the first request of a connection, and does `then` at each further one.
async fn once(then: Vec<Step>) -> Origin {
    let known = std::sync::Mutex::new(std::collections::HashSet::new());
    let steps = move |_: usize, seen: &Seen| match known.lock().unwrap().insert(seen.connection) {
        true => ok("good"),
        false => then.clone(),
    };
    Origin::new(steps).await
}

#[tokio::test]
async fn connections_that_another_server_took_over_fail_no_request() {
    const ASKS: usize = 40;
    for end in [Step::Reset, Step::Close] {
        let (go, old) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (held, lost) = (go.clone(), old.clone());
        let steps = move |n: usize, seen: &Seen| match seen.connection < lost.load(SeqCst) {
            true => vec![end.clone()],
            false if n < ASKS => [vec![Step::Until(held.clone())], ok("good")].concat(),
            false => ok("good"),
        };
        let origin = Origin::new(steps).await;
        let site = Arc::new(alone(&origin.url()));
        let asking = site.clone();
        let filling = tokio::spawn(async move {
            join_all((0..ASKS).map(|_| asking.get("/a"))).await.into_iter().all(|got| got.is_ok())
        });
        until("each has its own connection", || origin.count() == ASKS).await;
        until("the pool is full", || {
            go.notify_waiters();
            filling.is_finished()
        })
        .await;
        assert!(filling.await.unwrap());

        old.store(ASKS, SeqCst);
        for _ in 0..3 {
            for got in join_all((0..ASKS).map(|_| site.get("/a"))).await {
                assert_eq!(got.unwrap(), (200, "good".into()));
            }
        }
        let anew = site.metric("anew_total", &[]);
        assert!((1.0..=ASKS as f64).contains(&anew), "{anew}");
        assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), 4.0 * ASKS as f64);
        assert_eq!(site.metric("requests_total", &[]), 4.0 * ASKS as f64);
        assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
    }
}

#[tokio::test]
async fn what_may_not_be_sent_twice_is_not_and_says_nothing_of_the_origin() {
    let origin = once(vec![Step::Reset]).await;
    let site = alone(&origin.url());
    for number in 0..30 {
        site.get("/a").await.unwrap();
        let asked = Ask { method: Method::POST, ..ask(&format!("/{number}")) };
        site.upstream.send(asked).await.unwrap_err();
    }
    assert_eq!((origin.count(), site.metric("anew_total", &[])), (60, 0.0));
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_answer_that_broke_off_is_not_asked_for_anew() {
    let origin = once(vec![send("HTTP/1.1 200 OK\r\nCont"), Step::Close]).await;
    let site = alone(&origin.url());
    site.get("/a").await.unwrap();
    site.get("/a").await.unwrap_err();
    assert_eq!((origin.count(), site.metric("anew_total", &[])), (2, 0.0));
}

fn piece(bytes: usize) -> Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Frame::data(vec![b'x'; bytes].into()))
}

fn post(body: RequestBody) -> Ask {
    Ask { method: Method::POST, body: Some(body), ..ask("/form") }
}

/// Sees that more than a head has come, and then, when told to, answers 413 and closes with what
/// came unread.
fn refuses_early(seen: Arc<Notify>) -> (String, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ((go, told), (tells, done)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.peek(&mut byte).unwrap();
        seen.notify_one();
        told.recv().unwrap();
        let answer = "HTTP/1.1 413 X\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
        stream.write_all(answer.as_bytes()).unwrap();
        drop(stream);
        tells.send(()).unwrap();
    });
    (url, go, done)
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_the_body_is_given() {
    let seen = Arc::new(Notify::new());
    let (url, go, done) = refuses_early(seen.clone());
    // Sent on only when the answer and the reset are here: the connection is written to first.
    let rest = stream::once(async move {
        seen.notified().await;
        go.send(()).unwrap();
        done.recv().unwrap();
        piece(64 << 10)
    });
    let pieces = stream::iter([piece(100)]).chain(rest).chain(stream::pending());
    let site = alone(&url);
    let body = StreamBody::new(pieces.boxed()).boxed_unsync();
    let answer = site.upstream.send(post(body)).await.unwrap();
    assert_eq!(whole(answer).await.unwrap(), (413, "big".into()));
    assert_eq!(site.metric("requests_total", &[("outcome", "4xx")]), 1.0);
}

#[tokio::test]
async fn a_body_that_is_not_taken_is_not_the_origins_failure() {
    let origin = Origin::new(|_, seen| match seen.line.starts_with("POST") {
        true => vec![Step::Reset],
        false => ok("good"),
    });
    let origin = origin.await;
    let spare = Origin::saying("spare").await;
    let text =
        format!("origins = [{:?}, {{ url = {:?}, priority = 1 }}]", origin.url(), spare.url());
    let site = site(SiteKind::Proxy, &text);
    for number in 0..30 {
        let pieces = stream::iter([piece(100)]).chain(stream::pending());
        let body = StreamBody::new(pieces).boxed_unsync();
        let asked = Ask { path: format!("/{number}"), ..post(body) };
        assert_eq!(site.upstream.send(asked).await.unwrap_err().status(), 502);
    }
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
    assert_eq!(site.get("/a").await.unwrap().1, "good");
}

/// What could not be sent is not kept: no task, connection or body of the client's.
#[tokio::test]
async fn a_reset_upload_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Sockets buffer less than what comes: some of it is still to be written at the reset.
        while stream.peek(&mut vec![0; 64 << 10]).unwrap() < 64 << 10 {}
    });
    let site = alone(&url);
    let (kept, sent) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (kept.clone(), sent.clone());
    let pieces = stream::repeat_with(move || {
        let _ = &held;
        counted.fetch_add(1, SeqCst);
        piece(256 << 10)
    });
    let body = StreamBody::new(pieces).boxed_unsync();
    assert_eq!(site.upstream.send(post(body)).await.unwrap_err().status(), 502);
    assert!(sent.load(SeqCst) > 0);
    until("the body is dropped", || Arc::strong_count(&kept) == 1).await;
}
