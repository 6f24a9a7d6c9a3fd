//! The same claims of the real tiers: foyer, files, the writer's queue. They get fewer requests
//! of smaller chunks, so that it takes minutes; everything else scales with them. Beside them
//! stand the simulated ones of `tiers.rs`, of the same sizes: what is left out there makes no
//! difference worth speaking of.

use crate::tiers::{self, Outcome, Sizes, body};
use crate::trace::{self, Shape, Trace};
use crate::{Line, PERCENTS, READINGS, describe, ssd_chunks};
use chunks::{Chunks, Disk, Key, READ_MAX};
use prometheus::Registry;
use std::path::Path;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { requests: 300_000, titles: 100, ..Shape::WEEK };
/// What the tiers store beside a chunk, at most: with it, one fills whole pages.
const ENTRY_BYTES: u64 = 128;
/// The smallest SSD, that of 1 %: its blocks hold more than a batch of the writer's.
const SSD_BYTES_MIN: u64 = 384 << 20;
/// The smallest chunk, with its entry.
const STORED_BYTES_MIN: u64 = 128 << 10;
/// By how much the hit ratios may differ, in points.
const POINTS_MAX: f64 = 1.5;

/// Bytes of everything, for an SSD of so many chunks.
#[derive(Clone, Copy)]
struct Bytes {
    stored: u64,
    disk: u64,
    memory: u64,
}

impl Bytes {
    fn of(ssd_chunks: usize) -> Self {
        let mut stored = STORED_BYTES_MIN;
        while ssd_chunks as u64 * stored < SSD_BYTES_MIN {
            stored *= 2;
        }
        let disk = ssd_chunks as u64 * stored;
        Self { stored, disk, memory: disk / 10 }
    }

    fn chunk(self) -> usize {
        (self.stored - ENTRY_BYTES) as usize
    }

    /// What the simulation is to have.
    fn sizes(self) -> Sizes {
        let (block_chunks, blocks) = Sizes::blocks(self.disk, self.stored);
        let kept = self.memory - self.memory / 8;
        Sizes {
            chunk_bytes: self.chunk() as u32,
            stored_bytes: self.stored as u32,
            memory_chunks: (kept / (self.stored + 512)) as usize,
            memory_shards: (kept / (256 << 20)).clamp(1, 16) as usize,
            disk_bytes: self.disk,
            block_chunks,
            blocks,
        }
    }
}

/// Sends both readings through real tiers of each size and says whether they are as promised, and as
/// simulated. `direct` is [`Disk::direct`].
///
/// # Panics
/// If the tiers can't be opened.
pub fn hold(seed: u64, direct: bool) -> bool {
    println!("\nReal tiers, {}:", if direct { "direct" } else { "through the page cache" });
    let mut holds = true;
    for (reading, once) in READINGS {
        let trace = trace::trace(&Shape { once, seed, ..SHAPE });
        describe(reading, &trace);
        for percent in PERCENTS {
            holds &= one_holds(&trace, percent, direct);
        }
    }
    holds
}

fn one_holds(trace: &Trace, percent: usize, direct: bool) -> bool {
    let bytes = Bytes::of(ssd_chunks(trace, percent));
    // The real tiers have the time that they take, which is next to none.
    let simulated = tiers::run(trace, bytes.sizes(), Duration::ZERO);
    let simulated = Line::beside(trace, percent, &simulated);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (cached, began) = (cached_mb(), Instant::now());
    let real = runtime.block_on(replay(dir.path(), trace, bytes, direct));
    let (took, cached) = (began.elapsed(), cached_mb() - cached);
    let real = Line::beside(trace, percent, &real);
    let points = 100.0 * (real.ours - simulated.ours);
    let differs = points.abs() > POINTS_MAX;
    println!(
        "{real} {} KiB: {took:.0?}, {cached:+.0} MB of page cache; {points:+.1} points beside {:.1} % simulated{}",
        bytes.stored >> 10,
        100.0 * simulated.ours,
        if differs { " <- too far" } else { "" },
    );
    real.holds() && !differs
}

/// The kernel's page cache, which is the machine's: others may have part in it. 0 where it can't
/// be known.
fn cached_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Cached:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

/// What came of it; written are whole chunks' worth of bytes, padding and indexes included.
async fn replay(dir: &Path, trace: &Trace, bytes: Bytes, direct: bool) -> Outcome {
    let registry = Registry::new();
    let sizes = chunks::Sizes {
        memory_bytes: bytes.memory,
        disks: vec![Disk { dir: dir.join("ssd"), bytes: bytes.disk, direct }],
        data_dir: dir.to_owned(),
        read_max: 40 * READ_MAX,
        kept_free: chunks::KeptFree::default(),
    };
    let tiers = Chunks::open(&sizes, &registry).expect("the tiers can be opened");
    until(|| metric(&registry, "nearcast_edge_ssd_up") == 1.0).await;
    let key = |(title, number): &(u32, u32)| Key { body: body(*title), number: *number };
    let keys: Vec<Key> = trace.chunks.iter().map(key).collect();
    let queued = || metric(&registry, "nearcast_edge_ssd_queue_bytes");
    let fetched = vec![7; bytes.chunk()];
    let requests_per_look = (1 << 20) / bytes.stored as usize;
    let mut outcome = Outcome::default();
    for (at, chunk) in trace.requests.iter().enumerate() {
        let key = &keys[*chunk as usize];
        tiers.requested(key, fetched.len());
        if tiers.in_memory(key).is_some() {
            outcome.memory_hits += 1;
        } else if tiers.read_disk(key).await.is_some() {
            outcome.disk_hits += 1;
        } else {
            outcome.missed += 1;
            let mut slot = tiers.slot(fetched.len()).expect("memory can be evicted");
            slot.write(&fetched);
            tiers.insert(*key, slot.freeze());
        }
        // An edge's clients are no faster than its disks: here they would be. So much is spare in
        // memory for what waits.
        if at % requests_per_look == 0 {
            until(|| queued() < bytes.memory as f64 / 8.0).await;
        }
    }
    until(|| queued() == 0.0).await;
    let written = |name| (metric(&registry, name) / bytes.chunk() as f64) as usize;
    outcome.written = written("nearcast_edge_ssd_written_bytes_total");
    outcome.written_anew = written("nearcast_edge_ssd_kept_bytes_total");
    tiers.close(Duration::from_secs(10)).await;
    outcome
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
