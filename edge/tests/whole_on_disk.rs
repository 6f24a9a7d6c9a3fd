//! Stories of what is only kept whole, for want of a strong validator or of a length: it goes to
//! the reactive SSD as everything else does, by how often it was asked for.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Edge, Item, Proxy, Validator, Web, ask, proxy_settings, until};
use http::Method;
use nearcast_edge::Settings;
use service::value::ByteSize;

/// Bytes of a thing: memory has no room for sixteen of them.
const BYTES: u64 = 1_000_000;
const MEMORY: ByteSize = ByteSize(16 << 20);

async fn with_ssd(bytes: u64) -> Proxy {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let settings = Settings { memory: Some(MEMORY), ssd: Some(ByteSize(bytes)), ..settings };
    let edge = Edge::start(settings).await;
    edge.ssd_is(1.0).await;
    Proxy { dir, web, edge }
}

/// Gets it, and waits until it is stored, and what of it was offered to the SSD is there.
async fn get(proxy: &Proxy, path: &str) -> String {
    let answer = proxy.get(path).await;
    assert!(answer.bytes() == &proxy.web.whole(path), "{path}");
    let is_stored = async || {
        let only = [("cache-control", "only-if-cached")];
        (ask(Method::HEAD, &proxy.url(path), &only).await.status == 200).then_some(())
    };
    until("it is stored", is_stored).await;
    let is_written =
        async || (proxy.edge.metric("nearcast_edge_ssd_queue_bytes ").await == 0.0).then_some(());
    until("the SSD has it", is_written).await;
    answer.verdict().to_owned()
}

async fn written(proxy: &Proxy) -> f64 {
    proxy.edge.metric("nearcast_edge_ssd_written_bytes_total ").await
}

#[tokio::test]
async fn what_is_only_kept_whole_goes_to_an_empty_ssd_though_it_was_asked_for_once() {
    let proxy = with_ssd(512 << 20).await;
    let kinds = [
        ("none", Item::of(BYTES).validator(Validator::None)),
        ("weak", Item::of(BYTES).validator(Validator::Weak)),
        ("chunked", Item::of(BYTES).chunked()),
        ("both", Item::of(BYTES).validator(Validator::None).chunked()),
        ("long", Item::of(CHUNK + 9).validator(Validator::None)),
    ];
    let paths: Vec<_> = (0..8).flat_map(|n| kinds.iter().map(move |k| (n, k))).collect();
    for (number, (kind, item)) in &paths {
        let path = format!("/{kind}-{number}");
        proxy.web.put(&path, item.clone());
        assert_eq!(get(&proxy, &path).await, "origin", "{path}");
    }
    for (number, (kind, _)) in &paths {
        let path = format!("/{kind}-{number}");
        let verdict = get(&proxy, &path).await;
        assert!(verdict.starts_with("hit-"), "{path}: {verdict}");
        assert_eq!(proxy.web.count(&path), 1, "{path}");
    }
}

/// Each time it comes from the origin it is another body, whose bytes nothing vouches for.
#[tokio::test]
async fn what_is_only_kept_whole_goes_to_a_full_ssd_the_second_time() {
    let proxy = with_ssd(chunks::SSD_BYTES_MIN).await;
    let mut others = 0;
    let mut other = async || {
        let path = format!("/other-{others}");
        others += 1;
        proxy.web.put(&path, Item::of(CHUNK));
        let before = written(&proxy).await;
        get(&proxy, &path).await;
        written(&proxy).await > before
    };
    // One may also be left out because the disk is busy; it is full when none gets in.
    let mut left_out = 0;
    while left_out < 20 {
        left_out = if other().await { 0 } else { left_out + 1 };
    }
    let kinds = [Validator::None, Validator::Weak].map(|kind| (format!("/{kind:?}"), kind));
    for (path, validator) in &kinds {
        proxy.web.put(path, Item::of(BYTES).validator(*validator));
    }
    for verdict in ["origin", "origin", "hit-ssd"] {
        for (path, _) in &kinds {
            assert_eq!(get(&proxy, path).await, verdict, "{path}");
        }
        // They leave memory.
        for _ in 0..20 {
            assert!(!other().await, "asked for once, on a disk that is full");
        }
    }
}
