//! Requests with `Content-Length` beside `Transfer-Encoding`: whoever reads one picks a length,
//! so each is refused by name, however it comes and whatever came before it on its connection.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "common/bytes.rs"]
mod bytes;
mod common;
#[path = "common/raw.rs"]
mod raw;

use bytes::{address, answers, exchange, exchange_on};
use common::{Edge, Stage, over_tls};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use raw::Raw;
use tokio::net::TcpStream;

/// The hidden request: an answer to it would be one too many.
const HIDDEN: &str = "DELETE /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const GET: &str = "GET /before HTTP/1.1\r\nHost: a\r\n\r\n";
const CODE: &str = "lengths-two-ways";

/// Those that have both: either order, other spellings, and two that hyper does not look at.
const BOTH: [&str; 6] = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "transfer-encoding:\tCHUNKED \nX: a\nCONTENT-LENGTH:  04\n",
    "Content-Length: 4\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length:\r\n",
];

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// A body that is a request, in chunks, with trailers that name a length.
fn chunks() -> String {
    let (first, second) = HIDDEN.split_at(10);
    let sizes = (first.len(), second.len());
    format!(
        "{:x};a=5\r\n{first}\r\n{:X} \r\n{second}\r\n0\r\nX: a\r\nContent-Length: 4\r\n\r\n",
        sizes.0, sizes.1
    )
}

/// What comes before on the same connection, and how many requests that is.
fn before() -> Vec<(usize, String)> {
    let sized = post("/before", &format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN);
    let chunked = post("/before", "Transfer-Encoding: chunked\r\n", &chunks());
    vec![
        (0, String::new()),
        (0, "\r\n".to_owned()),
        (1, GET.to_owned()),
        (2, GET.repeat(2)),
        (1, sized.clone()),
        (1, chunked.clone()),
        (3, format!("{chunked}{GET}{sized}")),
    ]
}

/// An edge, as far as plain GETs are read beside hyper, and without that.
async fn edges(dirs: &[tempfile::TempDir; 2], raw: &Raw) -> [Edge; 2] {
    let settings = raw::settings(dirs[0].path(), raw);
    let mut without = raw::settings(dirs[1].path(), raw);
    without.write_path_off = vec!["direct".to_owned()];
    [Edge::start(settings).await, Edge::start(without).await]
}

/// Sends this over TCP or TLS, so many bytes at a time, and reads to the end.
async fn send(edge: &Edge, is_tls: bool, bytes: &str, part_bytes: usize) -> Vec<u8> {
    let bytes = bytes.as_bytes();
    let scheme = if is_tls { &edge.https } else { &edge.http };
    let stream = TcpStream::connect(scheme.split_once("://").unwrap().1).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if is_tls {
        let stream = over_tls(stream, &edge.dir.join("tls/cert.pem")).await;
        exchange_on(stream, bytes, part_bytes, false).await
    } else {
        exchange_on(stream, bytes, part_bytes, false).await
    }
}

/// RFC 9112 section 6.1. The connection ends with the answer, so that nothing behind is ever read
/// as a request.
#[tokio::test]
async fn a_request_with_two_lengths_is_refused_wherever_it_begins() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let raw = Raw::start().await;
    let edges = edges(&dirs, &raw).await;
    for fields in BOTH {
        for (count, before) in before() {
            let both = post("/both", fields, "0\r\n\r\n");
            let sent = format!("{before}{both}{HIDDEN}");
            for (edge, is_tls, part_bytes) in [
                (&edges[0], false, usize::MAX),
                (&edges[0], false, 1),
                (&edges[0], true, usize::MAX),
                (&edges[0], true, 7),
                (&edges[1], false, usize::MAX),
            ] {
                let read = send(edge, is_tls, &sent, part_bytes).await;
                let text = String::from_utf8(read.clone()).unwrap().to_lowercase();
                let answers = answers(&read);
                let (refused, others) = answers.split_last().expect(&sent);
                assert!(others.iter().all(|(status, _)| *status == 200), "{sent}: {text}");
                assert_eq!((others.len(), refused.0), (count, 400), "{sent}: {text}");
                assert!(refused.1.contains(CODE), "{sent}: {text}");
                assert!(text.contains("\r\nconnection: close\r\n"), "{sent}: {text}");
                let seen = raw.take();
                assert!(seen.iter().all(|seen| seen.line.ends_with(" /before")), "{seen:?}");
            }
        }
    }
    assert_eq!(raw.complaints(), Vec::<String>::new());
    for edge in edges {
        edge.stop().await;
    }
}

/// No site is needed for that, and it is counted as all that is refused is. HTTP/1.0 has no chunks:
/// hyper refuses that by itself.
#[tokio::test]
async fn whoever_would_answer_it_refuses_and_counts_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let raw = Raw::start().await;
    let (edges, titles) = (edges(&dirs, &raw).await, Stage::new().await);
    for edge in [&edges[0], &titles.edge] {
        for (at, fields) in BOTH.into_iter().enumerate() {
            for request in
                [post("/both", fields, ""), post("/both", fields, "").replacen("POST", "GET", 1)]
            {
                let read = exchange(&address(edge), request.as_bytes(), false).await;
                let answers = answers(&read);
                assert!(
                    matches!(&answers[..], [(400, body)] if body.contains(CODE)),
                    "{request}: {answers:?}"
                );
            }
            let text = common::get(&format!("{}/metrics", edge.admin), &[]).await.text();
            let is_refused = |line: &&str| {
                line.starts_with("nearcast_edge_requests_total")
                    && line.contains("verdict=\"refused\"")
            };
            let line = text.lines().find(is_refused).expect("what is refused is counted");
            let counted: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(line.contains("status=\"400\"") && counted == 2 * (at + 1), "{line}");
        }
    }
    let old = post("/both", BOTH[0], "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let read = exchange(&address(&edges[0]), old.as_bytes(), false).await;
    assert_eq!(answers(&read), [(400, String::new())]);
    assert_eq!(raw.take(), []);
    for edge in edges {
        edge.stop().await;
    }
    titles.edge.stop().await;
}

/// Chunks alone are answered, one request behind the other, and what their bodies and trailers look
/// like is nothing to that; so is a length alone, in HTTP/2 that was not agreed on, too.
#[tokio::test]
async fn one_length_is_as_good_as_the_other() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let raw = Raw::start().await;
    let edges = edges(&dirs, &raw).await;
    let looks = post("/first", BOTH[0], "");
    let looks = format!("{:x}\r\n{looks}\r\n0\r\nContent-Length: 4\r\n\r\n", looks.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    let last = "Connection: close\r\nContent-Length: 2\r\n";
    let sent = post("/first", chunked, &chunks())
        + &post("/second", chunked, &looks)
        + &post("/third", last, "hi");
    for edge in &edges {
        for (is_tls, part_bytes) in [(false, usize::MAX), (false, 1), (true, usize::MAX)] {
            let answers = answers(&send(edge, is_tls, &sent, part_bytes).await);
            let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
            assert_eq!(statuses, [200; 3], "{answers:?}");
            let bodies: Vec<_> = raw.take().into_iter().map(|seen| seen.body.unwrap()).collect();
            assert_eq!(bodies[0], HIDDEN.as_bytes());
            assert_eq!(bodies[1], post("/first", BOTH[0], "").as_bytes());
            assert_eq!(bodies[2], b"hi");
        }
        let stream = TcpStream::connect(address(edge)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let body = Full::new(hyper::body::Bytes::from(sent.clone()));
        let request = http::Request::post(format!("{}/h2", edge.http)).body(body).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        assert_eq!(raw.take()[0].body.as_deref(), Some(sent.as_bytes()));
        drop(sender);
        connection.await.unwrap().unwrap();
    }
    assert_eq!(raw.complaints(), Vec::<String>::new());
    for edge in edges {
        edge.stop().await;
    }
}
