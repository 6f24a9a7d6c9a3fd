//! The same requests through the real tiers (foyer, files, the writer's queue) and through
//! those of `tiers.rs`: what is left out there makes no difference worth speaking of.

use crate::tiers::{self, Sizes, body};
use crate::trace::{self, Shape};
use chunks::{Chunks, Disk, Key, READ_MAX};
use prometheus::Registry;
use std::path::Path;
use std::time::{Duration, Instant};

/// Small chunks, so that it takes seconds; everything else scales with them.
const CHUNK_BYTES: usize = 64 << 10;
/// A page more: foyer pads.
const STORED_BYTES: usize = CHUNK_BYTES + 4096;
const DISK_BYTES: u64 = 512 << 20;
const MEMORY_BYTES: u64 = 51 << 20;
/// The disk's blocks: a 32nd each, of which 16 KiB are an index.
const BLOCKS: usize = 32;
const SHAPE: Shape = Shape { requests: 300_000, titles: 100, once: 0.2, ..Shape::WEEK };
/// By how much the hit ratios may differ, in points.
const POINTS_MAX: f64 = 1.5;

/// Both hit ratios, in words, and what the real tiers took of time and of the page cache (which
/// is the machine's: others may have part in it). `direct` is [`Disk::direct`].
///
/// # Panics
/// If they differ by more than [`POINTS_MAX`], if more is written than may be, or if the tiers can't be opened.
pub fn compare(direct: bool) -> String {
    let trace = trace::trace(&SHAPE);
    let kept = MEMORY_BYTES - MEMORY_BYTES / 8;
    let sizes = Sizes {
        chunk_bytes: CHUNK_BYTES as u32,
        stored_bytes: STORED_BYTES as u32,
        memory_chunks: kept as usize / (CHUNK_BYTES + 512),
        memory_shards: 1,
        disk_bytes: DISK_BYTES,
        block_chunks: (DISK_BYTES as usize / BLOCKS - (16 << 10)) / STORED_BYTES,
        blocks: BLOCKS,
    };
    // The real tiers have the time that they take, which is next to none.
    let simulated = tiers::run(&trace, sizes, Duration::ZERO);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    let dir = tempfile::tempdir().expect("a folder can be made");
    let keys: Vec<Key> = trace.chunks.iter().map(|(title, number)| key(*title, *number)).collect();
    let (cached, began) = (cached_mb(), Instant::now());
    let (memory_hits, disk_hits, written) =
        runtime.block_on(replay(dir.path(), &keys, &trace.requests, direct));
    let (took, cached) = (began.elapsed(), cached_mb() - cached);
    let percent = |hits: usize| 100.0 * hits as f64 / SHAPE.requests as f64;
    let (ours, real) = (percent(simulated.hits()), percent(memory_hits + disk_hits));
    assert!((ours - real).abs() <= POINTS_MAX, "simulated {ours:.2} %, real {real:.2} %");
    // As the simulated ones are held to in `main.rs`.
    let missed = ((SHAPE.requests - memory_hits - disk_hits) * CHUNK_BYTES) as f64;
    assert!(written <= crate::WRITTEN_MAX * missed, "{written} bytes written, {missed} missed");
    format!(
        "real tiers, {} requests of {} KiB, SSD {} MiB: {real:.2} % hits ({:.2} % of memory), {:.0} MB \
         written ({:.1} % of the missed ones); simulated {ours:.2} % ({:.2} %), {:.0} MB; {}: {took:.1?}, {cached:+.0} MB of \
         page cache",
        SHAPE.requests,
        CHUNK_BYTES >> 10,
        DISK_BYTES >> 20,
        percent(memory_hits),
        written / 1e6,
        100.0 * written / missed,
        percent(simulated.memory_hits),
        (simulated.written * STORED_BYTES) as f64 / 1e6,
        if direct { "direct" } else { "through the page cache" },
    )
}

/// The kernel's page cache; 0 where it can't be known.
fn cached_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Cached:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

fn key(title: u32, number: u32) -> Key {
    Key { body: body(title), number }
}

/// Hits of memory and of the disk, and bytes written.
async fn replay(dir: &Path, keys: &[Key], requests: &[u32], direct: bool) -> (usize, usize, f64) {
    let registry = Registry::new();
    let sizes = chunks::Sizes {
        memory_bytes: MEMORY_BYTES,
        disks: vec![Disk { dir: dir.join("ssd"), bytes: DISK_BYTES, direct }],
        data_dir: dir.to_owned(),
        read_max: 40 * READ_MAX,
    };
    let tiers = Chunks::open(&sizes, &registry).expect("the tiers can be opened");
    until(|| metric(&registry, "nearcast_edge_ssd_up") == 1.0).await;
    let (mut memory_hits, mut disk_hits) = (0, 0);
    let fetched = vec![7; CHUNK_BYTES];
    for chunk in requests {
        let key = &keys[*chunk as usize];
        tiers.requested(key, CHUNK_BYTES);
        if tiers.in_memory(key).is_some() {
            memory_hits += 1;
        } else if tiers.read_disk(key).await.is_some() {
            disk_hits += 1;
        } else {
            let mut slot = tiers.slot(CHUNK_BYTES).expect("memory can be evicted");
            slot.write(&fetched);
            tiers.insert(*key, slot.freeze());
        }
        // An edge's clients are no faster than its disks: here they would be.
        if metric(&registry, "nearcast_edge_ssd_queue_bytes") > (4 << 20) as f64 {
            until(|| metric(&registry, "nearcast_edge_ssd_queue_bytes") == 0.0).await;
        }
    }
    until(|| metric(&registry, "nearcast_edge_ssd_queue_bytes") == 0.0).await;
    let written = metric(&registry, "nearcast_edge_ssd_written_bytes_total");
    tiers.close(Duration::from_secs(10)).await;
    (memory_hits, disk_hits, written)
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The sum of a metric's values.
fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let values = family.into_iter().flat_map(|family| family.get_metric());
    values.map(|one| one.get_gauge().get_value() + one.get_counter().get_value()).sum()
}
