//! An origin of HTTP/2 that takes fewer requests at a time than `in-flight-max`, of which some hang.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::http2::*;
use common::*;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Of one connection; eight are opened.
const STREAMS: usize = 2;
/// Of all.
const ROOM: usize = 8 * STREAMS;

/// It answers `/good` alone, and counts the others.
async fn server(hangs: Arc<AtomicUsize>) -> Server {
    Server::new(move |_, tls| serve(tls, hangs.clone())).await
}

async fn serve(tls: Connection, hangs: Arc<AtomicUsize>) {
    let mut h2 = h2::server::Builder::new();
    let h2 = h2.max_concurrent_streams(STREAMS as u32).handshake(tls).await;
    let Ok(mut h2) = h2 else { return };
    let mut hung = Vec::new();
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        if request.uri().path() == "/good" {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from("good"), true).unwrap();
        } else {
            hung.push((request, respond));
            hangs.fetch_add(1, SeqCst);
        }
    }
}

#[tokio::test]
async fn what_hangs_leaves_others_a_quarter_of_the_streams() {
    let hangs = Arc::new(AtomicUsize::new(0));
    let server = server(hangs.clone()).await;
    let site = server.site();
    let hang = |number: usize| {
        let site = &site;
        async move { site.get(&format!("/{number}/{number}")).await }
    };
    let hung = join_all((0..ROOM + 2).map(hang));
    let others = async {
        until("all streams are taken", || hangs.load(SeqCst) == ROOM).await;
        for _ in 0..3 {
            assert_eq!(site.get("/good").await.unwrap(), (200, "good".into()));
        }
    };
    tokio::select! {
        outcomes = hung => panic!("all of these have ended: {outcomes:?}"),
        () = others => {}
    }
    assert!(site.metric("requests_total", &[("outcome", "made-way")]) > 0.0);
}
