//! What an edge exposes is what docs/metrics.md tells: every name, with its labels.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::extract::Request;
use axum::response::IntoResponse;
use common::{Edge, Item, Scripted, Web, ask, get, get_over, proxy_settings, until};
use http::Method;
use service::value::ByteSize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

const TOLD: &str = include_str!("../../docs/metrics.md");
const HOUR: Duration = Duration::from_secs(3_600);
/// Only of sites whose origin is a bucket.
const OF_BUCKETS: [&str; 2] =
    ["upstream_credential_refreshes_total", "upstream_key_refusals_total"];

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
    web.put("/page", Item::of(10).field("cache-control", "no-store"));
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
    get(&format!("{}/page", edge.http), &[]).await;
    let text = get(&format!("{}/metrics", edge.admin), &[]).await.text();
    let mut told = told();
    for name in OF_BUCKETS {
        assert!(told.remove(name).is_some(), "{name}");
    }
    assert_eq!(told, exposed(&text));
    edge.stop().await;
}

/// An answer by each protocol, memory that runs over, and a disk that vanishes: all of it is
/// counted, by what an operator wants to know it by.
#[tokio::test]
async fn what_happens_is_counted_by_verdict_site_tier_and_protocol() {
    const BYTES: u64 = 900_000;
    const OTHERS: u64 = 24;
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    (settings.memory, settings.ssd) = (Some(ByteSize(16 << 20)), Some(ByteSize(512 << 20)));
    let edge = Edge::start(settings).await;
    edge.ssd_is(1.0).await;
    web.put("/film.m4s", Item::of(BYTES));
    let certificate = edge.dir.join("tls/cert.pem");
    for _ in 0..2 {
        get(&format!("{}/film.m4s", edge.http), &[]).await;
    }
    for protocol in ["h2", "h3"] {
        get_over(protocol, &format!("{}/film.m4s", edge.https), &certificate).await;
    }
    let mut expected = vec![
        ("first_byte_seconds_count{verdict=\"origin\"}".to_owned(), 1),
        ("first_byte_seconds_bucket{verdict=\"origin\",le=\"+Inf\"}".to_owned(), 1),
        ("first_byte_seconds_count{verdict=\"hit-memory\"}".to_owned(), 3),
        ("origin_bytes_total".to_owned(), BYTES),
        ("fills_total{end=\"done\"}".to_owned(), 1),
        ("fill_seconds_count".to_owned(), 1),
    ];
    let hits = ["http/1.1", "h2", "h3"].map(|protocol| (protocol, "hit-memory"));
    for (protocol, verdict) in [("http/1.1", "origin")].into_iter().chain(hits) {
        let of = format!("protocol=\"{protocol}\",site=\"*\"");
        let requests = format!("requests_total{{{of},status=\"200\",verdict=\"{verdict}\"}}");
        let bytes = format!("body_bytes_total{{{of},source=\"{verdict}\"}}");
        expected.extend([(requests, 1), (bytes, BYTES)]);
    }
    let reaches = async |series: &str, least: f64| {
        let series = format!("nearcast_edge_{series}");
        until(&series, || async { (edge.metric(&series).await >= least).then_some(()) }).await;
    };
    // A client may have its answer before it is counted.
    for (series, expected) in &expected {
        reaches(series, *expected as f64).await;
        let now = edge.metric(&format!("nearcast_edge_{series}")).await;
        assert_eq!(now, *expected as f64, "{series}");
    }

    for number in 0..OTHERS {
        let path = format!("/{number}.m4s");
        web.put(&path, Item::of(BYTES));
        get(&format!("{}{path}", edge.http), &[]).await;
    }
    reaches("memory_evictions_total", 1.0).await;
    reaches("ssd_written_bytes_total", BYTES as f64).await;
    let ssd = edge.dir.join("ssd");
    std::fs::remove_dir_all(&ssd).unwrap();
    reaches(&format!("ssd_troubles_total{{disk=\"{}\",reason=\"gone\"}}", ssd.display()), 1.0)
        .await;
    edge.stop().await;
}

/// An hour ahead, an hour behind; and what a cache has kept on its way.
#[tokio::test]
async fn how_far_an_origins_clock_is_from_this_one_is_told() {
    let hours = |request: &Request| {
        let now = SystemTime::now();
        let (date, age) = match request.uri().path() {
            "/ahead" => (now + HOUR, None),
            "/kept" => (now - HOUR, Some("3600")),
            _ => (now - HOUR, None),
        };
        let mut response = ([("date", httpdate::fmt_http_date(date))], "text").into_response();
        if let Some(age) = age {
            response.headers_mut().insert("age", age.parse().unwrap());
        }
        response
    };
    let proxy = Scripted::new(hours).await;
    for (path, about_s) in [("/ahead", 3_600.0), ("/kept", 3_600.0), ("/behind", -3_600.0)] {
        assert_eq!(proxy.get(path, &[]).await.status, 200);
        let text = get(&format!("{}/metrics", proxy.edge.admin), &[]).await.text();
        let told = |line: &&str| line.starts_with("nearcast_edge_upstream_clock_skew_seconds{");
        let told = text.lines().find(told).and_then(|line| line.rsplit(' ').next());
        let skew_s: f64 = told.unwrap().parse().unwrap();
        // What the answer took to come may be part of it.
        assert!((skew_s - about_s).abs() < 60.0, "{path}: {skew_s}");
    }
    proxy.edge.stop().await;
}
