//! One foyer store: what is on one disk, while that disk can be used. The only file that
//! knows foyer's disk side.
//!
//! foyer swallows two things that matter: a write that failed (it is logged, no more) and a
//! file that is closed while a thread of its is still writing to it. So [`Store::write`]
//! looks afterwards for what it wrote, and a store that goes keeps its files open until its
//! last thread is done.

mod threads;

use super::contents::{self, Of};
use super::fifo::{Blocks, Fifo, List, Written};
use super::layout::{self, block_bytes};
use super::{KeptFree, Owner, folder};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::value::{Chunk, Copy, Key, READING};
use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Code, Device, DeviceBuilder, ErrorKind, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, Load, PsyncIoEngineConfig, RecoverMode, Spawner,
};
use prometheus::IntCounter;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use threads::{Opening, Threads};
use tokio::task::JoinSet;

/// A batch of chunks, as written: long enough to be sequential, short enough to take but a
/// tenth of a second on a disk of 80 MB/s.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;
/// foyer's buffer, and again as much while one is being written: a batch always fits, with as
/// much again of what is written anew.
pub(super) const BUFFER_BYTES: usize = 2 * BATCH_BYTES_MAX;
/// Indexes a block's worth of chunks, short ones included.
pub(super) const BLOB_INDEX_BYTES: usize = 16 << 10;
/// Never reached: a store is given one batch at a time.
const QUEUE_BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;
/// Blocks emptied at a time, and kept empty for the writer.
pub(super) const RECLAIMERS: usize = 2;
/// Blocks whose indexes are read at a time at start: a queue that an SSD makes use of.
const RECOVERIES: usize = 8;
/// foyer's head of an entry, and what our own key and frame add, at most.
const ENTRY_BYTES: usize = 128;
/// What entries are aligned to.
const PAGE_BYTES: usize = 4 << 10;

/// What a disk said of a chunk.
pub(super) enum Read {
    /// Here it is, checked, and in memory.
    Chunk(Bytes),
    /// It is not there.
    Absent,
    /// It was there, but is not what was written.
    Damaged,
    /// Memory has no room for it.
    NoRoom,
    /// The disk failed.
    Failed(String),
}

/// Bytes on disk of a chunk of so many bytes.
pub(super) fn stored_bytes(bytes: usize) -> usize {
    (bytes + ENTRY_BYTES).next_multiple_of(PAGE_BYTES)
}

/// An open store.
pub(super) struct Store {
    hybrid: Option<HybridCache<Key, Chunk>>,
    device: Option<Arc<dyn Device>>,
    /// Not given to foyer, whose tasks would keep each other and it alive.
    threads: Threads,
    memory: Memory,
    blocks: Arc<Blocks>,
    block_bytes: u64,
    dir: PathBuf,
    /// Keeps others out of the folder.
    lock: Option<File>,
}

impl Store {
    /// Opens what is in the disk's folder, which exists: takes as long as reading its indexes
    /// does. It shares its filesystem with the folders `beside` it, and leaves some of that free. Who
    /// gives it up loses nothing.
    pub(super) async fn open(
        disk: crate::Disk,
        (beside, kept): (Vec<crate::Disk>, KeptFree),
        owner: Owner,
        memory: Memory,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let threads = Opening::new(Threads::new()?);
        let handle = threads.handle().clone();
        let blocks = Arc::new(Blocks::default());
        let counted = metrics.ssd_evicted_blocks.clone();
        let dir = disk.dir.clone();
        let spawner = Spawner::from(handle.clone());
        // It touches the disk, and foyer panics on some errors: both away from the caller.
        let mut opening = JoinSet::new();
        opening.spawn_on(
            open(disk, (beside, kept), owner, Arc::clone(&blocks), counted, spawner),
            &handle,
        );
        match opening.join_next().await.expect("it was spawned") {
            Ok(Ok((hybrid, count, block_bytes, lock))) => {
                let device = Some(Arc::clone(hybrid.storage().device()));
                blocks.opened(count, layout::ahead(block_bytes));
                let (hybrid, lock, threads) = (Some(hybrid), Some(lock), threads.take());
                Ok(Self { hybrid, device, threads, memory, blocks, block_bytes, dir, lock })
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        }
    }

    fn hybrid(&self) -> &HybridCache<Key, Chunk> {
        self.hybrid.as_ref().expect("taken by drop alone")
    }

    /// Bytes of its blocks.
    pub(super) fn bytes(&self) -> u64 {
        self.device.as_ref().map_or(0, |device| device.capacity() as u64)
    }

    /// Bytes that its files may still grow by, at most.
    pub(super) fn bytes_to_come(&self) -> u64 {
        (self.blocks.unwritten() as u64).saturating_mul(self.block_bytes).min(self.bytes())
    }

    /// Runs a task where it may block on this disk.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.threads.handle().spawn(task)
    }

    /// Whether it may hold the chunk: its index keeps hashes.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        self.hybrid().storage().may_contains(key)
    }

    /// Reads a chunk, checks it, and puts it into memory if so wished.
    pub(super) async fn read(&self, key: &Key, into_memory: bool) -> Read {
        let read = self.load(key).await;
        if let (Read::Chunk(bytes), true) = (&read, into_memory) {
            self.memory.insert(Chunk::new(*key, bytes.clone(), Copy::Kept));
        }
        read
    }

    /// Reads a chunk and checks it.
    async fn load(&self, key: &Key) -> Read {
        if !self.may_hold(key) {
            return Read::Absent;
        }
        let evicted = self.blocks.evicted.load(Ordering::Relaxed);
        let load = self.hybrid().storage().load(key);
        match READING.scope(self.memory.clone(), load).await {
            Ok(Load::Entry { value, .. }) if value.key() == key => {
                Read::Chunk(value.bytes().clone())
            }
            Ok(Load::Entry { .. }) => Read::Damaged,
            Ok(Load::Piece { piece, .. }) => Read::Chunk(piece.value().bytes().clone()),
            // foyer forgets an entry that it finds damaged. It also forgets those of a block
            // that it empties.
            Ok(Load::Miss)
                if !self.may_hold(key)
                    && evicted == self.blocks.evicted.load(Ordering::Relaxed) =>
            {
                Read::Damaged
            }
            Ok(Load::Miss | Load::Throttled) => Read::Absent,
            Err(error) if error.kind() == ErrorKind::External => Read::NoRoom,
            Err(error) => Read::Failed(error.to_string()),
        }
    }

    /// Whether it has blocks that hold nothing.
    pub(super) fn has_room(&self) -> bool {
        self.blocks.has_room()
    }

    /// The chunks of the blocks that are evicted next, each once.
    pub(super) async fn due(&self) -> Vec<Written> {
        let (lists, dir, block_bytes) = (self.blocks.due(), self.dir.clone(), self.block_bytes);
        if lists.is_empty() {
            return Vec::new();
        }
        let load = move |(block, list)| match list {
            List::Here(written) => written,
            List::OnDisk => contents::load(&dir, Of::Block(block), block_bytes),
        };
        let loading = move || lists.into_iter().flat_map(load).collect();
        self.threads.handle().spawn_blocking(loading).await.unwrap_or_default()
    }

    /// Takes from the front of `due`, and reads what of that is to be `kept`, up to a batch.
    pub(super) async fn keep(
        &self,
        due: &mut VecDeque<Written>,
        kept: impl Fn(&Key, u32) -> bool,
    ) -> Result<Vec<(Key, Bytes)>, String> {
        let (mut batch, mut left) = (Vec::new(), BATCH_BYTES_MAX);
        while let Some((key, bytes)) = due.front().copied() {
            if bytes as usize > left {
                break;
            }
            due.pop_front();
            if !self.may_hold(&key) || !kept(&key, bytes) {
                continue;
            }
            match self.load(&key).await {
                Read::Chunk(chunk) => {
                    left -= bytes as usize;
                    batch.push((key, chunk));
                }
                Read::Failed(error) => return Err(error),
                Read::Absent | Read::Damaged | Read::NoRoom => {}
            }
        }
        Ok(batch)
    }

    /// Writes a batch, of twice [`BATCH_BYTES_MAX`] at most, and says which of it did not get
    /// there.
    pub(super) async fn write(&self, batch: &[(Key, Bytes)]) -> Vec<Key> {
        let size = |bytes: &Bytes| super::stored_bytes(bytes.len());
        self.blocks.writing(batch.iter().map(|(key, bytes)| (*key, size(bytes))));
        for (key, bytes) in batch {
            // Not into the memory that foyer wants to have beside a store: see `build`.
            self.hybrid().insert(*key, Chunk::new(*key, bytes.clone(), Copy::Kept));
        }
        self.hybrid().storage().wait().await;
        self.save_lists().await;
        let keys = batch.iter().map(|(key, _)| *key);
        keys.filter(|key| !self.may_hold(key)).collect()
    }

    /// Ends it: what was handed to it is written, or given up by `drop`.
    pub(super) async fn close(&self) -> Result<(), String> {
        // foyer would take a block for nothing, and empty another one for that.
        if self.written_bytes() == 0 {
            return Ok(());
        }
        let filling = self.blocks.filling();
        if !filling.is_empty() {
            self.list("the list of what a block holds is not saved", move |dir| {
                contents::save(dir, Of::Filling, &filling)
            })
            .await;
        }
        self.hybrid().close().await.map_err(|error| error.to_string())
    }

    /// Has the lists on the disk be of what their blocks hold now. What can't be saved is kept in
    /// memory, and gone after a restart.
    async fn save_lists(&self) {
        for (block, written) in self.blocks.changed() {
            let saved = match written {
                None => {
                    let remove = move |dir: &Path| contents::remove(dir, block);
                    self.list("the list of what a block held is not removed", remove).await
                }
                Some(written) => {
                    let save = move |dir: &Path| contents::save(dir, Of::Block(block), &written);
                    self.list("the list of what a block holds is not saved", save).await
                }
            };
            if saved {
                self.blocks.saved(block);
            }
        }
    }

    /// Does something to a list; if that fails, it is logged so.
    async fn list(
        &self,
        failed: &'static str,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> bool {
        let dir = self.dir.clone();
        let done = self.threads.handle().spawn_blocking(move || work(&dir)).await;
        let Err(error) = done.map_err(io::Error::other).flatten() else { return true };
        tracing::debug!(dir = %self.dir.display(), %error, "{failed}");
        false
    }

    /// Bytes written so far, padding and indexes included.
    pub(super) fn written_bytes(&self) -> u64 {
        self.hybrid().storage().statistics().disk_write_bytes() as u64
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let (runtime, device) = (self.threads.take(), self.device.take());
        let (hybrid, lock) = (self.hybrid.take(), self.lock.take());
        // Reads and writes under way use bare descriptors: the files stay open until the
        // runtime, which waits for its threads, is gone. A hung disk keeps this thread and the
        // lock: it is not opened anew before it answers. foyer's end begins with a task that
        // makes its writer panic after a write that failed: it comes when no task runs any more.
        let ending = std::thread::Builder::new().name("edge-ssd-end".into()).spawn(move || {
            drop(runtime);
            drop(hybrid);
            drop(device);
            drop(lock);
        });
        if let Err(error) = ending {
            tracing::error!(%error, "a disk's threads can't be waited for");
        }
    }
}

async fn open(
    disk: crate::Disk,
    (beside, kept): (Vec<crate::Disk>, KeptFree),
    owner: Owner,
    blocks: Arc<Blocks>,
    counted: IntCounter,
    spawner: Spawner,
) -> Result<(HybridCache<Key, Chunk>, usize, u64, File), String> {
    let crate::Disk { dir, bytes: set_bytes, direct } = disk;
    let lock = folder::lock(&dir)?;
    owner.sign(&dir).map_err(|error| error.to_string())?;
    let direct = direct && folder::takes_direct(&dir);
    // Not more than there is: a small disk would else have a few large blocks, or none.
    let bytes = set_bytes.min(folder::bytes_total(&dir).map_err(|error| error.to_string())?);
    let block_bytes = block_bytes(bytes);
    let bytes = folder::usable(&dir, bytes, &beside, &kept)?;
    if bytes < set_bytes {
        let free_bytes = folder::bytes_free(&dir).map_err(|error| error.to_string())?;
        let dir = dir.display();
        tracing::warn!(%dir, set_bytes, free_bytes, used_bytes = bytes, "less room than is set");
    }
    let count = bytes / block_bytes;
    folder::remove_surplus(&dir, count, block_bytes);
    let before = folder::written_last(&dir, count);
    blocks.were_filled(contents::listed(&dir, &before, block_bytes));
    let fifo = Fifo::new(before, blocks, counted);
    let device = device(dir, bytes, direct)?;
    let hybrid = build(device, block_bytes, fifo, spawner).await?;
    Ok((hybrid, size(count)?, block_bytes, lock))
}

fn size(bytes: u64) -> Result<usize, String> {
    usize::try_from(bytes).map_err(|error| error.to_string())
}

fn device(dir: PathBuf, bytes: u64, direct: bool) -> Result<Arc<dyn Device>, String> {
    let device = FsDeviceBuilder::new(dir).with_capacity(size(bytes)?).with_direct(direct).build();
    device.map_err(|error| error.to_string())
}

async fn build(
    device: Arc<dyn Device>,
    block_bytes: u64,
    fifo: Fifo,
    spawner: Spawner,
) -> Result<HybridCache<Key, Chunk>, String> {
    let engine = BlockEngineConfig::new(device)
        .with_block_size(size(block_bytes)?)
        .with_blob_index_size(BLOB_INDEX_BYTES)
        // One: the order of writing is then the order of foyer's sequence numbers, and a
        // recovery stops at a number that falls.
        .with_flushers(1)
        .with_reclaimers(RECLAIMERS)
        .with_clean_block_threshold(RECLAIMERS)
        .with_recover_concurrency(RECOVERIES)
        .with_buffer_pool_size(BUFFER_BYTES)
        .with_submit_queue_size_threshold(QUEUE_BYTES_MAX)
        .with_eviction_pickers(vec![Box::new(fifo)]);
    HybridCacheBuilder::new()
        .with_name("edge-ssd")
        // Each write is an insertion that memory refuses: foyer's memory tier stays empty.
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        .memory(1)
        .with_shards(1)
        .with_filter(|_, _| false)
        .with_weighter(|_: &Key, chunk: &Chunk| chunk.estimated_size())
        .storage()
        // psync, never io_uring: see docs/architecture.md.
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .with_spawner(spawner)
        .build()
        .await
        .map_err(|error| error.to_string())
}
