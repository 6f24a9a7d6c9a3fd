//! Stories of ranges: any part out of any chunks, and no more from the origin than the chunks
//! that are touched.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Item, Proxy, Validator, WebMisdeed, ask};
use http::Method;

const FILM: &str = "/film";
/// Five chunks and a bit.
const BYTES: u64 = 5 * CHUNK + 17;

async fn stage() -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES));
    proxy
}

#[tokio::test]
async fn one_range_costs_the_chunks_that_it_touches_and_then_hits() {
    let proxy = stage().await;
    let answer = proxy.part(FILM, 100..200).await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (206, "origin"));
    assert_eq!(answer.header("content-range"), format!("bytes 100-199/{BYTES}"));
    assert_eq!(answer.bytes(), &proxy.web.part(FILM, 100..200));
    assert_eq!(proxy.web.sent(FILM), CHUNK);
    let across = 2 * CHUNK - 10..3 * CHUNK + 10;
    assert_eq!(proxy.part(FILM, across.clone()).await.bytes(), &proxy.web.part(FILM, across));
    assert_eq!(proxy.web.sent(FILM), 4 * CHUNK);
    let again = proxy.part(FILM, 2 * CHUNK..2 * CHUNK + 5).await;
    assert_eq!(again.verdict(), "hit-memory");
    assert!(again.header("cache-status").contains(";hit;"), "{again:?}");
    assert_eq!(proxy.web.count(FILM), 2);
}

#[tokio::test]
async fn every_form_of_one_range_cold_and_warm() {
    let last = BYTES - 1;
    let table = [
        ("bytes=0-0".to_owned(), 0..1),
        (format!("bytes={}-{}", CHUNK - 3, CHUNK + 2), CHUNK - 3..CHUNK + 3),
        (format!("bytes={}-", 4 * CHUNK - 1), 4 * CHUNK - 1..BYTES),
        ("bytes=-40".to_owned(), BYTES - 40..BYTES),
        (format!("bytes=-{}", BYTES + 5), 0..BYTES),
        (format!("bytes={last}-{}", u64::MAX), last..BYTES),
        (format!("bytes={last}-{}", 1u64 << 63), last..BYTES),
        ("bytes=7-99999999999999999999999999".to_owned(), 7..BYTES),
        ("bytes=-99999999999999999999999999".to_owned(), 0..BYTES),
    ];
    for (field, expected) in table {
        let proxy = stage().await;
        for temperature in ["cold", "warm"] {
            let answer = proxy.get_with(FILM, &[("range", &field)]).await;
            assert_eq!(answer.status, 206, "{field} {temperature}");
            let range = format!("bytes {}-{}/{BYTES}", expected.start, expected.end - 1);
            assert_eq!(answer.header("content-range"), range, "{field} {temperature}");
            assert!(answer.bytes() == &proxy.web.part(FILM, expected.clone()), "{field}");
        }
    }
}

#[tokio::test]
async fn past_the_end_is_416_and_nonsense_is_the_whole() {
    let proxy = stage().await;
    for temperature in ["cold", "warm"] {
        for start in [BYTES, 1 << 63, u64::MAX] {
            let field = format!("bytes={start}-");
            let answer = proxy.get_with(FILM, &[("range", &field)]).await;
            assert_eq!(answer.status, 416, "{field} {temperature}");
            assert_eq!(answer.header("content-range"), format!("bytes */{BYTES}"), "{field}");
        }
        for field in ["bytes=9-5", "lines=1-2", "bytes=a-b", "bytes=--1", "bytes="] {
            let answer = proxy.get_with(FILM, &[("range", field)]).await;
            assert_eq!(answer.status, 200, "{field} {temperature}");
            assert!(answer.bytes() == &proxy.web.whole(FILM), "{field} {temperature}");
        }
    }
}

/// Members of a list may be empty (RFC 9110 section 5.6.1), units have no case (section 14.1), and
/// what is past counting is past the end (section 14.1.1).
#[tokio::test]
async fn unusual_forms_of_ranges_cost_what_usual_ones_do() {
    const BYTES: u64 = 64 * CHUNK;
    let past = "18446744073709551616";
    let table = [
        ("bytes=,0-99".to_owned(), Some(0..100), CHUNK),
        ("bytes= , ,0-99,".to_owned(), Some(0..100), CHUNK),
        ("Bytes=0-99".to_owned(), Some(0..100), CHUNK),
        ("BYTES=-100".to_owned(), Some(BYTES - 100..BYTES), CHUNK),
        (format!("bytes={}-{past}", BYTES - 5), Some(BYTES - 5..BYTES), CHUNK),
        (format!("bytes={}-18446744073709551615", BYTES - 5), Some(BYTES - 5..BYTES), CHUNK),
        (format!("bytes={past}-"), None, 0),
        (format!("bytes={past}-{past}0"), None, 0),
        (format!("bytes={BYTES}-"), None, 0),
    ];
    for (field, expected, bytes) in table {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(BYTES));
        for temperature in ["cold", "warm"] {
            let answer = proxy.get_with(FILM, &[("range", &field)]).await;
            let told = match &expected {
                Some(range) => format!("bytes {}-{}/{BYTES}", range.start, range.end - 1),
                None => format!("bytes */{BYTES}"),
            };
            assert_eq!(answer.header("content-range"), told, "{field} {temperature}");
            match &expected {
                Some(range) => assert_eq!(answer.bytes(), &proxy.web.part(FILM, range.clone())),
                None => assert_eq!(answer.status, 416, "{field} {temperature}"),
            }
            assert_eq!(proxy.web.sent(FILM), bytes, "{field} {temperature}");
        }
    }
}

#[tokio::test]
async fn several_ranges_are_one_multipart_body_to_the_byte() {
    let proxy = stage().await;
    for temperature in ["cold", "warm"] {
        let field = format!("bytes=0-9,{}-{},-5", CHUNK - 2, CHUNK + 1);
        let answer = proxy.get_with(FILM, &[("range", &field)]).await;
        assert_eq!(answer.status, 206, "{temperature}");
        let kind = answer.header("content-type");
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for range in [0..10, CHUNK - 2..CHUNK + 2, BYTES - 5..BYTES] {
            let told = format!("bytes {}-{}/{BYTES}", range.start, range.end - 1);
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: {told}\r\n\r\n"
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&proxy.web.part(FILM, range));
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(answer.bytes(), &expected, "{temperature}");
        assert_eq!(answer.header("content-length"), expected.len().to_string());
    }
    // The first, the second and the last one; none of the three between.
    assert!(proxy.web.sent(FILM) <= 3 * CHUNK + 17, "{:?}", proxy.web.ranges(FILM));
}

/// They touch neighbours, which are asked for together.
#[tokio::test]
async fn what_several_ranges_miss_in_neighbours_is_one_request() {
    let proxy = stage().await;
    assert_eq!(proxy.part(FILM, 0..9).await.status, 206);
    let field = format!("bytes={}-{},{}-{}", CHUNK, CHUNK + 8, 2 * CHUNK, 2 * CHUNK + 2);
    let field = format!("{field},{}-{}", 3 * CHUNK + 5, 4 * CHUNK);
    assert_eq!(proxy.get_with(FILM, &[("range", &field)]).await.status, 206);
    let asked = proxy.web.ranges(FILM);
    assert_eq!(asked[1..], [format!("bytes={CHUNK}-{}", 5 * CHUNK - 1)]);
    // Not what is between those that are none, nor for a part before them.
    proxy.web.put("/other", Item::of(12 * CHUNK));
    assert_eq!(proxy.part("/other", 0..9).await.status, 206);
    let field = format!("bytes={0}-{0},{1}-{1},{2}-{2}", 5 * CHUNK, 2 * CHUNK, 8 * CHUNK);
    assert_eq!(proxy.get_with("/other", &[("range", &field)]).await.status, 206);
    assert_eq!(proxy.web.sent("/other"), 4 * CHUNK, "{:?}", proxy.web.ranges("/other"));
}

#[tokio::test]
async fn as_many_ranges_as_allowed_and_not_one_more() {
    let proxy = stage().await;
    proxy.get(FILM).await;
    let ranges = |count: u64| {
        let spec: Vec<String> = (0..count).map(|n| format!("{}-{}", 10 * n, 10 * n)).collect();
        format!("bytes={}", spec.join(","))
    };
    let most = proxy.get_with(FILM, &[("range", &ranges(16))]).await;
    assert_eq!(most.status, 206);
    let more = proxy.get_with(FILM, &[("range", &ranges(17))]).await;
    assert_eq!((more.status.as_u16(), more.code().as_str()), (416, "too-many-ranges"));
    // Overlapping ones are joined: no answer is larger than what it is of.
    let all = vec!["0-"; 16].join(",");
    let answer = proxy.get_with(FILM, &[("range", &format!("bytes={all}"))]).await;
    assert!(answer.bytes().len() as u64 <= BYTES);
}

#[tokio::test]
async fn a_head_of_a_large_object_fetches_no_byte_of_it() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3 << 30));
    let answer = ask(Method::HEAD, &proxy.url(FILM), &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), (3u64 << 30).to_string());
    assert_eq!(proxy.web.sent(FILM), 0);
    // Neither does a hundred bytes anywhere in it, nor the end.
    let answer = proxy.part(FILM, 2 << 30..(2 << 30) + 100).await;
    assert_eq!(answer.bytes(), &proxy.web.part(FILM, 2 << 30..(2 << 30) + 100));
    let end = proxy.get_with(FILM, &[("range", "bytes=-100")]).await;
    assert_eq!(end.bytes(), &proxy.web.part(FILM, (3 << 30) - 100..3 << 30));
    assert_eq!(proxy.web.sent(FILM), 2 * CHUNK);
    let answer = ask(Method::HEAD, &proxy.url(FILM), &[]).await;
    assert_eq!(answer.header("content-length"), (3u64 << 30).to_string());
    assert_eq!(proxy.web.sent(FILM), 2 * CHUNK);
}

#[tokio::test]
async fn the_end_of_an_unknown_object_costs_its_chunk() {
    let proxy = stage().await;
    let answer = proxy.get_with(FILM, &[("range", "bytes=-10")]).await;
    assert_eq!(answer.bytes(), &proxy.web.part(FILM, BYTES - 10..BYTES));
    assert_eq!(proxy.web.sent(FILM), 17);
}

#[tokio::test]
async fn a_whole_after_a_range_fetches_only_what_is_missing() {
    let proxy = stage().await;
    proxy.part(FILM, 2 * CHUNK..2 * CHUNK + 1).await;
    let whole = proxy.get(FILM).await;
    assert_eq!(whole.status, 200);
    assert!(whole.bytes() == &proxy.web.whole(FILM));
    assert!(whole.header("cache-status").contains("fwd=partial"), "{whole:?}");
    assert_eq!(proxy.web.sent(FILM), BYTES);
    assert_eq!(proxy.web.ranges(FILM).len(), 3, "{:?}", proxy.web.ranges(FILM));
    // And the other way round: what the whole brought answers ranges.
    assert_eq!(proxy.part(FILM, 5..4 * CHUNK).await.verdict(), "hit-memory");
    assert_eq!(proxy.web.sent(FILM), BYTES);
}

#[tokio::test]
async fn a_client_that_only_ever_asks_for_ranges_hits() {
    let proxy = stage().await;
    for pass in 0..3 {
        for start in (0..BYTES).step_by(700_000) {
            let range = start..(start + 700_000).min(BYTES);
            let answer = proxy.part(FILM, range.clone()).await;
            assert!(answer.bytes() == &proxy.web.part(FILM, range));
            assert!(pass == 0 || answer.verdict() == "hit-memory", "{answer:?}");
        }
    }
    assert_eq!(proxy.web.sent(FILM), BYTES);
}

#[tokio::test]
async fn a_range_of_a_weak_object_is_passed_on_and_never_stored() {
    for validator in [Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(BYTES).validator(validator));
        for _ in 0..2 {
            let part = proxy.part(FILM, 1000..1010).await;
            assert_eq!((part.status.as_u16(), part.verdict()), (206, "bypass"));
            assert_eq!(part.header("content-range"), format!("bytes 1000-1009/{BYTES}"));
            assert_eq!(part.bytes(), &proxy.web.part(FILM, 1000..1010));
        }
        let asked = proxy.web.count(FILM);
        // One whole answer is what is stored; ranges of it then hit.
        let whole = proxy.get(FILM).await;
        assert!(whole.status == 200 && whole.bytes() == &proxy.web.whole(FILM));
        assert_eq!(proxy.part(FILM, 1000..1010).await.verdict(), "hit-memory");
        assert_eq!(proxy.web.count(FILM), asked + 1);
    }
}

#[tokio::test]
async fn an_old_date_holds_parts_together_as_well_as_a_tag() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES).validator(Validator::Date));
    proxy.part(FILM, 0..10).await;
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    assert_eq!(proxy.web.sent(FILM), BYTES);
    proxy.web.change(FILM);
    assert_eq!(proxy.part(FILM, 0..10).await.verdict(), "hit-memory");
}

#[tokio::test]
async fn another_version_in_mid_object_cuts_and_the_next_answer_is_whole_and_new() {
    let proxy = stage().await;
    proxy.part(FILM, 0..10).await;
    proxy.web.change(FILM);
    // The first chunk is of the old version: it can't be followed by the new one's.
    let mut mixed = proxy.open(FILM, &[]).await;
    let old = common::content(FILM, 1, "", 0..CHUNK);
    assert_eq!(mixed.take(usize::try_from(CHUNK).unwrap()).await.unwrap(), old);
    assert!(mixed.rest().await.is_err(), "two versions in one clean answer");
    let new = proxy.get(FILM).await;
    assert!(new.bytes() == &common::content(FILM, 2, "", 0..BYTES));
    // A range whose first byte is missing starts over within the one request.
    proxy.web.change(FILM);
    proxy.web.put("/other", Item::of(BYTES));
    proxy.part("/other", 0..10).await;
    proxy.web.change("/other");
    let part = proxy.part("/other", 3 * CHUNK..3 * CHUNK + 9).await;
    assert_eq!(part.bytes(), &common::content("/other", 2, "", 3 * CHUNK..3 * CHUNK + 9));
}

#[tokio::test]
async fn the_version_changes_while_it_is_fetched() {
    let proxy = stage().await;
    proxy.web.misbehave(&[WebMisdeed::Change(2 * CHUNK + 5)]);
    let mut cut = proxy.open(FILM, &[]).await;
    assert!(cut.rest().await.is_err());
    let whole = proxy.get(FILM).await;
    assert!(whole.bytes() == &common::content(FILM, 2, "", 0..BYTES));
    assert_eq!(proxy.get(FILM).await.verdict(), "hit-memory");
}

#[tokio::test]
async fn several_ranges_of_a_weak_object_are_the_whole() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3000).validator(Validator::Weak));
    let answer = proxy.get_with(FILM, &[("range", "bytes=0-9,2000-2009")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (200, ""));
    assert_eq!(answer.bytes(), &proxy.web.whole(FILM));
}

#[tokio::test]
async fn if_range_decides_whether_the_range_counts() {
    let proxy = stage().await;
    for temperature in ["cold", "warm"] {
        let same = [("range", "bytes=5-9"), ("if-range", "\"v1\"")];
        let answer = proxy.get_with(FILM, &same).await;
        assert_eq!((answer.status.as_u16(), answer.bytes().len()), (206, 5), "{temperature}");
        assert!(temperature == "warm" || proxy.web.sent(FILM) == CHUNK);
        for other in ["\"v0\"", "W/\"v1\"", "Mon, 01 Jan 2024 01:00:00 GMT"] {
            let answer = proxy.get_with(FILM, &[("range", "bytes=5-9"), ("if-range", other)]).await;
            assert_eq!(answer.status, 200, "{other} {temperature}");
            assert!(answer.bytes() == &proxy.web.whole(FILM), "{other} {temperature}");
        }
    }
    assert_eq!(proxy.web.sent(FILM), BYTES);
}

/// RFC 9110 section 15.5.17: 416 is for who wants no byte that there is.
#[tokio::test]
async fn several_ranges_of_which_the_first_is_past_the_end_are_answered() {
    for validator in [Validator::Strong, Validator::Weak, Validator::None] {
        let proxy = Proxy::new().await;
        proxy.web.put("/page", Item::of(5000).validator(validator));
        let ranges = [("range", "bytes=9000000-9000009, 5-9")];
        for _ in 0..2 {
            let answer = proxy.get_with("/page", &ranges).await;
            let right = match answer.status.as_u16() {
                200 => proxy.web.whole("/page"),
                206 => proxy.web.part("/page", 5..10),
                _ => panic!("{validator:?}: {answer:?}"),
            };
            assert!(answer.bytes() == &right, "{validator:?}: {answer:?}");
        }
        let none = proxy.get_with("/page", &[("range", "bytes=9000000-9000009")]).await;
        assert_eq!(none.status, 416, "{validator:?}");
    }
}
