//! Stories of origins that do not say how long things are: chunked answers, and parts with
//! `Content-Range: bytes 0-9/*`.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Edge, Item, Proxy, Web, proxy_settings, until};
use nearcast_edge::Settings;
use service::value::ByteSize;
use std::ops::Range;

const FILM: &str = "/film";
/// What is kept whole may have a quarter of memory while it comes.
const BYTES: u64 = 3 * CHUNK + 17;

async fn small() -> Proxy {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let edge = Edge::start(Settings { memory: Some(ByteSize(16 << 20)), ..settings }).await;
    Proxy { dir, web, edge }
}

/// That is so once it has come whole, which who asked may see before.
async fn is_kept(proxy: &Proxy) {
    let only = [("cache-control", "only-if-cached")];
    let kept = async || (proxy.get_with(FILM, &only).await.status == 200).then_some(());
    until("it is kept", kept).await;
}

/// What memory has leaves it.
async fn forget(proxy: &Proxy) {
    for number in 0..5 {
        let path = format!("/other-{number}");
        proxy.web.put(&path, Item::of(8 * CHUNK).cache_control("max-age=0"));
        proxy.get(&path).await;
    }
}

#[tokio::test]
async fn what_came_without_a_length_comes_again_by_one_answer() {
    let proxy = small().await;
    proxy.web.put(FILM, Item::of(BYTES).chunked().no_ranges());
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    is_kept(&proxy).await;
    forget(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    assert_eq!((proxy.web.count(FILM), proxy.web.sent(FILM)), (2, 2 * BYTES));
    // Of a memory that is full of others, what nobody has read yet may leave before it is.
    for range in [2 * CHUNK + 5..2 * CHUNK + 105, 0..9, 3 * CHUNK..BYTES, CHUNK..2 * CHUNK] {
        forget(&proxy).await;
        let before = (proxy.web.count(FILM), proxy.web.sent(FILM));
        let part = proxy.part(FILM, range.clone()).await;
        assert_eq!(part.status, 206, "{range:?} {:?}", proxy.web.ranges(FILM));
        assert!(part.bytes() == &proxy.web.part(FILM, range));
        let asked = proxy.web.count(FILM) - before.0;
        assert!(asked <= 1 && proxy.web.sent(FILM) - before.1 <= BYTES, "{asked}");
    }
}

/// The same strong `ETag`, and another length: nothing told of that before the end.
#[tokio::test]
async fn what_comes_again_without_a_length_and_has_another_is_cut_once_at_most() {
    for bytes in [BYTES - CHUNK, BYTES - 1, BYTES + 1, BYTES + CHUNK] {
        let proxy = small().await;
        proxy.web.put(FILM, Item::of(BYTES).chunked().no_ranges());
        proxy.get(FILM).await;
        is_kept(&proxy).await;
        forget(&proxy).await;
        proxy.web.put(FILM, Item::of(bytes).chunked().no_ranges());
        if let Ok(body) = &proxy.get(FILM).await.body {
            assert!(body == &proxy.web.whole(FILM), "{bytes}");
        }
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{bytes}");
    }
}

/// Some servers compress what they send, and name it by the ETag of what they did not.
#[tokio::test]
async fn what_comes_in_another_coding_is_never_a_part_of_what_is_kept() {
    for item in
        [Item::of(BYTES).chunked().no_ranges(), Item::of(BYTES), Item::of(BYTES).no_ranges()]
    {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(BYTES));
        assert_eq!(proxy.part(FILM, 0..9).await.header("content-encoding"), "");
        proxy.web.put(FILM, item.field("content-encoding", "gzip"));
        let part = proxy.part(FILM, 2 * CHUNK..2 * CHUNK + 9).await;
        assert_eq!(part.header("content-encoding"), "gzip", "{part:?}");
    }
}

#[tokio::test]
async fn a_part_of_what_says_no_length_is_passed_on_to_the_byte() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(40 * CHUNK));
    proxy.web.always(Some(common::WebMisdeed::NoTotal));
    let asked = async |field: &str, right: Range<u64>, sent: u64| {
        let before = proxy.web.sent(FILM);
        let part = proxy.get_with(FILM, &[("range", field)]).await;
        assert_eq!(part.status, 206, "{field}");
        let said = format!("bytes {}-{}/*", right.start, right.end - 1);
        assert_eq!(part.header("content-range"), said);
        assert!(part.bytes() == &proxy.web.part(FILM, right), "{field}");
        assert_eq!(proxy.web.sent(FILM) - before, sent, "{field}");
    };
    // What can be kept is not known before the first answer.
    asked("bytes=5000-5099", 5000..5100, CHUNK).await;
    let (late, end) = (39 * CHUNK + 7, 40 * CHUNK);
    asked("bytes=5000-5099", 5000..5100, 100).await;
    asked(&format!("bytes={late}-"), late..end, end - late).await;
    asked(&format!("bytes={late}-{}", end + 5), late..end, end - late).await;
    asked("bytes=-100", end - 100..end, 100).await;
    // The whole says how long it is, and is kept.
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    let part = proxy.part(FILM, 5000..5100).await;
    let said = format!("bytes 5000-5099/{end}");
    assert_eq!((part.verdict(), part.header("content-range")), ("hit-memory", &*said));
}
