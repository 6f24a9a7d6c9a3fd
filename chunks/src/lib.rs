//! The memory tier and the reactive SSD tiers of an edge: chunks by key, checked whenever a
//! disk gave them.
//!
//! The promise: what comes out under a key is what went in under it, or nothing. At worst a
//! hit becomes a miss. foyer is named in this crate only.

#[allow(dead_code)] // The disks use the rest.
mod memory;
mod metrics;
#[allow(dead_code)] // The disks use the rest.
mod value;

pub use memory::MEMORY_BYTES_MIN;
pub use value::Key;

use bytes::Bytes;
use memory::Memory;
use metrics::Metrics;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use value::{Chunk, Copy};

/// Why the tiers can't be opened. A disk's trouble is none: an edge without it still serves.
#[derive(Debug, Error)]
pub enum Error {
    /// The memory can't be had.
    #[error("the memory tier")]
    Memory(#[from] arena::Error),
    /// A metric's name is taken.
    #[error("the metrics of the tiers")]
    Metrics(#[from] prometheus::Error),
}

/// A disk, or the part of one, for the reactive SSD tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its folder, made if need be; nothing else lives there.
    pub dir: PathBuf,
    /// Bytes that may be used there.
    pub bytes: u64,
}

/// Where the tiers are and how large they may grow.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Bytes of chunks in memory, those being fetched included; [`MEMORY_BYTES_MIN`] or more.
    pub memory_bytes: u64,
    /// The disks of the reactive SSD tier; none is fine.
    pub disks: Vec<Disk>,
    /// Where the list of the hottest chunks is kept over a restart.
    pub data_dir: PathBuf,
}

/// All tiers. Clones share them.
#[derive(Clone)]
pub struct Chunks {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Memory,
}

impl Chunks {
    /// Opens the tiers, at once: the disks join in the background.
    ///
    /// # Errors
    /// [`Error`] when the memory can't be had.
    pub fn open(sizes: &Sizes, registry: &prometheus::Registry) -> Result<Self, Error> {
        let metrics = Metrics::new(registry)?;
        let memory = Memory::new(sizes.memory_bytes, metrics)?;
        Ok(Self { inner: Arc::new(Inner { memory }) })
    }

    /// Room to write a chunk of up to `bytes` bytes (1 MiB at most). Evicts from memory for
    /// it; `None` only when that does not suffice.
    #[must_use]
    pub fn slot(&self, bytes: usize) -> Option<arena::Slot> {
        self.inner.memory.slot(bytes)
    }

    /// Whether so much of memory is held by fetches and responses that responses had better
    /// copy small pieces than hold on to whole chunks.
    #[must_use]
    pub fn under_pressure(&self) -> bool {
        self.inner.memory.under_pressure()
    }

    /// The chunk, if it is in memory.
    #[must_use]
    pub fn in_memory(&self, key: &Key) -> Option<Bytes> {
        self.inner.memory.get(key, |chunk| {
            chunk.count_use();
            chunk.bytes().clone()
        })
    }

    /// Whether the chunk is in memory, without counting as a use.
    #[must_use]
    pub fn is_in_memory(&self, key: &Key) -> bool {
        self.inner.memory.contains(key)
    }

    /// Whether a disk may hold the chunk (their indexes keep hashes: a stranger's may match).
    #[must_use]
    pub fn may_be_on_disk(&self, _: &Key) -> bool {
        false
    }

    /// The chunk from a disk, checked; it is in memory from then on.
    pub async fn read_disk(&self, _: &Key) -> Option<Bytes> {
        None
    }

    /// Takes a verified chunk that was fetched (a whole frozen slot): into memory, and to a
    /// disk when it is asked for again.
    pub fn insert(&self, key: Key, bytes: Bytes) {
        self.inner.memory.insert(Chunk::new(key, bytes, Copy::None));
    }

    /// Takes a verified chunk that was derived, or lies on a disk by other means: into memory
    /// alone.
    pub fn insert_in_memory(&self, key: Key, bytes: Bytes) {
        self.inner.memory.insert(Chunk::new(key, bytes, Copy::Never));
    }

    /// Ends the tiers, within `limit`.
    pub async fn close(&self, _: Duration) {}
}
