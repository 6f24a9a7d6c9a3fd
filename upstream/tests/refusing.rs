//! Origins of HTTP/2 that take no request: how often they are asked for one (RFC 9113 sections 6.8
//! and 8.7), and what that costs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::http2::*;
use common::*;
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The last stream that there can be.
const LAST: u32 = u32::MAX >> 1;

/// How an origin refuses: what it says behind its settings, and to a request.
type Refusal = (&'static str, Vec<u8>, fn(u32) -> Vec<u8>);

fn refusals() -> [Refusal; 7] {
    let nothing: fn(u32) -> Vec<u8> = |_| Vec::new();
    [
        ("each stream", Vec::new(), |stream| reset(stream, REFUSED_STREAM)),
        ("each connection", Vec::new(), |_| goaway(0)),
        ("each connection, badly", Vec::new(), |_| goaway_for(0, ENHANCE_YOUR_CALM)),
        ("at once", goaway(0), nothing),
        ("at once, badly", goaway_for(0, ENHANCE_YOUR_CALM), nothing),
        ("at once, as if there were time", goaway(LAST), nothing),
        ("at once, as if there had been one", goaway(1), nothing),
    ]
}

/// An origin that refuses each request, and how many have come. What it says nothing to, it ends
/// the connection of.
async fn refusing((_, first, said): Refusal) -> (Server, Arc<AtomicUsize>) {
    let requests = Arc::<AtomicUsize>::default();
    let counted = requests.clone();
    let server = Server::new(move |_, tls| {
        let (first, counted) = (first.clone(), counted.clone());
        async move {
            let ended = tokio::sync::Notify::new();
            let served = frames_behind(&first, tls, |heard| {
                counted.fetch_add(usize::from(heard.kind == HEADERS), SeqCst);
                let said = said(heard.stream);
                if said.is_empty() {
                    ended.notify_one();
                }
                said
            });
            tokio::select! {
                () = served => {}
                () = ended.notified() => {}
            }
        }
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn an_origin_that_takes_nothing_is_asked_once_more_and_as_often_as_is_paid_for() {
    for refusal in refusals() {
        for (retries, budget_percent) in [(0, 100), (2, 100), (2, 0)] {
            let what = format!("it refuses {}, {retries} retries", refusal.0);
            let (server, requests) = refusing(refusal.clone()).await;
            let budget = format!("retries = {retries}\nretry-budget-percent = {budget_percent}");
            let text = format!("origins = [{:?}]\n{budget}", server.url);
            let site = site_that_trusts(Some(&server.ca), &text);
            let paid = if budget_percent == 0 { 0 } else { retries };
            for asks in 1..=3 {
                let method = if asks == 1 { Method::GET } else { Method::POST };
                let path = format!("/{asks}");
                let fault = site.upstream.send(nearcast_upstream::Ask { method, ..ask(&path) });
                assert_eq!(fault.await.unwrap_err().status(), 502, "{what}");
                let came = (server.came(), requests.load(SeqCst));
                let most = asks * (2 + paid);
                assert!(came.0 <= most && came.1 <= most, "{what}: {came:?} after {asks}");
            }
            assert!(site.metric("anew_total", &[]) <= 3.0, "{what}");
            assert!(site.metric("retries_total", &[]) <= (3 * paid) as f64, "{what}");
        }
    }
}
