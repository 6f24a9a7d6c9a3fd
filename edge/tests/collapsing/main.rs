//! Stories of many who want one thing: one fetch, each byte to everybody as it comes, and no end
//! that is not one.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
mod leaving;
mod stale;

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

/// Found by an audit: of those who had waited for a page some were counted as if each had asked the
/// origin.
#[tokio::test(flavor = "multi_thread")]
async fn who_waited_is_told_so_however_quick_the_answer_was() {
    for (bytes, kind) in [(3_000, "text/css"), (3_000, "video/mp4"), (3 * CHUNK, "video/mp4")] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(bytes).field("content-type", kind));
        let answers = proxy.get_together(FILM, 40).await;
        let count = |verdict| answers.iter().filter(|answer| answer.verdict() == verdict).count();
        // Who comes when all is here finds it.
        let others = count("filling") + count("hit-memory");
        assert_eq!((count("origin"), others), (1, 39), "{bytes} {kind}");
        assert_eq!(proxy.web.count(FILM), 1);
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
