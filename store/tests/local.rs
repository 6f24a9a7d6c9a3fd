//! The stores that need no server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;

use bytes::Bytes;
use nearcast_store::{Error, S3Settings, Store};
use service::Shutdown;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn dir(path: &Path) -> Store {
    Store::open(&format!("dir:{}", path.display())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let root = tempfile::tempdir().unwrap();
    conformance::conforms(&dir(&root.path().join("store"))).await;
    let unfinished = std::fs::read_dir(root.path().join("store/.incoming")).unwrap().count();
    assert_eq!(unfinished, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::conforms(&Store::open("mem:").unwrap()).await;
}

#[tokio::test]
async fn memory_of_one_name_is_one_store() {
    let one = Store::open("mem:shared").unwrap();
    let same = Store::open("mem:shared").unwrap();
    one.put_if_absent("a", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(same.get("a", 1).await.unwrap(), "x");
    for other in ["mem:", "mem:other"] {
        let other = Store::open(other).unwrap();
        assert!(matches!(other.head("a").await, Err(Error::NotFound { .. })));
    }
}

#[test]
fn urls_that_name_no_store_are_refused() {
    for url in ["", "films", "dir:", "file:///films", "s3:films", "s3://", "http://films/", "mem"] {
        let error = Store::open(url).unwrap_err();
        assert!(matches!(error, Error::BadUrl { .. }), "{url:?}: {error}");
        assert!(error.to_string().starts_with(&format!("store {url:?} is not valid: expected ")));
    }
}

#[tokio::test]
async fn an_s3_server_that_is_down_is_named_soon() {
    // Bound and never listening: connections are refused, and nobody else takes the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let settings = S3Settings {
        endpoint: Some(format!("http://{}", socket.local_addr().unwrap())),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("s3cret".to_owned()),
        ..S3Settings::default()
    };
    let store = Store::open_s3("s3://films/a", &settings).unwrap();
    let started = Instant::now();
    for error in [
        store.head("a").await.unwrap_err(),
        store.get("a", 1).await.unwrap_err(),
        store.put_if_absent("a", Bytes::new()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with("store s3://films/a") && !error.contains("s3cret"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Runs the ignored test `inner` of this binary on a file system of its own, mounted with
/// `options`; the file system ends with it.
fn on_a_mount(options: &str, prepare: &str, inner: &str) {
    let place = tempfile::tempdir().unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o {options} none \"$MOUNT\"; {prepare}; \
         exec \"$TEST\" --exact {inner} --ignored --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .env("MOUNT", place.path())
        .env("TEST", std::env::current_exe().unwrap())
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let ran = said.contains("1 passed");
    assert!(output.status.success() && ran, "{said}{complained}");
}

fn mounted() -> std::path::PathBuf {
    std::env::var_os("MOUNT").expect("run by another test of this file").into()
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_half_stored() {
    on_a_mount("size=1m", "true", "on_a_full_disk");
}

#[tokio::test]
#[ignore = "run by a_full_disk_is_named_and_leaves_nothing_half_stored"]
async fn on_a_full_disk() {
    let store = dir(&mounted());
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), vec![1; 2 << 20]).unwrap();
    let put = async |bytes| {
        std::fs::write(source.path(), vec![1; bytes]).unwrap();
        store.put_file("film", source.path(), Arc::new(|_| {}), &Shutdown::new()).await
    };
    let error = put(2 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space and run this again"), "{error}");
    assert!(matches!(store.head("film").await, Err(Error::NotFound { .. })));
    // What was half stored takes no room any more.
    put(900 << 10).await.unwrap();
    let error = store.put_if_absent("record", vec![1; 512 << 10].into()).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(store.list("").await.unwrap().len(), 1);
}

#[test]
fn a_read_only_disk_is_named_and_can_still_be_read() {
    let prepare =
        "mkdir \"$MOUNT/a\"; echo film >\"$MOUNT/a/film\"; mount -o remount,ro \"$MOUNT\"";
    on_a_mount("size=1m", prepare, "on_a_read_only_disk");
}

#[tokio::test]
#[ignore = "run by a_read_only_disk_is_named_and_can_still_be_read"]
async fn on_a_read_only_disk() {
    let store = dir(&mounted());
    let error = store.put_if_absent("record", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert_eq!(store.get("a/film", 10).await.unwrap(), "film\n");
    let missing = dir(&mounted().join("new"));
    let error = missing.create().await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
}
