//! Revalidations in the background are bounded: what is beyond the bound is served stale all the
//! same, counted, and left to the next request.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Hold, Item, Proxy, until};
use futures::future::join_all;

/// As many as run at a time.
const BACKGROUND_MAX: usize = 256;
const LEFT: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_renewed_at_a_time_are_served_stale_and_renewed_later() {
    let proxy = Proxy::new().await;
    let path = |number: usize| format!("/{number}");
    let count = BACKGROUND_MAX + LEFT;
    for number in 0..count {
        proxy.web.put(&path(number), Item::stale(100, "stale-while-revalidate=600"));
    }
    let all = async || {
        let paths: Vec<_> = (0..count).map(path).collect();
        for (path, answer) in
            paths.iter().zip(join_all(paths.iter().map(|path| proxy.get(path))).await)
        {
            assert_eq!(answer.bytes(), &proxy.web.whole(path), "{path}");
        }
    };
    all().await;
    proxy.web.hold(Hold::Head);
    all().await;
    let left = "nearcast_edge_revalidations_left_total ";
    assert_eq!(proxy.edge.metric(left).await, LEFT as f64);
    until("all that may be are renewed", || async {
        (proxy.web.held() == BACKGROUND_MAX).then_some(())
    })
    .await;
    // Nothing else of them is: what is renewed already is not again.
    all().await;
    assert_eq!(proxy.edge.metric(left).await, 2.0 * LEFT as f64);
    assert_eq!(proxy.web.held(), BACKGROUND_MAX);
    for number in 0..count {
        proxy.web.put(&path(number), Item::of(100));
    }
    proxy.web.release();
    // Those that were left, too: each place comes back.
    for number in 0..count {
        let path = path(number);
        until("it is fresh", || async {
            let told = proxy.get(&path).await;
            told.header("cache-status").contains("hit;ttl=3").then_some(())
        })
        .await;
    }
}
