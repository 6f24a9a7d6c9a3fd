//! Bodies over TCP: byte for byte what the service gave, however a peer reads, whatever part of
//! the write path is on, and nothing left behind by a peer that goes away.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{ALL, By, Check, Random, Served, ask, h2, head, once, open_h2, read, read_h2, until};
use futures::future::join_all;
use http_body_util::BodyExt;
use nearcast_wire::Levers;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ARENA_BYTES: u64 = 64 << 20;

fn levers() -> Vec<Levers> {
    let all = Levers::default();
    let without =
        ["cork", "seal", "frames", "sendfile", "direct"].map(|name| all.off(name).unwrap());
    [all].into_iter().chain(without).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_whole_however_they_are_read() {
    for levers in levers() {
        let served = Arc::new(Served::start(levers, ARENA_BYTES).await);
        let peers =
            (0..24).map(|number| {
                let served = Arc::clone(&served);
                tokio::spawn(async move {
                    let mut random = Random(number);
                    let by = ALL[number as usize % ALL.len()];
                    let mut stream = served.connect(by).await;
                    let sizes: Vec<usize> = (0..6)
                        .map(|_| {
                            let most = [3, 5000, 70_000, 2 << 20][random.below(4)];
                            random.below(most)
                        })
                        .collect();
                    if by == By::H2Tls {
                        let peer = h2(stream).await;
                        // At once, on one connection.
                        join_all(sizes.into_iter().enumerate().map(|(at, bytes)| {
                            let (mut peer, mut random) = (peer.clone(), random.clone());
                            async move {
                                read_h2(&mut peer, number as usize + at, bytes, &mut random).await
                            }
                        }))
                        .await;
                        return;
                    }
                    for (at, bytes) in sizes.into_iter().enumerate() {
                        ask(&mut stream, number as usize + at, bytes).await;
                        read(&mut stream, number as usize + at, bytes, &mut random).await;
                    }
                })
            });
        for ended in join_all(peers).await {
            ended.unwrap();
        }
        served.empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    for by in [By::H1, By::H1Tls] {
        let mut stream = served.connect(by).await;
        let sizes = [0, 1, 300_000, 70, 1 << 20, 16_384];
        for (seed, bytes) in sizes.into_iter().enumerate() {
            ask(&mut stream, seed, bytes).await;
        }
        for (seed, bytes) in sizes.into_iter().enumerate() {
            read(&mut stream, seed, bytes, &mut Random(1)).await;
        }
    }
    served.empty().await;
}

/// However requests come, each is read once, and what belongs to one is not taken for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_all_kinds_on_one_connection_are_answered_in_order() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    for round in 0..60 {
        let mut random = Random(round);
        let by = [By::H1, By::H1Tls][round as usize % 2];
        let mut stream = served.connect(by).await;
        let mut seed = round as usize;
        for _ in 0..20 {
            let (mut sent, mut asked) = (String::new(), Vec::new());
            // Two at once, or an odd end of a line, leave the rest to hyper.
            for _ in 0..=random.below(10) / 9 {
                seed += 1;
                let bytes = [1, 300, 5000, 20_000, 65_536, 65_537][random.below(6)];
                let more = match random.below(16) {
                    // Ends of lines that hyper takes.
                    0 => "\n\n",
                    1 => "\r\nX: GET /9/9 HTTP/1.1\n\r\n",
                    2..8 => "\r\nConnection: keep-alive\r\nX-A:  b \r\n\r\n",
                    _ => "\r\n\r\n",
                };
                sent += &format!("GET /{seed}/{bytes} HTTP/1.1\r\nHost: localhost{more}");
                asked.push((seed, bytes));
            }
            let mut rest = sent.as_bytes();
            while !rest.is_empty() {
                let whole = random.below(2) == 0;
                let part = if whole { rest.len() } else { 1 + random.below(rest.len()) };
                stream.write_all(&rest[..part]).await.unwrap();
                stream.flush().await.unwrap();
                rest = &rest[part..];
                common::pause(&mut random).await;
            }
            for (seed, bytes) in asked {
                read(&mut stream, seed, bytes, &mut random).await;
            }
        }
    }
    assert!(served.whole() > 10, "answered without hyper: {}", served.whole());
    served.empty().await;
}

/// A body that looks like requests is none, however it comes: after its answer comes the next
/// one's, or the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_no_request() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    for round in 0..60 {
        let mut random = Random(round);
        let by = [By::H1, By::H1Tls][round as usize % 2];
        let mut stream = served.connect(by).await;
        for _ in 0..random.below(3) {
            ask(&mut stream, 3, 300).await;
            read(&mut stream, 3, 300, &mut random).await;
        }
        let hidden = "GET /7/70 HTTP/1.1\r\nA: b\r\n\r\n".repeat(3);
        let length = hidden.len();
        let head = format!("GET /5/500 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let all = head + &hidden;
        let (first, then) = all.split_at(all.len() - random.below(3) * (length / 3));
        for part in [first, then] {
            // It may be closed to what is no longer wanted.
            let _ = stream.write_all(part.as_bytes()).await;
            let _ = stream.flush().await;
            common::pause(&mut random).await;
        }
        read(&mut stream, 5, 500, &mut random).await;
        let _ = stream.write_all(b"GET /9/9 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let _ = stream.flush().await;
        if let Ok(byte) = stream.read_u8().await {
            assert_eq!(byte, b'H');
            let mut rest = [0; 400];
            let mut got = 0;
            while !rest[..got].windows(4).any(|end| end == b"\r\n\r\n") {
                got += stream.read(&mut rest[got..]).await.unwrap();
            }
            let told = String::from_utf8_lossy(&rest[..got]);
            assert!(told.contains("content-length: 9\r\n"), "{told}");
        }
    }
    assert!(served.whole() > 10, "answered without hyper: {}", served.whole());
}

/// Closes with a reset, whatever is unread.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_resets_or_leaves_in_mid_body_leaves_nothing_behind() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    for round in 0..20 {
        let bytes = 8 << 20;
        let mut tcp = TcpStream::connect(served.plain).await.unwrap();
        let request = format!("GET /{round}/{bytes} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut some = vec![0; 1 + round * 50_000];
        tcp.read_exact(&mut some).await.unwrap();
        reset(tcp);
        for by in [By::H1, By::H1Tls] {
            let mut stream = served.connect(by).await;
            ask(&mut stream, round, bytes).await;
            assert_eq!(head(&mut stream).await, bytes);
            stream.read_exact(&mut some).await.unwrap();
        }
        // One stream is left, the other goes on; then the connection is.
        let mut peer = h2(served.connect(By::H2Tls).await).await;
        let mut left = open_h2(&mut peer, round, bytes).await;
        left.frame().await.unwrap().unwrap();
        drop(left);
        read_h2(&mut peer, round, 100_000, &mut Random(2)).await;
        let mut cut = open_h2(&mut peer, round, bytes).await;
        cut.frame().await.unwrap().unwrap();
    }
    served.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_holds_a_bounded_part_and_gets_the_rest_later() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    let mut stalled = Vec::new();
    for seed in 0..3 {
        for by in [By::H1, By::H1Tls] {
            let mut stream = served.connect(by).await;
            ask(&mut stream, seed, 5 << 20).await;
            assert_eq!(head(&mut stream).await, 5 << 20);
            stalled.push((seed, stream));
        }
    }
    // Others are served meanwhile.
    for by in ALL {
        once(&served, by, 9, 3 << 20).await;
    }
    for (seed, mut stream) in stalled {
        let mut check = Check { seed, at: 0 };
        let mut buf = vec![0; 65_000];
        while check.at < 5 << 20 {
            let got = stream.read(&mut buf).await.unwrap();
            assert!(got > 0, "cut at {}", check.at);
            check.bytes(&buf[..got]);
        }
    }
    served.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_idle_connections_and_lets_bodies_end() {
    let served = Served::start(Levers::default(), ARENA_BYTES).await;
    let mut idle = Vec::new();
    for by in [By::H1, By::H1Tls] {
        let mut stream = served.connect(by).await;
        ask(&mut stream, 1, 10).await;
        read(&mut stream, 1, 10, &mut Random(1)).await;
        idle.push(stream);
    }
    let mut busy = Vec::new();
    for by in [By::H1, By::H1Tls] {
        let mut stream = served.connect(by).await;
        ask(&mut stream, 2, 6 << 20).await;
        assert_eq!(head(&mut stream).await, 6 << 20);
        busy.push(stream);
    }
    served.shared.drain.cancel();
    for mut stream in idle {
        // A clean end: over TLS, one that was announced.
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    }
    for mut stream in busy {
        let mut body = Vec::new();
        stream.read_to_end(&mut body).await.unwrap();
        assert_eq!(body.len(), 6 << 20);
        Check { seed: 2, at: 0 }.bytes(&body);
    }
    served.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_are_served_at_once() {
    const CONNECTIONS: usize = 1000;
    let served = Arc::new(Served::start(Levers::default(), ARENA_BYTES).await);
    let peers = (0..CONNECTIONS).map(|seed| {
        let served = Arc::clone(&served);
        tokio::spawn(async move { once(&served, ALL[seed % ALL.len()], seed, 40_000 + seed).await })
    });
    for ended in join_all(peers).await {
        ended.unwrap();
    }
    until("no connection is left", || served.shared.tasks.is_empty()).await;
    served.empty().await;
}
