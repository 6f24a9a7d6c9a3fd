//! The reactive SSD tier: every disk, and which chunk belongs on which.
//!
//! Rendezvous hashing, weighted by size, over the disks that are up: a disk that is lost
//! loses its share alone, and finds it again when it is back.

use crate::disk::{self, Disk, Folders, Owner};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::value::Key;
use bytes::Bytes;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One part in so many of memory may be held by chunks that wait to be written. Most of them
/// are in the memory tier anyhow.
const QUEUE_SHARE: u64 = 4;
/// Bytes that wait for one disk at most: what an SSD writes in about a second.
const QUEUE_BYTES_MAX: u64 = 512 << 20;

/// All disks.
pub(crate) struct Disks {
    disks: Vec<Arc<Disk>>,
    watches: Vec<JoinHandle<()>>,
    /// Where the disks are watched; taken by drop alone.
    runtime: Option<Runtime>,
}

impl Disks {
    /// Returns at once; the disks are opened in the background.
    pub(crate) fn open(
        sizes: &crate::Sizes,
        owner: &Owner,
        memory: &Memory,
        metrics: &Metrics,
        policy: &Arc<Policy>,
    ) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("edge-disks")
            .enable_all()
            .build()?;
        let share = memory.bytes_max() / QUEUE_SHARE / sizes.disks.len().max(1) as u64;
        let queue_bytes_max = usize::try_from(share.min(QUEUE_BYTES_MAX)).unwrap_or(usize::MAX);
        let folders = Folders::new(&sizes.disks);
        let disk = |disk: &crate::Disk| {
            let (memory, metrics, policy) = (memory.clone(), metrics.clone(), Arc::clone(policy));
            let whose = (owner.clone(), folders.clone());
            Arc::new(Disk::new(disk, sizes, whose, queue_bytes_max, memory, metrics, policy))
        };
        let disks: Vec<_> = sizes.disks.iter().map(disk).collect();
        let watch = |disk: &Arc<Disk>| runtime.spawn(disk::run(Arc::clone(disk)));
        let watches = disks.iter().map(watch).collect();
        Ok(Self { disks, watches, runtime: Some(runtime) })
    }

    /// Runs a task in the background, until the disks are dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.as_ref().expect("taken by drop alone").spawn(task)
    }

    /// A handle for tasks in the background, which must not keep the runtime alive.
    pub(crate) fn all(&self) -> Vec<Arc<Disk>> {
        self.disks.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// Whether any may hold the chunk, or is about to.
    pub(crate) fn may_hold(&self, key: &Key) -> bool {
        self.disks.iter().any(|disk| disk.may_hold(key))
    }

    /// The chunk from whichever disk has it: not always the one where it belongs, if that was
    /// off for a while.
    pub(crate) async fn read(&self, key: &Key, into_memory: bool) -> Option<Bytes> {
        read(&self.disks, key, into_memory).await
    }

    /// Takes a chunk to the disk where it belongs, of those that are up.
    pub(crate) fn offer(&self, key: Key, bytes: Bytes) {
        if let Some(disk) = self.home(&key) {
            disk.offer(key, bytes);
        }
    }

    /// The disk that a chunk belongs on; without any up, the one that would count its loss.
    pub(crate) fn home(&self, key: &Key) -> Option<&Arc<Disk>> {
        let rank = |disk: &&Arc<Disk>| (disk.is_up(), score(key, disk));
        self.disks.iter().max_by(|a, b| rank(a).partial_cmp(&rank(b)).expect("no score is NaN"))
    }

    /// Ends the use of every disk.
    pub(crate) async fn close(&self) {
        for watch in &self.watches {
            watch.abort();
        }
        for disk in &self.disks {
            disk.close().await;
        }
    }
}

/// See [`Disks::read`].
pub(crate) async fn read(disks: &[Arc<Disk>], key: &Key, into_memory: bool) -> Option<Bytes> {
    for disk in disks.iter().filter(|disk| disk.may_hold(key)) {
        if let Some(bytes) = disk.read(key, into_memory).await {
            return Some(bytes);
        }
    }
    None
}

/// Rises with the disk's size; for each key, disks of one size win equally often.
fn score(key: &Key, disk: &Disk) -> f64 {
    let hash = xxh3_64_with_seed(disk.name().as_bytes(), key.hash());
    // In (0, 1): half a step off both ends.
    let drawn = ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    disk.bytes() as f64 / -drawn.ln()
}

impl Drop for Disks {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
