//! What heads say that they take in memory is what they take: alone in its process, since it
//! measures that.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use caching::Stored;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nearcast_heads::{Head, Heads, KeyId, Limits, Read, Seen};
use prometheus::Registry;
use std::sync::Arc;
use std::time::Duration;

const HEADS: usize = 60_000;
/// Of a connection's buffer, of which the fields of an answer are parts.
const BUFFER_BYTES: usize = 16 << 10;

/// Resident memory, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn gauge(registry: &Registry, name: &str) -> usize {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric()[0].get_gauge().get_value() as usize
}

/// As an origin's answer is received: its values are parts of one large buffer.
fn received(number: usize) -> HeaderMap {
    let fields = [
        ("content-type", "video/mp4".to_owned()),
        ("etag", format!("\"{number:032x}\"")),
        ("last-modified", "Sat, 21 Nov 2026 08:03:21 GMT".to_owned()),
        ("date", "Sat, 21 Nov 2026 08:03:23 GMT".to_owned()),
        ("cache-control", "public, max-age=86400".to_owned()),
        ("accept-ranges", "bytes".to_owned()),
        ("x-amz-version-id", format!("{number:032x}")),
        ("x-amz-request-id", format!("{number:016x}")),
    ];
    let mut buffer = bytes::BytesMut::with_capacity(BUFFER_BYTES);
    fields.iter().for_each(|(_, value)| buffer.extend_from_slice(value.as_bytes()));
    buffer.resize(BUFFER_BYTES, b'x');
    let mut buffer = buffer.freeze();
    let own = fields.iter().map(|(name, value)| {
        let value = HeaderValue::from_maybe_shared(buffer.split_to(value.len())).unwrap();
        (HeaderName::from_static(name), value)
    });
    own.collect()
}

#[tokio::test]
async fn heads_take_what_they_say_that_they_take() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let limits = Limits { memory_bytes: 1 << 30, ..Limits::default() };
    let heads = Heads::open(&folder.path().join("heads.db"), limits, &registry).unwrap();
    let before = resident();
    for number in 0..HEADS {
        let url = format!("films.test/season-1/episode-7/1080p/{number}.m4s");
        let stored = Stored {
            status: StatusCode::OK,
            fields: received(number),
            requested_ms: 1_795_000_000_000,
            received_ms: 1_795_000_000_040,
        };
        let head = Arc::new(Head {
            site: "films.test".into(),
            url: url.as_str().into(),
            selecting: Vec::new(),
            stored,
            body: [7; 16],
            bytes: 1 << 20,
            tags: vec!["season-1".into(), "episode-7".into()],
            epoch: 1,
            asked_ms: 1_795_000_000_000,
            fetched_ms: 1_795_000_000_000,
            seen: Seen::default(),
            read: Read::default(),
        });
        heads.put(KeyId::of("films.test", &url), head);
    }
    let taken = resident() - before;
    heads.close(Duration::from_secs(60)).await;
    let said = gauge(&registry, "nearcast_edge_heads_memory_bytes");
    // What waits for the disk, and SQLite's pages, are no part of it; nor is the table of keys
    // that grows by doubling.
    let slack = Limits::default().waiting_bytes + (16 << 20);
    assert!(said * 3 / 4 < taken && taken < said * 5 / 4 + slack, "said {said}, taken {taken}");
}
