//! Heads never take a disk's last bytes, which purges need: on a small file system of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use caching::Stored;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nearcast_heads::{Head, Heads, KeyId, Limits, Purge, PurgeLog, Read, Seen, What};
use prometheus::Registry;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const MOUNT_BYTES: u64 = 24 << 20;
const HEADS: usize = 4_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs an ignored test of this binary with a file system of its own at `$MOUNT`.
fn on_a_mount(inner: &str) {
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=\"$BYTES\" none \"$MOUNT\" && \
                  exec \"$TEST\" --exact \"$INNER\" --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .env("BYTES", MOUNT_BYTES.to_string())
        .env("MOUNT", place.path())
        .env("TEST", std::env::current_exe().unwrap())
        .env("INNER", inner)
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    println!("{said}");
}

fn key(number: usize) -> KeyId {
    KeyId::of("s", &format!("s.test/a?x={number}"))
}

/// Of one of as many queries as a client likes, with 7 KB of fields.
fn head(number: usize) -> Arc<Head> {
    head_of(number, 14)
}

/// With so many fields of half a KB.
fn head_of(number: usize, fields: usize) -> Arc<Head> {
    let names = (0..fields).map(|n| HeaderName::try_from(format!("x-{n}")).unwrap());
    let value = HeaderValue::try_from("f".repeat(500)).unwrap();
    let fields: HeaderMap = names.map(|name| (name, value.clone())).collect();
    let (requested_ms, received_ms) = (1_795_000_000_000, 1_795_000_000_040);
    Arc::new(Head {
        site: "s".into(),
        url: format!("s.test/a?x={number}").into(),
        selecting: Vec::new(),
        stored: Stored { status: StatusCode::OK, fields, requested_ms, received_ms },
        body: [7; 16],
        bytes: 100,
        tags: Vec::new(),
        epoch: 1,
        asked_ms: requested_ms,
        fetched_ms: requested_ms,
        seen: Seen::default(),
        read: Read::default(),
    })
}

fn open(mount: &Path, registry: &Registry) -> Heads {
    // On disk is what counts.
    let limits =
        Limits { memory_bytes: 0, read_max: PATIENCE, flush_max: PATIENCE, ..Limits::default() };
    Heads::open(&mount.join("heads.db"), limits, registry).unwrap()
}

fn counted(registry: &Registry, name: &str, label: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let of = |metric: &&prometheus::proto::Metric| {
        metric.get_label().iter().all(|pair| pair.value() == label)
    };
    family.get_metric().iter().find(of).unwrap().get_counter().get_value()
}

#[test]
fn heads_leave_purges_the_room_that_they_need() {
    on_a_mount("on_a_mount_that_is_small");
}

#[tokio::test]
#[ignore = "run by heads_leave_purges_the_room_that_they_need"]
async fn on_a_mount_that_is_small() {
    let mount = PathBuf::from(std::env::var_os("MOUNT").expect("run by another test"));
    let registry = Registry::new();
    let purges = PurgeLog::open(&mount.join("purges.log"), &registry).unwrap();
    let heads = open(&mount, &registry);
    for number in 0..HEADS {
        heads.put(key(number), head(number));
        if number % 50 == 49 {
            // As by a POST: it is on disk when that is answered.
            heads.invalidate(&[key(number)]).await.unwrap();
            let (what, note) = (What::Url(format!("s.test/{number}")), "r".repeat(250));
            purges.append(Purge { what, site: None, soft: false, note }).await.unwrap();
        }
    }
    let disk = rustix::fs::statvfs(&mount).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    assert!(free > MOUNT_BYTES / 8, "{free} bytes are free");
    let unwritten = counted(&registry, "nearcast_edge_heads_unwritten_total", "no-room");
    let evicted = counted(&registry, "nearcast_edge_heads_evicted_total", "disk");
    let failed = counted(&registry, "nearcast_edge_head_database_failures_total", "write");
    assert_eq!(failed, 0.0);
    assert!(evicted > HEADS as f64 / 4.0, "{evicted}, {unwritten} unwritten, {free} free");
    heads.close(PATIENCE).await;
    // The newest have taken the place of the oldest.
    let heads = open(&mount, &Registry::new());
    let mut newest = 0;
    for number in HEADS - 49..HEADS - 1 {
        newest += heads.get(&key(number)).await.len();
    }
    assert!(newest > 24, "{newest} of 48; {evicted} evicted, {unwritten} unwritten");
    assert!(heads.get(&key(0)).await.is_empty());
}

/// What a 304 brings may be longer than what is stored.
#[test]
fn what_is_refreshed_leaves_purges_their_room_as_well() {
    on_a_mount("on_a_mount_that_is_small_with_growing_rows");
}

#[tokio::test]
#[ignore = "run by what_is_refreshed_leaves_purges_their_room_as_well"]
async fn on_a_mount_that_is_small_with_growing_rows() {
    const ROWS: usize = 2_000;
    const LEFT_BYTES: u64 = 9 << 20;
    let mount = PathBuf::from(std::env::var_os("MOUNT").expect("run by another test"));
    let registry = Registry::new();
    let heads = open(&mount, &registry);
    let never = KeyId::of("s", "s.test/never");
    // Nothing is written of what is not there, but what waits is by then.
    let written = async || heads.invalidate(&[never]).await.unwrap();
    for number in 0..ROWS {
        heads.put(key(number), head_of(number, 1));
    }
    written().await;
    let no_room = || counted(&registry, "nearcast_edge_heads_unwritten_total", "no-room");
    assert_eq!(no_room(), 0.0);
    let free = || {
        let disk = rustix::fs::statvfs(&mount).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    // Others leave less of it than the rows would take.
    std::fs::write(mount.join("others"), vec![0; (free() - LEFT_BYTES) as usize]).unwrap();
    for number in 0..ROWS {
        heads.update(key(number), &head_of(number, 12));
    }
    written().await;
    let free = free();
    println!("{free} bytes are free, {} without room", no_room());
    assert!(free > MOUNT_BYTES / 16, "{free} bytes are free");
    assert_eq!(counted(&registry, "nearcast_edge_head_database_failures_total", "write"), 0.0);
    heads.close(PATIENCE).await;
    // What is there is the newer one.
    let heads = open(&mount, &Registry::new());
    let mut lengths = Vec::new();
    for number in 0..ROWS {
        lengths.extend(heads.get(&key(number)).await.iter().map(|head| head.stored.fields.len()));
    }
    println!("{} of {ROWS} are there", lengths.len());
    assert!(lengths.len() > 100 && lengths.iter().all(|length| *length == 12), "{lengths:?}");
}
