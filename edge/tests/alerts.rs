//! What an alarm watches is there before it happens: Prometheus sees no rise in a series that
//! begins with its first event.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Edge, Web, get, proxy_settings, until};
use service::value::ByteSize;
use std::collections::BTreeSet;

const RULES: &str = include_str!("../../deploy/alerts.yml");
/// One series for each answer that was given; there are too many to begin with.
const BY_ANSWER: &str = "nearcast_edge_requests_total";
/// Only of sites whose origin is a bucket.
const OF_BUCKETS: [&str; 2] = [
    "nearcast_edge_upstream_credential_refreshes_total",
    "nearcast_edge_upstream_key_refusals_total",
];

/// The metrics that the rules name, each with what is between its braces.
fn named() -> BTreeSet<(&'static str, &'static str)> {
    let expressions = RULES.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let parts = expressions.flat_map(|expression| expression.split("nearcast_edge_").skip(1));
    let named = parts.map(|part| {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let (name, rest) = part.split_at(part.find(|c| !is_name(c)).unwrap_or(part.len()));
        let labels = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
        (name, labels)
    });
    named.collect()
}

/// Each series that a selector means: `a=~"b|c"` is two.
fn series(labels: &str) -> Vec<String> {
    if labels.is_empty() {
        return vec![String::new()];
    }
    let (name, values) = labels.split_once('=').unwrap();
    let values = values.trim_start_matches('~').trim_matches('"');
    values.split('|').map(|value| format!("{name}=\"{value}\"")).collect()
}

#[tokio::test]
async fn every_series_that_an_alarm_watches_is_there_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start().await;
    let mut settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    // Another node.
    let around = serde_json::json!({ "parents": [{ "id": "region-1", "url": web.url }] });
    settings.hierarchy = serde_json::from_value(around).unwrap();
    settings.ssd = Some(ByteSize(512 << 20));
    let edge = Edge::start(settings).await;
    // One answer, so that there are answers at all.
    get(&format!("{}/page", edge.http), &[]).await;
    // It is counted at the origin's side when its exchange has ended, which may be after it was read.
    let text = until("the exchange is counted", || async {
        let text = get(&format!("{}/metrics", edge.admin), &[]).await.text();
        text.contains("nearcast_edge_upstream_requests_total{").then_some(text)
    });
    let text = text.await;
    let named = named();
    assert!(named.len() > 15, "{named:?}");
    // None stands where it is not looked for: on a line of its own, or of another server.
    let is_apart = |line: &&str| line.contains("nearcast_") && !line.contains("expr: ");
    assert_eq!(RULES.lines().find(is_apart), None);
    assert_eq!(RULES.matches("nearcast_").count(), RULES.matches("nearcast_edge_").count());
    for (name, labels) in named {
        let name = format!("nearcast_edge_{name}");
        let alerted = series(if name == BY_ANSWER { "" } else { labels });
        for series in alerted.iter().filter(|_| !OF_BUCKETS.contains(&name.as_str())) {
            let is_it = |line: &str| {
                let rest = line.strip_prefix(&name).unwrap_or("");
                rest.starts_with(['{', ' ']) && rest.contains(series.as_str())
            };
            assert!(text.lines().any(is_it), "{name} {series}");
        }
    }
    edge.stop().await;
}
