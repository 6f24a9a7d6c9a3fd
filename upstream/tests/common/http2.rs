//! A test server of HTTP/2 that says what it is told, frame by frame, well or badly.

use super::*;
use http::Method;
use http_body_util::{BodyExt, Full};
use nearcast_upstream::BreakerState;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio_rustls::server::TlsStream;

pub type Connection = TlsStream<TcpStream>;

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

// Kinds of frames, and the flag of the last one of a stream (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const END_STREAM: u8 = 1;

/// A TLS server whose connections, counted from 0, are given to `serve`.
pub struct Server {
    pub url: String,
    pub ca: String,
    /// Connections that came.
    pub came: Arc<AtomicUsize>,
    /// Those that are over.
    pub over: Arc<AtomicUsize>,
}

impl Server {
    pub async fn new<F>(serve: impl Fn(usize, Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (acceptor, ca) = acceptor(&["h2"], &["127.0.0.1"]);
        Self::of_acceptors(vec![acceptor], ca, serve).await
    }

    /// One whose connections are shaken hands for by these in turn.
    pub async fn of_acceptors<F>(
        acceptors: Vec<TlsAcceptor>,
        ca: String,
        serve: impl Fn(usize, Connection) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (came, over) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let server = Self { url, ca, came: came.clone(), over: over.clone() };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let number = came.load(SeqCst);
                let acceptor = &acceptors[number % acceptors.len()];
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                came.fetch_add(1, SeqCst);
                let (served, over) = (serve(number, tls), over.clone());
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
    pub async fn of_frames(
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
    pub async fn that_ends_after(of_each: usize, taken: &Arc<Mutex<Vec<String>>>) -> Self {
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

    /// One that begins each `/film...` and never ends it, answers others, and takes so many requests
    /// at a time over a connection. `ends`: it ends one over which it has answered. And how many
    /// requests came.
    pub async fn of_films(at_once: u32, ends: bool) -> (Self, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let server = Self::new(move |_, tls| {
            let asked = counted.clone();
            async move {
                let mut h2 = h2::server::Builder::new();
                let h2 = h2.max_concurrent_streams(at_once).handshake(tls).await;
                let Ok(mut h2) = h2 else { return };
                let mut films = Vec::new();
                while let Some(Ok((request, mut respond))) = h2.accept().await {
                    asked.fetch_add(1, SeqCst);
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    if request.uri().path().starts_with("/film") {
                        body.send_data(Bytes::from("film"), false).unwrap();
                        films.push(body);
                        continue;
                    }
                    body.send_data("good".into(), true).unwrap();
                    if ends {
                        h2.graceful_shutdown();
                    }
                }
            }
        })
        .await;
        (server, asked)
    }

    /// A site with this origin, and no tries that the budget pays.
    pub fn site(&self) -> Site {
        let text = format!("origins = [{:?}]\nretries = 0", self.url);
        site_that_trusts(Some(&self.ca), &text)
    }

    pub fn came(&self) -> usize {
        self.came.load(SeqCst)
    }
}

/// RFC 9113 section 4.1.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

pub fn data(stream: u32, flags: u8, body: &str) -> Vec<u8> {
    frame(0, flags, stream, body.as_bytes())
}

/// The head of a 200, by the static table of HPACK.
pub fn head(stream: u32) -> Vec<u8> {
    frame(1, 0x4, stream, &[0x88])
}

/// A whole answer.
pub fn good(stream: u32) -> Vec<u8> {
    [head(stream), data(stream, 0x1, "good")].concat()
}

pub fn reset(stream: u32, error: u32) -> Vec<u8> {
    frame(3, 0, stream, &error.to_be_bytes())
}

pub fn goaway(last: u32) -> Vec<u8> {
    goaway_for(last, NO_ERROR)
}

pub fn goaway_for(last: u32, error: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

/// A frame of a request.
pub struct Heard<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

/// Says what `answer` makes of each frame of a request.
pub async fn frames(tls: Connection, answer: impl FnMut(Heard<'_>) -> Vec<u8>) {
    frames_behind(&[], tls, answer).await;
}

/// As [`frames`], with these right behind its settings.
pub async fn frames_behind(
    first: &[u8],
    mut tls: Connection,
    mut answer: impl FnMut(Heard<'_>) -> Vec<u8>,
) {
    let mut preface = [0; 24];
    let first = [&frame(4, 0, 0, &[]), first].concat();
    if tls.read_exact(&mut preface).await.is_err() || tls.write_all(&first).await.is_err() {
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

pub fn asked(method: Method) -> Ask {
    Ask { method, ..ask("/a") }
}

pub fn post(body: Bytes) -> Ask {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Ask { body: Some(body), ..asked(Method::POST) }
}

/// Each request of a site is in one of its counts: nothing failed.
pub fn assert_only_good(site: &Site, requests: usize) {
    assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), requests as f64);
    assert_eq!(site.metric("requests_total", &[]), requests as f64);
    assert_eq!(site.metric("retries_total", &[]), 0.0);
    assert_eq!(site.metric("retry_budget_exhausted_total", &[]), 0.0);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}
