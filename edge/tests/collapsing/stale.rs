//! Many who find one thing stale.

use crate::common::{CHUNK, Hold, Item, Proxy, until};
use crate::{FILM, kinds, open_many};
use futures::future::join_all;

#[tokio::test]
async fn a_hundred_who_may_have_it_stale_cost_one_conditional_request() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::stale(3 * CHUNK, "stale-while-revalidate=600"));
    proxy.get(FILM).await;
    proxy.web.hold(Hold::Head);
    let answers = join_all((0..100).map(|_| proxy.get(FILM))).await;
    let whole = proxy.web.whole(FILM);
    assert!(answers.iter().all(|answer| answer.bytes() == &whole));
    assert!(answers.iter().all(|answer| answer.verdict() == "stale"));
    until("it is asked for", || async { (proxy.web.held() == 1).then_some(()) }).await;
    assert_eq!(proxy.web.count(FILM), 2);
    proxy.web.put(FILM, Item::of(3 * CHUNK));
    proxy.web.release();
    until("it is fresh", || async {
        (proxy.get(FILM).await.verdict() == "hit-memory").then_some(())
    })
    .await;
    let asked = proxy.web.asked_for(FILM);
    let statuses: Vec<_> = asked.iter().map(|asked| (asked.status, asked.field("range"))).collect();
    assert_eq!(statuses, [(200, ""), (304, "")]);
    assert_eq!(asked[1].field("if-none-match"), "\"v1\"");
}

#[tokio::test]
async fn a_hundred_who_must_have_it_fresh_cost_one_conditional_request() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::stale(3 * CHUNK, ""));
    proxy.get(FILM).await;
    proxy.web.put(FILM, Item::of(3 * CHUNK));
    let answers = proxy.get_together(FILM, 100).await;
    let whole = proxy.web.whole(FILM);
    assert!(answers.iter().all(|answer| answer.bytes() == &whole));
    // Of three chunks, one 304, and none of their bytes again.
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (2, 3 * CHUNK));
    assert!(answers.iter().any(|answer| answer.verdict() == "revalidated"));
}

#[tokio::test]
async fn a_new_version_that_is_still_arriving_is_joined_by_who_finds_the_old_one_stale() {
    for item in kinds(3 * CHUNK) {
        let proxy = Proxy::new().await;
        let age = |item: Item| item.cache_control("max-age=10").field("age", "20");
        proxy.web.put(FILM, age(item.clone()));
        proxy.get(FILM).await;
        proxy.web.put(FILM, item.clone().version(2));
        proxy.web.hold(Hold::Byte(CHUNK));
        let mut waiters = vec![proxy.open(FILM, &[]).await];
        waiters.extend(open_many(&proxy, 5).await);
        assert_eq!(proxy.web.count(FILM), 2, "{item:?}");
        proxy.web.release();
        for waiter in &mut waiters {
            assert!(waiter.rest().await.unwrap() == proxy.web.whole(FILM), "{item:?}");
        }
        assert_eq!(proxy.web.count(FILM), 2, "{item:?}");
    }
}

#[tokio::test]
async fn a_fetch_in_the_background_is_one_and_comes_to_its_end_without_readers() {
    // With a strong validator, what nobody reads is left for later.
    for item in &kinds(6 * CHUNK)[1..] {
        let proxy = Proxy::new().await;
        let control = "max-age=10, stale-while-revalidate=600";
        proxy.web.put(FILM, item.clone().cache_control(control).field("age", "20"));
        let old = proxy.get(FILM).await;
        proxy.web.put(FILM, item.clone().version(2));
        proxy.web.hold(Hold::Byte(CHUNK));
        for _ in 0..5 {
            proxy.get(FILM).await;
            until("it is held", || async { (proxy.web.held() == 1).then_some(()) }).await;
        }
        assert_eq!(proxy.web.count(FILM), 2, "{item:?}");
        proxy.web.release();
        let new = until("the new version", || async {
            let answer = proxy.get(FILM).await;
            (answer.bytes() != old.bytes()).then_some(answer)
        })
        .await;
        assert!(new.bytes() == &proxy.web.whole(FILM), "{item:?}");
    }
}
