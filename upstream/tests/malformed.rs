//! Answers of HTTP/2 that are none: each has the name of RFC 9209 that it would have over HTTP/1.1.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use nearcast_upstream::{BreakerState, ErrorType, Fault};
use std::time::Duration;

const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const INTERNAL_ERROR: u32 = 2;
/// `:status: 200`, of the static table.
const OK: &[u8] = &[0x88];
const FRAME_BYTES_MAX: usize = 16_384;

/// An integer of HPACK behind this many bits of a prefix (RFC 7541 section 5.1).
fn integer(first: u8, bits: u32, mut value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    value -= most;
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field with its name (section 6.2), put into the dynamic table or not.
fn literal(kind: u8, name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [integer(0, 7, text.len()), text.into()].concat();
    [vec![kind], text(name), text(value)].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    literal(0, name, value)
}

fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A head of this block, in as many frames as it takes.
fn block(stream: u32, parts: &[&[u8]]) -> Vec<u8> {
    let block = parts.concat();
    let count = block.len().div_ceil(FRAME_BYTES_MAX);
    let frames = block.chunks(FRAME_BYTES_MAX).enumerate().map(|(place, part)| {
        let kind = if place == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if place + 1 == count { END_HEADERS } else { 0 }, stream, part)
    });
    frames.flatten().collect()
}

/// A 200 with these fields.
fn ok(stream: u32, all: &[(&str, &str)]) -> Vec<u8> {
    block(stream, &[OK, &fields(all)])
}

/// A field of 4,000 bytes, again and again: a byte each time.
fn repeated(stream: u32, times: usize) -> Vec<u8> {
    block(stream, &[OK, &literal(0x40, "x", &"x".repeat(4000)), &vec![0xbe; times]])
}

fn flood(stream: u32) -> Vec<u8> {
    [frame(HEADERS, 0, stream, OK), frame(CONTINUATION, 0, stream, b"").repeat(200)].concat()
}

type Said = fn(u32) -> Vec<u8>;

async fn fault_of(what: &str, said: Said) -> Fault {
    let server = Server::of_frames(move |_, _, stream| said(stream)).await;
    let times = "first-byte-timeout = \"5s\"\nstall-timeout = \"150ms\"";
    let text = format!("origins = [{:?}]\nretries = 0\n{times}", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    let got = site.get("/a").await;
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
    got.err().unwrap_or_else(|| panic!("{what}: a whole answer"))
}

#[tokio::test]
async fn a_head_that_is_none_has_a_name() {
    use ErrorType::{ConnectionTerminated, HttpProtocolError, HttpResponseHeaderSectionSize};
    let long: Said = |stream| ok(stream, &[("x", &"x".repeat(128 << 10))]);
    let many: Said = |stream| ok(stream, &vec![("x", "x"); 300]);
    let more: Said = |stream| ok(stream, &vec![("x", "x"); 3000]);
    let table: Vec<(&str, Said, ErrorType)> = vec![
        ("a long field", long, HttpResponseHeaderSectionSize),
        ("many fields", many, HttpResponseHeaderSectionSize),
        ("still more fields", more, HttpResponseHeaderSectionSize),
        ("some bytes for many", |stream| repeated(stream, 20), HttpResponseHeaderSectionSize),
        ("some for millions", |stream| repeated(stream, 16_000), HttpResponseHeaderSectionSize),
        ("a flood of CONTINUATION", flood, HttpResponseHeaderSectionSize),
        ("an upper case", |stream| ok(stream, &[("X-A", "b")]), HttpProtocolError),
        ("no status", |stream| block(stream, &[&field("x", "x")]), HttpProtocolError),
        ("two statuses", |stream| block(stream, &[OK, OK]), HttpProtocolError),
        ("a late status", |stream| block(stream, &[&field("x", "x"), OK]), HttpProtocolError),
        ("no number", |stream| block(stream, &[&field(":status", "2x0")]), HttpProtocolError),
        ("a pseudo-field", |stream| ok(stream, &[(":x", "x")]), HttpProtocolError),
        ("connection", |stream| ok(stream, &[("connection", "close")]), HttpProtocolError),
        ("keep-alive", |stream| ok(stream, &[("keep-alive", "1")]), HttpProtocolError),
        ("coding", |stream| ok(stream, &[("transfer-encoding", "chunked")]), HttpProtocolError),
        ("a length of words", |stream| ok(stream, &[("content-length", "x")]), HttpProtocolError),
        (
            "two lengths",
            |stream| ok(stream, &[("content-length", "1"), ("content-length", "2")]),
            HttpProtocolError,
        ),
        (
            "a length and no body",
            |stream| frame(HEADERS, 5, stream, &[OK, &field("content-length", "4")].concat()),
            HttpProtocolError,
        ),
        ("an index of nothing", |stream| block(stream, &[OK, &[0xbe]]), HttpProtocolError),
        (
            "a table of a MiB",
            |stream| block(stream, &[&integer(0x20, 5, 1 << 20), OK]),
            HttpProtocolError,
        ),
        ("a body before its head", |stream| data(stream, 0, "good"), HttpProtocolError),
        (
            "another frame in a head",
            |stream| [frame(HEADERS, 0, stream, OK), data(stream, 0, "good")].concat(),
            HttpProtocolError,
        ),
        ("no HTTP/2", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), HttpProtocolError),
        ("a reset", |stream| reset(stream, INTERNAL_ERROR), ConnectionTerminated),
    ];
    for (what, said, error) in table {
        let fault = fault_of(what, said).await;
        println!("{what}: {fault}");
        assert_eq!(fault.error_type(), error, "{what}: {fault}");
        assert!(fault.to_string().contains(error.as_str()), "{fault}");
        assert_eq!(fault.status(), 502, "{what}");
    }
}

fn cut_at_4_of_10(stream: u32) -> Vec<u8> {
    [ok(stream, &[("content-length", "10")]), data(stream, 0, "good")].concat()
}

#[tokio::test]
async fn a_body_that_is_not_whole_has_a_name() {
    use ErrorType::{ConnectionReadTimeout, HttpProtocolError, HttpResponseIncomplete};
    let table: Vec<(&str, Said, ErrorType)> = vec![
        (
            "a short one",
            |stream| [cut_at_4_of_10(stream), data(stream, END_STREAM, "")].concat(),
            HttpResponseIncomplete,
        ),
        (
            "one that is short in a frame",
            |stream| [ok(stream, &[("content-length", "10")]), data(stream, 1, "good")].concat(),
            HttpResponseIncomplete,
        ),
        (
            "a long one",
            |stream| {
                let head = ok(stream, &[("content-length", "4")]);
                [head, data(stream, 0, "good"), data(stream, 1, "more")].concat()
            },
            HttpProtocolError,
        ),
        (
            "a reset",
            |stream| [cut_at_4_of_10(stream), reset(stream, INTERNAL_ERROR)].concat(),
            HttpResponseIncomplete,
        ),
        (
            "a friendly reset",
            |stream| [cut_at_4_of_10(stream), reset(stream, NO_ERROR)].concat(),
            HttpResponseIncomplete,
        ),
        (
            "the connection's end",
            |stream| [cut_at_4_of_10(stream), goaway_for(0, INTERNAL_ERROR)].concat(),
            HttpResponseIncomplete,
        ),
        (
            "bad trailers",
            |stream| {
                let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &field("X-A", "b"));
                [head(stream), data(stream, 0, "good"), trailers].concat()
            },
            HttpProtocolError,
        ),
        (
            "bad padding",
            |stream| [head(stream), frame(DATA, 8, stream, &[200, 1])].concat(),
            HttpProtocolError,
        ),
        ("silence", cut_at_4_of_10, ConnectionReadTimeout),
    ];
    for (what, said, error) in table {
        let fault = fault_of(what, said).await;
        println!("{what}: {fault}");
        assert!(matches!(fault, Fault::Cut { .. }), "{what}: {fault}");
        assert_eq!(fault.error_type(), error, "{what}: {fault}");
        assert!(fault.to_string().contains(error.as_str()), "{fault}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_in_mid_body_has_a_name() {
    let server = Server::new(move |_, tls| async move {
        let begun = tokio::sync::Notify::new();
        let served = frames(tls, |heard| {
            begun.notify_one();
            cut_at_4_of_10(heard.stream)
        });
        tokio::select! {
            biased;
            () = served => {}
            // Said by then, and closed now.
            () = begun.notified() => {}
        }
    })
    .await;
    let fault = server.site().get("/a").await.unwrap_err();
    assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
    assert_eq!(fault.error_type(), ErrorType::HttpResponseIncomplete, "{fault}");
}

/// Fewer than 256 bytes in two times the limit of a silence.
#[tokio::test]
async fn a_drip_has_a_name() {
    let server = Server::new(|_, tls| async move {
        let Ok(mut h2) = h2::server::handshake(tls).await else { return };
        let Some(Ok((_, mut respond))) = h2.accept().await else { return };
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        let drips = async {
            while body.send_data(Bytes::from("7"), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        tokio::select! {
            _ = h2.accept() => {}
            () = drips => {}
        }
    })
    .await;
    let text = format!("origins = [{:?}]\nretries = 0\nstall-timeout = \"150ms\"", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    let fault = site.get("/a").await.unwrap_err();
    assert!(fault.to_string().contains("a drip: "), "{fault}");
    assert_eq!(fault.error_type(), ErrorType::ConnectionReadTimeout, "{fault}");
}
