//! A purge costs one append, however much it ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use caching::Stored;
use http::{HeaderMap, HeaderValue, StatusCode};
use nearcast_heads::{Head, Heads, KeyId, Limits, Purge, PurgeLog, Read, Seen, Verdict, What};
use prometheus::Registry;
use std::sync::Arc;
use std::time::Duration;

/// Stored objects; a million of them with `NEARCAST_PURGED=1000000`.
fn count() -> usize {
    std::env::var("NEARCAST_PURGED").map_or(20_000, |count| count.parse().unwrap())
}

/// Every hundredth is of another season.
fn url(number: usize) -> String {
    format!("films.test/season-{}/{number}.m4s", if number.is_multiple_of(100) { 2 } else { 1 })
}

fn head(number: usize, epoch: u64) -> Arc<Head> {
    let etag = HeaderValue::try_from(format!("\"{number}\"")).unwrap();
    let fields = HeaderMap::from_iter([(http::header::ETAG, etag)]);
    let (requested_ms, received_ms) = (1_795_000_000_000, 1_795_000_000_040);
    let stored = Stored { status: StatusCode::OK, fields, requested_ms, received_ms };
    Arc::new(Head {
        site: "films.test".into(),
        url: url(number).as_str().into(),
        selecting: Vec::new(),
        stored,
        body: [7; 16],
        bytes: 1 << 20,
        tags: Vec::new(),
        epoch,
        asked_ms: requested_ms,
        fetched_ms: requested_ms,
        seen: Seen::default(),
        read: Read::default(),
    })
}

/// A thousand of them, from all over.
fn sample(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count / 997)
}

/// What the log says of each variant, as the next request finds them.
async fn verdicts(heads: &Heads, log: &PurgeLog, place: usize) -> Vec<Verdict> {
    let found = heads.get(&KeyId::of("films.test", &url(place))).await;
    found.iter().map(|head| log.verdict(head)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_purge_of_all_that_is_stored_is_one_append() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    // None is dropped for want of time: that is not what is told here.
    let room = 1 << 30;
    let wait = Duration::from_secs(60);
    let limits =
        Limits { memory_bytes: room, waiting_bytes: room, read_max: wait, ..Limits::default() };
    let heads = Heads::open(&dir.path().join("heads.db"), limits, &registry).unwrap();
    let path = dir.path().join("purges.log");
    let log = PurgeLog::open(&path, &registry).unwrap();
    let count = count();
    let number = log.number();
    for place in 0..count {
        heads.put(KeyId::of("films.test", &url(place)), head(place, number));
    }
    for place in sample(count) {
        assert_eq!(verdicts(&heads, &log, place).await, [Verdict::Valid]);
    }

    let before = std::fs::metadata(&path).map_or(0, |file| file.len());
    let what = What::Prefix("films.test/season-1/".into());
    let purge = Purge { what, site: None, soft: false, note: String::new() };
    assert_eq!(log.append(purge).await.unwrap(), number + 1);
    let appended = std::fs::metadata(&path).unwrap().len() - before;
    assert!(appended < 200, "{appended} bytes for {count} objects");
    // From then on none of them is served; what does not begin so is.
    for place in sample(count) {
        let expected = if place.is_multiple_of(100) { Verdict::Valid } else { Verdict::Hard };
        assert_eq!(verdicts(&heads, &log, place).await, [expected], "{place}");
    }
    // Nor after a restart of the log.
    let again = PurgeLog::open(&path, &Registry::new()).unwrap();
    assert_eq!(again.verdict(&head(1, number)), Verdict::Hard);
    assert_eq!(again.verdict(&head(1, number + 1)), Verdict::Valid);
}
