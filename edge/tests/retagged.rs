//! Stories of the same bytes under several strong `ETag`s: of servers behind one address that
//! make them each its own way (of inode or time), or of two origins that differ. The edge can't
//! know that the bytes are the same: nothing is joined, and no more is asked for than is bearable.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{Answer, CHUNK, Edge, Item, Proxy, Web, proxy_settings};
use serde_json::json;
use std::ops::Range;

const PAGE: &str = "/page";
const BYTES: u64 = 3 * CHUNK;
const ROUNDS: usize = 6;
/// What one client's request may cost its origins: what it asks for, and once more for what was
/// begun and is of no use.
const COST_MAX: u64 = 2 * BYTES;
const REQUESTS_MAX: usize = 6;

/// Parts out of each chunk, over a border, and the whole.
fn parts() -> [Range<u64>; 5] {
    [10..20, CHUNK - 9..CHUNK + 9, 2 * CHUNK..BYTES, 0..BYTES, CHUNK..CHUNK + 5]
}

/// What ends cleanly is the bytes; whether it did.
fn is_whole(answer: &Answer, web: &Web, range: Range<u64>, why: &str) -> bool {
    let Ok(bytes) = &answer.body else { return false };
    if answer.status.is_server_error() {
        return false;
    }
    assert!(bytes == &web.part(PAGE, range), "{why}: {}", answer.status);
    true
}

#[tokio::test]
async fn an_origin_whose_etag_changes_with_each_request_costs_a_bounded_sum_and_no_wrong_byte() {
    for count in [2, u64::MAX] {
        let proxy = Proxy::with(json!({ "hedge": false })).await;
        proxy.web.put(PAGE, Item::of(BYTES));
        proxy.web.always(Some(Misdeed::Retag(count)));
        for round in 0..ROUNDS {
            for range in parts() {
                let (sent, asked) = (proxy.web.sent(PAGE), proxy.web.count(PAGE));
                let why = format!("{count} {round} {range:?}");
                let answer = if range == (0..BYTES) {
                    proxy.get(PAGE).await
                } else {
                    proxy.part(PAGE, range.clone()).await
                };
                let whole = is_whole(&answer, &proxy.web, range.clone(), &why);
                let cost = proxy.web.sent(PAGE) - sent;
                let asked = proxy.web.count(PAGE) - asked;
                // Where none of it was here, nothing had gone out under another validator.
                let is_of_one_chunk = range.start / CHUNK == (range.end - 1) / CHUNK;
                assert!(whole || !is_of_one_chunk, "{why}: {}", answer.status);
                assert!(whole || round + 1 < ROUNDS, "{why}: {}", answer.status);
                assert!(cost <= COST_MAX && asked <= REQUESTS_MAX, "{why}: {cost} {asked}");
            }
        }
        proxy.web.always(None);
        let _ = proxy.get(PAGE).await;
        let next = proxy.get(PAGE).await;
        assert!(next.status == 200 && next.bytes() == &proxy.web.whole(PAGE), "{count}");
    }
}

/// A part that begins with what is here goes out at once, and is cut where the rest has another
/// validator; from then on the site's responses look for that before they begin.
#[tokio::test]
async fn of_an_origin_with_several_etags_one_response_is_cut_and_then_none() {
    const PAGES: usize = 6;
    let proxy = Proxy::with(json!({ "hedge": false })).await;
    proxy.web.always(Some(Misdeed::Retag(u64::MAX)));
    let mut cuts = Vec::new();
    for page in 0..PAGES {
        let (path, border) = (format!("/{page}"), CHUNK - 9..CHUNK + 9);
        proxy.web.put(&path, Item::of(BYTES));
        assert_eq!(proxy.part(&path, 10..20).await.bytes(), &proxy.web.part(&path, 10..20));
        let answer = proxy.part(&path, border.clone()).await;
        match &answer.body {
            Ok(bytes) => {
                assert_eq!(bytes, &proxy.web.part(&path, border));
                assert_eq!(answer.verdict(), "origin", "{page}");
            }
            Err(_) => cuts.push(page),
        }
    }
    assert_eq!(cuts, [0]);
}

/// What it looks for is there in most cases: each byte comes once, and is told of as it came.
#[tokio::test]
async fn a_site_that_has_changed_asks_for_each_missing_byte_once() {
    let proxy = Proxy::with(json!({ "hedge": false })).await;
    for path in ["/changed", PAGE] {
        proxy.web.put(path, Item::of(BYTES));
        proxy.part(path, 10..20).await.bytes();
    }
    proxy.web.put("/changed", Item::of(2 * BYTES));
    assert!(proxy.part("/changed", 0..BYTES).await.body.is_err(), "it was not cut");
    let (sent, asked) = (proxy.web.sent(PAGE), proxy.web.count(PAGE));
    let answer = proxy.get(PAGE).await;
    assert_eq!((answer.verdict(), answer.bytes()), ("origin", &proxy.web.whole(PAGE)));
    assert_eq!((proxy.web.sent(PAGE) - sent, proxy.web.count(PAGE) - asked), (BYTES - CHUNK, 1));
    assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory");
}

#[tokio::test]
async fn an_origin_that_steps_in_with_etags_of_its_own_gives_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, second) = (Web::start().await, Web::start().await);
    for web in [&first, &second] {
        web.put(PAGE, Item::of(BYTES));
    }
    second.always(Some(Misdeed::Retag(1)));
    let mut settings = proxy_settings(dir.path(), &first.url, &json!({ "hedge": false }));
    let other = proxy_settings(dir.path(), &second.url, &json!({}));
    let others = other.sites["*"].origins.clone();
    settings.sites.get_mut("*").unwrap().origins.extend(others);
    let edge = Edge::start(settings).await;
    let url = format!("{}{PAGE}", edge.http);
    let part = common::get(&url, &[("range", "bytes=0-9")]).await;
    assert!(is_whole(&part, &first, 0..10, "the first origin"));
    first.stop().await;
    for (fields, range) in [
        (vec![("range", "bytes=2097152-2097161")], 2 * CHUNK..2 * CHUNK + 10),
        (vec![], 0..BYTES),
        (vec![], 0..BYTES),
    ] {
        let answer = common::get(&url, &fields).await;
        assert!(is_whole(&answer, &second, range.clone(), "the second origin"), "{range:?}");
    }
    assert!(second.sent(PAGE) <= COST_MAX, "{}", second.sent(PAGE));
}
