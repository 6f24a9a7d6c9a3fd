//! Tiers that end while a disk is looked through: nothing is lost by that, so nothing is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use nearcast_chunks::Chunks;
use prometheus::Registry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{MEMORY, sizes};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Warnings of foyer's.
static WARNED: AtomicUsize = AtomicUsize::new(0);

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("foyer")
    }

    fn event(&self, _: &Event<'_>) {
        WARNED.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Threads of disks.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.starts_with("edge-ssd")).count()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "never came: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_end_before_a_disk_is_looked_through_is_no_trouble_of_its_blocks() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sizes = sizes(dir.path(), MEMORY, 1, 1 << 30);
    for _ in 0..20 {
        let chunks = Chunks::open(&sizes, &Registry::new()).unwrap();
        // Beside the one that a store's tasks run on, one that reads its blocks: there are more of
        // these where one is not quick enough for all.
        until("blocks are read", || threads() > 1).await;
        drop(chunks);
        until("the end of the disk's threads", || threads() == 0).await;
        assert_eq!(WARNED.load(Ordering::Relaxed), 0);
    }
}
