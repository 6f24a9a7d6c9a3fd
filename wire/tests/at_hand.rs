//! HTTP/2 answers that leave without a stream of their own: what a client sees of them is what it
//! sees of all others, whatever it asks for, and however its connection ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arena::Arena;
use bytes::Bytes;
use common::{By, Check, Random, Served, Stream, h2, h2_ask, h2_begin, shake};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use nearcast_wire::{Known, Levers, Reply, Request, Service};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: &str = "twelve bytes";
const UNREAD: HeaderName = HeaderName::from_static("x-read");

/// Answers with these fields: with a head made ready where `/known` is asked for, and without a
/// date, so that hyper must see it, where `/plain` is.
#[derive(Default)]
struct Heads {
    fields: Mutex<(StatusCode, HeaderMap)>,
    whole: AtomicUsize,
}

/// A body that tells who took it whole.
struct Counted(Full<Bytes>, Arc<Heads>);

impl Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

impl Service for Heads {
    type Body = Counted;

    fn whole(body: &mut Counted) -> Option<Bytes> {
        body.1.whole.fetch_add(1, Ordering::Relaxed);
        match Pin::new(&mut body.0).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    fn of_unread(&self) -> HeaderMap {
        HeaderMap::from_iter([(UNREAD, HeaderValue::from_static("by nobody"))])
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Counted> {
        let body = Counted(Full::from(BODY), Arc::clone(self));
        let (status, mut fields) = self.fields.lock().unwrap().clone();
        fields.insert(CONTENT_LENGTH, BODY.len().into());
        if request.head.uri.path() != "/plain" {
            fields.insert(DATE, HeaderValue::from_static("Sat, 21 Nov 2026 22:47:00 GMT"));
        }
        if request.head.uri.path() == "/known" {
            return Reply::Known(Arc::new(Known::new(status, fields, BODY.len() as u64)), body);
        }
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, fields);
        Reply::Now(response)
    }
}

fn name() -> impl Strategy<Value = HeaderName> {
    const COMMON: &[&str] = &[
        "age",
        "cache-control",
        "etag",
        "vary",
        "set-cookie",
        "server",
        "content-type",
        "expires",
        "link",
        "via",
        "last-modified",
        "accept-ranges",
        "access-control-allow-origin",
        "alt-svc",
        "cache-status",
        "keep-alive",
        "te",
        "content-encoding",
        "x-cache",
        "age",
    ];
    let name = prop_oneof![
        prop::sample::select(COMMON).prop_map(str::to_owned),
        "x-[a-z0-9!#$%&'*+.^_`|~-]{1,200}",
    ];
    name.prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn value() -> impl Strategy<Value = HeaderValue> {
    let bytes = prop_oneof![
        "[ -~]{0,40}".prop_map(String::into_bytes),
        "(bytes|public, max-age=3600|gzip, deflate|\"abc\")".prop_map(String::into_bytes),
        prop::collection::vec(prop_oneof![Just(9), 32..=126u8, 128..=255u8], 0..400),
    ];
    (bytes, any::<bool>()).prop_map(|(bytes, is_sensitive)| {
        let mut value = HeaderValue::try_from(bytes).unwrap();
        value.set_sensitive(is_sensitive);
        value
    })
}

type Head = (StatusCode, HeaderMap, &'static str);

fn head() -> impl Strategy<Value = Head> {
    let status = prop::sample::select(&[200, 203, 206, 404, 410, 500, 503, 418][..])
        .prop_map(|status| StatusCode::from_u16(status).unwrap());
    let fields = prop::collection::vec((name(), value()), 0..12).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    });
    (status, fields, prop::sample::select(&["/known", "/now", "/plain"][..]))
}

/// Heads one after the other on one connection, whose tables hyper's own fill.
async fn heads_come(heads: Vec<Head>) -> usize {
    let arena = Arena::new(1 << 20).unwrap();
    let service = Arc::new(Heads::default());
    let served = Served::of(Arc::clone(&service), Levers::default(), arena).await;
    let mut peer = h2(shake(TcpStream::connect(served.tls).await.unwrap(), b"h2").await).await;
    for (status, fields, path) in heads {
        *service.fields.lock().unwrap() = (status, fields.clone());
        let uri = format!("https://localhost{path}");
        let request = http::Request::get(uri).body(Empty::new()).unwrap();
        let (got, body) = peer.send_request(request).await.unwrap().into_parts();
        let mut came = got.headers;
        assert_eq!(got.status, status);
        assert_eq!(came.remove(CONTENT_LENGTH).unwrap(), BODY.len().to_string());
        assert!(came.remove(DATE).is_some());
        let mut expected = fields;
        expected.remove("keep-alive");
        expected.remove("te");
        assert_eq!(came, expected);
        assert_eq!(body.collect().await.unwrap().to_bytes(), BODY);
    }
    drop(peer);
    served.empty().await;
    service.whole.load(Ordering::Relaxed)
}

fn on_two_threads<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn heads_come_as_the_service_gave_them(heads in prop::collection::vec(head(), 1..12)) {
        on_two_threads(heads_come(heads));
    }
}

#[test]
fn heads_leave_without_hyper() {
    let fields =
        HeaderMap::from_iter([(HeaderName::from_static("etag"), "\"a\"".parse().unwrap())]);
    let heads = ["/known", "/now", "/plain"].map(|path| (StatusCode::OK, fields.clone(), path));
    assert_eq!(on_two_threads(heads_come(heads.to_vec())), 2);
}

/// The service never sees it, and has a word in the answer all the same.
#[test]
fn a_head_that_is_too_long_is_answered_with_what_the_service_says_of_such() {
    on_two_threads(async {
        let served =
            Served::of(Arc::new(Heads::default()), Levers::default(), Arena::new(1 << 20).unwrap());
        let served = served.await;
        let mut peer = h2(shake(TcpStream::connect(served.tls).await.unwrap(), b"h2").await).await;
        for (bytes, status) in [(20 << 10, 431), (10 << 10, 200), (17 << 10, 431)] {
            let request =
                http::Request::get("https://localhost/now").header("x", "a".repeat(bytes));
            let answer = peer.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status);
            let said = answer.headers().get(UNREAD).map(HeaderValue::as_bytes);
            assert_eq!(said, (status == 431).then_some(&b"by nobody"[..]), "{bytes}");
        }
        assert_eq!(
            served.counted("nearcast_edge_requests_unread_total", &["h2", "too-large"]),
            2.0
        );
        drop(peer);
        served.empty().await;
    });
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that changes no table, without Huffman codes (RFC 7541 section 6.2.2), of less than 127
/// bytes.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let name = if name == ":path" { vec![4] } else { [vec![0], text(name)].concat() };
    [name, text(value)].concat()
}

/// A request of any kind: its frames.
fn request(stream: u32, random: &mut Random) -> Vec<u8> {
    let mut rarely = |texts: &[&'static str]| match random.below(20) {
        0 => texts[random.below(texts.len())],
        _ => texts[0],
    };
    let mut fields = Vec::new();
    let (method, scheme) =
        (rarely(&["GET", "HEAD", "POST", "get", ""]), rarely(&["https", "", ":"]));
    let authority = rarely(&["localhost", "a b", ""]);
    let path = ["/1/2000", "/3/5000", "/5/70000", "/2/2000", "/7/0", "/9/4096", "/11/65536"];
    let path = match random.below(20) {
        0 => ["", "*", "/a/b", "/1/2 0"][random.below(4)],
        _ => path[random.below(path.len())],
    };
    for (name, value) in
        [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    {
        if !value.is_empty() || random.below(2) == 0 {
            fields.extend(field(name, value));
        }
    }
    let more = [
        ("content-length", "0"),
        ("content-length", "5"),
        ("content-length", "x"),
        ("te", "trailers"),
        ("te", "gzip"),
        ("connection", "close"),
        ("X-Upper", "a"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":path", "/1/1"),
        ("cookie", "a=b"),
        ("host", "localhost"),
        ("priority", "u=1"),
        ("x-bad", "a\nb"),
        ("range", "bytes=0-1"),
        ("trailer", "x"),
    ];
    for _ in 0..random.below(12) / 8 {
        let (name, value) = more[random.below(more.len())];
        fields.extend(field(name, value));
    }
    if random.below(20) == 0 {
        (0..200).for_each(|_| fields.extend(field("x-long", &"a".repeat(100))));
    }
    let (has_body, mut flags, mut payload) = (random.below(6) == 0, 0, Vec::new());
    let pad = if random.below(5) == 0 { 1 + random.below(20) } else { 0 };
    if pad > 0 {
        flags |= PADDED;
        payload.push(u8::try_from(pad).unwrap());
    }
    if random.below(5) == 0 {
        flags |= PRIORITY;
        payload.extend([0, 0, 0, [0, 3][random.below(2)], 16]);
    }
    flags |= if has_body { 0 } else { END_STREAM };
    let cut =
        if random.below(5) == 0 { random.below(fields.len()) } else { fields.len().min(16_000) };
    let (first, rest) = fields.split_at(cut);
    payload.extend_from_slice(first);
    payload.extend(vec![0; pad]);
    let mut frames = match rest.is_empty() {
        true => frame(HEADERS, flags | END_HEADERS, stream, &payload),
        false => frame(HEADERS, flags, stream, &payload),
    };
    let parts: Vec<_> = rest.chunks(16_000).collect();
    for (at, part) in parts.iter().enumerate() {
        let flags = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        frames.extend(frame(CONTINUATION, flags, stream, part));
    }
    if has_body {
        frames.extend(frame(DATA, END_STREAM, stream, b"hello"));
    }
    frames
}

/// How a stream went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Outcome {
    is_200: bool,
    body_bytes: usize,
    body_sum: u64,
    reset: Option<u32>,
    has_ended: bool,
}

async fn next_frame(stream: &mut Stream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], id, payload))
}

fn code(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// What becomes of these streams; or, where the connection ends with an error, only of which.
async fn outcomes(
    served: &Served,
    windows: (u32, u32),
    said: &[u8],
    ids: &[u32],
) -> Result<BTreeMap<u32, Outcome>, u32> {
    let mut stream = served.connect(By::H2Tls).await;
    let mut all: BTreeMap<u32, Outcome> = ids.iter().map(|id| (*id, Outcome::default())).collect();
    // The server has read all once it answers to the PING, or has found an error.
    let begin = h2_begin(windows.0, windows.1);
    let ping = frame(PING, 0, 0, &[0; 8]);
    stream.write_all(&[&begin, said, &ping].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let mut has_read = false;
    while !has_read || all.values().any(|outcome| !outcome.has_ended) {
        let (kind, flags, id, payload) = next_frame(&mut stream).await.expect("a GOAWAY first");
        if kind == GOAWAY {
            return Err(code(&payload, 4));
        }
        has_read |= kind == PING;
        // What comes behind an answer, to say that no more is read, is not part of it.
        let outcome = all.get_mut(&id).filter(|outcome| !outcome.has_ended);
        let Some(outcome) = outcome else { continue };
        match kind {
            HEADERS => outcome.is_200 = payload[0] == 0x88,
            DATA => {
                outcome.body_bytes += payload.len();
                outcome.body_sum = payload.iter().fold(outcome.body_sum, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
                });
            }
            RST_STREAM => outcome.reset = Some(code(&payload, 0)),
            _ => {}
        }
        outcome.has_ended |= kind == RST_STREAM || flags & END_STREAM != 0 && kind <= HEADERS;
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_comes_to_the_same() {
    let on = Served::start(Levers::default(), 64 << 20).await;
    let off = Served::start(Levers::default().off("direct").unwrap(), 64 << 20).await;
    let mut random = Random(7);
    let mut answered = 0;
    for round in 0..300 {
        let (mut said, mut id, mut ids) = (Vec::new(), 1, Vec::new());
        for _ in 0..1 + random.below(8) {
            said.extend(request(id, &mut random));
            ids.push(id);
            id += 2 * (1 + random.below(3)) as u32;
            if random.below(40) == 0 {
                id = [1, 2, 0][random.below(3)];
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let windows = (1 << 20, 10 << 20);
        let got = outcomes(&on, windows, &said, &ids).await;
        assert_eq!(got, outcomes(&off, windows, &said, &ids).await, "round {round}");
        answered += got.map_or(0, |all| all.values().filter(|outcome| outcome.is_200).count());
    }
    assert!(answered > 200 && on.whole() > 50, "{answered} {}", on.whole());
    assert_eq!(off.whole(), 0);
    let panics = |served: &Served| served.counter("nearcast_edge_connection_panics_total");
    assert!(panics(&on) > 0.0);
    assert_eq!(panics(&on), panics(&off));
    on.empty().await;
    off.empty().await;
}

/// What was answered is known to the peer when the connection is drained (RFC 9113 section 6.8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_names_the_last_stream_that_was_answered() {
    let served = Served::start(Levers::default(), 64 << 20).await;
    let mut stream = served.connect(By::H2Tls).await;
    let asked: Vec<u8> = (0..5).flat_map(|at| h2_ask(1 + 2 * at, "/1/3000")).collect();
    stream.write_all(&[h2_begin(1 << 20, 1 << 20), asked].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let (mut check, mut ended) = (Check { seed: 1, at: 0 }, 0);
    while ended < 5 {
        let (kind, flags, _, payload) = next_frame(&mut stream).await.unwrap();
        if kind == DATA {
            check.bytes(&payload);
            if flags & END_STREAM != 0 {
                assert_eq!(check.at, 3000);
                check.at = 0;
                ended += 1;
            }
        }
    }
    let whole = served.whole();
    served.shared.drain.cancel();
    let mut last = None;
    while let Some((kind, flags, _, payload)) = next_frame(&mut stream).await {
        if kind == PING && flags == 0 {
            stream.write_all(&frame(PING, 1, 0, &payload)).await.unwrap();
            stream.flush().await.unwrap();
        }
        if kind == GOAWAY {
            last = Some((code(&payload, 0), code(&payload, 4)));
        }
    }
    assert_eq!((last, whole > 0), (Some((9, 0)), true));
    served.empty().await;
}
