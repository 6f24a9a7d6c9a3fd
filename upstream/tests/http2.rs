//! Servers of HTTP/2 that close a connection gracefully, refuse a stream or cut one: what is sent
//! anew, what is held against them, and what is no whole answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::future::join_all;
use http::Method;
use nearcast_upstream::{Ask, BreakerState, Fault};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// As nginx after its `keepalive_requests`: what came before goes on, what came after is ignored.
#[tokio::test]
async fn what_came_after_the_last_request_of_a_connection_is_sent_anew() {
    const ASKS: usize = 24;
    let server = Server::of_frames(|connection, n, stream| match (connection, n) {
        // The first one, and those of 8 of them.
        (0, 0) => good(stream),
        (0, ASKS) => {
            let first: Vec<u8> = (1..=8).flat_map(|n| good(2 * n + 1)).collect();
            [goaway(17), first].concat()
        }
        (0, _) => Vec::new(),
        _ => good(stream),
    })
    .await;
    let site = server.site();
    site.get("/a").await.unwrap();
    let upstream = &site.upstream;
    let asks = (0..ASKS).map(|n| async move {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        whole(upstream.send(asked(method)).await?).await
    });
    for got in join_all(asks).await {
        assert_eq!(got.unwrap(), (200, "good".into()));
    }
    assert_eq!(site.metric("anew_total", &[]), (ASKS - 8) as f64);
    assert_only_good(&site, 1 + ASKS);
}

/// As a server on h2 does it, with requests that wait for a stream to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_its_connections_one_after_another_fails_no_request() {
    const OF_EACH: usize = 10;
    const AT_ONCE: usize = 48;
    const ROUNDS: usize = 20;
    let server = Server::new(|_, tls| async move {
        let mut h2 = h2::server::Builder::new();
        let Ok(mut h2) = h2.max_concurrent_streams(4).handshake::<_, Bytes>(tls).await else {
            return;
        };
        for n in 1.. {
            let Some(Ok((_, mut respond))) = h2.accept().await else { return };
            if n == OF_EACH {
                h2.graceful_shutdown();
            }
            if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
                _ = body.send_data("good".into(), true);
            }
        }
    })
    .await;
    let site = server.site();
    for _ in 0..ROUNDS {
        for got in join_all((0..AT_ONCE).map(|_| site.get("/a"))).await {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
    }
    assert!(server.came() > 10, "{}", server.came());
    assert_only_good(&site, ROUNDS * AT_ONCE);
}

/// RFC 9110 section 6.4.1; the stream is no part of the connection's end.
#[tokio::test]
async fn what_comes_behind_a_head_that_has_no_content_is_left_out() {
    const ASKS: [(u8, u16, Method); 3] =
        [(0x89, 204, Method::GET), (0x8b, 304, Method::GET), (0x88, 200, Method::HEAD)];
    for ends in [0, END_STREAM] {
        let server = Server::of_frames(move |_, n, stream| {
            let Some((status, ..)) = ASKS.get(n) else { return good(stream) };
            [frame(HEADERS, 0x4, stream, &[*status]), data(stream, ends, "content")].concat()
        })
        .await;
        let site = server.site();
        for (_, status, method) in ASKS {
            let mut ask = asked(method);
            ask.fields.insert("if-none-match", "\"v\"".parse().unwrap());
            let answer = site.upstream.send(ask).await.unwrap();
            assert_eq!(whole(answer).await.unwrap(), (status, Bytes::new()));
        }
        assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
        assert_eq!(server.came(), 1);
    }
}

/// As one that is about to end, and takes connections still.
#[tokio::test]
async fn a_server_that_ends_each_connection_at_once_is_not_asked_for_ever() {
    let server = Server::of_frames(|_, _, _| goaway(0)).await;
    let site = server.site();
    assert_eq!(site.get("/a").await.unwrap_err().status(), 502);
    assert_eq!(server.came(), 2);
}

#[tokio::test]
async fn a_stream_that_is_refused_is_opened_anew_elsewhere() {
    let server = Server::of_frames(|connection, _, stream| match connection {
        0 => reset(stream, REFUSED_STREAM),
        _ => good(stream),
    })
    .await;
    for method in [Method::GET, Method::POST] {
        server.came.store(0, SeqCst);
        let site = server.site();
        let answer = site.upstream.send(asked(method)).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (200, "good".into()));
        assert_eq!((server.came(), site.metric("anew_total", &[])), (2, 1.0));
        assert_only_good(&site, 1);
    }
}

#[tokio::test]
async fn a_server_that_refuses_all_streams_is_not_asked_for_ever() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let site = server.site();
    let (mut asks, mut pace) = (0, tokio::time::interval(Duration::from_millis(100)));
    while site.upstream.status()[0].breaker == BreakerState::Closed {
        pace.tick().await;
        asks += 1;
        let fault = site.get(&format!("/{asks}")).await.unwrap_err();
        assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
        assert!(fault.to_string().contains("refused"), "{fault}");
        assert_eq!(server.came(), 2 * asks);
    }
    assert_eq!(site.metric("requests_total", &[("outcome", "unavailable")]), asks as f64);
    assert!((20..100).contains(&asks), "{asks}");
}

/// Another origin, which has not seen it either, may have it without the budget.
#[tokio::test]
async fn what_one_origin_refuses_goes_to_the_next() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let other = Origin::saying("other").await;
    let origins = format!("[{:?}, {{ url = {:?}, priority = 1 }}]", server.url, other.url());
    let site = site_that_trusts(Some(&server.ca), &format!("origins = {origins}\nretries = 0"));
    let answer = site.upstream.send(asked(Method::POST)).await.unwrap();
    assert_eq!(whole(answer).await.unwrap(), (200, "other".into()));
}

/// As nginx does it to forms and calls of an API.
#[tokio::test]
async fn small_uploads_that_a_server_did_not_look_at_are_sent_anew() {
    const ASKS: usize = 24;
    let taken = Arc::default();
    let server = Server::that_ends_after(8, &taken).await;
    let site = server.site();
    let asks = (0..ASKS).map(|n| site.upstream.send(post(format!("form {n:02}").into())));
    for answer in join_all(asks).await {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "good".into()));
    }
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.sort();
    assert_eq!(taken, (0..ASKS).map(|n| format!("form {n:02}")).collect::<Vec<_>>());
    assert!(site.metric("anew_total", &[]) >= 16.0);
    assert_only_good(&site, ASKS);
}

/// What was sent of a large body is gone: it can't be sent anew, and the server has done nothing
/// wrong.
#[tokio::test]
async fn a_refused_large_body_is_not_sent_anew_nor_held_against_the_server() {
    let server = Server::of_frames(|_, _, stream| reset(stream, REFUSED_STREAM)).await;
    let site = server.site();
    for number in 0..30 {
        let body = vec![b'x'; (64 << 10) + 1];
        let asked = Ask { path: format!("/{number}"), ..post(body.into()) };
        assert_eq!(site.upstream.send(asked).await.unwrap_err().status(), 502);
    }
    assert_eq!(site.metric("anew_total", &[]), 0.0);
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_connection_that_ends_while_idle_is_just_not_used_any_more() {
    let server = Server::of_frames(|_, _, stream| [good(stream), goaway(stream)].concat()).await;
    let site = server.site();
    for asks in 1..=5 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
        until("it is closed", || server.over.load(SeqCst) == asks).await;
    }
    assert_eq!((server.came(), site.metric("anew_total", &[])), (5, 0.0));
    assert_only_good(&site, 5);
}

/// Without a length, nothing but END_STREAM tells that an answer is whole.
#[tokio::test]
async fn a_body_without_its_end_is_cut_however_friendly_the_server_says_so() {
    for end in [|stream| reset(stream, NO_ERROR), |_| goaway(0)] {
        let server = Server::of_frames(move |_, _, stream| {
            [head(stream), data(stream, 0, "half"), end(stream)].concat()
        })
        .await;
        let fault = server.site().get("/a").await.unwrap_err();
        assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
    }
}

/// As clients that download slowly what is not stored.
#[tokio::test]
async fn answers_that_nobody_reads_stop_no_others() {
    const UNREAD: usize = 24;
    let server = Server::new(|_, tls| async move {
        let Ok(mut h2) = h2::server::handshake(tls).await else { return };
        while let Some(Ok((request, mut respond))) = h2.accept().await {
            let body = if request.uri().path() == "/film" { vec![0; 8 << 20] } else { b"a".into() };
            let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
            sending.send_data(Bytes::from(body), true).unwrap();
        }
    })
    .await;
    let text = format!("origins = [{:?}]\nretries = 0\nstall-timeout = \"2s\"", server.url);
    let site = site_that_trusts(Some(&server.ca), &text);
    site.get("/a").await.unwrap();
    let films = join_all((0..UNREAD).map(|_| site.upstream.send(ask("/film")))).await;
    let mut films: Vec<_> = films.into_iter().map(|film| film.unwrap().body).collect();
    for film in &mut films {
        film.next().await.unwrap().unwrap();
    }
    for _ in 0..20 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "a".into()));
    }
}
