//! What an edge exposes is what docs/metrics.md tells: every name, with its labels.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Edge, Item, Web, ask, get, get_over, proxy_settings};
use http::Method;
use service::value::ByteSize;
use std::collections::{BTreeMap, BTreeSet};

const TOLD: &str = include_str!("../../docs/metrics.md");
/// Only of sites whose origin is a bucket.
const OF_BUCKETS: &str = "upstream_credential_refreshes_total";

/// Names and labels, as the page's tables have them.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let rows = TOLD.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let words = |cell: &str| {
            let words = cell.split('`').skip(1).step_by(2).map(str::to_owned);
            words.collect::<BTreeSet<_>>()
        };
        words(cells[1]).into_iter().map(|name| (name, words(cells[2]))).collect::<Vec<_>>()
    };
    rows.flat_map(row).collect()
}

/// Names and labels of all series.
fn exposed(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<_, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = name.strip_prefix("nearcast_edge_").unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter();
        let name = of_histogram.fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
        // No value in the story has a comma.
        let labels =
            labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split('=').next());
        let labels = labels.filter(|label| !label.is_empty() && *label != "le").map(str::to_owned);
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    found
}

#[tokio::test]
async fn every_metric_is_told_with_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start().await;
    web.put("/list.m3u8", Item::of(5_000).field("content-type", "application/vnd.apple.mpegurl"));
    web.put("/film.mp4", Item::of(3 << 20));
    web.put("/edit", Item::of(10).field("cache-group-invalidation", "\"red\""));
    let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    // Another node.
    let around = serde_json::json!({ "parents": [{ "id": "region-1", "url": web.url }] });
    settings.hierarchy = serde_json::from_value(around).unwrap();
    settings.ssd = Some(ByteSize(512 << 20));
    let edge = Edge::start(settings).await;
    let certificate = edge.dir.join("tls/cert.pem");
    for protocol in ["h2", "h3"] {
        get_over(protocol, &format!("{}/film.mp4", edge.https), &certificate).await;
    }
    for _ in 0..3 {
        get(&format!("{}/list.m3u8", edge.http), &[("accept-encoding", "br")]).await;
    }
    ask(Method::POST, &format!("{}/edit", edge.http), &[]).await;
    let text = get(&format!("{}/metrics", edge.admin), &[]).await.text();
    let mut told = told();
    assert!(told.remove(OF_BUCKETS).is_some());
    assert_eq!(told, exposed(&text));
    edge.stop().await;
}
