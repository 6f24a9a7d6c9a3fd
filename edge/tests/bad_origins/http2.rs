//! The same of an origin of HTTP/2, which says what it is told, frame by frame (RFC 9113 section 4).

use crate::common::{Answer, Edge, get, log, proxy_settings};
use crate::named;
use bytes::Bytes;
use nearcast_edge::Settings;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const BYTES: usize = 40_000;
/// Less than a frame's greatest length.
const PIECE: usize = 16_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;

/// What is said on the stream of a request.
type Said = fn(u32) -> Vec<u8>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields without an index and short, so each length is a byte (RFC 7541 section 6.2.2).
fn head(stream: u32, status: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [(":status", status), ("etag", "\"one\""), ("cache-control", "max-age=60")];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    let block: Vec<u8> = fields.iter().chain(more).flat_map(field).collect();
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn ok(stream: u32) -> Vec<u8> {
    head(stream, "200", &[("content-length", "40000")])
}

/// So many bytes of the body from `start` on, and perhaps its end.
fn data(stream: u32, start: usize, bytes: usize, end: u8) -> Vec<u8> {
    let all = whole();
    let byte = |at: usize| all.get(at).copied().unwrap_or_default();
    let pieces = (start..start + bytes).collect::<Vec<_>>();
    let count = pieces.len().div_ceil(PIECE);
    let frames = pieces.chunks(PIECE).enumerate().map(|(place, piece)| {
        let payload: Vec<u8> = piece.iter().map(|at| byte(*at)).collect();
        frame(DATA, if place + 1 == count { end } else { 0 }, stream, &payload)
    });
    frames.flatten().collect()
}

fn whole() -> Bytes {
    (0..BYTES).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

fn good(stream: u32) -> Vec<u8> {
    [ok(stream), data(stream, 0, BYTES, END_STREAM)].concat()
}

/// The first half of it.
fn half(stream: u32) -> Vec<u8> {
    [ok(stream), data(stream, 0, BYTES / 2, 0)].concat()
}

fn reset(stream: u32, error: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &error.to_be_bytes())
}

/// No stream above `last` was looked at.
fn goaway(last: u32, error: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

/// Answers each request with what is next, and well when that is all.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: Arc<Mutex<VecDeque<Said>>>) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut answer = frame(SETTINGS, 0, 0, &[]);
    let mut head = [0; 9];
    while stream.write_all(&answer).await.is_ok() && stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        answer = match (head[3], head[4] & 1) {
            (HEADERS, _) => said.lock().unwrap().pop_front().unwrap_or(good)(number),
            (SETTINGS, 0) => frame(SETTINGS, 1, 0, &[]),
            (PING, 0) => frame(PING, 1, 0, &payload),
            _ => Vec::new(),
        };
    }
}

struct Story {
    _dir: TempDir,
    origin: String,
    edge: Edge,
}

impl Story {
    /// Whose origin says this first.
    async fn of(first: Said) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://{}", listener.local_addr().unwrap());
        let said = Arc::new(Mutex::new(VecDeque::from([first])));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, said) = (acceptor.clone(), Arc::clone(&said));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, said).await;
                    }
                });
            }
        });
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let site = json!({ "retries": 0, "hedge": false });
        let settings = proxy_settings(dir.path(), &origin, &site);
        let edge = Edge::start(Settings { ca: Some(ca), ..settings }).await;
        Self { _dir: dir, origin, edge }
    }

    async fn get(&self, fields: &[(&str, &str)]) -> Answer {
        get(&format!("{}/page", self.edge.http), fields).await
    }

    /// Nothing is left of what came first.
    async fn is_good_again(&self, what: &str) {
        for verdict in ["origin", "hit-memory"] {
            let answer = self.get(&[]).await;
            assert_eq!((answer.status.as_u16(), answer.verdict()), (200, verdict), "{what}");
            assert!(answer.bytes() == &whole(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_body_over_http2_that_is_not_whole_is_cut_and_never_kept() {
    let incomplete = "http_response_incomplete";
    let table: [(&str, Said, &str); 8] = [
        // Of a frame that goes past the length h2 gives nothing, and no word tells it from one that
        // ends before.
        (
            "more than its length, all in one frame",
            |stream| {
                let head = head(stream, "200", &[("content-length", "4000")]);
                [head, data(stream, 0, 4100, END_STREAM)].concat()
            },
            incomplete,
        ),
        (
            "more than its length",
            |stream| [ok(stream), data(stream, 0, BYTES + 100, END_STREAM)].concat(),
            incomplete,
        ),
        (
            "less than its length",
            |stream| [ok(stream), data(stream, 0, BYTES - 100, END_STREAM)].concat(),
            incomplete,
        ),
        (
            "an end without the rest",
            |stream| [half(stream), frame(DATA, END_STREAM, stream, &[])].concat(),
            incomplete,
        ),
        ("a reset", |stream| [half(stream), reset(stream, INTERNAL_ERROR)].concat(), incomplete),
        ("a friendly reset", |stream| [half(stream), reset(stream, NO_ERROR)].concat(), incomplete),
        ("GOAWAY", |stream| [half(stream), goaway(0, INTERNAL_ERROR)].concat(), incomplete),
        ("a friendly GOAWAY", |stream| [half(stream), goaway(0, NO_ERROR)].concat(), incomplete),
    ];
    log::start();
    for (what, said, error) in table {
        let story = Story::of(said).await;
        let answer = story.get(&[]).await;
        assert!(answer.body.is_err() || answer.status == 502, "{what}: {answer:?}");
        // Named to the client, or, once the head is out, in the log.
        match answer.status.as_u16() {
            502 => assert_eq!(named(&answer).3, error, "{what}"),
            _ => log::told(&format!("cut ({error}): {}", story.origin), what).await,
        }
        story.is_good_again(what).await;
    }
}

/// As over HTTP/1.1: the promise is all that can be gone by.
#[tokio::test]
async fn what_comes_over_http2_behind_the_promised_length_is_nobodys_answer() {
    let story = Story::of(|stream| {
        let more = data(stream, BYTES, 1, END_STREAM);
        [ok(stream), data(stream, 0, BYTES, 0), more].concat()
    })
    .await;
    story.is_good_again("a byte behind the promised length").await;
}

/// Streams up to the one that it names go on (RFC 9113 section 6.8).
#[tokio::test]
async fn a_goaway_in_mid_body_ends_no_answer_that_it_leaves() {
    let story = Story::of(|stream| {
        let rest = data(stream, BYTES / 2, BYTES / 2, END_STREAM);
        [half(stream), goaway(stream, NO_ERROR), rest].concat()
    })
    .await;
    story.is_good_again("a GOAWAY that leaves it").await;
}

#[tokio::test]
async fn a_part_over_http2_that_was_not_asked_for_is_refused() {
    let story = Story::of(|stream| {
        let fields = [("content-range", "bytes 11-20/40000"), ("content-length", "10")];
        [head(stream, "206", &fields), data(stream, 11, 10, END_STREAM)].concat()
    })
    .await;
    let answer = story.get(&[("range", "bytes=10-19")]).await;
    let expected = (502, "failed".into(), "origin-failed".into(), "http_protocol_error".into());
    assert_eq!(named(&answer), expected);
    story.is_good_again("a wrong part").await;
}
