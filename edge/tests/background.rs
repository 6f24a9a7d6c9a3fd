//! Revalidations in the background are bounded: what is beyond the bound is served stale all the
//! same, counted, and left to the next request.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Hold, Item, Proxy, until};
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

const FILM: &str = "/film.mp4";

/// The answer to the second request for the film is over: the origin has sent it, or was left.
async fn renewed(proxy: &Proxy) {
    until("it is renewed", || async {
        proxy.web.asked_for(FILM).get(1).is_some_and(|asked| asked.is_over).then_some(())
    })
    .await;
}

/// RFC 5861 section 3: who comes next gets the new version from here.
#[tokio::test]
async fn a_new_version_that_comes_in_the_background_is_kept() {
    const BYTES: u64 = 5 * CHUNK + 7;
    for range in [0..BYTES, 2 * CHUNK..5 * CHUNK] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::stale(BYTES, "stale-while-revalidate=600"));
        let get = async || match range.start {
            0 => proxy.get(FILM).await,
            _ => proxy.part(FILM, range.clone()).await,
        };
        let old = proxy.web.part(FILM, range.clone());
        get().await;
        proxy.web.put(FILM, Item::of(BYTES).version(2));
        let stale = get().await;
        assert_eq!(stale.verdict(), "stale");
        assert!(stale.bytes() == &old);
        renewed(&proxy).await;
        assert!(get().await.bytes() == &proxy.web.part(FILM, range.clone()));
        assert_eq!(proxy.web.count(FILM), 2, "{:?}", proxy.web.ranges(FILM));
        assert_eq!(proxy.web.sent(FILM), 2 * (range.end - range.start));
    }
}

/// So it is where the origin was too slow for who asked.
#[tokio::test]
async fn a_new_version_that_comes_late_is_kept() {
    const BYTES: u64 = 5 * CHUNK + 7;
    let proxy = Proxy::with(serde_json::json!({"stale-after": "50ms"})).await;
    proxy.web.put(FILM, Item::stale(BYTES, "stale-if-error=600"));
    proxy.get(FILM).await;
    proxy.web.put(FILM, Item::of(BYTES).version(2));
    proxy.web.hold(Hold::Head);
    assert_eq!(proxy.get(FILM).await.verdict(), "stale");
    proxy.web.release();
    renewed(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    assert_eq!(proxy.web.count(FILM), 2);
}

/// Nobody may want all of a film.
#[tokio::test]
async fn of_a_new_version_that_is_long_the_beginning_is_kept() {
    const CHUNKS: u64 = 64;
    const KEPT: u64 = 16;
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::stale(CHUNKS * CHUNK, "stale-while-revalidate=600"));
    proxy.get(FILM).await;
    proxy.web.put(FILM, Item::of(CHUNKS * CHUNK).version(2));
    assert_eq!(proxy.get(FILM).await.verdict(), "stale");
    renewed(&proxy).await;
    let kept = proxy.part(FILM, 0..KEPT * CHUNK).await;
    assert!(kept.bytes() == &proxy.web.part(FILM, 0..KEPT * CHUNK));
    let asked = proxy.web.asked_for(FILM);
    assert_eq!(asked.len(), 2, "{:?}", proxy.web.ranges(FILM));
    assert!(asked[1].sent < CHUNKS * CHUNK, "{}", asked[1].sent);
}
