//! Requests of one HTTP/2 connection that are alike but for their path, or nearly: whatever tables,
//! codings and frames say them, the service gets what was said.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arena::Arena;
use bytes::Bytes;
use common::{By, Random, Served, Stream, h2, h2_begin, shake};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Empty, Full};
use nearcast_wire::{Levers, Reply, Request, Service};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// The first index of the dynamic table (RFC 7541 section 2.3.3).
const DYNAMIC: u8 = 62;

/// Answers with what it was asked.
struct Echo;

impl Service for Echo {
    type Body = Full<Bytes>;

    fn whole(body: &mut Full<Bytes>) -> Option<Bytes> {
        let whole = std::mem::take(body).collect();
        Some(futures::FutureExt::now_or_never(whole)?.ok()?.to_bytes())
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Full<Bytes>> {
        let fields = request.head.headers.iter();
        let fields = fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        let text = told(&request.head.uri.to_string(), fields);
        let response = Response::builder()
            .header(CONTENT_LENGTH, text.len())
            .header(DATE, HeaderValue::from_static("Sat, 21 Nov 2026 22:47:00 GMT"));
        Reply::Now(response.body(text.into()).unwrap())
    }
}

fn told<'a>(uri: &str, fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = uri.to_owned();
    fields.for_each(|(name, value)| write!(text, "\n{name}: {value}").unwrap());
    text
}

async fn served() -> Served<Echo> {
    Served::of(Arc::new(Echo), Levers::default(), Arena::new(1 << 20).unwrap()).await
}

fn on_two_threads<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// How a client says a field that its table does not have, or that it does not look for there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Indexed,
    Added,
    NotAdded,
    Never,
}

/// A client that knows RFC 7541, but for Huffman codes.
#[derive(Default)]
struct Writer {
    table: VecDeque<(String, String)>,
}

impl Writer {
    fn field(&mut self, name: &str, value: &str, said: Said, block: &mut Vec<u8>) {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let field = (name.to_owned(), value.to_owned());
        let at = self.table.iter().position(|known| *known == field);
        let fixed: u8 = match name {
            ":authority" => 1,
            ":path" => 4,
            "accept" => 19,
            _ => 0,
        };
        match (said, at) {
            (Said::Indexed, Some(at)) => return block.push(0x80 | (DYNAMIC + at as u8)),
            (Said::Added, _) => {
                block.push(0x40 | fixed);
                self.table.push_front(field);
            }
            (Said::Never, _) => {
                block.extend(if fixed > 14 { vec![0x1f, 4] } else { vec![0x10 | fixed] })
            }
            _ => block.extend(if fixed > 14 { vec![0x0f, 4] } else { vec![fixed] }),
        }
        if fixed == 0 {
            block.extend(text(name));
        }
        block.extend(text(value));
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block in frames of any shape.
fn frames(stream: u32, block: &[u8], random: &mut Random) -> Vec<u8> {
    let (mut flags, mut payload) = (END_STREAM, Vec::new());
    let pad = if random.below(8) == 0 { random.below(9) } else { 0 };
    if pad > 0 {
        flags |= PADDED;
        payload.push(u8::try_from(pad).unwrap());
    }
    if random.below(4) == 0 {
        flags |= PRIORITY;
        payload.extend([0, 0, 0, 0, 16]);
    }
    let cut = if random.below(8) == 0 { random.below(block.len()) } else { block.len() };
    payload.extend_from_slice(&block[..cut]);
    payload.extend(vec![0; pad]);
    if cut == block.len() {
        return frame(HEADERS, flags | END_HEADERS, stream, &payload);
    }
    let rest = frame(CONTINUATION, END_HEADERS, stream, &block[cut..]);
    [frame(HEADERS, flags, stream, &payload), rest].concat()
}

/// The body of the answer on this stream.
async fn answer(stream: &mut Stream, id: u32) -> String {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if u32::from_be_bytes([head[5], head[6], head[7], head[8]]) != id {
            continue;
        }
        assert!(head[3] <= HEADERS, "{head:?} {payload:?}");
        if head[3] == DATA {
            body.extend(payload);
            if head[4] & END_STREAM != 0 {
                return String::from_utf8(body).unwrap();
            }
        }
    }
}

const PATHS: [&str; 6] = ["/a", "/films/1/v/4.m4s", "/films/1/a/4.m4s?x=y", "/a/b", "/", "/%20"];
const SAID: [Said; 4] = [Said::Indexed, Said::Added, Said::NotAdded, Said::Never];

#[test]
fn what_is_said_by_any_table_is_what_the_service_gets() {
    on_two_threads(async {
        let served = served().await;
        let mut random = Random(23);
        for _ in 0..40 {
            let mut stream = served.connect(By::H2Tls).await;
            let begin = h2_begin(1 << 20, 10 << 20);
            stream.write_all(&begin).await.unwrap();
            let mut writer = Writer::default();
            let mut fields: Vec<(&str, &str)> = Vec::new();
            for id in (1..80).step_by(2) {
                // Most requests differ from the one before in their path alone.
                if random.below(6) == 0 {
                    let values = ["*/*", "b", "c"];
                    fields = ["accept", "x-a", "cookie", "x-a"][..random.below(5)]
                        .iter()
                        .map(|name| (*name, values[random.below(3)]))
                        .collect();
                }
                let host = if random.below(12) == 0 { "other" } else { "localhost" };
                let path = PATHS[random.below(PATHS.len())];
                let mut block = Vec::new();
                if random.below(15) == 0 || writer.table.len() > 40 {
                    // Sizes of the table (RFC 7541 section 6.3): none, and 4,096 again.
                    block.extend([0x20, 0x3f, 0xe1, 0x1f]);
                    writer.table.clear();
                }
                block.extend([0x82, 0x87]);
                let mut said = |usual| match random.below(25) {
                    0 => SAID[random.below(SAID.len())],
                    _ => usual,
                };
                let usual = if writer.table.is_empty() { Said::Added } else { Said::Indexed };
                let (of_host, of_path) = (said(usual), said(Said::NotAdded));
                writer.field(":authority", host, of_host, &mut block);
                writer.field(":path", path, of_path, &mut block);
                for (name, value) in &fields {
                    let said = said(usual);
                    writer.field(name, value, said, &mut block);
                }
                stream.write_all(&frames(id, &block, &mut random)).await.unwrap();
                stream.flush().await.unwrap();
                let mut sorted = fields.clone();
                // Fields of one name come together.
                sorted.sort_by_key(|(name, _)| fields.iter().position(|(known, _)| known == name));
                let expected = told(&format!("https://{host}{path}"), sorted.into_iter());
                assert_eq!(answer(&mut stream, id).await, expected, "{id} {block:x?}");
            }
        }
        served.empty().await;
    });
}

/// A block in parts is read as ever; what it says, and what it does to the table, counts for those
/// that come behind it.
#[test]
fn what_comes_in_parts_between_them_is_not_passed_over() {
    on_two_threads(async {
        let served = served().await;
        let mut stream = served.connect(By::H2Tls).await;
        stream.write_all(&h2_begin(1 << 20, 10 << 20)).await.unwrap();
        let block = |last: &[u8]| {
            let mut block = vec![0x82, 0x87];
            Writer::default().field(":authority", "localhost", Said::NotAdded, &mut block);
            Writer::default().field(":path", "/a", Said::NotAdded, &mut block);
            [&block, last].concat()
        };
        let field = |name, value, said| {
            let mut field = Vec::new();
            Writer::default().field(name, value, said, &mut field);
            field
        };
        let last = [0x80 | DYNAMIC];
        let whole = |id, last: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, id, &block(last));
        let with_body = |id, last: &[u8]| {
            [frame(HEADERS, END_HEADERS, id, &block(last)), frame(DATA, END_STREAM, id, b"x")]
                .concat()
        };
        let in_parts = |id, last: &[u8]| {
            let block = block(last);
            let (first, rest) = block.split_at(block.len() - 1);
            let first = frame(HEADERS, END_STREAM, id, first);
            [first, frame(CONTINUATION, END_HEADERS, id, rest)].concat()
        };
        for (id, frames, expected) in [
            (1, whole(1, &field("x-a", "b", Said::Added)), "x-a: b"),
            (3, whole(3, &last), "x-a: b"),
            (5, with_body(5, &last), "x-a: b"),
            (7, in_parts(7, &field("x-a", "c", Said::NotAdded)), "x-a: c"),
            (9, whole(9, &last), "x-a: b"),
            (11, whole(11, &last), "x-a: b"),
            (13, in_parts(13, &field("x-d", "e", Said::Added)), "x-d: e"),
            (15, whole(15, &last), "x-d: e"),
            (17, whole(17, &last), "x-d: e"),
            (19, whole(19, &last), "x-d: e"),
        ] {
            stream.write_all(&frames).await.unwrap();
            stream.flush().await.unwrap();
            let expected = format!("https://localhost/a\n{expected}");
            assert_eq!(answer(&mut stream, id).await, expected, "{id}");
        }
        drop(stream);
        served.empty().await;
    });
}

/// hyper's client says fields by its table, and paths in Huffman codes.
#[test]
fn what_hypers_client_says_is_what_the_service_gets() {
    on_two_threads(async {
        let served = served().await;
        let mut random = Random(5);
        let mut peer = h2(shake(TcpStream::connect(served.tls).await.unwrap(), b"h2").await).await;
        let mut fields = Vec::new();
        for at in 0..400 {
            if random.below(5) == 0 {
                fields = ["accept", "x-a", "cookie", "etag"][..random.below(5)]
                    .iter()
                    .map(|name| (*name, ["*/*", "b", "c"][random.below(3)]))
                    .collect();
            }
            let uri = format!("https://localhost{}{at}", PATHS[random.below(PATHS.len())]);
            let mut request = http::Request::get(&uri).body(Empty::new()).unwrap();
            for (name, value) in &fields {
                let value = HeaderValue::from_static(value);
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
            let answer = peer.send_request(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, told(&uri, fields.iter().copied()));
        }
        drop(peer);
        served.empty().await;
    });
}
