//! Who leaves, or takes nothing, and what that is to the others and to the fetch.

use crate::common::{CHUNK, Hold, Item, Proxy, Validator, until};
use crate::{FILM, bytes, kinds, open_many, responses};
use futures::future::join_all;

#[tokio::test]
async fn a_first_client_that_reads_nothing_holds_up_nobody() {
    for item in kinds(12 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        let mut slow = proxy.open(FILM, &[]).await;
        let others = join_all((0..3).map(|_| proxy.get(FILM))).await;
        let whole = proxy.web.whole(FILM);
        assert!(others.iter().all(|other| other.bytes() == &whole), "{item:?}");
        assert!(slow.rest().await.unwrap() == whole, "{item:?}");
        assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, 12 * CHUNK), "{item:?}");
    }
}

#[tokio::test]
async fn a_first_client_that_leaves_takes_nothing_from_the_others() {
    for item in kinds(4 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(CHUNK));
        let first = proxy.open(FILM, &[]).await;
        let mut others = open_many(&proxy, 5).await;
        drop(first);
        responses(&proxy, 5.0).await;
        proxy.web.release();
        for other in &mut others {
            assert!(other.rest().await.unwrap() == proxy.web.whole(FILM), "{item:?}");
        }
        assert_eq!(proxy.web.count(FILM), 1, "{item:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_takes_nothing_from_the_others() {
    for chunks in [1, 12] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(chunks * CHUNK));
        proxy.web.hold(Hold::Head);
        let url = proxy.url(FILM);
        let first = tokio::spawn(async move { crate::common::get(&url, &[]).await });
        let at_the_origin = || async { (proxy.web.held() == 1).then_some(()) };
        until("the first is at the origin", at_the_origin).await;
        let (others, ()) = tokio::join!(join_all((0..5).map(|_| proxy.get(FILM))), async {
            responses(&proxy, 6.0).await;
            first.abort();
            responses(&proxy, 5.0).await;
            proxy.web.release();
        });
        let whole = proxy.web.whole(FILM);
        assert!(others.iter().all(|other| other.bytes() == &whole), "{chunks}");
        assert_eq!(proxy.web.count(FILM), 1, "{chunks}");
    }
}

#[tokio::test]
async fn a_fetch_that_everybody_left_is_ended() {
    for item in kinds(12 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(CHUNK));
        let both = (proxy.open(FILM, &[]).await, proxy.open(FILM, &[]).await);
        drop(both);
        let left = || async { proxy.web.asked()[0].is_left.then_some(()) };
        until("the origin sees the end of it", left).await;
        proxy.web.release();
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{item:?}");
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{item:?}");
    }
}

/// Found by an audit: each who left there cost the origin the chunk anew.
#[tokio::test]
async fn a_chunk_that_has_begun_comes_whole_though_everybody_left() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(12 * CHUNK));
    for number in [0, 1] {
        proxy.web.hold(Hold::Byte(number * CHUNK + CHUNK / 2));
        let mut only = proxy.open(FILM, &[]).await;
        only.take(bytes(number * CHUNK + CHUNK / 2)).await.unwrap();
        drop(only);
        responses(&proxy, 0.0).await;
        proxy.web.release();
        proxy.has_filled().await;
        let part = number * CHUNK..number * CHUNK + 100;
        assert_eq!(proxy.part(FILM, part).await.verdict(), "hit-memory", "chunk {number}");
    }
    assert_eq!(proxy.web.ranges(FILM), ["", "bytes=1048576-12582911"]);
}

#[tokio::test]
async fn the_little_that_is_left_is_taken_though_everybody_left() {
    // Without a length, nobody knows how little it is.
    for item in &kinds(2 * CHUNK)[..3] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(CHUNK + CHUNK / 2));
        let mut only = proxy.open(FILM, &[]).await;
        only.take(bytes(CHUNK + CHUNK / 2)).await.unwrap();
        drop(only);
        responses(&proxy, 0.0).await;
        proxy.web.release();
        until("all of it came", || async { (proxy.web.sent(FILM) == 2 * CHUNK).then_some(()) })
            .await;
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{item:?}");
        assert_eq!(proxy.web.count(FILM), 1, "{item:?}");
    }
}

#[tokio::test]
async fn a_weak_answer_that_its_only_client_left_before_the_head_is_ended() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(200 * CHUNK).validator(Validator::Weak).chunked());
    proxy.web.hold(Hold::Head);
    let url = proxy.url(FILM);
    let only = tokio::spawn(async move { crate::common::get(&url, &[]).await });
    until("it is at the origin", || async { (proxy.web.held() == 1).then_some(()) }).await;
    only.abort();
    responses(&proxy, 0.0).await;
    proxy.web.hold(Hold::Byte(CHUNK));
    let left = || async { proxy.web.asked()[0].is_left.then_some(()) };
    until("the origin sees the end of it", left).await;
}

#[tokio::test]
async fn a_first_client_that_leaves_before_the_head_takes_no_growing_answer_from_the_others() {
    for validator in [Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(4 * CHUNK).validator(validator).chunked());
        proxy.web.hold(Hold::Head);
        let url = proxy.url(FILM);
        let first = tokio::spawn(async move { crate::common::get(&url, &[]).await });
        until("the first waits", || async { (proxy.web.held() == 1).then_some(()) }).await;
        let others = tokio::join!(join_all((0..20).map(|_| proxy.get(FILM))), async {
            let all = || async {
                let open = proxy.edge.metric("nearcast_edge_connections").await;
                (open >= 21.0).then_some(())
            };
            until("all wait", all).await;
            first.abort();
            let left = || async {
                let open = proxy.edge.metric("nearcast_edge_connections").await;
                (open <= 20.0).then_some(())
            };
            until("the first has left", left).await;
            proxy.web.release();
        });
        assert!(others.0.iter().all(|other| other.bytes() == &proxy.web.whole(FILM)));
        assert_eq!(proxy.web.count(FILM), 1, "{validator:?}");
    }
}
