//! Stories of many who want one thing: one fetch, each byte to everybody as it comes, and no end
//! that is not one.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Opened, Proxy, Validator, WebMisdeed, ask, until};
use futures::future::join_all;
use http::Method;

const FILM: &str = "/film";

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap()
}

/// An object as each kind of origin would have it.
fn kinds(length: u64) -> [Item; 4] {
    let item = Item::of(length);
    [
        item.clone(),
        item.clone().validator(Validator::Weak),
        item.clone().validator(Validator::None),
        item.chunked(),
    ]
}

async fn open_many(proxy: &Proxy, count: usize) -> Vec<Opened> {
    join_all((0..count).map(|_| proxy.open(FILM, &[]))).await
}

/// Waits until the edge has seen that clients left.
async fn responses(proxy: &Proxy, count: f64) {
    until("responses under way", || async {
        (proxy.edge.metric("nearcast_edge_responses").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_hundred_waiters_of_one_cold_object_share_each_byte_as_it_comes() {
    for item in kinds(2 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(CHUNK + 1000));
        let mut waiters = open_many(&proxy, 200).await;
        // Nothing more has left the origin: the first half is everybody's at once.
        let half = proxy.web.part(FILM, 0..CHUNK + 1000);
        for waiter in &mut waiters {
            assert!(waiter.take(half.len()).await.unwrap() == half, "{item:?}");
        }
        proxy.web.release();
        let rest = proxy.web.part(FILM, CHUNK + 1000..2 * CHUNK);
        for waiter in &mut waiters {
            assert!(waiter.rest().await.unwrap() == rest, "{item:?}");
        }
        assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, 2 * CHUNK), "{item:?}");
    }
}

#[tokio::test]
async fn who_comes_late_to_a_slow_fill_joins_it() {
    for item in kinds(3 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(2 * CHUNK));
        let mut first = proxy.open(FILM, &[]).await;
        first.take(bytes(2 * CHUNK)).await.unwrap();
        for _ in 0..3 {
            let mut late = proxy.open(FILM, &[]).await;
            assert!(late.header("cache-status").contains("collapsed"), "{item:?}");
            let half = late.take(bytes(2 * CHUNK)).await.unwrap();
            assert!(half == proxy.web.part(FILM, 0..2 * CHUNK), "{item:?}");
        }
        // A HEAD needs no more than the head that is here.
        let head = ask(Method::HEAD, &proxy.url(FILM), &[]).await;
        assert_eq!((head.status.as_u16(), proxy.web.count(FILM)), (200, 1), "{item:?}");
        // RFC 9110 section 14.2: of a GET alone a part is asked for.
        for range in ["bytes=5-9", "bytes=999999999-"] {
            let part = ask(Method::HEAD, &proxy.url(FILM), &[("range", range)]).await;
            assert_eq!((part.status.as_u16(), proxy.web.count(FILM)), (200, 1), "{item:?}");
            let length = |answer: &Answer| answer.header("content-length").to_owned();
            assert_eq!((length(&part), part.header("content-range")), (length(&head), ""));
        }
        proxy.web.release();
        assert!(first.rest().await.unwrap() == proxy.web.part(FILM, 2 * CHUNK..3 * CHUNK));
        assert_eq!(proxy.get(FILM).await.verdict(), "hit-memory", "{item:?}");
        assert_eq!(proxy.web.count(FILM), 1, "{item:?}");
    }
}

/// Whoever takes a stale answer has it, and who does not is told of no status of an origin that
/// sent none (RFC 9211 section 2.3), whether it asked or waited.
#[tokio::test]
async fn a_fetch_that_fails_ends_in_what_each_who_waits_may_have() {
    let strict = [("cache-control", "no-cache"), ("nearcast-newer-than", "0")];
    for (field, is_first) in strict.into_iter().flat_map(|field| [(field, true), (field, false)]) {
        let proxy = Proxy::with(serde_json::json!({ "retries": 0, "hedge": false })).await;
        proxy.web.put(FILM, Item::stale(CHUNK, "stale-if-error=600"));
        let whole = proxy.get(FILM).await;
        proxy.web.always(Some(WebMisdeed::Mute));
        proxy.web.hold(Hold::Head);
        let (strict, lax) = ([field], []);
        let (of_first, of_others): (&[_], &[_]) =
            if is_first { (&strict, &lax) } else { (&lax, &strict) };
        let others = async {
            until("the first waits", || async { (proxy.web.held() == 1).then_some(()) }).await;
            let release = async {
                let all = || async {
                    let open = proxy.edge.metric("nearcast_edge_connections").await;
                    (open >= 21.0).then_some(())
                };
                until("all wait", all).await;
                proxy.web.release();
            };
            tokio::join!(join_all((0..20).map(|_| proxy.get_with(FILM, of_others))), release).0
        };
        let (first, others) = tokio::join!(proxy.get_with(FILM, of_first), others);
        let others = others.into_iter().map(|other| (other, !is_first));
        for (answer, is_strict) in [(first, is_first)].into_iter().chain(others) {
            if is_strict {
                assert_eq!(answer.status, 502, "{field:?}");
                let told = answer.header("cache-status");
                assert!(!told.contains("fwd-status"), "{field:?} {is_first} {told}");
            } else {
                assert_eq!((answer.status.as_u16(), answer.verdict()), (200, "stale"), "{field:?}");
                assert!(answer.bytes() == whole.bytes(), "{field:?}");
            }
        }
    }
}

/// RFC 9111 section 4.3.2.
#[tokio::test]
async fn a_condition_that_fails_is_the_origins_to_decide_while_it_comes() {
    for item in kinds(3 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(2 * CHUNK));
        let mut first = proxy.open(FILM, &[]).await;
        let other = [("if-match", "\"v0\"")];
        assert_eq!(proxy.get_with(FILM, &other).await.status, 412, "{item:?}");
        proxy.web.release();
        assert!(first.rest().await.unwrap() == proxy.web.whole(FILM), "{item:?}");
        assert_eq!(proxy.get(FILM).await.verdict(), "hit-memory", "{item:?}");
        let asked = proxy.web.asked_for(FILM);
        assert_eq!((asked.len(), asked[1].status), (2, 412), "{item:?}");
    }
}

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
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(CHUNK));
    proxy.web.hold(Hold::Head);
    let url = proxy.url(FILM);
    let first = tokio::spawn(async move { common::get(&url, &[]).await });
    until("the first is at the origin", || async { (proxy.web.held() == 1).then_some(()) }).await;
    let (second, ()) = tokio::join!(proxy.get(FILM), async {
        first.abort();
        until("the first has left", || async {
            let open = proxy.edge.metric("nearcast_edge_connections").await;
            (open == 1.0 || proxy.edge.metric("nearcast_edge_responses").await == 0.0).then_some(())
        })
        .await;
        proxy.web.release();
    });
    assert!(second.bytes() == &proxy.web.whole(FILM));
    assert_eq!(proxy.web.count(FILM), 1);
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
async fn a_fill_that_dies_is_nobodys_clean_end_and_leaves_nothing_cut_behind() {
    for item in kinds(3 * CHUNK) {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(CHUNK));
        proxy.web.misbehave(&[WebMisdeed::Cut(CHUNK + 7)]);
        proxy.web.always(Some(WebMisdeed::Mute));
        let mut waiters = open_many(&proxy, 20).await;
        // All wait for the same byte: who came late to it would ask the origin once more, and
        // twenty failures close it for a while.
        let held = join_all(waiters.iter_mut().map(|waiter| waiter.take(CHUNK as usize))).await;
        assert!(held.iter().all(|held| held.as_ref().is_ok_and(|b| b.len() as u64 == CHUNK)));
        proxy.web.release();
        for waiter in &mut waiters {
            assert!(waiter.rest().await.is_err(), "a cut body ended cleanly: {item:?}");
        }
        assert!(proxy.edge.metric("nearcast_edge_bodies_cut_total").await >= 20.0);
        proxy.web.always(None);
        let next = proxy.get(FILM).await;
        assert_eq!(next.status, 200, "{item:?}");
        assert!(next.body.as_ref() == Ok(&proxy.web.whole(FILM)), "{item:?}: {}", next.verdict());
        assert_eq!(proxy.get(FILM).await.verdict(), "hit-memory", "{item:?}");
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_that_is_not_to_be_shared_is_not_put_in_a_row() {
    let dated = Item::of(5000).validator(Validator::Date);
    let mut cookie = dated.field("set-cookie", "a=b");
    cookie.fields.retain(|(name, _)| name != "cache-control");
    let controlled = |value: &str| Item::of(5000).cache_control(value);
    let any = Item::of(5000).field("vary", "*");
    for item in [cookie, controlled("private, max-age=60"), controlled("no-store"), any] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        for round in 0..2 {
            // Every head goes through, every body stays: all are at the origin at a time.
            proxy.web.hold(Hold::Byte(1));
            let answers = join_all((0..20).map(|_| proxy.get(FILM)));
            let all = async {
                until("all are there", || async { (proxy.web.held() == 20).then_some(()) }).await;
                proxy.web.release();
            };
            let (answers, ()) = tokio::join!(answers, all);
            assert!(answers.iter().all(|answer| answer.bytes() == &proxy.web.whole(FILM)));
            assert!(answers.iter().all(|answer| answer.verdict() == "bypass"), "{item:?}");
            assert_eq!(proxy.web.count(FILM), 20 * (round + 1), "{item:?}");
        }
        // The second time, nobody waits for the head of another one's answer either.
        proxy.web.hold(Hold::Head);
        let (_, ()) = tokio::join!(join_all((0..20).map(|_| proxy.get(FILM))), async {
            until("all are there", || async { (proxy.web.held() == 20).then_some(()) }).await;
            proxy.web.release();
        });
    }
}

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
    proxy.web.hold(Hold::Head);
    let (answers, ()) = tokio::join!(join_all((0..100).map(|_| proxy.get(FILM))), async {
        until("all are in", || async {
            let open = proxy.edge.metric("nearcast_edge_connections").await;
            (open >= 100.0 && proxy.web.held() == 1).then_some(())
        })
        .await;
        proxy.web.release();
    });
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

#[tokio::test]
async fn a_weak_answer_that_its_only_client_left_before_the_head_is_ended() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(200 * CHUNK).validator(Validator::Weak).chunked());
    proxy.web.hold(Hold::Head);
    let url = proxy.url(FILM);
    let only = tokio::spawn(async move { common::get(&url, &[]).await });
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
        let first = tokio::spawn(async move { common::get(&url, &[]).await });
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

#[tokio::test]
async fn who_finds_a_growing_answer_failed_asks_together_with_the_others() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3 * CHUNK).validator(Validator::None).chunked());
    proxy.web.hold(Hold::Byte(CHUNK));
    proxy.web.misbehave(&[WebMisdeed::Cut(CHUNK + 7)]);
    let mut waiters = open_many(&proxy, 5).await;
    proxy.web.release();
    for waiter in &mut waiters {
        assert!(waiter.rest().await.is_err());
    }
    proxy.web.hold(Hold::Head);
    let (answers, ()) = tokio::join!(join_all((0..20).map(|_| proxy.get(FILM))), async {
        let all = || async {
            let open = proxy.edge.metric("nearcast_edge_connections").await;
            (open >= 20.0 && proxy.web.held() == 1).then_some(())
        };
        until("all wait for one", all).await;
        proxy.web.release();
    });
    assert!(answers.iter().all(|answer| answer.bytes() == &proxy.web.whole(FILM)));
    assert_eq!(proxy.web.count(FILM), 2);
}
