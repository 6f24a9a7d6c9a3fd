//! Connections that the server ends while the client still sends (RFC 9112 section 9.6): what was
//! answered comes whole, however little of it the client's kernel takes before the client reads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arena::Arena;
use bytes::Bytes;
use common::{By, Served, Stream, h2_ask, h2_begin, shake, until};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use nearcast_wire::{CONNECTIONS_MAX, Levers, Reply, Request, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// More than a client's kernel takes, and small enough to be handed to the server's at once.
const ANSWER_BYTES: usize = 60_000;
/// What a client's kernel takes for it; it doubles that.
const KERNEL_BYTES: u32 = 4 << 10;
/// What a client sends behind the request that is refused.
const BEHIND_BYTES: usize = 200 << 10;

/// Answers, and reads no body.
struct Refusing;

impl Service for Refusing {
    type Body = Full<Bytes>;

    fn whole(body: &mut Full<Bytes>) -> Option<Bytes> {
        futures::FutureExt::now_or_never(body.frame())??.ok()?.into_data().ok()
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Full<Bytes>> {
        let mut response = Response::new(Full::new(vec![7; ANSWER_BYTES].into()));
        if request.head.method == Method::POST {
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        }
        Reply::Now(response)
    }
}

/// A connection of a client that reads slowly: itself, and its ends.
struct Client {
    stream: Stream,
    own: SocketAddr,
    server: SocketAddr,
}

/// What Linux tells of a socket in /proc/net/tcp: its state, and how many bytes wait in it to be
/// sent or acknowledged, and to be read.
fn socket(at: SocketAddr, peer: SocketAddr) -> Option<(String, usize, usize)> {
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    all.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&port(at)) && fields[2].ends_with(&port(peer));
        let (sends, reads) = fields[4].split_once(':').filter(|_| is_it)?;
        let bytes = |text| usize::from_str_radix(text, 16).unwrap();
        Some((fields[3].to_owned(), bytes(sends), bytes(reads)))
    })
}

impl Client {
    async fn new(served: &Served<Refusing>, by: By) -> Self {
        let server = if by == By::H1 { served.plain } else { served.tls };
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(KERNEL_BYTES).unwrap();
        let tcp = socket.connect(server).await.unwrap();
        let own = tcp.local_addr().unwrap();
        let stream: Stream = match by {
            By::H1 => Box::new(tcp),
            By::H1Tls => shake(tcp, b"http/1.1").await,
            By::H2Tls => shake(tcp, b"h2").await,
        };
        Self { stream, own, server }
    }

    async fn say(&mut self, said: &[u8]) {
        self.stream.write_all(said).await.expect("the server takes it, or its kernel");
        self.stream.flush().await.unwrap();
    }

    /// Waits until an answer is in the kernels.
    async fn is_answered(&self) {
        let waits = || {
            let sends = socket(self.server, self.own).map_or(0, |(_, sends, _)| sends);
            sends + socket(self.own, self.server).map_or(0, |(_, _, reads)| reads)
        };
        until("the answer is sent", || waits() >= ANSWER_BYTES).await;
    }

    /// Waits until the server has ended the connection, and reads what is left of it.
    async fn rest(&mut self, served: &Served<Refusing>) -> Vec<u8> {
        const ESTABLISHED: &str = "01";
        let ended = || socket(self.server, self.own).is_none_or(|(state, ..)| state != ESTABLISHED);
        until("the server has ended it", ended).await;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("an end, no reset");
        assert_eq!(served.shared.places.available_permits(), CONNECTIONS_MAX - 1, "it counts");
        rest
    }
}

async fn start() -> Served<Refusing> {
    let arena = Arena::new(1 << 20).unwrap();
    Served::of(Arc::new(Refusing), Levers::default(), arena).await
}

/// The status of each answer over HTTP/1.1, and the bytes of its body.
fn answers(mut all: &[u8]) -> Vec<(u16, usize)> {
    let mut answers = Vec::new();
    while !all.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(bytes) = head.parse(all).unwrap() else { break };
        let length = head.headers.iter().find(|field| field.name == "content-length");
        let length =
            length.map_or(0, |field| std::str::from_utf8(field.value).unwrap().parse().unwrap());
        let body = length.min(all.len() - bytes);
        answers.push((head.code.unwrap(), body));
        all = &all[bytes + body..];
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_in_mid_upload_is_answered_whole() {
    let served = start().await;
    let behind = "x".repeat(BEHIND_BYTES);
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BEHIND_BYTES}\r\n\r\n");
    let whole = |status| (status, ANSWER_BYTES);
    let cases = [
        // A body that nobody reads.
        (String::new(), post, whole(413)),
        // No HTTP, behind what is.
        (get.to_owned(), "GET / HTTP/1.1\r\nno field\r\n\r\n".to_owned(), (400, 0)),
        // A head without an end.
        (get.to_owned(), "GET / HTTP/1.1\r\nhost: a\r\nx: ".to_owned(), (431, 0)),
    ];
    for by in [By::H1, By::H1Tls] {
        for (before, refused, answer) in &cases {
            let mut client = Client::new(&served, by).await;
            let mut expected = Vec::new();
            if !before.is_empty() {
                client.say(before.as_bytes()).await;
                client.is_answered().await;
                expected.push(whole(200));
            }
            expected.push(*answer);
            client.say(format!("{refused}{behind}").as_bytes()).await;
            let rest = client.rest(&served).await;
            assert_eq!(answers(&rest), expected, "{by:?} {refused}");
            drop(client);
            served.empty().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_http_2_answered_before_an_error_comes_whole_and_the_error_behind_it() {
    const DATA: u8 = 0;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const PROTOCOL_ERROR: u32 = 1;
    let served = start().await;
    let mut client = Client::new(&served, By::H2Tls).await;
    client.say(&[h2_begin(1 << 20, 1 << 20), h2_ask(1, "/")].concat()).await;
    client.is_answered().await;
    // DATA of no stream (RFC 9113 section 6.1).
    let wrong = [0, 0, 0, DATA, 0, 0, 0, 0, 0];
    client.say(&[&wrong[..], &[0; BEHIND_BYTES]].concat()).await;
    let rest = client.rest(&served).await;
    let (mut rest, mut body_bytes, mut has_ended, mut code) = (&rest[..], 0, false, None);
    while let Some((head, behind)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, next) = behind.split_at(length);
        rest = next;
        match head[3] {
            DATA => {
                body_bytes += length;
                has_ended |= head[4] & END_STREAM != 0;
            }
            GOAWAY => code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
    assert_eq!((body_bytes, has_ended, code), (ANSWER_BYTES, true, Some(PROTOCOL_ERROR)));
    drop(client);
    served.empty().await;
}
