//! Stories of origins that misbehave: each misdeed has its name in the answer, nothing wrong is
//! kept, and the next good answer is the origin's own.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod bodies;
#[path = "../common/mod.rs"]
mod common;
mod http2;

use common::WebMisdeed as Misdeed;
use common::{Answer, CHUNK, Hold, Item, Proxy, Validator, content, get, until};
use serde_json::json;
use std::time::{Duration, Instant};

const PAGE: &str = "/page";
const BYTES: u64 = 300_000;

/// An edge that waits for no byte longer than a moment, and asks but once.
async fn stage(item: Item) -> Proxy {
    stage_of_retries(0, item).await
}

async fn stage_of_retries(retries: u32, item: Item) -> Proxy {
    let site = serde_json::json!({
        "stall-timeout": "100ms", "first-byte-timeout": "2s", "retries": retries, "hedge": false
    });
    let proxy = Proxy::with(site).await;
    proxy.web.put(PAGE, item);
    proxy
}

/// Status, verdict, code and the error token of `Proxy-Status`.
fn named(answer: &Answer) -> (u16, String, String, String) {
    let told = answer.header("proxy-status");
    let error = told.split("error=").nth(1).unwrap_or("").split(';').next().unwrap();
    (answer.status.as_u16(), answer.verdict().into(), answer.code(), error.into())
}

/// Nothing of the misdeed is left: the next answer is the origin's, the one after it a hit.
async fn is_good_again(proxy: &Proxy, why: &str) {
    proxy.web.always(None);
    let asked = proxy.web.count(PAGE);
    let next = proxy.get(PAGE).await;
    assert_eq!(next.status, 200, "{why}");
    assert!(next.bytes() == &proxy.web.whole(PAGE), "{why}");
    assert!(proxy.web.count(PAGE) > asked, "{why}");
    assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory", "{why}");
}

#[tokio::test]
async fn what_is_no_answer_has_a_name() {
    let table = [
        (Misdeed::Mute, 502, "origin-failed", "connection_terminated"),
        (Misdeed::Garbage, 502, "origin-failed", "http_protocol_error"),
        (Misdeed::HeaderBomb(2000), 502, "origin-failed", "http_response_header_section_size"),
        (Misdeed::Short(u64::MAX - BYTES), 502, "origin-failed", "http_response_body_size"),
        (Misdeed::Short(u64::MAX - BYTES - 1), 502, "origin-failed", "http_response_body_size"),
        (Misdeed::TwoLengths, 502, "origin-failed", "http_protocol_error"),
        (Misdeed::Unasked, 502, "origin-failed", "http_protocol_error"),
        (Misdeed::Stall(0), 504, "origin-slow", "connection_read_timeout"),
    ];
    for (misdeed, status, code, error) in table {
        let proxy = stage(Item::of(BYTES)).await;
        proxy.web.always(Some(misdeed));
        let answer = proxy.get(PAGE).await;
        let expected = (status, "failed".into(), code.into(), error.into());
        assert_eq!(named(&answer), expected, "{misdeed:?}");
        let line = format!(
            "nearcast_edge_requests_total{{protocol=\"http/1.1\",site=\"*\",status=\"{status}\",\
             verdict=\"failed\"}}"
        );
        assert_eq!(proxy.edge.metric(&line).await, 1.0, "{misdeed:?}");
        is_good_again(&proxy, &format!("{misdeed:?}")).await;
    }
}

#[tokio::test]
async fn bytes_beyond_the_promised_length_are_nobodys_answer() {
    let proxy = stage(Item::of(BYTES).validator(Validator::None)).await;
    proxy.web.put("/other", Item::of(500));
    proxy.web.misbehave(&[Misdeed::Long(100)]);
    // The promise is all that can be gone by.
    let answer = proxy.get(PAGE).await;
    assert_eq!(answer.bytes(), &proxy.web.part(PAGE, 0..BYTES - 100));
    for _ in 0..3 {
        assert_eq!(proxy.get("/other").await.bytes(), &proxy.web.whole("/other"));
    }
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    for by in [1, CHUNK] {
        let proxy = stage(Item::of(4 * CHUNK)).await;
        proxy.web.always(Some(Misdeed::WrongRange(by)));
        let answer = proxy.part(PAGE, 10..20).await;
        let expected = "http_protocol_error".to_owned();
        assert_eq!(named(&answer), (502, "failed".into(), "origin-failed".into(), expected));
        proxy.web.always(None);
        // Nor does it fill a gap of what is known.
        assert_eq!(proxy.part(PAGE, 10..20).await.bytes(), &proxy.web.part(PAGE, 10..20));
        proxy.web.always(Some(Misdeed::WrongRange(by)));
        let gap = 2 * CHUNK..2 * CHUNK + 9;
        assert_eq!(proxy.part(PAGE, gap.clone()).await.status, 502, "{by}");
        proxy.web.always(None);
        assert_eq!(proxy.part(PAGE, gap.clone()).await.bytes(), &proxy.web.part(PAGE, gap));
        assert!(proxy.get(PAGE).await.bytes() == &proxy.web.whole(PAGE));
    }
}

#[tokio::test]
async fn a_part_of_another_total_never_makes_a_whole() {
    let proxy = stage(Item::of(3 * CHUNK)).await;
    proxy.web.misbehave(&[Misdeed::WrongTotal]);
    let part = proxy.part(PAGE, 10..20).await;
    assert_eq!(part.bytes(), &proxy.web.part(PAGE, 10..20));
    // What the origin says next contradicts it: cut, then whole and as it is.
    let mut whole = proxy.open(PAGE, &[]).await;
    assert!(whole.rest().await.is_err());
    assert!(proxy.get(PAGE).await.bytes() == &proxy.web.whole(PAGE));
    // The same, where the wrong one comes second.
    proxy.web.put("/other", Item::of(3 * CHUNK));
    proxy.part("/other", 10..20).await;
    proxy.web.always(Some(Misdeed::WrongTotal));
    let part = proxy.part("/other", 2 * CHUNK..2 * CHUNK + 9).await;
    assert_eq!(part.bytes(), &proxy.web.part("/other", 2 * CHUNK..2 * CHUNK + 9));
    proxy.web.always(None);
    let mut whole = proxy.open("/other", &[]).await;
    if let Ok(bytes) = whole.rest().await {
        assert!(bytes == proxy.web.whole("/other"));
    }
    assert!(proxy.get("/other").await.bytes() == &proxy.web.whole("/other"));
}

#[tokio::test]
async fn a_redirect_loop_is_the_clients_to_follow_and_kept_by_nobody() {
    let proxy = stage(Item::of(BYTES)).await;
    proxy.web.always(Some(Misdeed::Redirect));
    let answer = proxy.get(PAGE).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, PAGE));
    assert_eq!((answer.verdict(), proxy.web.count(PAGE)), ("bypass", 1));
    is_good_again(&proxy, "redirect").await;
}

#[tokio::test]
async fn an_origins_own_error_is_passed_on_and_not_kept() {
    for status in [500, 502, 503, 504, 403] {
        let proxy = stage(Item::of(BYTES)).await;
        proxy.web.always(Some(Misdeed::Status(status)));
        let answer = proxy.get(PAGE).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (status, "bypass"));
        is_good_again(&proxy, "status").await;
    }
}

/// A reload that forces its way to a failing origin is told so; all others keep what is good.
#[tokio::test]
async fn a_failure_that_one_client_asked_for_ends_nothing_for_others() {
    let rule = json!({ "ttl": [{ "path": "*", "negative": "1h" }], "retries": 0 });
    let failing = || Item::of(10).status(503);
    let silent = |validator| Item { fields: Vec::new(), ..failing().validator(validator) };
    let lasting = failing().cache_control("max-age=3600");
    for site in [json!({ "retries": 0 }), rule] {
        for (good, verdict) in [(Item::of(BYTES), "hit-memory"), (Item::stale(BYTES, ""), "stale")]
        {
            for (bad, is_kept) in [
                (silent(Validator::None), false),
                (silent(Validator::Strong), false),
                (silent(Validator::Weak).cache_control("max-age=0"), false),
                (lasting.clone(), true),
            ] {
                let proxy = Proxy::with(site.clone()).await;
                proxy.web.put(PAGE, good.clone());
                assert_eq!(proxy.get(PAGE).await.status, 200);
                proxy.web.put(PAGE, bad.clone());
                let why = format!("{site} {good:?} {bad:?}");
                for _ in 0..2 {
                    let forced = proxy.get_with(PAGE, &[("cache-control", "no-cache")]).await;
                    assert_eq!(forced.status, 503, "{why}");
                    assert!(forced.bytes() == &content(PAGE, 1, "", 0..10), "{why}: {forced:?}");
                    let other = proxy.get(PAGE).await;
                    let expected = if is_kept { (503, "hit-memory") } else { (200, verdict) };
                    assert_eq!((other.status.as_u16(), other.verdict()), expected, "{why}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_origin_that_is_gone_has_a_name_and_no_address() {
    let mut proxy = stage(Item::of(BYTES)).await;
    proxy.web.stop().await;
    let answer = proxy.get(PAGE).await;
    let expected = (502, "failed".into(), "origin-failed".into(), "connection_refused".into());
    assert_eq!(named(&answer), expected);
    assert!(!answer.text().contains("127.0.0.1"));
    // The text is the edge's own, and no hit.
    let bytes = |source: &str| {
        let labels = format!("protocol=\"http/1.1\",site=\"*\",source=\"{source}\"");
        format!("nearcast_edge_body_bytes_total{{{labels}}}")
    };
    assert_eq!(proxy.edge.metric(&bytes("hit-memory")).await, 0.0);
    assert_eq!(proxy.edge.metric(&bytes("failed")).await, answer.bytes().len() as f64);
}

#[tokio::test]
async fn stale_is_served_in_place_of_each_failure_where_that_is_allowed() {
    let misdeeds = [
        Misdeed::Mute,
        Misdeed::Garbage,
        Misdeed::HeaderBomb(2000),
        Misdeed::TwoLengths,
        Misdeed::Status(503),
        Misdeed::Unasked,
    ];
    for misdeed in misdeeds {
        for (more, allowed) in [("stale-if-error=600", true), ("must-revalidate", false)] {
            let proxy = stage(Item::stale(BYTES, more)).await;
            assert_eq!(proxy.get(PAGE).await.status, 200);
            proxy.web.change(PAGE);
            proxy.web.always(Some(misdeed));
            let answer = proxy.get(PAGE).await;
            let why = format!("{misdeed:?} {more}");
            assert_eq!(answer.status == 200, allowed, "{why}: {answer:?}");
            if allowed {
                assert_eq!(answer.verdict(), "stale", "{why}");
                let told = answer.header("cache-status");
                assert!(told.contains(";fwd=stale;") && !told.contains("hit"), "{told}");
                let is_told = told.contains(";fwd-status=503;");
                assert_eq!(is_told, misdeed == Misdeed::Status(503), "{told}");
                assert!(answer.bytes() == &content(PAGE, 1, "", 0..BYTES), "{why}");
            } else if matches!(misdeed, Misdeed::Mute | Misdeed::Garbage) {
                let told = "edge-a;fwd=stale;detail=\"failed\"";
                assert_eq!(answer.header("cache-status"), told, "{why}");
            }
            proxy.web.always(None);
            assert!(proxy.get(PAGE).await.bytes() == &proxy.web.whole(PAGE), "{why}");
        }
    }
}

/// RFC 9211 section 2.4: a purge ends what is left of its time.
#[tokio::test]
async fn no_time_is_left_of_what_is_softly_purged() {
    let proxy = stage(Item::of(BYTES)).await;
    proxy.get(PAGE).await;
    proxy.edge.purge(&serde_json::json!({ "all": true, "soft": true })).await;
    proxy.web.always(Some(Misdeed::Status(503)));
    let told = "edge-a;fwd=stale;fwd-status=503;detail=\"stale\"";
    assert_eq!(proxy.get(PAGE).await.header("cache-status"), told);
}

/// Not after `first-byte-timeout`: the origin may hold its answer for as long as it likes.
#[tokio::test]
async fn stale_is_served_in_place_of_an_answer_that_takes_long_and_renewed_behind_it() {
    let site = serde_json::json!({ "first-byte-timeout": "600s", "stale-after": "20ms" });
    for (validator, more, allowed) in [
        (Validator::Strong, "", true),
        (Validator::Weak, "", true),
        (Validator::None, "", true),
        (Validator::Strong, "must-revalidate", false),
    ] {
        let proxy = Proxy::with(site.clone()).await;
        proxy.web.put(PAGE, Item::stale(BYTES, more).validator(validator));
        proxy.get(PAGE).await;
        proxy.web.hold(Hold::Head);
        let asked = async { proxy.get(PAGE).await };
        if !allowed {
            let release = async {
                until("the origin is asked", || async { (proxy.web.held() > 0).then_some(()) })
                    .await;
                proxy.web.release();
            };
            let (answer, ()) = tokio::join!(asked, release);
            assert_eq!(answer.verdict(), "revalidated", "{validator:?} {more}");
            continue;
        }
        let answer = asked.await;
        assert_eq!(answer.verdict(), "stale", "{validator:?}");
        let told = answer.header("cache-status");
        assert!(told.contains(";fwd=stale;") && !told.contains("hit"), "{told}");
        assert!(answer.bytes() == &proxy.web.whole(PAGE), "{validator:?}");
        // Who comes next waits for the same.
        assert_eq!(proxy.get(PAGE).await.verdict(), "stale", "{validator:?}");
        assert_eq!((proxy.web.held(), proxy.web.count(PAGE)), (1, 2), "{validator:?}");
        proxy.web.put(PAGE, Item::of(BYTES).validator(validator).version(2));
        proxy.web.release();
        let is_new = || async { (proxy.get(PAGE).await.verdict() == "hit-memory").then_some(()) };
        until("the new one", is_new).await;
        assert!(proxy.get(PAGE).await.bytes() == &proxy.web.whole(PAGE), "{validator:?}");
        assert_eq!(proxy.web.count(PAGE), 2, "{validator:?}");
    }
}

/// A slow origin has not failed: where the operator names no `stale-after`, nothing stands in for its
/// answer before `first-byte-timeout` says that it has.
#[tokio::test]
async fn a_slow_origin_is_waited_for_where_the_operator_does_not_say_for_how_long() {
    const PATIENCE: Duration = Duration::from_millis(2_600);
    let site = serde_json::json!({ "first-byte-timeout": "2600ms", "retries": 0 });
    let stage = async |more: &str| {
        let proxy = Proxy::with(site.clone()).await;
        proxy.web.put(PAGE, Item::stale(BYTES, more));
        proxy.get(PAGE).await;
        proxy.web.hold(Hold::Head);
        let began = Instant::now();
        (proxy.get(PAGE).await, began.elapsed())
    };
    let (allowed, denied) = tokio::join!(stage("stale-if-error=600"), stage("must-revalidate"));
    for ((answer, took), expected) in [(allowed, 200), (denied, 504)] {
        assert_eq!(answer.status, expected, "{answer:?}");
        assert!(took >= PATIENCE, "{expected} after {took:?}");
    }
}

/// Found by an audit: who waited for the origin until the stored answer could not stand in any
/// more was answered 502, though the origin answered those who came later.
#[tokio::test]
async fn who_may_have_nothing_stale_by_then_goes_on_waiting_for_the_origin() {
    let site = serde_json::json!({ "first-byte-timeout": "600s", "stale-after": "1200ms" });
    let proxy = Proxy::with(site).await;
    // One may stand in for ten minutes, the other for a second from now.
    proxy.web.put("/long", Item::stale(BYTES, "stale-if-error=600"));
    proxy.web.put(PAGE, Item::stale(BYTES, "stale-if-error=11"));
    proxy.get("/long").await;
    proxy.get(PAGE).await;
    proxy.web.hold(Hold::Head);
    let rest = async {
        until("one waits", || async { (proxy.web.held() > 0).then_some(()) }).await;
        // It asks later: by the time of its answer the other's patience is at its end.
        assert_eq!(proxy.get("/long").await.verdict(), "stale");
        proxy.web.put(PAGE, Item::of(BYTES).version(2));
        proxy.web.release();
    };
    let (answer, ()) = tokio::join!(proxy.get(PAGE), rest);
    assert_eq!(answer.status, 200, "{}", answer.header("cache-status"));
    assert!(answer.bytes() == &proxy.web.whole(PAGE));
}

#[tokio::test]
async fn a_stumble_in_mid_object_is_mended_where_a_validator_holds_the_parts_together() {
    let proxy = stage_of_retries(1, Item::of(3 * CHUNK)).await;
    for misdeed in [Misdeed::Cut(CHUNK + 9), Misdeed::Reset(CHUNK + 9), Misdeed::Stall(CHUNK + 9)] {
        proxy.web.misbehave(&[misdeed]);
        assert!(proxy.get(PAGE).await.bytes() == &proxy.web.whole(PAGE), "{misdeed:?}");
        proxy.web.change(PAGE);
        let control = [("cache-control", "no-cache")];
        assert!(proxy.get_with(PAGE, &control).await.bytes() == &proxy.web.whole(PAGE));
        proxy.web.change(PAGE);
        proxy.web.put(PAGE, Item::of(3 * CHUNK).version(proxy.web.count(PAGE) as u64 + 9));
        proxy.get_with(PAGE, &control).await;
    }
}

#[tokio::test]
async fn a_length_that_nobody_has_costs_no_more_than_the_bytes_that_come() {
    let claimed = [(16 << 40) - BYTES, 16 << 40, 1 << 60, (1 << 63) - 2 * BYTES];
    for more in claimed {
        let proxy = stage(Item::of(BYTES)).await;
        proxy.web.always(Some(Misdeed::Short(more)));
        let answer = proxy.get(PAGE).await;
        // Cut, unless it broke before its head went out.
        let is_cut = answer.status == 200 && answer.body.is_err();
        assert!(is_cut || answer.status == 502, "{more}: {answer:?}");
        is_good_again(&proxy, &format!("{more} bytes more")).await;
    }
}

#[tokio::test]
async fn ranges_of_what_claims_to_be_vast_are_served_and_kept_up_to_a_limit() {
    let kept = ["origin", "hit-memory"];
    let passed_on = ["bypass", "bypass"];
    let totals = [(16 << 40) + 1, 1 << 60, (1 << 63) - 1, 1 << 63, u64::MAX - 1];
    let passed_on = totals.map(|total| (total, passed_on));
    for (total, verdicts) in [(16 << 40, kept)].into_iter().chain(passed_on) {
        let proxy = stage(Item::of(3 * CHUNK)).await;
        proxy.web.always(Some(Misdeed::Vast(total)));
        for verdict in verdicts {
            let answer = proxy.part(PAGE, 5..10).await;
            assert_eq!((answer.status.as_u16(), answer.verdict()), (206, verdict), "{total}");
            assert_eq!(answer.bytes(), &proxy.web.whole(PAGE).slice(5..10), "{total}");
            proxy.has_filled().await;
        }
        let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(PAGE));
        let told = get(&url, &[]).await.text();
        assert_eq!(told.contains("not-looked-at"), verdicts == kept, "{told}");
    }
}

#[tokio::test]
async fn a_length_past_counting_has_a_name() {
    let proxy = stage(Item::of(3 * CHUNK)).await;
    proxy.web.always(Some(Misdeed::Vast(u64::MAX)));
    let expected = (502, "failed", "origin-uncounted", "http_response_body_size");
    let (status, verdict, code, error) = named(&proxy.part(PAGE, 5..10).await);
    assert_eq!((status, &*verdict, &*code, &*error), expected);
    is_good_again(&proxy, "a vast total").await;
}

/// RFC 9112 section 5.1: a proxy removes blanks between a field's name and its colon.
#[tokio::test]
async fn blanks_before_a_colon_are_removed() {
    let item = Item::of(BYTES).cache_control("no-store").field("cache-control ", "max-age=60");
    let item = item.field("x-said\t", "so");
    let proxy = stage(item).await;
    let answer = proxy.get(PAGE).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-said")), (200, "so"));
    assert!(answer.bytes() == &proxy.web.whole(PAGE));
}
