//! Tiers over folders of a test's own, and chunks whose bytes tell by themselves which they
//! are.
#![allow(dead_code, reason = "no test uses all of it")]

pub mod fuse;

use bytes::Bytes;
use fuse::FaultyDisk;
use nearcast_chunks::{Chunks, Disk, KeptFree, Key, READ_MAX, Sizes};
use prometheus::Registry;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a large chunk.
pub const MIB: usize = 1 << 20;
/// Bytes of memory, and of a disk, that are enough for most.
pub const MEMORY: u64 = 64 << 20;
pub const DISK: u64 = 64 << 20;
/// Within this, whatever a test waits for has happened, or never will.
const DEADLINE: Duration = Duration::from_secs(30);

/// Tiers, what they count, and where they are.
pub struct Tiers {
    pub chunks: Chunks,
    pub registry: Registry,
    pub sizes: Sizes,
    _dir: Option<TempDir>,
}

/// Sizes for tiers below `dir`.
pub fn sizes(dir: &Path, memory_bytes: u64, disks: usize, disk_bytes: u64) -> Sizes {
    let disk =
        |number| Disk { dir: dir.join(format!("ssd-{number}")), bytes: disk_bytes, direct: true };
    Sizes {
        memory_bytes,
        disks: (0..disks).map(disk).collect(),
        data_dir: dir.to_owned(),
        read_max: READ_MAX,
        kept_free: KeptFree::default(),
    }
}

impl Tiers {
    /// Empty tiers, once their disks are up.
    pub async fn open(memory_bytes: u64, disks: usize, disk_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut tiers = Self::start(sizes(dir.path(), memory_bytes, disks, disk_bytes)).await;
        tiers._dir = Some(dir);
        tiers
    }

    /// Tiers over what is there, once their disks are up.
    pub async fn start(sizes: Sizes) -> Self {
        let registry = Registry::new();
        let chunks = Chunks::open(&sizes, &registry).unwrap();
        let tiers = Self { chunks, registry, sizes, _dir: None };
        tiers.until("all disks are up", |tiers| tiers.disks_up() == tiers.sizes.disks.len()).await;
        tiers
    }

    /// Ends these tiers without a word, as a crash does, and starts others over their files.
    pub async fn crash(self) -> Self {
        self.crash_and(|| ()).await
    }

    /// As [`Tiers::crash`], with something done before the others start.
    pub async fn crash_and(mut self, between: impl FnOnce()) -> Self {
        let (dir, sizes) = (self._dir.take(), self.sizes.clone());
        drop(self);
        for disk in &sizes.disks {
            released(&disk.dir).await;
        }
        between();
        let mut tiers = Self::start(sizes).await;
        tiers._dir = dir;
        tiers
    }

    /// Ends these tiers cleanly, and starts others over their files.
    pub async fn restart(self) -> Self {
        self.restart_and(|_| ()).await
    }

    /// As [`Tiers::restart`], with something done before the others start, of other sizes perhaps.
    pub async fn restart_and(mut self, between: impl FnOnce(&mut Sizes)) -> Self {
        let (dir, mut sizes) = (self._dir.take(), self.sizes.clone());
        self.chunks.close(2 * DEADLINE).await;
        drop(self);
        for disk in &sizes.disks {
            released(&disk.dir).await;
        }
        between(&mut sizes);
        let mut tiers = Self::start(sizes).await;
        tiers._dir = dir;
        tiers
    }

    /// Folder of a disk.
    pub fn dir(&self, disk: usize) -> PathBuf {
        self.sizes.disks[disk].dir.clone()
    }

    /// Puts in a chunk as a fetch does that was asked for.
    pub fn insert(&self, key: Key, length: usize) {
        let mut slot = self.chunks.slot(length).expect("nothing is pinned");
        slot.write(&content(key, length));
        self.chunks.insert(key, slot.freeze());
    }

    /// Puts in a chunk and asks for it until it is on its way to a disk.
    pub async fn keep(&self, key: Key, length: usize) {
        // Chunks that are asked for once: they earn what writing this one costs.
        for other in 0..3 {
            let mut body = key.body;
            (body[14], body[15]) = (1, other);
            self.insert(Key { body, ..key }, length);
        }
        self.chunks.requested(&key, length);
        self.insert(key, length);
        let asked = |tiers: &Self| {
            tiers.chunks.requested(&key, length);
            tiers.chunks.in_memory(&key).is_some() && tiers.chunks.may_be_on_disk(&key)
        };
        self.until("a chunk is on its way", asked).await;
    }

    /// Fills the disks with chunks that are asked for once, until they take no more of those.
    pub async fn fill(&self) {
        let mut written = None;
        for number in 0.. {
            let key = key(1_000_000 + number, 0);
            self.chunks.requested(&key, MIB);
            self.insert(key, MIB);
            if number % 16 == 15 {
                self.written().await;
                let now = self.metric("ssd_written_bytes_total", "");
                if written.replace(now) == Some(now) {
                    return;
                }
            }
        }
    }

    /// Makes memory forget all that is in it.
    pub fn forget_memory(&self) {
        let slots: Vec<_> = std::iter::from_fn(|| self.chunks.slot(MIB)).collect();
        drop(slots);
    }

    /// A chunk as a request gets it, from memory or disk; checked.
    pub async fn get(&self, key: Key, length: usize) -> Option<Bytes> {
        self.chunks.requested(&key, length);
        let bytes = match self.chunks.in_memory(&key) {
            Some(bytes) => Some(bytes),
            None => self.chunks.read_disk(&key).await,
        };
        bytes.inspect(|bytes| assert!(*bytes == content(key, length), "wrong bytes of {key:?}"))
    }

    /// As [`Tiers::get`], for a machine that is too busy to read within the time that a
    /// request has: asks again while a disk has it.
    pub async fn find(&self, key: Key, length: usize) -> Option<Bytes> {
        let began = Instant::now();
        loop {
            let found = self.get(key, length).await;
            let again = found.is_none() && self.chunks.may_be_on_disk(&key);
            if !again || began.elapsed() > DEADLINE {
                return found;
            }
        }
    }

    /// The sum of a metric over its labels that match.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let name = format!("nearcast_edge_{name}");
        let metrics = families.iter().filter(|family| family.name() == name);
        let matches = |metric: &&prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|of| of.value() == label)
        };
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        metrics.flat_map(|family| family.get_metric()).filter(matches).map(value).sum::<f64>()
            as u64
    }

    pub fn disks_up(&self) -> usize {
        self.metric("ssd_up", "") as usize
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !is(self) {
            assert!(began.elapsed() < DEADLINE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }

    /// Waits until nothing more is being written.
    pub async fn written(&self) {
        self.until("all is written", |tiers| tiers.metric("ssd_queue_bytes", "") == 0).await;
    }
}

/// Tiers over one faulty disk and, if need be, a sound one.
pub async fn tiers_over(faulty: &FaultyDisk, data: &Path, sound: usize) -> Tiers {
    let sound = sizes(data, MEMORY, sound, DISK);
    let disks =
        [vec![Disk { dir: faulty.dir.clone(), bytes: DISK, direct: true }], sound.disks].concat();
    Tiers::start(Sizes { disks, ..sound }).await
}

/// Puts chunks on disk and makes memory forget them.
pub async fn stored(tiers: &Tiers, body: u32) -> Vec<Key> {
    let keys: Vec<Key> = (0..12).map(|number| key(body, number)).collect();
    for key in &keys {
        tiers.keep(*key, MIB).await;
    }
    tiers.written().await;
    tiers.forget_memory();
    keys
}

/// Offers chunks that can't be written until the disk is off; it comes back when `mend`ed.
pub async fn takes_no_more(tiers: &Tiers, keys: &[Key], mend: impl FnOnce()) {
    let mut body = 100;
    while tiers.disks_up() == 1 {
        for number in 0..8 {
            assert!(tiers.get(key(body, number), MIB).await.is_none());
            tiers.insert(key(body, number), MIB);
            assert!(tiers.get(key(body, number), MIB).await.is_some());
        }
        body += 1;
        assert!(body < 200, "never off");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tiers.metric("ssd_troubles_total", "failed") > 0);
    assert!(tiers.metric("ssd_drops_total", "") > 0);
    assert!(tiers.metric("ssd_drops_total", "failed") > 0);

    mend();
    comes_back(tiers, keys).await;
}

/// Waits until the one disk is in use again: with all that it had, unharmed, and more.
pub async fn comes_back(tiers: &Tiers, keys: &[Key]) {
    tiers.until("the disk is back", |tiers| tiers.disks_up() == 1).await;
    tiers.forget_memory();
    for key in keys {
        assert!(tiers.find(*key, MIB).await.is_some());
    }
    tiers.keep(key(99, 0), MIB).await;
    tiers.written().await;
    assert_eq!(tiers.metric("ssd_mismatches_total", ""), 0);
}

/// Waits until the store that was in a folder has let go of it.
async fn released(dir: &Path) {
    let began = Instant::now();
    while File::open(dir.join("lock")).is_ok_and(|lock| lock.try_lock().is_err()) {
        assert!(began.elapsed() < DEADLINE, "{} is still in use", dir.display());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The key of chunk `number` of body `body`.
pub fn key(body: u32, number: u32) -> Key {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&body.to_le_bytes());
    Key { body: bytes, number }
}

/// What the chunk under a key holds: no two chunks, and no two places in one, look the same.
pub fn content(key: Key, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut state = xxh3_64(&[&key.body[..], &key.number.to_le_bytes()].concat());
    while bytes.len() < length {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
