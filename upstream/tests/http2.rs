//! Servers of HTTP/2 that close a connection gracefully, refuse a stream or cut one: what is sent
//! anew, what is held against them, and what is no whole answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::*;
use futures::future::join_all;
use http::Method;
use http_body_util::{BodyExt, Full};
use nearcast_upstream::{Ask, BreakerState, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::server::TlsStream;

type Connection = TlsStream<TcpStream>;

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

// Kinds of frames, and the flag of the last one of a stream (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// A TLS server whose connections, counted from 0, are given to `serve`.
struct Server {
    url: String,
    ca: String,
    /// Connections that came.
    came: Arc<AtomicUsize>,
    /// Those that are over.
    over: Arc<AtomicUsize>,
}

impl Server {
    async fn new<F>(serve: impl Fn(usize, Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (acceptor, ca) = acceptor(&["h2"], &["127.0.0.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (came, over) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let server = Self { url, ca, came: came.clone(), over: over.clone() };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                let (served, over) = (serve(came.fetch_add(1, SeqCst), tls), over.clone());
                tokio::spawn(async move {
                    served.await;
                    over.fetch_add(1, SeqCst);
                });
            }
        });
        server
    }

    /// One that sends, for the n-th request (from 0) of a connection and its stream, the frames
    /// that `answer` makes, and waits for the client to go.
    async fn of_frames(
        answer: impl Fn(usize, usize, u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        Self::new(move |connection, tls| {
            let answer = answer.clone();
            let mut requests = 0;
            frames(tls, move |heard| {
                let is_request = heard.kind == HEADERS;
                requests += usize::from(is_request);
                if is_request { answer(connection, requests - 1, heard.stream) } else { Vec::new() }
            })
        })
        .await
    }

    /// One that takes `of_each` requests of each connection, notes their bodies and answers them;
    /// what comes behind the last one it does not look at. As nginx with its `keepalive_requests`.
    async fn that_ends_after(of_each: usize, taken: &Arc<Mutex<Vec<String>>>) -> Self {
        let taken = taken.clone();
        Self::new(move |_, tls| {
            let (taken, mut bodies) = (taken.clone(), BTreeMap::new());
            frames(tls, move |heard| {
                let (stream, mut said) = (heard.stream, Vec::new());
                if heard.kind == HEADERS && bodies.len() < of_each {
                    bodies.insert(stream, Vec::new());
                    said = if bodies.len() == of_each { goaway(stream) } else { said };
                }
                let Some(body) = bodies.get_mut(&stream) else { return said };
                if heard.kind == DATA {
                    body.extend_from_slice(heard.payload);
                }
                if heard.flags & END_STREAM != 0 {
                    taken.lock().unwrap().push(String::from_utf8(body.clone()).unwrap());
                    said.extend(good(stream));
                }
                said
            })
        })
        .await
    }

    /// A site with this origin, and no tries that the budget pays.
    fn site(&self) -> Site {
        let text = format!("origins = [{:?}]\nretries = 0", self.url);
        site_that_trusts(Some(&self.ca), &text)
    }

    fn came(&self) -> usize {
        self.came.load(SeqCst)
    }
}

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn data(stream: u32, flags: u8, body: &str) -> Vec<u8> {
    frame(0, flags, stream, body.as_bytes())
}

/// The head of a 200, by the static table of HPACK.
fn head(stream: u32) -> Vec<u8> {
    frame(1, 0x4, stream, &[0x88])
}

/// A whole answer.
fn good(stream: u32) -> Vec<u8> {
    [head(stream), data(stream, 0x1, "good")].concat()
}

fn reset(stream: u32, error: u32) -> Vec<u8> {
    frame(3, 0, stream, &error.to_be_bytes())
}

fn goaway(last: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat())
}

/// A frame of a request.
struct Heard<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// Says what `answer` makes of each frame of a request.
async fn frames(mut tls: Connection, mut answer: impl FnMut(Heard<'_>) -> Vec<u8>) {
    let mut preface = [0; 24];
    if tls.read_exact(&mut preface).await.is_err()
        || tls.write_all(&frame(4, 0, 0, &[])).await.is_err()
    {
        return;
    }
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if tls.read_exact(&mut payload).await.is_err() {
            return;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        let said = match (kind, flags & 1) {
            (DATA | HEADERS, _) => answer(Heard { kind, flags, stream, payload: &payload }),
            (4, 0) => frame(4, 1, 0, &[]),
            (6, 0) => frame(6, 1, 0, &payload),
            _ => continue,
        };
        if tls.write_all(&said).await.is_err() {
            return;
        }
    }
}

fn asked(method: Method) -> Ask {
    Ask { method, ..ask("/a") }
}

fn post(body: Bytes) -> Ask {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Ask { body: Some(body), ..asked(Method::POST) }
}

/// Each request of a site is in one of its counts: nothing failed.
fn assert_only_good(site: &Site, requests: usize) {
    assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), requests as f64);
    assert_eq!(site.metric("requests_total", &[]), requests as f64);
    assert_eq!(site.metric("retries_total", &[]), 0.0);
    assert_eq!(site.metric("retry_budget_exhausted_total", &[]), 0.0);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

/// As nginx after its `keepalive_requests`: what came before goes on, what came after is ignored.
#[tokio::test]
async fn what_came_after_the_last_request_of_a_connection_is_sent_anew() {
    const ASKS: usize = 24;
    let server = Server::of_frames(|connection, n, stream| match (connection, n) {
        // The first one, and those of 8 of them.
        (0, 0) => good(stream),
        (0, ASKS) => {
            let first: Vec<u8> = (1..=8).flat_map(|n| good(2 * n + 1)).collect();
            [goaway(17), first].concat()
        }
        (0, _) => Vec::new(),
        _ => good(stream),
    })
    .await;
    let site = server.site();
    site.get("/a").await.unwrap();
    let upstream = &site.upstream;
    let asks = (0..ASKS).map(|n| async move {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        whole(upstream.send(asked(method)).await?).await
    });
    for got in join_all(asks).await {
        assert_eq!(got.unwrap(), (200, "good".into()));
    }
    assert_eq!(site.metric("anew_total", &[]), (ASKS - 8) as f64);
    assert_only_good(&site, 1 + ASKS);
}

/// As a server on h2 does it, with requests that wait for a stream to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_its_connections_one_after_another_fails_no_request() {
    const OF_EACH: usize = 10;
    const AT_ONCE: usize = 48;
    const ROUNDS: usize = 20;
    let server = Server::new(|_, tls| async move {
        let mut h2 = h2::server::Builder::new();
        let Ok(mut h2) = h2.max_concurrent_streams(4).handshake::<_, Bytes>(tls).await else {
            return;
        };
        for n in 1.. {
            let Some(Ok((_, mut respond))) = h2.accept().await else { return };
            if n == OF_EACH {
                h2.graceful_shutdown();
            }
            if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
                _ = body.send_data("good".into(), true);
            }
        }
    })
    .await;
    let site = server.site();
    for _ in 0..ROUNDS {
        for got in join_all((0..AT_ONCE).map(|_| site.get("/a"))).await {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
    }
    assert!(server.came() > 10, "{}", server.came());
    assert_only_good(&site, ROUNDS * AT_ONCE);
}

/// Its limit is that of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_connection_takes_are_all_under_way() {
    const ASKS: usize = 40;
    let all = Arc::new(Barrier::new(ASKS));
    let server = Server::new(move |_, tls| {
        let all = all.clone();
        async move {
            let mut h2 = h2::server::Builder::new();
            let h2 = h2.max_concurrent_streams(10).handshake::<_, Bytes>(tls).await;
            let mut h2 = h2.unwrap();
            while let Some(Ok((_, mut respond))) = h2.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    all.wait().await;
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("good".into(), true).unwrap();
                });
            }
        }
    })
    .await;
    let site = server.site();
    for _ in 0..3 {
        let asks = join_all((0..ASKS).map(|_| site.get("/a")));
        let got = tokio::time::timeout(Duration::from_secs(20), asks).await;
        for got in got.expect("some wait for others") {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
    }
    assert_eq!((server.came(), site.metric("anew_total", &[])), (4, 0.0));
    assert_only_good(&site, 3 * ASKS);
}

/// More often, for some, than what is refused is sent anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_through_connections_of_few_requests_each_fails_none() {
    const ASKS: usize = 200;
    let taken = Arc::default();
    let server = Server::that_ends_after(10, &taken).await;
    let site = server.site();
    let asks = (0..ASKS).map(|n| site.upstream.send(post(n.to_string().into())));
    for answer in join_all(asks).await {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "good".into()));
    }
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    assert_eq!((taken.len(), BTreeSet::from_iter(taken).len()), (ASKS, ASKS));
    eprintln!("{} connections, {} anew", server.came(), site.metric("anew_total", &[]));
    assert_only_good(&site, ASKS);
}

/// As one that is about to end, and takes connections still.
#[tokio::test]
async fn a_server_that_ends_each_connection_at_once_is_not_asked_for_ever() {
    let server = Server::of_frames(|_, _, _| goaway(0)).await;
    let site = server.site();
    assert_eq!(site.get("/a").await.unwrap_err().status(), 502);
    assert_eq!(server.came(), 4);
}

#[tokio::test]
async fn a_stream_that_is_refused_is_opened_anew_elsewhere() {
    let server = Server::of_frames(|connection, _, stream| match connection {
        0 => reset(stream, REFUSED_STREAM),
        _ => good(stream),
    })
    .await;
    for method in [Method::GET, Method::POST] {
        server.came.store(0, SeqCst);
        let site = server.site();
        let answer = site.upstream.send(asked(method)).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (200, "good".into()));
        assert_eq!((server.came(), site.metric("anew_total", &[])), (2, 1.0));
        assert_only_good(&site, 1);
    }
}

#[tokio::test]
async fn a_server_that_refuses_all_streams_is_not_asked_for_ever() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let site = server.site();
    for asks in 1..=20 {
        let fault = site.get(&format!("/{asks}")).await.unwrap_err();
        assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
        assert!(fault.to_string().contains("refused"), "{fault}");
        assert_eq!(server.came(), 4 * asks);
    }
    assert_eq!(site.metric("requests_total", &[("outcome", "unavailable")]), 20.0);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Open);
}

/// Another origin, which has not seen it either, may have it without the budget.
#[tokio::test]
async fn what_one_origin_refuses_goes_to_the_next() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let other = Origin::saying("other").await;
    let origins = format!("[{:?}, {{ url = {:?}, priority = 1 }}]", server.url, other.url());
    let site = site_that_trusts(Some(&server.ca), &format!("origins = {origins}\nretries = 0"));
    let answer = site.upstream.send(asked(Method::POST)).await.unwrap();
    assert_eq!(whole(answer).await.unwrap(), (200, "other".into()));
}

/// As nginx does it to forms and calls of an API.
#[tokio::test]
async fn small_uploads_that_a_server_did_not_look_at_are_sent_anew() {
    const ASKS: usize = 24;
    let taken = Arc::default();
    let server = Server::that_ends_after(8, &taken).await;
    let site = server.site();
    let asks = (0..ASKS).map(|n| site.upstream.send(post(format!("form {n:02}").into())));
    for answer in join_all(asks).await {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "good".into()));
    }
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.sort();
    assert_eq!(taken, (0..ASKS).map(|n| format!("form {n:02}")).collect::<Vec<_>>());
    assert!(site.metric("anew_total", &[]) >= 16.0);
    assert_only_good(&site, ASKS);
}

/// What was sent of a large body is gone: it can't be sent anew, and the server has done nothing
/// wrong.
#[tokio::test]
async fn a_refused_large_body_is_not_sent_anew_nor_held_against_the_server() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let site = server.site();
    for number in 0..30 {
        let body = vec![b'x'; (64 << 10) + 1];
        let asked = Ask { path: format!("/{number}"), ..post(body.into()) };
        assert_eq!(site.upstream.send(asked).await.unwrap_err().status(), 502);
    }
    assert_eq!(site.metric("anew_total", &[]), 0.0);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_connection_that_ends_while_idle_is_just_not_used_any_more() {
    let server = Server::of_frames(|_, _, stream| [good(stream), goaway(stream)].concat()).await;
    let site = server.site();
    for asks in 1..=5 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
        until("it is closed", || server.over.load(SeqCst) == asks).await;
    }
    assert_eq!((server.came(), site.metric("anew_total", &[])), (5, 0.0));
    assert_only_good(&site, 5);
}

/// Without a length, nothing but END_STREAM tells that an answer is whole.
#[tokio::test]
async fn a_body_without_its_end_is_cut_however_friendly_the_server_says_so() {
    for end in [|stream| reset(stream, NO_ERROR), |_| goaway(0)] {
        let server = Server::of_frames(move |_, _, stream| {
            [head(stream), data(stream, 0, "half"), end(stream)].concat()
        })
        .await;
        let fault = server.site().get("/a").await.unwrap_err();
        assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
    }
}

/// As clients that download slowly what is not stored.
#[tokio::test]
async fn answers_that_nobody_reads_stop_no_others() {
    const UNREAD: usize = 24;
    let server = Server::new(|_, tls| async move {
        let Ok(mut h2) = h2::server::handshake(tls).await else { return };
        while let Some(Ok((request, mut respond))) = h2.accept().await {
            let body = if request.uri().path() == "/film" { vec![0; 8 << 20] } else { b"a".into() };
            let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
            sending.send_data(Bytes::from(body), true).unwrap();
        }
    })
    .await;
    let text = format!("origins = [{:?}]\nretries = 0\nstall-timeout = \"2s\"", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    site.get("/a").await.unwrap();
    let films = join_all((0..UNREAD).map(|_| site.upstream.send(ask("/film")))).await;
    let mut films: Vec<_> = films.into_iter().map(|film| film.unwrap().body).collect();
    for film in &mut films {
        film.next().await.unwrap().unwrap();
    }
    for _ in 0..20 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "a".into()));
    }
}
