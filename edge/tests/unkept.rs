//! Stories of parts of what can't be kept: once that is known, the origin sends what the client
//! wants, to the byte.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Proxy, Validator, until};
use std::ops::Range;

const FILM: &str = "/film";
const BYTES: u64 = 5 * CHUNK + 4321;

type Fields = &'static [(&'static str, &'static str)];

async fn part(proxy: &Proxy, fields: Fields, field: &str) -> Answer {
    let fields: Vec<_> = fields.iter().copied().chain([("range", field)]).collect();
    proxy.get_with(FILM, &fields).await
}

/// It is these bytes, passed on.
fn is_part(proxy: &Proxy, answer: &Answer, range: Range<u64>, total: u64, why: &str) {
    let told = format!("bytes {}-{}/{total}", range.start, range.end - 1);
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (206, &*told), "{why}");
    assert_eq!(answer.verdict(), "bypass", "{why}");
    assert!(answer.bytes() == &proxy.web.part(FILM, range), "{why}");
}

#[tokio::test]
async fn a_part_of_what_cannot_be_kept_costs_its_bytes() {
    let of = || Item::of(BYTES);
    let authorized: Fields = &[("authorization", "Basic eDp5")];
    let cases = [
        (of().cache_control("no-store"), &[][..]),
        (of().cache_control("private, max-age=60"), &[]),
        (of().validator(Validator::Weak), &[]),
        (of().validator(Validator::None), &[]),
        (Item::of(17 << 40), &[]),
        (of(), authorized),
    ];
    for (item, fields) in cases {
        let (proxy, total) = (Proxy::new().await, item.bytes);
        proxy.web.put(FILM, item.clone());
        // What it is is not known yet: a chunk is asked for.
        let first = part(&proxy, fields, "bytes=1000-1009").await;
        is_part(&proxy, &first, 1000..1010, total, "the first");
        let far = 2 * CHUNK + 700_000;
        for (field, range) in [
            (format!("bytes={far}-{}", far + 99), far..far + 100),
            (format!("bytes={}-{}", CHUNK - 10, 3 * CHUNK), CHUNK - 10..3 * CHUNK + 1),
            (format!("bytes={}-{}", CHUNK, 2 * CHUNK - 1), CHUNK..2 * CHUNK),
            (format!("bytes={}-", total - 20), total - 20..total),
            (format!("bytes={}-{}", total - 20, total + 9), total - 20..total),
            ("bytes=-30".to_owned(), total - 30..total),
        ] {
            let why = format!("{field} of {item:?}");
            let (asked, sent) = (proxy.web.count(FILM), proxy.web.sent(FILM));
            let answer = part(&proxy, fields, &field).await;
            is_part(&proxy, &answer, range.clone(), total, &why);
            assert_eq!(proxy.web.sent(FILM) - sent, range.end - range.start, "{why}");
            // A HEAD tells where the end is.
            let heads = usize::from(field.contains("=-"));
            assert_eq!(proxy.web.count(FILM) - asked, 1 + heads, "{why}");
        }
        // There is nothing: the client is told so by the one who knows.
        let asked = proxy.web.count(FILM);
        let none = part(&proxy, fields, &format!("bytes={total}-")).await;
        assert_eq!((none.status.as_u16(), proxy.web.count(FILM) - asked), (416, 1), "{item:?}");
    }
}

#[tokio::test]
async fn what_can_be_kept_by_now_is_kept_again() {
    for validator in [Validator::Strong, Validator::Weak] {
        let proxy = Proxy::new().await;
        let before = Item::of(BYTES).validator(validator);
        let before = match validator {
            Validator::Strong => before.cache_control("no-store"),
            _ => before,
        };
        proxy.web.put(FILM, before);
        for _ in 0..3 {
            let answer = part(&proxy, &[], "bytes=1000-1009").await;
            is_part(&proxy, &answer, 1000..1010, BYTES, "before");
        }
        proxy.web.put(FILM, Item::of(BYTES));
        // The first answer tells; the chunk that the second brings may still come at the third.
        for (verdicts, asked) in
            [(["bypass"; 2], 4), (["origin"; 2], 5), (["filling", "hit-memory"], 5)]
        {
            let answer = part(&proxy, &[], "bytes=1000-1009").await;
            assert!(answer.status == 206 && verdicts.contains(&answer.verdict()), "{answer:?}");
            assert_eq!(answer.bytes(), &proxy.web.part(FILM, 1000..1010));
            assert_eq!(proxy.web.count(FILM), asked);
        }
    }
}

/// Nobody's credentials, cookies or wishes keep others from what can be kept.
#[tokio::test]
async fn what_is_kept_for_nobody_else_is_kept_for_all_others() {
    let silent = Item { fields: Vec::new(), ..Item::of(BYTES) };
    let lasting = || Item::of(BYTES);
    let cases: [(Item, Fields); 3] = [
        (lasting(), &[("authorization", "Basic eDp5")]),
        (silent, &[("cookie", "a=b")]),
        (lasting(), &[("cache-control", "no-store")]),
    ];
    for (item, fields) in cases {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        for _ in 0..2 {
            let answer = part(&proxy, fields, "bytes=1000-1009").await;
            is_part(&proxy, &answer, 1000..1010, BYTES, &format!("{item:?}"));
        }
        let others = part(&proxy, &[], "bytes=1000-1009").await;
        assert_eq!((others.status.as_u16(), others.verdict()), (206, "origin"), "{item:?}");
        let asked = proxy.web.asked_for(FILM);
        let chunk = format!("bytes=0-{}", CHUNK - 1);
        assert_eq!(asked.last().unwrap().field("range"), chunk, "{item:?}");
    }
}

/// Found by an audit: each reload of a page of a client's own cost the page, though the browser named
/// what it has.
#[tokio::test]
async fn the_origin_is_told_what_the_client_has_of_what_is_kept_for_nobody() {
    const DATE: &str = "Mon, 01 Jan 2024 01:00:00 GMT";
    let dated = Item::of(BYTES).cache_control("no-store").validator(Validator::Told);
    let dated = dated.field("last-modified", DATE);
    for (item, condition) in [
        (Item::of(BYTES).cache_control("private"), ("if-none-match", "\"v1\"")),
        (Item::of(BYTES).cache_control("no-store"), ("if-none-match", "\"v0\", \"v1\"")),
        (dated, ("if-modified-since", DATE)),
    ] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        let first = proxy.get(FILM).await;
        assert!(first.status == 200 && first.bytes() == &proxy.web.whole(FILM));
        let sent = proxy.web.sent(FILM);
        for range in [None, Some(("range", "bytes=0-99"))] {
            let fields: Vec<_> = [condition].into_iter().chain(range).collect();
            let again = proxy.get_with(FILM, &fields).await;
            let why = format!("{condition:?} {range:?}: {again:?}");
            assert_eq!((again.status.as_u16(), again.verdict()), (304, "bypass"), "{why}");
            assert_eq!(proxy.web.sent(FILM), sent, "{why}");
        }
        // Another version is sent, and who names none gets all of it.
        proxy.web.put(FILM, Item { fields: item.fields.clone(), ..item.clone().version(2) });
        let conditions: &[_] = match condition.0 {
            "if-none-match" => &[condition],
            _ => &[],
        };
        let new = proxy.get_with(FILM, conditions).await;
        assert!(new.status == 200 && new.bytes() == &proxy.web.whole(FILM), "{condition:?}");
        // What others may have is asked for without them once it is known to be theirs.
        let shared = Item::of(BYTES).version(3);
        proxy.web.put(FILM, shared);
        assert_eq!(proxy.get(FILM).await.status, 200);
        let known = proxy.get_with(FILM, &[("if-none-match", "\"v3\"")]).await;
        assert_eq!((known.status.as_u16(), known.verdict()), (304, "hit-memory"));
    }
}

/// What the client has is looked at last (RFC 9110 section 13.2.2).
#[tokio::test]
async fn what_a_client_has_hides_no_condition_that_fails() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES).cache_control("private"));
    proxy.get(FILM).await;
    let fields = [("if-match", "\"v2\""), ("if-none-match", "\"v1\"")];
    assert_eq!(proxy.get_with(FILM, &fields).await.status, 412);
}

/// Found by a review: a part that nobody can keep had all players name what they have, and so nobody
/// bring the page that all may share.
#[tokio::test]
async fn what_can_be_kept_as_a_whole_alone_is_kept_for_players_that_name_what_they_have() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3000).validator(Validator::Weak));
    assert_eq!(part(&proxy, &[], "bytes=0-0").await.verdict(), "bypass");
    let named = [("if-none-match", "W/\"v1\"")];
    for verdict in ["origin", "hit-memory"] {
        let answer = proxy.get_with(FILM, &named).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (304, verdict), "{answer:?}");
        proxy.has_filled().await;
    }
    assert_eq!(proxy.web.count(FILM), 2);
}

/// The same of a page that was nobody else's for a while: what a 304 says of it is enough to ask for it
/// for all.
#[tokio::test]
async fn a_304_that_says_so_ends_what_is_kept_for_nobody() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3000).cache_control("no-store"));
    proxy.get(FILM).await;
    let named = [("if-none-match", "\"v1\"")];
    let of = |control: &str| Item::of(3000).cache_control(control);
    for (control, verdict) in [
        ("no-store", "bypass"),
        // Some say nothing in a 304.
        ("", "bypass"),
        ("", "bypass"),
        ("max-age=60", "bypass"),
        ("max-age=60", "origin"),
        ("max-age=60", "hit-memory"),
    ] {
        let silent = Item { fields: Vec::new(), ..Item::of(3000) };
        proxy.web.put(FILM, if control.is_empty() { silent } else { of(control) });
        let answer = proxy.get_with(FILM, &named).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (304, verdict), "{answer:?}");
        proxy.has_filled().await;
        // Why it was not stored is the page's, not the 304's.
        if verdict == "bypass" {
            let told =
                proxy.edge.metric("nearcast_edge_answers_unstored_total{reason=\"status\"").await;
            assert_eq!(told, 0.0);
        }
    }
    assert_eq!(proxy.web.count(FILM), 6);
}

/// Found by a review: whoever reloads such a page asks at once, however long ago it was answered in
/// full.
#[tokio::test]
async fn nobody_waits_for_anothers_reload_of_what_is_kept_for_nobody() {
    let proxy = Proxy::new().await;
    // For nobody else where it is asked for with a cookie.
    proxy.web.put(FILM, Item { fields: Vec::new(), ..Item::of(3000) });
    let cookie = ("cookie", "a=b");
    assert_eq!(proxy.get_with(FILM, &[cookie]).await.verdict(), "bypass");
    // An answer that is shared ends the ten seconds in which nobody waits for another.
    assert_eq!(proxy.get(FILM).await.verdict(), "origin");
    proxy.edge.purge(&serde_json::json!({ "all": true })).await;
    proxy.web.hold(Hold::Head);
    let named = [cookie, ("if-none-match", "\"v1\"")];
    let reload = || proxy.get_with(FILM, &named);
    let both_ask = async {
        until("both ask", || async { (proxy.web.held() == 2).then_some(()) }).await;
        proxy.web.release();
    };
    let (first, second, ()) = tokio::join!(reload(), reload(), both_ask);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (304, 304));
}

#[tokio::test]
async fn the_origin_decides_whether_the_part_is_still_wanted() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES).cache_control("no-store"));
    part(&proxy, &[], "bytes=0-9").await;
    let sent = proxy.web.sent(FILM);
    let same = part(&proxy, &[("if-range", "\"v1\"")], "bytes=1000-1009").await;
    is_part(&proxy, &same, 1000..1010, BYTES, "the same version");
    assert_eq!(proxy.web.sent(FILM) - sent, 10);
    let other = part(&proxy, &[("if-range", "\"v0\"")], "bytes=1000-1009").await;
    assert_eq!((other.status.as_u16(), other.header("content-range")), (200, ""));
    assert!(other.bytes() == &proxy.web.whole(FILM));
    let asked = proxy.web.count(FILM);
    let several = part(&proxy, &[], "bytes=0-9,2000-2009").await;
    assert!(several.status == 200 && several.bytes() == &proxy.web.whole(FILM));
    assert_eq!(proxy.web.count(FILM) - asked, 1);
}
