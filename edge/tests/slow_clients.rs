//! Stories of clients that stop or crawl, each at another step: the connection ends after its
//! limit and is counted, and others are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::{Edge, H3, Hold, Item, Web, WebMisdeed, get, over_tls, proxy_settings, tls, until};
use futures::StreamExt;
use futures::stream::{once, pending};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nearcast_edge::{Limits, Patience};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Long enough for those who are served meanwhile, short enough for a test.
const LIMIT: Duration = Duration::from_millis(400);
/// What a client's kernel takes for it before the edge finds that nobody reads.
const SMALL_BUFFER_BYTES: u32 = 8 << 10;
const LARGE: u64 = 16 << 20;

/// An edge with little patience for one step, before an origin with a page and a film.
struct Stage {
    web: Web,
    edge: Edge,
    _dir: TempDir,
}

impl Stage {
    async fn new(patience: Patience) -> Self {
        Self::before(patience, &serde_json::json!({})).await
    }

    async fn before(patience: Patience, site: &serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let web = Web::start().await;
        web.put("/page", Item::of(1_000));
        web.put("/film", Item::of(LARGE));
        let limits = Limits { patience, ..Limits::default() };
        let edge = Edge::start_with(proxy_settings(dir.path(), &web.url, site), limits).await;
        Self { web, edge, _dir: dir }
    }

    /// Sends this over a new connection.
    async fn begin(&self, base: &str, bytes: &[u8]) -> TcpStream {
        let addr = base.split_once("://").unwrap().1;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
        let mut stream = socket.connect(addr.parse().unwrap()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn others_are_served(&self) {
        for _ in 0..3 {
            let answer = get(&format!("{}/page", self.edge.http), &[]).await;
            assert_eq!(answer.bytes(), &self.web.whole("/page"));
        }
    }

    /// Peers given up while they were waited for, by what for.
    async fn given_up(&self, wait: &str) -> f64 {
        let line = format!("nearcast_edge_connections_given_up_total{{wait=\"{wait}\"}}");
        self.edge.metric(&line).await
    }

    async fn are_given_up(&self, wait: &str, count: usize) {
        until(wait, || async { (self.given_up(wait).await >= count as f64).then_some(()) }).await;
        assert_eq!(self.given_up(wait).await, count as f64, "{wait}");
        until("no connection is left", || async {
            (self.edge.metric("nearcast_edge_connections ").await == 0.0).then_some(())
        })
        .await;
    }
}

/// All that still comes, up to the connection's end.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// What a client of HTTP/2 or 3 opens for an answer.
const WINDOW_BYTES: u32 = 16 << 10;

/// Sends the head of a request and `part` of its body, and reads nothing but the head of the answer,
/// over HTTP/2: its status, and what holds the answer.
async fn ask_h2(
    stage: &Stage,
    (method, path): (Method, &str),
    part: Bytes,
) -> (StatusCode, impl Sized) {
    let config = tls(&stage.edge.dir.join("tls/cert.pem"), "h2");
    let tcp = stage.begin(&stage.edge.https, b"").await;
    let name = rustls_pki_types::ServerName::from(tcp.peer_addr().unwrap().ip());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream.await.unwrap()))
        .await
        .unwrap();
    tokio::spawn(connection);
    let url = format!("{}{path}", stage.edge.https);
    let (ends, part) = (part.is_empty(), Ok::<_, Infallible>(Frame::data(part)));
    let rest = if ends { futures::stream::empty().left_stream() } else { pending().right_stream() };
    let body = StreamBody::new(Box::pin(once(async { part }).chain(rest)));
    let request = Request::builder().method(method).uri(url).body(body).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    (answer.status(), (sender, answer))
}

/// The same over HTTP/3.
async fn ask_h3(
    stage: &Stage,
    (method, path): (Method, &str),
    part: Bytes,
) -> (StatusCode, impl Sized) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(WINDOW_BYTES.into());
    let mut h3 = H3::to(&stage.edge.https, &stage.edge.dir, transport).await;
    let request = Request::builder().method(method).uri(format!("{}{path}", stage.edge.https));
    let mut stream = h3.sender.send_request(request.body(()).unwrap()).await.unwrap();
    if part.is_empty() {
        stream.finish().await.unwrap();
    } else {
        stream.send_data(part).await.unwrap();
    }
    let status = stream.recv_response().await.unwrap().status();
    (status, (h3, stream))
}

#[tokio::test]
async fn who_does_not_finish_the_tls_handshake_is_given_up() {
    let stage = Stage::new(Patience { handshake: LIMIT, ..Patience::default() }).await;
    let https = stage.edge.https.clone();
    let mute = stage.begin(&https, b"").await;
    // The head of a record of 512 bytes, and a tenth of it.
    let half = [&[0x16, 3, 1, 2, 0, 1][..], &[0; 50]].concat();
    let stopped = stage.begin(&https, &half).await;
    stage.others_are_served().await;
    assert!(rest(mute).await.is_empty());
    rest(stopped).await;
    stage.are_given_up("handshake", 2).await;
    let failed = "nearcast_edge_tls_handshakes_total{end=\"failed\",transport=\"tcp\"}";
    assert_eq!(stage.edge.metric(failed).await, 2.0);
}

#[tokio::test]
async fn who_sends_a_head_byte_by_byte_is_given_up_however_steadily() {
    let patience = Patience { handshake: LIMIT, head: LIMIT, ..Patience::default() };
    let stage = Stage::new(patience).await;
    let mut crawling = stage.begin(&stage.edge.http, b"GET /page HTTP/1.1\r\nhost: a\r\n").await;
    let mut few = stage.begin(&stage.edge.http, b"GET").await;
    stage.others_are_served().await;
    let mut pace = tokio::time::interval(LIMIT / 40);
    let mut byte = [0; 1];
    let ended = async {
        loop {
            tokio::select! {
                // Neither gets an answer.
                read = crawling.read(&mut byte) => return assert!(!matches!(read, Ok(1))),
                _ = pace.tick() => { let _ = crawling.try_write(b"x"); }
            }
        }
    };
    tokio::time::timeout(common::DEADLINE, ended).await.expect("it ends");
    assert!(!matches!(few.read(&mut byte).await, Ok(1)));
    stage.are_given_up("head", 2).await;
    assert_eq!(stage.web.count("/page"), 1, "for the others alone");
}

/// Over TLS without a word on what it speaks, and over HTTP/2: nothing, and half of what goes before
/// its first request.
#[tokio::test]
async fn who_shakes_hands_and_asks_for_nothing_is_given_up() {
    // The others ask in less, also on a loaded machine.
    let head = Duration::from_secs(2);
    let stage = Stage::new(Patience { head, ..Patience::default() }).await;
    let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut held = Vec::new();
    for protocol in ["", "h2"] {
        for said in [&b""[..], &begin[..20], &begin[..24], begin] {
            let mut config = tls(&stage.edge.dir.join("tls/cert.pem"), protocol);
            config.alpn_protocols.retain(|name| !name.is_empty());
            let tcp = stage.begin(&stage.edge.https, b"").await;
            let name = rustls_pki_types::ServerName::from(tcp.peer_addr().unwrap().ip());
            let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp);
            let mut stream = stream.await.unwrap();
            stream.write_all(said).await.unwrap();
            stream.flush().await.unwrap();
            held.push(stream);
        }
    }
    stage.others_are_served().await;
    stage.are_given_up("head", held.len()).await;
}

#[tokio::test]
async fn a_connection_that_is_idle_between_requests_ends() {
    let stage = Stage::new(Patience { head: LIMIT, ..Patience::default() }).await;
    let request = b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n";
    let idle = stage.begin(&stage.edge.http, request).await;
    let answer = rest(idle).await;
    assert!(answer.ends_with(&stage.web.whole("/page")));
    stage.are_given_up("idle", 1).await;
    assert_eq!(stage.given_up("head").await, 0.0);
}

#[tokio::test]
async fn who_does_not_send_the_rest_of_a_body_is_told_so() {
    let site = serde_json::json!({ "first-byte-timeout": "400ms", "retries": 0 });
    let stage = Stage::before(Patience::default(), &site).await;
    let request = b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nonly this";
    let stopped = stage.begin(&stage.edge.http, request).await;
    stage.others_are_served().await;
    let answer = String::from_utf8(rest(stopped).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let text = get(&format!("{}/metrics", stage.edge.admin), &[]).await.text();
    let told = text.lines().filter(|line| line.starts_with("nearcast_edge_requests_total"));
    let timed_out = told.filter(|line| line.contains("status=\"408\"") && line.ends_with(" 1"));
    assert_eq!(timed_out.count(), 1, "{text}");
}

#[tokio::test]
async fn who_does_not_send_the_rest_of_a_body_over_http_2_or_3_is_told_so() {
    let site = serde_json::json!({ "first-byte-timeout": "400ms", "retries": 0 });
    let stage = Stage::before(Patience::default(), &site).await;
    let part = || Bytes::from_static(b"only this");
    let (over_h2, _held) = ask_h2(&stage, (Method::POST, "/upload"), part()).await;
    let (over_h3, _held) = ask_h3(&stage, (Method::POST, "/upload"), part()).await;
    assert_eq!([over_h2, over_h3], [StatusCode::REQUEST_TIMEOUT; 2]);
    stage.others_are_served().await;
}

#[tokio::test]
async fn who_takes_nothing_of_what_it_asked_for_is_given_up() {
    let stage = Stage::new(Patience { send: LIMIT, ..Patience::default() }).await;
    let request = b"GET /film HTTP/1.1\r\nhost: a\r\n\r\n";
    let stopped = stage.begin(&stage.edge.http, request).await;
    stage.others_are_served().await;
    stage.are_given_up("send", 1).await;
    until("its place is free", || async {
        (stage.edge.metric("nearcast_edge_responses ").await == 0.0).then_some(())
    })
    .await;
    assert!((rest(stopped).await.len() as u64) < LARGE, "it was cut");
}

/// They open no window: over HTTP/2 the connection ends, over HTTP/3 the answer's stream.
#[tokio::test]
async fn who_takes_nothing_over_http_2_or_3_is_given_up() {
    let stage = Stage::new(Patience { send: LIMIT, ..Patience::default() }).await;
    let (over_h2, _held) = ask_h2(&stage, (Method::GET, "/film"), Bytes::new()).await;
    let (over_h3, _stopped) = ask_h3(&stage, (Method::GET, "/film"), Bytes::new()).await;
    assert_eq!([over_h2, over_h3], [StatusCode::OK; 2]);
    stage.others_are_served().await;
    until("both are given up", || async { (stage.given_up("send").await == 2.0).then_some(()) })
        .await;
    until("their places are free", || async {
        (stage.edge.metric("nearcast_edge_responses ").await == 0.0).then_some(())
    })
    .await;
    let cut = stage.edge.metric("nearcast_edge_bodies_cut_total").await;
    assert!((cut - 1.0).abs() < 0.1, "{cut}: that of the stream that was reset");
}

#[tokio::test]
async fn who_waits_for_an_origin_has_a_place_that_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start().await;
    web.put("/page", Item::of(1_000));
    let limits = Limits { responses: 2, ..Limits::default() };
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let edge = Edge::start_with(settings, limits).await;
    web.hold(Hold::Head);
    let url = format!("{}/page", edge.http);
    let ask = || {
        let url = url.clone();
        tokio::spawn(async move { get(&url, &[]).await })
    };
    let waiting = [ask(), ask()];
    let are = |count: f64| {
        let edge = &edge;
        move || async move { (edge.metric("nearcast_edge_responses ").await == count).then_some(()) }
    };
    until("both places are taken", are(2.0)).await;
    assert_eq!(get(&url, &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    web.release();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().bytes(), &web.whole("/page"));
    }
    until("both places are free", are(0.0)).await;
}

/// No test machine is so slow that an answer rests for so long.
fn unhurried() -> Patience {
    Patience { quiet: Duration::from_secs(60), ..Patience::default() }
}

/// Sends this over TLS, and that it sends no more: once the answer began, or at once.
async fn ask_and_stop(stage: &Stage, request: &str, at_once: bool) -> Vec<u8> {
    let tcp = stage.begin(&stage.edge.https, b"").await;
    let mut stream = over_tls(tcp, &stage.edge.dir.join("tls/cert.pem")).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; if at_once { 0 } else { 12 }];
    stream.read_exact(&mut head).await.unwrap();
    stream.shutdown().await.unwrap();
    // Its end is told by TLS, too.
    stream.read_to_end(&mut head).await.unwrap();
    head
}

#[tokio::test]
async fn who_only_stops_sending_gets_the_whole_answer() {
    let stage = Stage::new(unhurried()).await;
    let drips = WebMisdeed::Drip(Duration::from_millis(1));
    for (path, misdeed) in [("/film", None), ("/plain", Some(drips)), ("/tls", Some(drips))] {
        if let Some(misdeed) = misdeed {
            stage.web.put(path, Item::of(100));
            stage.web.misbehave(&[misdeed]);
        }
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        if path != "/tls" {
            let mut stream = stage.begin(&stage.edge.http, request.as_bytes()).await;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            stream.shutdown().await.unwrap();
            assert!(rest(stream).await.ends_with(&stage.web.whole(path)), "{path}");
        }
        if path != "/plain" {
            let answer = ask_and_stop(&stage, &request, false).await;
            assert!(answer.ends_with(&stage.web.whole(path)), "{path} over TLS");
        }
    }
}

#[tokio::test]
async fn who_stops_sending_before_the_answer_gets_it_all_the_same() {
    let stage = Stage::new(unhurried()).await;
    for path in ["/plain", "/tls"] {
        stage.web.put(path, Item::of(1_000));
        stage.web.hold(Hold::Head);
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let asking = async {
            if path == "/tls" {
                return ask_and_stop(&stage, &request, true).await;
            }
            let mut stream = stage.begin(&stage.edge.http, request.as_bytes()).await;
            stream.shutdown().await.unwrap();
            rest(stream).await
        };
        let released = async {
            until("at the origin", || async { (stage.web.held() == 1).then_some(()) }).await;
            stage.web.release();
        };
        let (answer, ()) = tokio::join!(asking, released);
        assert!(answer.ends_with(&stage.web.whole(path)), "{path}");
    }
}

#[tokio::test]
async fn who_stops_sending_is_not_waited_with_for_an_origin_that_says_nothing() {
    let stage = Stage::new(Patience { quiet: LIMIT, ..Patience::default() }).await;
    stage.web.hold(Hold::Head);
    let request = b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = stage.begin(&stage.edge.http, request).await;
    stream.shutdown().await.unwrap();
    assert!(rest(stream).await.is_empty());
    stage.web.release();
}
