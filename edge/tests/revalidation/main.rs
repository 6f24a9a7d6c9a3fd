//! Stories of what may be used again, for whom and for how long, as the origin and the
//! operator's rules say.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod lifetimes;
mod unsafe_methods;

use common::{Answer, Item, Proxy, Validator, ask, content, until};
use http::Method;

const PAGE: &str = "/page";

async fn with(item: Item) -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, item);
    proxy
}

async fn verdicts(proxy: &Proxy, path: &str, count: usize) -> Vec<String> {
    let mut verdicts = Vec::new();
    for _ in 0..count {
        verdicts.push(proxy.get(path).await.verdict().to_owned());
    }
    verdicts
}

#[tokio::test]
async fn a_304_freshens_what_is_stored_with_its_own_fields() {
    let validators = [
        (Validator::Strong, "if-none-match", "\"v1\""),
        (Validator::Weak, "if-none-match", "W/\"v1\""),
        (Validator::Date, "if-modified-since", "Mon, 01 Jan 2024 01:00:00 GMT"),
    ];
    for (validator, field, value) in validators {
        let proxy = with(Item::stale(5000, "").validator(validator).field("x-a", "old")).await;
        let first = proxy.get(PAGE).await;
        proxy.web.put(PAGE, Item::of(5000).validator(validator).field("x-a", "new"));
        let second = proxy.get(PAGE).await;
        assert_eq!((second.verdict(), second.header("x-a")), ("revalidated", "new"));
        assert!(second.header("cache-status").contains("fwd=stale;fwd-status=304"), "{second:?}");
        let third = proxy.get(PAGE).await;
        assert_eq!((third.verdict(), third.header("x-a")), ("hit-memory", "new"));
        assert!([&second, &third].iter().all(|answer| answer.bytes() == first.bytes()));
        let asked = proxy.web.asked_for(PAGE);
        assert_eq!((asked.len(), asked[1].field(field), asked[1].status), (2, value, 304));
    }
}

/// A `Cache-Status` without its `ttl`, and that: it is another one a part of a second later.
fn without_ttl(answer: &Answer) -> (String, Option<i64>) {
    let parts = answer.header("cache-status").split(';');
    let (ttl, others): (Vec<_>, Vec<_>) = parts.partition(|part| part.starts_with("ttl="));
    (others.join(";"), ttl.first().map(|ttl| ttl["ttl=".len()..].parse().unwrap()))
}

/// RFC 9211: why an answer that is only kept whole was asked for, and that it is kept, and for how
/// long, only where that is sure.
#[tokio::test]
async fn cache_status_of_an_answer_that_is_kept_whole() {
    let item = Item::of(3000).validator(Validator::Weak);
    let proxy = with(item.clone().vary("accept-language")).await;
    let told = async |path: &str, fields: &[(&str, &str)]| {
        let (told, ttl) = without_ttl(&proxy.get_with(path, fields).await);
        let is_stored = told.contains(";stored;") || told.contains(";hit;");
        let is_right = ttl.is_none_or(|ttl| path == "/stale" || (1..=3600).contains(&ttl));
        assert_eq!((ttl.is_some(), is_right), (is_stored, true), "{path}: {told} {ttl:?}");
        told
    };
    let expected = "edge-a;fwd=uri-miss;fwd-status=200;stored;detail=\"origin\"";
    assert_eq!(told(PAGE, &[]).await, expected);
    let expected = expected.replace("uri-miss", "vary-miss");
    assert_eq!(told(PAGE, &[("accept-language", "nl")]).await, expected);
    proxy.web.put("/reload", item.clone().validator(Validator::None));
    told("/reload", &[]).await;
    let expected = "edge-a;fwd=request;fwd-status=200;stored;detail=\"origin\"";
    assert_eq!(told("/reload", &[("cache-control", "no-cache")]).await, expected);
    proxy.web.put("/stale", Item::stale(3000, "").validator(Validator::Weak));
    told("/stale", &[]).await;
    proxy.web.change("/stale");
    assert!(told("/stale", &[]).await.starts_with("edge-a;fwd=stale;"));
    proxy.web.put("/gone", item.clone().validator(Validator::None).status(404));
    let expected = "edge-a;fwd=uri-miss;fwd-status=404;stored;detail=\"origin\"";
    assert_eq!(told("/gone", &[]).await, expected);
    let is_kept = || async { told("/gone", &[]).await.contains(";hit;").then_some(()) };
    until("a hit", is_kept).await;
    // Nobody knows whether these come whole.
    proxy.web.put("/long", Item::of(5 << 20).validator(Validator::Weak));
    proxy.web.put("/chunked", item.chunked());
    for path in ["/long", "/chunked"] {
        assert_eq!(told(path, &[]).await, "edge-a;fwd=uri-miss;fwd-status=200;detail=\"origin\"");
    }
}

/// RFC 9110 section 7.6.3: whether it is passed on, arriving, stored, or renewed.
#[tokio::test]
async fn every_answer_names_the_hops_that_it_came_by_once() {
    let kept = Item::of(3000);
    let growing = Item::of(3000).validator(Validator::None);
    for item in [kept.clone(), growing, Item::stale(3000, ""), kept.cache_control("no-store")] {
        let proxy = with(item.field("via", "1.0 packager")).await;
        let asked: [&[(&str, &str)]; 5] =
            [&[], &[], &[("range", "bytes=5-9")], &[("if-none-match", "\"v1\"")], &[]];
        for fields in asked {
            let answer = proxy.get_with(PAGE, fields).await;
            let via: Vec<_> = answer.headers.get_all("via").iter().collect();
            assert_eq!(via, ["1.0 packager", "1.1 edge-a"], "{fields:?} {answer:?}");
        }
        let passed = ask(Method::POST, &proxy.url(PAGE), &[]).await;
        let via: Vec<_> = passed.headers.get_all("via").iter().collect();
        assert_eq!(via.last().unwrap(), &"1.1 edge-a");
    }
}

#[tokio::test]
async fn a_head_does_not_grow_with_the_304s_that_renew_it() {
    let item = Item::stale(5000, "").field("via", "1.1 packager").field("x-note", "again");
    let proxy = with(item).await;
    let head_bytes = || proxy.edge.metric("nearcast_edge_heads_memory_bytes ");
    verdicts(&proxy, PAGE, 5).await;
    let measured = || async { Some(head_bytes().await).filter(|bytes| *bytes > 0.0) };
    let (before, fields) =
        (until("a measure", measured).await, proxy.get(PAGE).await.headers.len());
    assert!(verdicts(&proxy, PAGE, 300).await.iter().all(|verdict| verdict == "revalidated"));
    // The gauge is set with each batch of changes.
    let written = async || proxy.edge.metric("nearcast_edge_head_rows_written_total ").await;
    let earlier = written().await;
    let last = proxy.get(PAGE).await;
    until("another batch", || async { (written().await > earlier).then_some(()) }).await;
    assert_eq!((head_bytes().await, last.headers.len()), (before, fields));
}

#[tokio::test]
async fn another_version_takes_the_place_of_a_stale_one() {
    for validator in [Validator::Strong, Validator::Weak, Validator::Date, Validator::None] {
        let proxy = with(Item::stale(5000, "").validator(validator)).await;
        proxy.get(PAGE).await;
        proxy.web.put(PAGE, Item::of(7000).validator(validator).version(2));
        for _ in 0..3 {
            let answer = proxy.get(PAGE).await;
            assert!(answer.bytes() == &content(PAGE, 2, "", 0..7000), "{validator:?}");
        }
        assert_eq!(proxy.web.count(PAGE), 2, "{validator:?}");
    }
}

/// Found by hammering an origin whose dates had wrong weekdays: a HEAD gave the new version's
/// fields to the old one's bytes.
#[tokio::test]
async fn a_head_that_no_validator_ties_to_what_is_stored_leaves_its_fields_alone() {
    for (before, after) in [("yesterday", "today"), ("yesterday", "yesterday")] {
        let item = |version: u64, date: &str| {
            let item = Item::of(3000).validator(Validator::None).version(version);
            item.field("last-modified", date).field("x-version", &version.to_string())
        };
        let proxy = with(item(1, before)).await;
        proxy.get(PAGE).await;
        proxy.web.put(PAGE, item(2, after));
        ask(Method::HEAD, &proxy.url(PAGE), &[("cache-control", "no-cache")]).await;
        let answer = proxy.get(PAGE).await;
        let version = answer.header("x-version").parse().unwrap();
        assert!(answer.bytes() == &content(PAGE, version, "", 0..3000), "{before} {after}");
    }
}

#[tokio::test]
async fn a_conditional_request_is_answered_here_and_never_forwarded_as_it_is() {
    let proxy = with(Item::of(3000)).await;
    // Nothing is stored yet: the origin's 304 would leave nothing to store.
    let tag = [("if-none-match", "\"v1\"")];
    assert_eq!(proxy.get_with(PAGE, &tag).await.status, 304);
    assert_eq!(proxy.web.asked_for(PAGE)[0].status, 200);
    assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory");
    assert_eq!(proxy.get_with(PAGE, &[("if-none-match", "\"v0\"")]).await.status, 200);
    let since = [("if-none-match", "\"v9\", \"v1\"")];
    assert_eq!(proxy.get_with(PAGE, &since).await.status, 304);
    assert_eq!(proxy.web.count(PAGE), 1);
    // If-Match that fails is the origin's to decide.
    assert_eq!(proxy.get_with(PAGE, &[("if-match", "\"v0\"")]).await.status, 412);
    assert_eq!(proxy.web.count(PAGE), 2);
}
