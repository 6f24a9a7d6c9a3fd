//! Answers that begin with what was asked for and go on beyond it: that is all that is taken of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::future::poll_fn;
use http::Response;
use nearcast_upstream::{Ask, SiteKind};
use std::sync::{Arc, Mutex};

/// So many bytes are promised, and never come.
const GIVEN: &str = "bytes 2-1000001/2000000";

fn ranged(range: &str, reach: Option<u64>) -> Ask {
    let mut ask = Ask { reach, ..ask("/a") };
    ask.fields.insert("range", range.parse().unwrap());
    ask
}

/// What is asked for, what is of use beyond that, what is taken, and what that is said to be.
type Exchange = (&'static str, Option<u64>, &'static str, &'static str);

const TABLE: [Exchange; 3] = [
    ("bytes=2-5", None, "good", "bytes 2-5/2000000"),
    ("bytes=2-5", Some(10), "goodevil", "bytes 2-9/2000000"),
    ("bytes=2-", Some(6), "good", "bytes 2-5/2000000"),
];

async fn is_shortened(site: &Site, (range, reach, body, told): Exchange) {
    let answer = site.upstream.send(ranged(range, reach)).await.unwrap();
    assert_eq!(answer.head.headers["content-range"], told);
    assert_eq!(answer.body.length(), Some(body.len() as u64), "{told}");
    assert_eq!(whole(answer).await.unwrap(), (206, body.into()), "{told}");
}

#[tokio::test]
async fn what_goes_on_beyond_the_range_is_left_and_its_connection_closed() {
    let origin = Origin::new(|_, _| {
        let head = format!("Content-Range: {GIVEN}\r\nContent-Length: 1000000\r\n\r\n");
        vec![send(format!("HTTP/1.1 206 X\r\n{head}goodevil...")), Step::Hang]
    })
    .await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]", origin.url()));
    for (n, exchange) in TABLE.into_iter().enumerate() {
        is_shortened(&site, exchange).await;
        assert_eq!(origin.seen()[n].connection, n, "one that is not at its end was used again");
    }
    assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), 3.0);
}

#[tokio::test]
async fn what_goes_on_beyond_the_range_is_left_and_its_stream_reset() {
    let resets = Arc::<Mutex<Vec<_>>>::default();
    let noted = Arc::clone(&resets);
    let server = Server::new(move |_, tls| {
        let resets = Arc::clone(&noted);
        async move {
            let Ok(mut h2) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut respond))) = h2.accept().await {
                let head = Response::builder().status(206).header("content-range", GIVEN);
                let head = head.header("content-length", "1000000").body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(Bytes::from("goodevil..."), false).unwrap();
                let resets = Arc::clone(&resets);
                tokio::spawn(async move {
                    let reason = poll_fn(|cx| body.poll_reset(cx)).await;
                    resets.lock().unwrap().push(reason.ok());
                });
            }
        }
    })
    .await;
    let site = server.site();
    for exchange in TABLE {
        is_shortened(&site, exchange).await;
    }
    until("all are reset", || resets.lock().unwrap().len() == TABLE.len()).await;
    assert_eq!(*resets.lock().unwrap(), [Some(h2::Reason::CANCEL); 3]);
    assert_eq!(server.came(), 1, "they share a connection");
}
