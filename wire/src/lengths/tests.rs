//! Both lengths are found in the request that has them, however its bytes come; and by chance, that
//! requests end where hyper ends them.

use super::*;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOTH: &str = "GET / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What is found in a stream that comes in these parts: the number of the request with both
/// lengths, how many heads ended, and whether the last request did.
fn found(stream: &[u8], ends: impl IntoIterator<Item = usize>) -> (Option<usize>, usize, bool) {
    let (mut lengths, mut at, mut found) = (Lengths::new(true), 0, None);
    for end in ends.into_iter().chain([stream.len()]) {
        found = found.or(lengths.take(&stream[at..end]));
        at = end;
    }
    (found, lengths.heads(), lengths.is_between())
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{fields}\r\n{body}")
}

#[test]
fn both_lengths_are_found_behind_whatever_came_before_and_nowhere_else() {
    let chunks = format!("{:X} ;a=5\r\n{BOTH}\r\n1\r\n\n\r\n00\r\nx: y\n\n\r\n\r\n", BOTH.len());
    let before = [
        String::new(),
        "\r\n\n".to_owned(),
        post("", ""),
        post("x: content-length: 1\r\ncontent-length-x: 2\r\ntransfer-encodings: chunked\r\n", ""),
        post(&format!("content-LENGTH:{} \r\n", BOTH.len()), BOTH),
        post(&format!("content-length: {0}\ncontent-length:\t{0}\n", BOTH.len()), BOTH),
        post("Transfer-Encoding: \tchunked\r\nTransfer-Encoding:chunked\r\n", &chunks),
    ];
    for (at, first) in before.iter().enumerate() {
        for (also, second) in before.iter().enumerate() {
            let heads = usize::from(at > 1) + usize::from(also > 1);
            let stream = format!("{first}{second}{BOTH}{BOTH}");
            let wanted = (Some(heads + 1), heads + 1, false);
            assert_eq!(found(stream.as_bytes(), []), wanted, "{stream}");
            assert_eq!(found(stream.as_bytes(), 0..stream.len()), wanted, "{stream}");
            for end in 0..stream.len() {
                assert_eq!(found(stream.as_bytes(), [end]), wanted, "{end}: {stream}");
            }
            let is_between = also != 1 && !(also == 0 && at == 1);
            let stream = format!("{first}{second}");
            assert_eq!(found(stream.as_bytes(), []), (None, heads, is_between), "{stream}");
        }
    }
}

#[test]
fn a_request_has_both_lengths_whatever_their_order_spelling_and_number() {
    const HOST: &str = "Host: a\r\n";
    for (fields, has_both) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", true),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", true),
        ("transfer-encoding:CHUNKED\nX: a\nCONTENT-LENGTH:  04\n", true),
        ("Content-Length: 4\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", true),
        ("Transfer-Encoding: gzip\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", true),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", true),
        ("Transfer-Encoding: chunked\r\nContent-Length:\r\n", true),
        ("Transfer-Encoding: chunked\r\nX: Content-Length: 4\r\n", false),
        ("Transfer-Encoding: chunked\r\nXContent-Length: 4\r\n", false),
        ("Transfer-Encoding: chunked\r\nContent-Lengths: 4\r\n", false),
        ("Transfer-Encoding: chunked\r\nContent_Length: 4\r\n", false),
        ("Content-Length: 4\r\nTE: chunked\r\n", false),
        ("Content-Length: 4\r\nT\r\n", false),
        // A space belongs to no name, and a line that begins with one to no request: hyper refuses
        // both.
        ("Transfer-Encoding: chunked\r\nContent-Length : 4\r\n", false),
        ("Transfer-Encoding: chunked\r\n Content-Length: 4\r\n", false),
    ] {
        for request in [post(fields, ""), post(&format!("{HOST}{fields}{HOST}"), "")] {
            let wanted = has_both.then_some(1);
            assert_eq!(found(request.as_bytes(), []).0, wanted, "{request}");
        }
    }
}

#[test]
fn http_2_is_not_looked_at() {
    let h2 = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{BOTH}");
    assert_eq!(found(h2.as_bytes(), []), (None, 0, false));
    assert_eq!(found(h2.as_bytes(), 0..h2.len()), (None, 0, false));
    let mut off = Lengths::new(false);
    assert_eq!((off.take(BOTH.as_bytes()), off.heads()), (None, 0));
}

/// What streams are made of: `#` is another number in each.
const PARTS: [&str; 24] = [
    "GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /# HTTP/1.1\nHost: a\n\n",
    "POST /# HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "POST /# HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "POST /# HTTP/1.1\r\ncontent-length:15\r\nContent-Length: 15 \r\n\r\nGET / HTTP/1.1\n",
    "POST /# HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /# HTTP/1.1\r\nX: y\r\ntransfer-encoding:\tchunked\r\n\r\n",
    "POST /# HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "POST /# HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /# HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "PUT /# HTTP/1.1\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "5\r\nhello\r\n",
    "a;b=c\r\n0123\r\n6789\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "0\r\nX: y\n\nZ: z\r\n\r\n",
    "\r\n",
    "\n",
    "\r",
    ":",
    "F",
    " ",
];

/// Streams of requests, some of them broken.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![3 => 0..10_usize, 2 => 13..17_usize, 1 => 0..PARTS.len()];
    let change = (any::<prop::sample::Index>(), 0..PARTS.len());
    (vec(part, 1..8), vec(change, 0..2)).prop_map(|(parts, changes)| {
        let parts = parts.iter().enumerate();
        let parts = parts.map(|(number, part)| PARTS[*part].replace('#', &number.to_string()));
        let mut stream = parts.collect::<String>().into_bytes();
        for (at, part) in changes {
            let at = at.index(stream.len() + 1);
            stream.splice(at..at, PARTS[part].replace('#', "c").bytes());
        }
        stream
    })
}

/// Requests as a service gets them from hyper: their paths, and whether they are chunked. None of
/// a connection that panicked.
async fn hypers(stream: &[u8]) -> Vec<(String, bool)> {
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let serve = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: hyper::Request<Incoming>| {
            let is_chunked = request.headers().contains_key("transfer-encoding");
            seen.lock().unwrap().push((request.uri().path().to_owned(), is_chunked));
            async {
                // One that is broken ends the connection.
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        })
    };
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.half_close(true).serve_connection(TokioIo::new(server), serve);
    client.write_all(stream).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answers = Vec::new();
    let (_, read) = tokio::join!(serving, client.read_to_end(&mut answers));
    read.unwrap();
    std::mem::take(&mut *seen.lock().unwrap())
}

/// The text of each head, to its end.
fn heads(stream: &[u8]) -> Vec<String> {
    let (mut lengths, mut heads, mut start) = (Lengths::new(true), Vec::new(), 0);
    for (at, byte) in stream.iter().enumerate() {
        if let At::Start | At::Blank | At::BlankLf = lengths.at {
            start = at;
        }
        lengths.take(&[*byte]);
        if lengths.heads() > heads.len() {
            heads.push(String::from_utf8_lossy(&stream[start..=at]).into_owned());
        }
    }
    heads
}

fn has_length(head: &str) -> bool {
    let names = head.lines().filter_map(|line| line.split_once(':'));
    names.into_iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// How the bytes are cut is nothing to what is found in them.
    #[test]
    fn the_same_is_found_however_it_comes(
        stream in prop_oneof![streams(), vec(any::<u8>(), 0..200)],
        mut ends in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        ends.sort_by_key(|end| end.index(stream.len() + 1));
        let ends = ends.iter().map(|end| end.index(stream.len() + 1));
        prop_assert_eq!(found(&stream, []), found(&stream, ends));
        prop_assert_eq!(found(&stream, []), found(&stream, 0..stream.len()));
    }

    /// Each request that hyper reads is the one of its number here, and if that is chunked, it has
    /// a length as well just if that is found.
    #[test]
    fn requests_are_hypers(stream in streams()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seen = runtime.block_on(hypers(&stream));
        let (both, count, is_between) = found(&stream, []);
        let heads = heads(&stream);
        prop_assert_eq!(heads.len(), count);
        prop_assert!(seen.len() <= count, "{:?} {:?}", seen, heads);
        for (number, ((path, is_chunked), head)) in seen.iter().zip(&heads).enumerate() {
            prop_assert_eq!(Some(path.as_str()), head.split(' ').nth(1), "{:?}", heads);
            let has_both = *is_chunked && has_length(head);
            prop_assert_eq!(both == Some(number + 1), has_both, "{:?}", heads);
            // Behind it hyper reads none.
            prop_assert!(!has_both || seen.len() == number + 1);
        }
        prop_assert!(!is_between || both.is_none());
    }
}
