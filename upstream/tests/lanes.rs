//! Which connections of HTTP/2 requests go over, and who opens another one: none waits for a
//! connection that takes no more, and a burst opens as many as it needs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::future::join_all;
use http::Method;
use nearcast_upstream::Answer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

/// Of what comes to its end in any case.
const WAIT: Duration = Duration::from_secs(20);

/// Its limit is that of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_connection_takes_are_all_under_way() {
    const ASKS: usize = 40;
    let all = Arc::new(Barrier::new(ASKS));
    let server = Server::new(move |_, tls| {
        let all = all.clone();
        async move {
            let mut h2 = h2::server::Builder::new();
            let h2 = h2.max_concurrent_streams(10).handshake::<_, Bytes>(tls).await;
            let mut h2 = h2.unwrap();
            while let Some(Ok((_, mut respond))) = h2.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    all.wait().await;
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("good".into(), true).unwrap();
                });
            }
        }
    })
    .await;
    let site = server.site();
    for _ in 0..3 {
        let asks = join_all((0..ASKS).map(|_| site.get("/a")));
        let got = tokio::time::timeout(Duration::from_secs(20), asks).await;
        for got in got.expect("some wait for others") {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
    }
    assert_eq!((server.came(), site.metric("anew_total", &[])), (4, 0.0));
    assert_only_good(&site, 3 * ASKS);
}

/// More often, for some, than what is refused is sent anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_through_connections_of_few_requests_each_fails_none() {
    const ASKS: usize = 200;
    let taken = Arc::default();
    let server = Server::that_ends_after(10, &taken).await;
    let site = server.site();
    let asks = (0..ASKS).map(|n| site.upstream.send(post(n.to_string().into())));
    for answer in join_all(asks).await {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "good".into()));
    }
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    assert_eq!((taken.len(), BTreeSet::from_iter(taken).len()), (ASKS, ASKS));
    eprintln!("{} connections, {} anew", server.came(), site.metric("anew_total", &[]));
    assert_only_good(&site, ASKS);
}

/// A site whose times are not up while the clock is moved on.
fn patient(server: &Server) -> Site {
    let times = "first-byte-timeout = \"600s\"\nstall-timeout = \"600s\"";
    let text = format!("origins = [{:?}]\nretries = 0\n{times}", server.url);
    site_that_trusts(Some(&server.ca), &text)
}

/// That of a site, until it is dropped.
async fn film(site: &Site) -> Answer {
    tokio::time::timeout(WAIT, site.upstream.send(ask("/film"))).await.unwrap().unwrap()
}

/// So much later, by the clock of connections.
async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_full_connection_that_is_old_is_waited_for_by_nobody() {
    let (server, _) = Server::of_films(1, true).await;
    let site = patient(&server);
    // An age is at most 300 s; and what nothing is asked over for 20 s is left for that.
    for _ in 0..20 {
        let film = film(&site).await;
        later(15).await;
        let got = tokio::time::timeout(WAIT, site.get("/a")).await;
        assert_eq!(got.expect("it waits for the film").unwrap(), (200, "good".into()));
        drop(film);
    }
}

#[tokio::test]
async fn a_burst_after_a_pause_opens_one_connection() {
    let (server, _) = Server::of_films(100, false).await;
    let site = patient(&server);
    let _film = film(&site).await;
    for connections in 2..5 {
        later(25).await;
        for got in join_all((0..20).map(|_| site.get("/a"))).await {
            assert_eq!(got.unwrap(), (200, "good".into()));
        }
        assert_eq!(server.came(), connections);
    }
}

fn good_if_request(heard: Heard<'_>) -> Vec<u8> {
    if heard.kind == HEADERS { good(heard.stream) } else { Vec::new() }
}

/// As one of several behind an address where others end TLS for them.
#[tokio::test]
async fn a_server_that_hangs_as_it_is_connected_to_holds_up_the_first_request_alone() {
    let server = Server::new(|connection, tls| async move {
        match connection {
            0 => std::future::pending::<()>().await,
            _ => frames(tls, good_if_request).await,
        }
    })
    .await;
    let origins = format!("origins = [{:?}]\nretries = 0", server.url);
    let text = format!("{origins}\nconnect-timeout = \"300ms\"\nfirst-byte-timeout = \"10s\"");
    let site = site_that_trusts(Some(&server.ca), &text);
    let first = site.get("/first");
    let others = async {
        until("the first one is connected", || server.came() == 1).await;
        join_all((0..20).map(|_| site.upstream.send(asked(Method::POST)))).await
    };
    let others = tokio::select! {
        biased;
        _ = first => panic!("it has no answer"),
        others = others => others,
    };
    for answer in others {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "good".into()));
    }
    assert_eq!(server.came(), 2);
}

/// What has no connection is nowhere: another origin may have it without the budget.
#[tokio::test]
async fn what_waits_for_a_connection_until_its_time_is_up_goes_to_the_next() {
    let (_, ca) = acceptor(&["h2"], &["127.0.0.1"]);
    // Connections come, and nothing is said over them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let other = Origin::saying("other").await;
    let origins = format!("[{url:?}, {{ url = {:?}, priority = 1 }}]", other.url());
    let times = "connect-timeout = \"600s\"\nfirst-byte-timeout = \"500ms\"";
    let site = site_that_trusts(Some(&ca), &format!("origins = {origins}\nretries = 0\n{times}"));
    for answer in join_all((0..3).map(|_| site.upstream.send(asked(Method::POST)))).await {
        assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "other".into()));
    }
}
