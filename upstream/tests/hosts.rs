//! Connections to an https origin that is shown the hosts that clients ask for, of which each has
//! connections of its own: however many hosts they name, few stay.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nearcast_upstream::Ask;
use std::convert::Infallible;
use std::sync::atomic::Ordering::SeqCst;

/// Idle connections that are kept to a hop.
const IDLE_MAX: usize = 64;
const HOSTS: usize = 200;

/// A real server that says which host it was asked for.
async fn server(protocol: &str) -> Server {
    let (acceptor, ca) = acceptor(&[protocol], &["127.0.0.1"]);
    Server::of_acceptors(vec![acceptor], ca, |_, tls| async move {
        let answer = hyper::service::service_fn(|request: Request<Incoming>| async move {
            let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
            let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(host.unwrap()))))
        });
        let server = auto::Builder::new(TokioExecutor::new());
        _ = server.serve_connection(TokioIo::new(tls), answer).await;
    })
    .await
}

fn passing_hosts_on(server: &Server) -> Site {
    let text = format!("origins = [{:?}]\nretries = 0\npass-host = true", server.url);
    site_that_trusts(Some(&server.ca), &text)
}

async fn ask_of(site: &Site, method: Method, host: String) {
    let ask = Ask { method, host: host.clone(), ..ask("/a") };
    let answer = site.upstream.send(ask).await.unwrap();
    assert_eq!(whole(answer).await.unwrap(), (200, host.into()));
}

fn open(server: &Server) -> usize {
    server.came() - server.over.load(SeqCst)
}

#[tokio::test]
async fn clients_do_not_choose_how_many_connections_are_kept() {
    for protocol in ["http/1.1", "h2"] {
        let server = server(protocol).await;
        let site = passing_hosts_on(&server);
        let mut most = 0;
        for n in 0..HOSTS {
            ask_of(&site, Method::GET, format!("{n}.example")).await;
            most = most.max(open(&server));
        }
        // What is closed here is closed there a moment later.
        println!("{protocol}: {most} at the most, {} of {}", open(&server), server.came());
        until("few are left", || open(&server) <= IDLE_MAX).await;
        assert!(most <= IDLE_MAX + 16, "{protocol}: {most}");
        // The hosts that were asked for last have theirs still.
        let came = server.came();
        for n in HOSTS - IDLE_MAX / 2..HOSTS {
            ask_of(&site, Method::GET, format!("{n}.example")).await;
        }
        assert_eq!(server.came(), came, "{protocol}");
        assert_only_good(&site, HOSTS + IDLE_MAX / 2);
    }
}

/// Of requests that may not be sent twice, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_closed_is_used_by_nobody() {
    const ASKS: usize = 2000;
    const AT_ONCE: usize = 16;
    for protocol in ["http/1.1", "h2"] {
        let server = server(protocol).await;
        let site = passing_hosts_on(&server);
        // More hosts than idle connections, each again and again.
        let asks = (0..ASKS).map(|n| {
            let method = if n % 2 == 0 { Method::GET } else { Method::POST };
            ask_of(&site, method, format!("{}.example", n * 7 % (IDLE_MAX + 8)))
        });
        futures::stream::iter(asks).buffer_unordered(AT_ONCE).for_each(async |()| {}).await;
        let anew = site.metric("anew_total", &[]);
        println!("{protocol}: {} connections, {anew} anew", server.came());
        assert_only_good(&site, ASKS);
        until("few are left", || open(&server) <= IDLE_MAX).await;
    }
}
