//! Stories of objects that are here in part, and of answers that are a part of what came.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Proxy, Validator, ask, until};
use http::Method;

const FILM: &str = "/film";
const BYTES: u64 = 3 * CHUNK + 4321;

/// RFC 9111 section 5.2.1.7.
#[tokio::test]
async fn who_wants_what_is_stored_alone_costs_the_origin_nothing_of_what_is_not() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES));
    assert_eq!(proxy.part(FILM, 0..100).await.status, 206);
    proxy.has_filled().await;
    let asked = proxy.web.count(FILM);
    for (range, status) in [
        ("bytes=50-59", 206),
        ("bytes=2000000-2000009", 504),
        ("bytes=1048570-1048580", 504),
        ("bytes=0-", 504),
        ("bytes=-1", 504),
        ("", 504),
    ] {
        let mut fields = vec![("cache-control", "only-if-cached")];
        fields.extend((!range.is_empty()).then_some(("range", range)));
        let answer = proxy.get_with(FILM, &fields).await;
        assert_eq!(answer.status, status, "{range}: {answer:?}");
        assert_eq!(proxy.web.count(FILM), asked, "{range}");
    }
    let failed = [("cache-control", "only-if-cached"), ("if-match", "\"other\"")];
    assert_eq!(proxy.get_with(FILM, &failed).await.status, 504, "only the origin may say");
    assert_eq!(proxy.web.count(FILM), asked);
    proxy.get(FILM).await;
    let whole = proxy.get_with(FILM, &[("cache-control", "only-if-cached")]).await;
    assert!(whole.bytes() == &proxy.web.whole(FILM), "{whole:?}");
}

/// RFC 9111 section 5.2.1.7: what is arriving is not stored yet. A HEAD is answered as the GET would
/// be (RFC 9110 section 9.3.2).
#[tokio::test]
async fn who_wants_what_is_stored_alone_does_not_wait_for_what_is_arriving() {
    let only = [("cache-control", "only-if-cached")];
    for item in [Item::of(BYTES), Item::of(BYTES).validator(Validator::None)] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item);
        proxy.web.hold(Hold::Byte(1000));
        let mut arriving = proxy.open(FILM, &[]).await;
        arriving.take(1000).await.unwrap();
        for method in [Method::GET, Method::HEAD] {
            let answer = ask(method.clone(), &proxy.url(FILM), &only).await;
            assert_eq!(answer.status, 504, "{method}: {answer:?}");
        }
        proxy.web.release();
        arriving.rest().await.unwrap();
        proxy.has_filled().await;
        let stored = async || {
            let answer = ask(Method::HEAD, &proxy.url(FILM), &only).await;
            (answer.status == 200).then_some(answer)
        };
        until("it is stored", stored).await;
        assert_eq!(proxy.get_with(FILM, &only).await.status, 200);
        assert_eq!(proxy.web.count(FILM), 1);
    }
}

/// RFC 9211 section 2.1: to answer a HEAD, nothing but the stored head is needed.
#[tokio::test]
async fn a_head_of_what_is_stored_in_part_is_a_hit() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES));
    assert_eq!(proxy.part(FILM, 2_000_000..2_000_100).await.status, 206);
    proxy.has_filled().await;
    let told = ask(Method::HEAD, &proxy.url(FILM), &[]).await;
    assert!(told.header("cache-status").starts_with("edge-a;hit;"), "{told:?}");
    assert_eq!(told.header("content-length"), BYTES.to_string());
    assert_eq!(proxy.web.count(FILM), 1);
}

const DIGESTS: [&str; 3] = ["content-digest", "content-md5", "repr-digest"];

/// An item with digests.
fn digested() -> Item {
    DIGESTS.iter().fold(Item::of(BYTES), |item, name| item.field(name, "said"))
}

/// Which of them an answer has.
fn told(answer: &Answer) -> [bool; 3] {
    DIGESTS.map(|name| answer.header(name) == "said")
}

/// RFC 9530 section 2 and RFC 1864: a digest of a message's content is wrong on any other part of
/// the representation, whose own digest stays.
#[tokio::test]
async fn digests_of_other_bytes_are_left_out() {
    for first in [None, Some("bytes=10-19"), Some("bytes=10-19, 50-59")] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, digested());
        let begun: Vec<_> = first.map(|range| ("range", range)).into_iter().collect();
        let began = proxy.get_with(FILM, &begun).await;
        assert_eq!(told(&began), [first.is_none(), first.is_none(), true], "{first:?}");
        // A whole answer is kept with what was said of the whole.
        let whole = proxy.get(FILM).await;
        assert_eq!(told(&whole), [first.is_none(), first.is_none(), true], "{first:?}");
        assert!(whole.bytes() == &proxy.web.whole(FILM), "{first:?}");
        for range in ["bytes=5-9", "bytes=5-9, 2000000-2000009"] {
            let part = proxy.get_with(FILM, &[("range", range)]).await;
            assert_eq!((part.status.as_u16(), told(&part)), (206, [false, false, true]), "{range}");
        }
    }
}

/// What can't be kept in parts: cut out of a chunk that came for one client, asked for to the byte,
/// and cut out of a whole answer that is arriving.
#[tokio::test]
async fn digests_of_other_bytes_are_left_out_of_what_is_not_kept_in_parts() {
    for validator in [Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, digested().validator(validator));
        let cut = proxy.part(FILM, 10..20).await;
        assert_eq!((cut.status.as_u16(), told(&cut)), (206, [false, false, true]), "{validator:?}");
        let exact = proxy.part(FILM, 10..20).await;
        assert_eq!((exact.status.as_u16(), told(&exact)), (206, [true; 3]), "{validator:?}");
        assert_eq!(proxy.web.ranges(FILM), ["bytes=0-1048575", "bytes=10-19"], "{validator:?}");

        let proxy = Proxy::new().await;
        proxy.web.put(FILM, digested().validator(validator));
        proxy.web.hold(Hold::Byte(CHUNK));
        let mut whole = proxy.open(FILM, &[]).await;
        let part = proxy.part(FILM, 5..10).await;
        assert_eq!((part.status.as_u16(), told(&part)), (206, [false, false, true]));
        assert_eq!(DIGESTS.map(|name| whole.header(name) == "said"), [true; 3], "{validator:?}");
        proxy.web.release();
        assert!(whole.rest().await.unwrap() == proxy.web.whole(FILM), "{validator:?}");
        assert_eq!(proxy.web.count(FILM), 1, "{validator:?}");
    }
}
