//! Who waits for a connection of HTTP/2 waits for a bounded time, and is told so: for one of all that
//! there may be, for one that is opened, and by whichever protocol a server behind the address speaks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::future::join_all;
use http::Method;
use nearcast_upstream::{Answer, Ask, BreakerState, Fault};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;

/// Connections that an origin is asked over at the most, for each host.
const LANES_MAX: usize = 8;

async fn films_of(site: &Site, host: &str) -> Vec<Answer> {
    let mut films = Vec::new();
    for n in 0..LANES_MAX {
        let ask = Ask { host: host.into(), ..ask(&format!("/film/{n}")) };
        films.push(site.upstream.send(ask).await.unwrap());
    }
    films
}

#[tokio::test]
async fn what_no_connection_has_room_for_waits_and_is_told_that_all_are_full() {
    let (server, asked) = Server::of_films(1, false).await;
    let text = format!("origins = [{:?}]\nretries = 0\nfirst-byte-timeout = \"1s\"", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    let mut films = films_of(&site, "a.example").await;
    // As many as would open a breaker.
    let asks = join_all((0..25).map(|n| {
        let ask = Ask { method: Method::POST, host: "a.example".into(), ..ask(&format!("/{n}")) };
        site.upstream.send(ask)
    }));
    for outcome in asks.await {
        let fault = outcome.unwrap_err();
        assert!(matches!(fault, Fault::Busy { .. }) && fault.status() == 503, "{fault}");
        assert!(fault.to_string().contains("8 connections"), "{fault}");
    }
    assert_eq!((asked.load(SeqCst), server.came()), (LANES_MAX, LANES_MAX));
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
    // Who waits has the place of one that ends.
    let waits = site.upstream.clone();
    let waits = tokio::spawn(async move {
        let ask = Ask { host: "a.example".into(), ..ask("/a") };
        whole(waits.send(ask).await?).await
    });
    until("it waits", || site.metric("in_flight_requests", &[]) == (LANES_MAX + 1) as f64).await;
    drop(films.pop());
    assert_eq!(waits.await.unwrap().unwrap(), (200, "good".into()));
}

/// An answer that is not read has a place on its connection, which one that waits for that gets.
#[tokio::test]
async fn an_answer_makes_way_for_a_request_that_no_connection_has_room_for() {
    let (server, _) = Server::of_films(1, false).await;
    let site = server.site();
    let mut films = films_of(&site, "a.example").await;
    assert!(films.iter().all(|film| film.body.may_wait() && !film.body.yields()));
    let waits = site.upstream.clone();
    let waits = tokio::spawn(async move {
        let ask = Ask { host: "a.example".into(), ..ask("/a") };
        whole(waits.send(ask).await?).await
    });
    until("one makes way", || films.iter().any(|film| film.body.yields())).await;
    assert!(films.iter().all(|film| !film.body.may_wait()));
    let ways: Vec<usize> = (0..LANES_MAX).filter(|n| films[*n].body.yields()).collect();
    assert_eq!(ways.len(), 1, "as many as wait");
    drop(films.remove(ways[0]));
    assert_eq!(waits.await.unwrap().unwrap(), (200, "good".into()));
}

/// The connections for one host have room whatever those for another one have.
#[tokio::test]
async fn hosts_that_are_passed_on_have_connections_of_their_own() {
    let (server, asked) = Server::of_films(1, false).await;
    let text = format!("origins = [{:?}]\nretries = 0\npass-host = true", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    let _films = films_of(&site, "a.example").await;
    for connections in [LANES_MAX + 1, LANES_MAX + 1, LANES_MAX + 1] {
        let ask = Ask { host: "b.example".into(), ..ask("/a") };
        let answer = site.upstream.send(ask).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (200, "good".into()));
        assert_eq!(server.came(), connections);
    }
    // More hosts than are kept, one after another.
    for n in 0..200 {
        let ask = Ask { host: format!("{n}.example"), ..ask("/a") };
        let answer = site.upstream.send(ask).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (200, "good".into()));
    }
    assert_eq!(asked.load(SeqCst), LANES_MAX + 3 + 200);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

/// Of backends that all hang behind what ends TLS for them, two are waited for.
#[tokio::test]
async fn servers_that_say_nothing_are_not_tried_one_after_another() {
    const ASKS: usize = 20;
    let server = Server::new(|_, tls| async move {
        let _tls = tls;
        std::future::pending::<()>().await;
    })
    .await;
    let times = "connect-timeout = \"1s\"\nfirst-byte-timeout = \"5s\"";
    let text = format!("origins = [{:?}]\nretries = 0\n{times}", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    let outcomes = join_all((0..ASKS).map(|_| site.upstream.send(asked(Method::POST)))).await;
    let faults: Vec<Fault> = outcomes.into_iter().map(Result::unwrap_err).collect();
    let unconnected = |fault: &&Fault| fault.error_type().as_str() == "connection_timeout";
    assert!(faults.iter().all(|fault| fault.status() == 504), "{faults:?}");
    // Two were sent.
    assert_eq!((server.came(), faults.iter().filter(unconnected).count()), (2, ASKS - 2));
}

/// All who wait for a connection that can't be opened are told why, after two attempts.
#[tokio::test]
async fn a_connection_that_fails_fails_for_all_who_wait_for_it() {
    const ASKS: usize = 30;
    let (_, ca) = acceptor(&["h2"], &["127.0.0.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let counted = came.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            // All are asked for by then.
            _ = tcp.read(&mut [0; 1000]).await;
        }
    });
    let site = site_that_trusts(Some(&ca), &format!("origins = [{url:?}]\nretries = 0"));
    for outcome in join_all((0..ASKS).map(|_| site.upstream.send(asked(Method::POST)))).await {
        assert_eq!(outcome.unwrap_err().status(), 502);
    }
    assert_eq!(came.load(SeqCst), 2);
}

/// Every second connection is to a server that speaks HTTP/1.1 alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_both_protocols_behind_one_address_have_all_requests_under_way() {
    const ASKS: usize = 20;
    let (h2, ca) = acceptor(&["h2"], &["127.0.0.1"]);
    let (h1, other_ca) = acceptor(&["http/1.1"], &["127.0.0.1"]);
    let all = Arc::new(Barrier::new(ASKS));
    let serve = move |_: usize, mut tls: Connection| {
        let all = all.clone();
        async move {
            if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                while matches!(tls.read(&mut [0; 4096]).await, Ok(1..)) {
                    all.wait().await;
                    let said = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
                    tls.write_all(said.as_bytes()).await.unwrap();
                }
                return;
            }
            let mut h2 = h2::server::Builder::new();
            let Ok(mut h2) = h2.max_concurrent_streams(3).handshake::<_, Bytes>(tls).await else {
                return;
            };
            while let Some(Ok((_, mut respond))) = h2.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    all.wait().await;
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("good".into(), true).unwrap();
                });
            }
        }
    };
    let server = Server::of_acceptors(vec![h2, h1], format!("{ca}{other_ca}"), serve).await;
    let site = server.site();
    for round in 0..5 {
        let asks = join_all((0..ASKS).map(|_| site.get("/a")));
        let got = tokio::time::timeout(Duration::from_secs(20), asks).await;
        for got in got.unwrap_or_else(|_| panic!("some wait for others in round {round}")) {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
    }
    assert_only_good(&site, 5 * ASKS);
}
