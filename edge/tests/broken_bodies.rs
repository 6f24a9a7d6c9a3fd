//! Stories of an origin whose bodies break off: what is asked for again, how often, and what who
//! comes next gets.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{CHUNK, Item, Misdeed as TitleMisdeed, Proxy, Stage};
use serde_json::json;
use std::time::Instant;

const FILM: &str = "/film";
const BYTES: u64 = 3 * CHUNK;
/// Tries that a site may send at once; then a fifth of its requests, and one a second.
const BURST: usize = 20;

/// A fetch that failed is told to who comes after it no more: that one asks the origin itself.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_a_broken_body_asks_the_origin() {
    const ROUNDS: usize = 100;
    let proxy = Proxy::new().await;
    // So little that no chunk comes of as many answers as one fetch takes.
    proxy.web.always(Some(Misdeed::Cut(CHUNK / 4)));
    for round in 0..ROUNDS {
        let path = format!("/{round}");
        proxy.web.put(&path, Item::of(BYTES));
        let answer = proxy.get(&path).await;
        assert!(answer.body.is_err() || answer.status == 502, "{}", answer.status);
        let asked = proxy.web.count(&path);
        proxy.get(&path).await;
        assert!(proxy.web.count(&path) > asked, "round {round}");
    }
}

/// Tries on top of the first, and those that the budget did not pay.
async fn tries(proxy: &Proxy) -> (f64, f64) {
    let counted = async |name: &str, labels: String| {
        proxy.edge.metric(&format!("nearcast_edge_upstream_{name}{{{labels}site=\"*\"}} ")).await
    };
    let hop = format!("hop=\"{}\",", proxy.web.url);
    let refused = counted("retry_budget_exhausted_total", String::new()).await;
    (counted("retries_total", hop).await, refused)
}

/// So many different objects are asked for, one after the other, and are cut or have a name.
async fn all_break(proxy: &Proxy, films: usize) {
    for number in 0..films {
        let path = format!("/{number}");
        proxy.web.put(&path, Item::of(BYTES));
        let answer = proxy.get(&path).await;
        assert!(answer.body.is_err() || answer.status == 502, "{path}: {}", answer.status);
        if answer.status == 502 {
            assert!(answer.header("proxy-status").contains("error="), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_off_is_asked_for_again_as_far_as_the_budget_goes() {
    const FILMS: usize = 200;
    for cut in [0, 100_000] {
        let proxy = Proxy::new().await;
        proxy.web.always(Some(Misdeed::Cut(cut)));
        let began = Instant::now();
        all_break(&proxy, FILMS).await;
        let waited = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        let again = proxy.web.asked().len() - FILMS;
        assert!((BURST..=BURST + FILMS / 5 + waited).contains(&again), "{again} after {cut}");
        let (sent, refused) = tries(&proxy).await;
        assert_eq!(sent, again as f64, "after {cut}");
        assert!(refused > 0.0, "after {cut}");
    }
}

/// The same of titles whose bytes are not those of their version: of indexes, and of tracks.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_wrong_of_a_title_is_asked_for_again_as_far_as_the_budget_goes() {
    const ASKED: usize = 100;
    let stage = Stage::new().await;
    let (wrong, began) = (Some(TitleMisdeed::Corrupt(0)), Instant::now());
    let within_budget = |asked: usize, spent: usize| {
        let waited = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        let most = BURST + (spent + ASKED) / 5 + waited;
        assert!((1..=most).contains(&(asked - ASKED)), "{asked}");
    };
    stage.origin.always_at_indexes(wrong);
    for _ in 0..ASKED {
        assert_eq!(stage.get("hls.m3u8").await.code(), "origin-corrupt");
    }
    within_budget(stage.origin.indexes(), 0);
    stage.origin.always_at_indexes(None);
    assert_eq!(stage.get("hls.m3u8").await.status, 200);
    stage.origin.always(wrong);
    for _ in 0..ASKED {
        assert_eq!(stage.get("v1/0.m4s").await.code(), "origin-corrupt");
    }
    within_budget(stage.origin.media().len(), ASKED);
}

#[tokio::test]
async fn one_that_broke_off_is_gone_on_with_where_it_broke() {
    let proxy = Proxy::new().await;
    for (path, misdeeds) in [
        ("/cut", &[Misdeed::Cut(100_000)][..]),
        ("/reset", &[Misdeed::Reset(0)]),
        ("/twice", &[Misdeed::Cut(100_000), Misdeed::Cut(100_000)]),
    ] {
        proxy.web.put(path, Item::of(BYTES));
        proxy.web.misbehave(misdeeds);
        assert!(proxy.get(path).await.bytes() == &proxy.web.whole(path), "{path}");
        assert_eq!(proxy.web.count(path), 1 + misdeeds.len(), "{:?}", proxy.web.ranges(path));
        assert!(proxy.web.sent(path) <= BYTES, "{path}: no byte comes twice");
    }
    let (sent, refused) = tries(&proxy).await;
    assert_eq!((sent, refused), (4.0, 0.0));
}

/// `retries` are of what is wanted, not of each request for it.
#[tokio::test]
async fn heads_that_fail_and_bodies_that_break_are_of_the_same_retries() {
    const RETRIES: usize = 2;
    let (head, body) = (Misdeed::Garbage, Misdeed::Cut(100_000));
    for in_turn in [[head, body], [body, head]] {
        let proxy = Proxy::with(json!({"retries": RETRIES})).await;
        proxy.web.put(FILM, Item::of(BYTES));
        proxy.web.misbehave(&in_turn.repeat(RETRIES + 1));
        let answer = proxy.get(FILM).await;
        assert!(answer.body.is_err() || answer.status == 502, "{}", answer.status);
        assert_eq!(proxy.web.count(FILM), 1 + RETRIES, "{in_turn:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_retries_what_broke_off_is_not_asked_for_again() {
    const FILMS: usize = 20;
    for (site, refused) in [(json!({"retries": 0}), 0), (json!({"retry-budget-percent": 0}), FILMS)]
    {
        let proxy = Proxy::with(site).await;
        proxy.web.always(Some(Misdeed::Cut(100_000)));
        all_break(&proxy, FILMS).await;
        assert_eq!(proxy.web.asked().len(), FILMS);
        let (sent, by_budget) = tries(&proxy).await;
        assert_eq!(sent, 0.0);
        assert!(by_budget >= refused as f64, "{by_budget}");
    }
}

/// Bytes that are here need not come again: it costs the origin no more to go on from there.
#[tokio::test]
async fn an_answer_that_brought_a_chunk_is_gone_on_with_for_free() {
    let proxy = Proxy::with(json!({"retry-budget-percent": 0})).await;
    proxy.web.put(FILM, Item::of(8 * CHUNK));
    proxy.web.always(Some(Misdeed::Cut(CHUNK + 1)));
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    assert!(proxy.web.sent(FILM) <= 8 * CHUNK, "no byte comes twice");
    let again = proxy.web.count(FILM) - 1;
    assert_eq!(tries(&proxy).await, (again as f64, 0.0));
}

/// Who reads the first chunk while the fetch of the rest fails asks for it no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_got_to_the_break_yet_does_not_ask_beside_the_budget() {
    let proxy = Proxy::with(json!({"retry-budget-percent": 0})).await;
    for number in 0..100 {
        let path = format!("/{number}");
        proxy.web.put(&path, Item::of(BYTES));
        proxy.web.always(Some(Misdeed::Status(503)));
        proxy.web.misbehave(&[Misdeed::Cut(CHUNK + 9)]);
        assert!(proxy.get(&path).await.body.is_err());
        // The second one goes on behind the chunk.
        assert_eq!(proxy.web.count(&path), 2, "{path}: {:?}", proxy.web.ranges(&path));
    }
}
