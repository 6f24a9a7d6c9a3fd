//! What every kind of store must do, tried on each of them: `conforms` runs it all.

use bytes::Bytes;
use nearcast_store::{Error, SMALL_BYTES_MAX, Store};
use service::Shutdown;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::NamedTempFile;

/// Two whole parts of an S3 upload and a bit.
const LARGE_BYTES: usize = (33 << 20) + 12_345;

/// Runs every story on an empty store.
pub async fn conforms(store: &Store) {
    store.create().await.unwrap();
    store.create().await.unwrap();
    an_empty_store_has_nothing(store).await;
    a_file_comes_back_whole_and_in_ranges(store, "files/small", 5000).await;
    a_file_comes_back_whole_and_in_ranges(store, "files/large", LARGE_BYTES).await;
    an_empty_file_is_an_object(store).await;
    a_file_replaces_whole(store).await;
    of_many_who_put_if_absent_one_succeeds(store).await;
    a_stopped_upload_leaves_nothing(store).await;
    a_missing_source_leaves_nothing(store).await;
    listings_are_sorted_and_end_at_folders(store).await;
    odd_keys_are_refused(store).await;
    limits_hold(store).await;
}

/// Bytes that differ at every offset worth telling apart.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// Stores `content`; how many bytes the progress heard of.
async fn put(store: &Store, key: &str, content: &[u8]) -> u64 {
    let heard = Arc::new(AtomicU64::new(0));
    let progress = {
        let heard = heard.clone();
        Arc::new(move |bytes| {
            heard.fetch_add(bytes, Ordering::Relaxed);
        })
    };
    let file = file(content);
    store.put_file(key, file.path(), progress, &Shutdown::new()).await.unwrap();
    heard.load(Ordering::Relaxed)
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

async fn an_empty_store_has_nothing(store: &Store) {
    assert!(matches!(store.head("absent").await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get("absent", 10).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get_range("a/b", 0..1).await, Err(Error::NotFound { .. })));
    assert_eq!(keys(store, "").await, [""; 0]);
    assert_eq!(keys(store, "no/such/").await, [""; 0]);
}

async fn a_file_comes_back_whole_and_in_ranges(store: &Store, key: &str, bytes: usize) {
    let content = pattern(bytes);
    assert_eq!(put(store, key, &content).await, bytes as u64);
    let head = store.head(key).await.unwrap();
    assert_eq!(head.bytes, bytes as u64);
    assert!(!head.etag.is_empty());
    assert!(store.get(key, bytes).await.unwrap() == content);
    let middle = bytes / 2;
    for range in [0..1, 0..bytes, middle..middle + 700, bytes - 1..bytes] {
        let got = store.get_range(key, range.start as u64..range.end as u64).await.unwrap();
        assert!(got == content[range.clone()], "{key} {range:?}");
    }
    let bytes = bytes as u64;
    for range in [0..bytes + 1, bytes..bytes + 1, bytes * 2..bytes * 3, 5..5] {
        let got = store.get_range(key, range.clone()).await;
        assert!(matches!(got, Err(Error::OutOfRange { .. })), "{key} {range:?}: {got:?}");
    }
    let small = store.get(key, 10).await;
    assert!(matches!(small, Err(Error::TooLarge { bytes_max: 10, .. })), "{small:?}");
}

async fn an_empty_file_is_an_object(store: &Store) {
    assert_eq!(put(store, "files/empty", b"").await, 0);
    assert_eq!(store.head("files/empty").await.unwrap().bytes, 0);
    assert_eq!(store.get("files/empty", 0).await.unwrap(), "");
}

async fn a_file_replaces_whole(store: &Store) {
    put(store, "files/again", &pattern(9000)).await;
    let before = store.head("files/again").await.unwrap();
    put(store, "files/again", b"short").await;
    assert_eq!(store.get("files/again", 100).await.unwrap(), "short");
    assert_ne!(store.head("files/again").await.unwrap().etag, before.etag);
}

async fn of_many_who_put_if_absent_one_succeeds(store: &Store) {
    let puts = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.put_if_absent("once/record", format!("{n}").into()).await })
    });
    let mut winner = None;
    for (n, put) in futures::future::join_all(puts).await.into_iter().enumerate() {
        match put.unwrap() {
            Ok(()) => assert_eq!(winner.replace(n), None, "two have succeeded"),
            Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error}"),
        }
    }
    let stored = store.get("once/record", 10).await.unwrap();
    assert_eq!(stored, winner.expect("one must succeed").to_string());
}

async fn a_stopped_upload_leaves_nothing(store: &Store) {
    let content = file(&pattern(LARGE_BYTES));
    let stop = Shutdown::new();
    let progress = {
        let stop = stop.clone();
        Arc::new(move |_| stop.trigger())
    };
    let put = store.put_file("stopped", content.path(), progress.clone(), &stop).await;
    // A store that takes a file in one go may be done before it can be stopped.
    if let Err(error) = put {
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
        assert!(matches!(store.head("stopped").await, Err(Error::NotFound { .. })));
    } else {
        assert_eq!(store.head("stopped").await.unwrap().bytes, LARGE_BYTES as u64);
    }
    let put = store.put_file("never", content.path(), progress, &stop).await;
    assert!(matches!(put, Err(Error::Stopped { .. })), "{put:?}");
    assert!(matches!(store.head("never").await, Err(Error::NotFound { .. })));
}

async fn a_missing_source_leaves_nothing(store: &Store) {
    let missing = std::path::Path::new("/no/such/file.mp4");
    let put = store.put_file("missing", missing, Arc::new(|_| {}), &Shutdown::new()).await;
    assert!(matches!(put, Err(Error::Source { .. })), "{put:?}");
    assert!(put.unwrap_err().to_string().starts_with("/no/such/file.mp4: "));
    assert!(matches!(store.head("missing").await, Err(Error::NotFound { .. })));
}

async fn listings_are_sorted_and_end_at_folders(store: &Store) {
    for key in ["list/b/2", "list/a", "list/b/1", "lister"] {
        store.put_if_absent(key, Bytes::from_static(b"abc")).await.unwrap();
    }
    assert_eq!(keys(store, "list/").await, ["list/a", "list/b/1", "list/b/2"]);
    assert_eq!(keys(store, "list/b/").await, ["list/b/1", "list/b/2"]);
    assert!(store.list("list/").await.unwrap().iter().all(|entry| entry.bytes == 3));
    let all = keys(store, "").await;
    assert!(all.contains(&"lister".to_owned()) && all.contains(&"files/large".to_owned()));
    assert!(all.is_sorted());
    // A folder is no object.
    assert!(matches!(store.head("list").await, Err(Error::NotFound { .. })));
}

async fn odd_keys_are_refused(store: &Store) {
    for key in ["", "/etc/passwd", "a/../b", "a//b", "a/", ".hidden", "Ä", "a?b", "a b"] {
        assert!(matches!(store.head(key).await, Err(Error::BadKey { .. })), "{key:?}");
        let put = store.put_if_absent(key, Bytes::new()).await;
        assert!(matches!(put, Err(Error::BadKey { .. })), "{key:?}: {put:?}");
    }
    assert!(matches!(store.list("no-slash").await, Err(Error::BadKey { .. })));
}

async fn limits_hold(store: &Store) {
    let put = store.put_if_absent("too-large", vec![0; SMALL_BYTES_MAX + 1].into()).await;
    assert!(matches!(put, Err(Error::TooLarge { .. })), "{put:?}");
    store.put_if_absent("just-fits", vec![7; SMALL_BYTES_MAX].into()).await.unwrap();
    assert_eq!(store.get("just-fits", SMALL_BYTES_MAX).await.unwrap(), [7; SMALL_BYTES_MAX][..]);
}
