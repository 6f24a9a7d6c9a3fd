//! Stories of origins that know no ranges: whatever part is asked for, they send the whole, and
//! each byte of it that is wanted is taken from as few answers as may be.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Edge, Hold, Item, Proxy, Validator, Web, WebMisdeed, proxy_settings, until};
use futures::future::join_all;
use nearcast_edge::Settings;
use service::value::ByteSize;

const FILM: &str = "/film";
const BYTES: u64 = 5 * CHUNK + 17;

#[tokio::test]
async fn an_origin_that_knows_no_ranges_serves_parts_of_what_came_whole() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES).no_ranges());
    proxy.web.hold(Hold::Byte(3 * CHUNK + 10));
    let (mut whole, range) = (proxy.open(FILM, &[]).await, 3 * CHUNK..3 * CHUNK + 10);
    let part = proxy.part(FILM, range.clone()).await;
    assert_eq!((part.status.as_u16(), part.verdict()), (206, "filling"));
    assert_eq!(part.bytes(), &proxy.web.part(FILM, range.clone()));
    proxy.web.release();
    assert!(whole.rest().await.unwrap() == proxy.web.whole(FILM));
    assert_eq!(proxy.part(FILM, range).await.verdict(), "hit-memory");
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, BYTES));
    // Cold, a part is cut out of the whole.
    proxy.web.put("/cold", Item::of(BYTES).no_ranges());
    let range = 4 * CHUNK - 5..4 * CHUNK + 5;
    assert_eq!(proxy.part("/cold", range.clone()).await.bytes(), &proxy.web.part("/cold", range));
    assert!(proxy.get("/cold").await.bytes() == &proxy.web.whole("/cold"));
}

#[tokio::test]
async fn what_is_sought_far_ahead_comes_with_the_answer_that_is_on_its_way() {
    for fields in [&[][..], &[("range", "bytes=0-")]] {
        let proxy = Proxy::new().await;
        let item = Item::of(40 * CHUNK).no_ranges();
        proxy.web.put(FILM, item.field("accept-ranges", "none"));
        proxy.web.hold(Hold::Byte(CHUNK + 10));
        let mut whole = proxy.open(FILM, fields).await;
        let far = 30 * CHUNK + 5..30 * CHUNK + 100;
        let release = async {
            let asked = || async {
                (proxy.edge.metric("nearcast_edge_responses ").await == 2.0).then_some(())
            };
            until("a part is asked for", asked).await;
            proxy.web.release();
        };
        let (part, ()) = tokio::join!(proxy.part(FILM, far.clone()), release);
        assert_eq!(part.bytes(), &proxy.web.part(FILM, far));
        assert!(whole.rest().await.unwrap() == proxy.web.whole(FILM));
        assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, 40 * CHUNK));
    }
}

/// It says nothing of ranges: that it knows none is seen of the answer to the first one.
#[tokio::test]
async fn what_is_sought_beside_a_whole_answer_is_taken_from_that_one() {
    for fields in [&[][..], &[("range", "bytes=0-")]] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(40 * CHUNK).no_ranges());
        proxy.web.hold(Hold::Byte(CHUNK + 10));
        let mut whole = proxy.open(FILM, fields).await;
        let far = [30 * CHUNK + 5..30 * CHUNK + 100, 20 * CHUNK..20 * CHUNK + 9];
        let release = async {
            let left = || async { proxy.web.asked().iter().find(|asked| asked.is_left).cloned() };
            until("the second is left", left).await;
            proxy.web.release();
        };
        let first = async { (proxy.part(FILM, far[0].clone()).await, far[0].clone()) };
        let ((part, range), ()) = tokio::join!(first, release);
        assert_eq!(part.bytes(), &proxy.web.part(FILM, range));
        let part = proxy.part(FILM, far[1].clone()).await;
        assert_eq!(part.bytes(), &proxy.web.part(FILM, far[1].clone()));
        assert!(whole.rest().await.unwrap() == proxy.web.whole(FILM));
        let sent: Vec<_> = proxy.web.asked().iter().map(|asked| asked.sent).collect();
        assert_eq!((sent.len(), sent[0]), (2, 40 * CHUNK), "{sent:?}");
        assert!(sent[1] <= CHUNK + 10, "{sent:?}");
    }
}

/// Who seeks gets that, too, where the whole answer is cut, and where who asked for it leaves.
#[tokio::test]
async fn what_is_taken_from_a_whole_answer_that_ends_comes_again() {
    for is_cut in [true, false] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(40 * CHUNK).no_ranges());
        proxy.web.hold(Hold::Byte(CHUNK + 10));
        if is_cut {
            proxy.web.misbehave(&[WebMisdeed::Cut(10 * CHUNK)]);
        }
        let whole = proxy.open(FILM, &[]).await;
        let far = 30 * CHUNK + 5..30 * CHUNK + 100;
        let release = async {
            let left = || async { proxy.web.asked().iter().find(|asked| asked.is_left).cloned() };
            until("the second is left", left).await;
            drop(whole);
            proxy.web.release();
        };
        let (part, ()) = tokio::join!(proxy.part(FILM, far.clone()), release);
        assert_eq!(part.bytes(), &proxy.web.part(FILM, far));
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    }
}

#[tokio::test]
async fn who_only_asks_for_ranges_gets_each_byte_once_from_an_origin_that_knows_none() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(12 * CHUNK).no_ranges());
    for number in [7, 3, 11, 0, 10, 5, 1, 9] {
        let range = number * CHUNK + 5..number * CHUNK + 900;
        let part = proxy.part(FILM, range.clone()).await;
        assert_eq!((part.status.as_u16(), part.bytes()), (206, &proxy.web.part(FILM, range)));
    }
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, 12 * CHUNK));
}

#[tokio::test]
async fn what_comes_before_a_range_from_an_origin_that_knows_none_is_kept() {
    let proxy = Proxy::new().await;
    // Too large to be taken to its end for nobody, and the second time known by a head alone.
    for (path, warm) in [("/film", false), ("/known", true)] {
        proxy.web.put(path, Item::of(100 * CHUNK));
        if warm {
            proxy.part(path, 0..9).await;
        }
        proxy.web.put(path, Item::of(100 * CHUNK).no_ranges());
        let far = 30 * CHUNK + 5..30 * CHUNK + 100;
        let part = proxy.part(path, far.clone()).await;
        assert_eq!(part.bytes(), &proxy.web.part(path, far), "{path}");
        let asked = proxy.web.count(path);
        for number in (0..30).rev() {
            let range = number * CHUNK..number * CHUNK + 10;
            let part = proxy.part(path, range.clone()).await;
            assert_eq!(part.verdict(), "hit-memory", "{path} {number}");
            assert_eq!(part.bytes(), &proxy.web.part(path, range), "{path}");
        }
        assert_eq!(proxy.web.count(path), asked, "{path}");
        // What is known to come whole is asked for once, however many want parts of it.
        let parts = [58, 45, 52].map(|number| number * CHUNK..number * CHUNK + 10);
        let before = proxy.web.count(path);
        let answers = join_all(parts.clone().map(|part| proxy.part(path, part))).await;
        for (answer, part) in answers.iter().zip(parts) {
            assert_eq!(answer.bytes(), &proxy.web.part(path, part), "{path}");
        }
        assert!(proxy.web.count(path) <= before + 1, "{path}: {:?}", proxy.web.ranges(path));
    }
}

#[tokio::test]
async fn an_origin_that_knows_ranges_again_is_asked_for_them() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    proxy.part(FILM, 0..10).await;
    proxy.web.put(FILM, Item::of(60 * CHUNK));
    let left = || async { proxy.web.asked()[0].is_over.then_some(()) };
    until("the first answer is over", left).await;
    for number in [40, 20] {
        let range = number * CHUNK..number * CHUNK + 10;
        let part = proxy.part(FILM, range.clone()).await;
        assert_eq!(part.bytes(), &proxy.web.part(FILM, range));
    }
    let one = format!("bytes={}-{}", 20 * CHUNK, 21 * CHUNK - 1);
    assert_eq!(proxy.web.ranges(FILM).last(), Some(&one));
}

/// An origin without a strong validator that knows no ranges sends the whole each time.
#[tokio::test]
async fn who_only_asks_for_parts_of_little_has_it_kept_at_once() {
    let bytes = 16 * CHUNK;
    for validator in [Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put("/film", Item::of(bytes).validator(validator).no_ranges());
        for number in [9, 14, 0] {
            let range = number * CHUNK + 10..number * CHUNK + 20;
            let answer = proxy.part("/film", range.clone()).await;
            assert_eq!(answer.bytes(), &proxy.web.part("/film", range), "{validator:?}");
        }
        let is_over = || async { proxy.web.asked()[0].is_over.then_some(()) };
        until("the answer is over", is_over).await;
        assert_eq!((proxy.web.count("/film"), proxy.web.sent("/film")), (1, bytes));
    }
}

/// Of more that is so the second time.
#[tokio::test]
async fn who_only_asks_for_parts_is_answered_from_here_in_the_end() {
    let bytes = 17 * CHUNK;
    for validator in [Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put("/film", Item::of(bytes).validator(validator).no_ranges());
        let part = async || {
            let answer = proxy.part("/film", 10..20).await;
            assert_eq!(answer.bytes(), &proxy.web.part("/film", 10..20), "{validator:?}");
            answer.verdict().to_owned()
        };
        assert_eq!(part().await, "origin", "{validator:?}");
        // The first answer is given up.
        until("the first is over", || async { proxy.web.asked()[0].is_over.then_some(()) }).await;
        let is_kept = || async { (part().await == "hit-memory").then_some(()) };
        until("it is kept", is_kept).await;
        assert_eq!(proxy.web.count("/film"), 2, "{validator:?}");
        assert!(proxy.get("/film").await.bytes() == &proxy.web.whole("/film"), "{validator:?}");
        assert_eq!(proxy.web.count("/film"), 2, "{validator:?}");
    }
}

/// What has come already would have to come again: so much is taken for nobody, too.
#[tokio::test]
async fn who_leaves_past_the_middle_has_the_rest_taken() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    for number in [40, 59, 0] {
        let range = number * CHUNK..number * CHUNK + 10;
        assert_eq!(proxy.part(FILM, range.clone()).await.bytes(), &proxy.web.part(FILM, range));
    }
    let over = || async { proxy.web.asked()[0].is_over.then_some(()) };
    until("the answer is over", over).await;
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (1, 60 * CHUNK));
}

/// Both are asked for before it is known that the origin sends all each time.
#[tokio::test]
async fn of_two_answers_that_bring_all_one_is_taken() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(60 * CHUNK));
    proxy.part(FILM, 0..9).await;
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    proxy.web.hold(Hold::Byte(2 * CHUNK));
    let parts = [58, 45].map(|number| number * CHUNK..number * CHUNK + 10);
    let answers = join_all(parts.clone().map(|part| proxy.part(FILM, part)));
    let asked = || async { (proxy.web.count(FILM) == 3).then_some(()) };
    let left = || async { proxy.web.asked().iter().any(|asked| asked.is_left).then_some(()) };
    let held = async {
        until("both are asked for", asked).await;
        // That it was left is seen with the next bytes, maybe those after the hold.
        let is_held = || async { (proxy.web.held() == 2).then_some(()).or(left().await) };
        until("both are held, or one is left", is_held).await;
        proxy.web.release();
        until("one is left", left).await;
    };
    let (answers, ()) = tokio::join!(answers, held);
    for (answer, part) in answers.iter().zip(parts) {
        assert_eq!(answer.bytes(), &proxy.web.part(FILM, part));
    }
    assert_eq!(proxy.web.count(FILM), 3);
    let sent = proxy.web.sent(FILM);
    assert!(sent < 90 * CHUNK, "{sent} bytes of one film of 60 MiB");
}

/// More at a time than one answer is begun for, in no order.
#[tokio::test]
async fn many_parts_at_once_are_all_right() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(60 * CHUNK));
    proxy.part(FILM, 0..9).await;
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    let parts = (0..40).map(|number| {
        let start = number * 37 % 59 * CHUNK + 7;
        start..start + (number % 3) * CHUNK / 2 + 10
    });
    let answers = join_all(parts.clone().map(|part| proxy.part(FILM, part))).await;
    for (answer, part) in answers.iter().zip(parts) {
        assert!(answer.bytes() == &proxy.web.part(FILM, part.clone()), "{part:?}");
    }
}

/// What one answer was left by another that was then cut is brought by the next try.
#[tokio::test]
async fn who_joined_an_answer_that_is_cut_gets_all_of_what_they_asked_for() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(60 * CHUNK));
    proxy.part(FILM, 0..9).await;
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    proxy.web.hold(Hold::Byte(2 * CHUNK));
    proxy.web.misbehave(&[WebMisdeed::Cut(50 * CHUNK), WebMisdeed::Cut(50 * CHUNK)]);
    let parts = [58, 45].map(|number| number * CHUNK..number * CHUNK + 10);
    let answers = join_all(parts.clone().map(|part| proxy.part(FILM, part)));
    let both = || async { (proxy.web.count(FILM) == 3).then_some(()) };
    let held = async {
        until("both are asked for", both).await;
        proxy.web.release();
    };
    let (answers, ()) = tokio::join!(answers, held);
    for (answer, part) in answers.iter().zip(parts) {
        assert_eq!(answer.bytes(), &proxy.web.part(FILM, part));
    }
}

/// A new version is asked for as it is wanted, though the stored one is asked about with it.
#[tokio::test]
async fn a_part_of_a_new_version_costs_its_chunk() {
    let far = |number: u64| number * CHUNK + 5..number * CHUNK + 100;
    for before in [Validator::Strong, Validator::Weak] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::stale(5 * CHUNK, "").validator(before));
        proxy.get(FILM).await;
        proxy.web.put(FILM, Item::of(100 * CHUNK).version(2));
        let sent = proxy.web.sent(FILM);
        for number in [60, 80, 70] {
            let part = proxy.part(FILM, far(number)).await;
            assert_eq!(part.status, 206, "{before:?}");
            assert_eq!(part.bytes(), &proxy.web.part(FILM, far(number)), "{before:?}");
            let one = format!("bytes={}-{}", number * CHUNK, (number + 1) * CHUNK - 1);
            assert_eq!(proxy.web.ranges(FILM).last(), Some(&one), "{before:?}");
        }
        // Without a strong validator before, the whole was on its way.
        let spare = if before == Validator::Strong { 0 } else { 12 * CHUNK };
        let sent = proxy.web.sent(FILM) - sent;
        assert!((3 * CHUNK..=3 * CHUNK + spare).contains(&sent), "{before:?}: {sent}");
    }
}

/// The same for one that is good still: nothing of it comes again.
#[tokio::test]
async fn a_part_of_what_is_good_still_costs_a_304() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::stale(5 * CHUNK, ""));
    proxy.get(FILM).await;
    let range = 3 * CHUNK..3 * CHUNK + 10;
    let part = proxy.part(FILM, range.clone()).await;
    assert_eq!((part.status.as_u16(), part.verdict()), (206, "revalidated"));
    assert_eq!(part.bytes(), &proxy.web.part(FILM, range));
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (2, 5 * CHUNK));
    // The new version has no such part.
    proxy.web.put(FILM, Item::of(2 * CHUNK).version(2));
    let part = proxy.part(FILM, 3 * CHUNK..3 * CHUNK + 10).await;
    assert_eq!(part.status, 416);
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
}

/// Another answer that brings all is past what is wanted, and memory has not kept it.
#[tokio::test]
async fn a_whole_answer_in_hand_is_taken_where_another_is_past_what_is_wanted() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let memory = Some(ByteSize(16 << 20));
    let edge = Edge::start(Settings { memory, ..settings }).await;
    let proxy = Proxy { dir, web, edge };
    proxy.web.put(FILM, Item::of(60 * CHUNK).no_ranges());
    proxy.web.hold(Hold::Byte(58 * CHUNK));
    let first = 58 * CHUNK..58 * CHUNK + 10;
    let passed = async {
        until("the first is held", || async { (proxy.web.held() == 1).then_some(()) }).await;
        proxy.web.misbehave(&[WebMisdeed::Unconditional]);
        let asked = [("cache-control", "no-cache"), ("range", "bytes=3145733-3145742")];
        let part = proxy.get_with(FILM, &asked).await;
        assert_eq!(part.bytes(), &proxy.web.part(FILM, 3_145_733..3_145_743));
        assert_eq!(proxy.web.count(FILM), 2);
        proxy.web.release();
    };
    let (answer, ()) = tokio::join!(proxy.part(FILM, first.clone()), passed);
    assert_eq!(answer.bytes(), &proxy.web.part(FILM, first));
}
