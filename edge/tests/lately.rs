//! Stories of what is asked for again and again: the answers are those that a request gets which
//! goes the long way, and none outlives what it is of.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Item, Proxy};
use serde_json::json;

const PATH: &str = "/small";
/// More than an edge has shards, of which each remembers for itself.
const TIMES: usize = 12;

/// The fields of an answer, but those that tell the time.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| name != "age")
        .map(|(name, value)| {
            let parts = value.split(';').filter(|part| !part.starts_with("ttl="));
            let value = parts.collect::<Vec<_>>().join(";");
            (name, value)
        })
        .collect();
    fields.sort();
    fields
}

fn age(answer: &Answer) -> i64 {
    answer.header("age").parse().unwrap()
}

fn ttl(answer: &Answer) -> i64 {
    let told = answer.header("cache-status");
    told.split(';').find_map(|part| part.strip_prefix("ttl=")).unwrap().parse().unwrap()
}

/// A field that says nothing new, but may have.
const LONG_WAY: [(&str, &str); 1] = [("priority", "u=3")];

#[tokio::test]
async fn answers_are_those_of_the_long_way() {
    let proxy = Proxy::new().await;
    let item = Item::of(2000).field("age", "5").field("x-a", "b").field("alt-svc", "h3=\":1\"");
    proxy.web.put(PATH, item);
    proxy.get(PATH).await;
    let before = proxy.get_with(PATH, &LONG_WAY).await;
    for _ in 0..TIMES {
        let answer = proxy.get(PATH).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (200, "hit-memory"));
        assert_eq!(answer.bytes(), &proxy.web.part(PATH, 0..2000));
        assert_eq!(fields(&answer), fields(&before));
        let after = proxy.get_with(PATH, &LONG_WAY).await;
        assert!((age(&before)..=age(&after)).contains(&age(&answer)), "{answer:?} {after:?}");
        assert!((ttl(&after)..=ttl(&before)).contains(&ttl(&answer)), "{answer:?} {after:?}");
    }
    assert_eq!(proxy.web.count(PATH), 1);
}

#[tokio::test]
async fn what_a_request_says_counts_however_often_the_plain_one_was_asked() {
    let proxy = Proxy::new().await;
    proxy.web.put(PATH, Item::of(2000));
    for _ in 0..TIMES {
        proxy.get(PATH).await;
    }
    let etag = proxy.get(PATH).await.header("etag").to_owned();
    for (name, value, status) in [
        ("range", "bytes=0-9", 206),
        ("range", "bytes=5000-", 416),
        ("if-none-match", &*etag, 304),
        ("content_length", "1", 400),
        ("host", "a b", 400),
    ] {
        let answer = proxy.get_with(PATH, &[(name, value)]).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
    }
    let reloaded = proxy.get_with(PATH, &[("cache-control", "no-cache")]).await;
    assert_eq!(reloaded.verdict(), "revalidated");
    let reloaded = proxy.get_with(PATH, &[("pragma", "no-cache")]).await;
    assert_eq!(reloaded.verdict(), "revalidated");
    let of_other = proxy.get_with(PATH, &[("host", "other.example")]).await;
    assert_eq!(of_other.verdict(), "origin");
}

#[tokio::test]
async fn a_new_version_and_variants_are_told_apart() {
    let proxy = Proxy::with(json!({ "compress": true })).await;
    proxy.web.put(PATH, Item::of(2000));
    proxy.web.put("/varied", Item::of(2000).vary("x-kind"));
    proxy.web.put("/text", Item::of(2000).field("content-type", "text/plain"));
    for version in 1..4 {
        proxy.web.put(PATH, Item::of(2000).version(version));
        let fetched = proxy.get_with(PATH, &[("cache-control", "no-cache")]).await;
        for _ in 0..TIMES {
            let answer = proxy.get(PATH).await;
            assert_eq!(answer.verdict(), "hit-memory");
            assert_eq!(answer.header("etag"), fetched.header("etag"));
            assert_eq!(answer.bytes(), &proxy.web.part(PATH, 0..2000));
        }
    }
    for _ in 0..TIMES {
        proxy.get("/varied").await;
        let kind = proxy.get_with("/varied", &[("x-kind", "b")]).await;
        let count = proxy.web.count("/varied");
        assert_eq!((kind.status.as_u16(), count <= 2), (200, true));
        let plain = proxy.get("/text").await;
        let small = proxy.get_with("/text", &[("accept-encoding", "gzip")]).await;
        assert!(!plain.header("vary").is_empty(), "{plain:?}");
        assert_eq!(small.header("vary"), plain.header("vary"));
    }
}
