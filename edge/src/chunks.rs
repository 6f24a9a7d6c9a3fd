//! The memory tier and the reactive SSD tier: chunks of track files, by foyer. The only file
//! that names foyer.
//!
//! What goes in was verified against its title's index; what comes back from the SSD was
//! checked by foyer's checksum and key. foyer is used by `get` and one explicit insert a
//! chunk: its own coalescing has no cut-through and rewrites hits (see `fill`).
//!
//! Admission: every chunk fetched from an origin is written to the SSD once, when it
//! arrives, so a kill at any time loses none but the queue. Chunks that were read from the
//! fill plan's files stay in memory only.

mod ssd;

use crate::metrics::SsdDrops;
use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, HybridCacheProperties, Location, PsyncIoEngineConfig, RecoverMode,
    S3FifoConfig, Spawner,
};
use model::chunk::CHUNK_BYTES;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Smallest SSD tier: enough blocks for every flusher and reclaimer.
pub const SSD_BYTES_MIN: u64 = 256 << 20;
/// Bytes of a block, the unit in which the SSD tier evicts.
const BLOCK_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES_MIN: u64 = 8 << 20;
/// A tier has at least this many blocks.
const BLOCKS_MIN: u64 = 32;
/// Batches in flight to the SSD.
const FLUSHERS: usize = 2;
const RECLAIMERS: usize = 2;
/// Buffers of all flushers; a batch that does not fit is dropped, and counted.
const FLUSH_BUFFER_BYTES: usize = 128 << 20;
/// Chunks that wait to be written; more are dropped, and counted.
const FLUSH_QUEUE_BYTES_MAX: usize = 512 << 20;
/// Indexes a block's worth of chunks, short ones included.
const BLOB_INDEX_BYTES: usize = 16 << 10;
/// Locks of the memory tier at most: several a core.
const MEMORY_SHARDS_MAX: usize = 16;
/// A shard holds at least this much, so that a handful of chunks does not evict each other.
const MEMORY_SHARD_BYTES_MIN: usize = 32 << 20;
/// Smallest memory tier.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// What foyer keeps beside each chunk, in bytes (its entry, key and hash table slot).
const ENTRY_BYTES: usize = 256;

/// Identity of a chunk. The version stands for every byte of a title, so nothing under one
/// key ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The title's version.
    pub version: [u8; 16],
    /// The track's place in the title's index.
    pub track: u32,
    /// The chunk's number in the track file.
    pub chunk: u32,
}

/// A chunk's bytes, as foyer stores them: their length (`u32`, little-endian), then they.
#[derive(Debug, Clone)]
struct Chunk(Bytes);

/// Where the tiers are and how large they may grow.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Bytes of chunks in memory.
    pub memory_bytes: u64,
    /// Bytes on SSD; 0 for no SSD tier.
    pub ssd_bytes: u64,
    /// Folder of the SSD tier.
    pub ssd_dir: PathBuf,
}

/// Both tiers.
#[derive(Clone)]
pub struct Chunks {
    cache: HybridCache<Key, Chunk>,
}

impl Chunks {
    /// Opens the tiers. An SSD that can't be used leaves the memory tier alone: an edge
    /// without its disk still serves.
    ///
    /// # Errors
    /// What foyer says of the memory tier.
    pub async fn open(sizes: &Sizes, drops: SsdDrops) -> Result<Self, String> {
        if sizes.ssd_bytes > 0 {
            match Self::with_ssd(sizes, &drops).await {
                Ok(chunks) => return Ok(chunks),
                Err(error) => {
                    drops.tier_lost();
                    let dir = sizes.ssd_dir.display();
                    tracing::error!(%dir, error, "the SSD tier can't be opened: serving without");
                }
            }
        }
        Self::build(sizes, drops, false).await
    }

    /// foyer panics on some disks' errors: a task of its own keeps that from the edge.
    async fn with_ssd(sizes: &Sizes, drops: &SsdDrops) -> Result<Self, String> {
        std::fs::create_dir_all(&sizes.ssd_dir)
            .and_then(|()| tempfile::tempfile_in(&sizes.ssd_dir).map(drop))
            .map_err(|error| error.to_string())?;
        let (sizes, drops) = (sizes.clone(), drops.clone());
        let building = tokio::spawn(async move { Self::build(&sizes, drops, true).await });
        building.await.map_err(|error| error.to_string())?
    }

    async fn build(sizes: &Sizes, drops: SsdDrops, with_ssd: bool) -> Result<Self, String> {
        let memory = usize::try_from(sizes.memory_bytes).map_err(|error| error.to_string())?;
        let builder = HybridCacheBuilder::new()
            .with_name("edge")
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            // Everything was written when it came in.
            .with_flush_on_close(false)
            .with_metrics_registry(Box::new(ssd::Registry(drops)))
            .memory(memory)
            .with_shards((memory / MEMORY_SHARD_BYTES_MIN).clamp(1, MEMORY_SHARDS_MAX))
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &Key, chunk: &Chunk| chunk.0.len() + ENTRY_BYTES)
            .storage();
        let builder = if with_ssd {
            let capacity = usize::try_from(sizes.ssd_bytes).map_err(|error| error.to_string())?;
            let device = FsDeviceBuilder::new(&sizes.ssd_dir).with_capacity(capacity).build();
            let block = (sizes.ssd_bytes / BLOCKS_MIN).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            let engine = BlockEngineConfig::new(device.map_err(|error| error.to_string())?)
                .with_block_size(usize::try_from(block).map_err(|error| error.to_string())?)
                .with_blob_index_size(BLOB_INDEX_BYTES)
                .with_flushers(FLUSHERS)
                .with_reclaimers(RECLAIMERS)
                .with_buffer_pool_size(FLUSH_BUFFER_BYTES)
                .with_submit_queue_size_threshold(FLUSH_QUEUE_BYTES_MAX);
            // psync, never io_uring: see docs/architecture.md.
            builder
                .with_io_engine_config(PsyncIoEngineConfig::new())
                .with_engine_config(engine)
                .with_recover_mode(RecoverMode::Quiet)
                .with_spawner(spawner()?)
        } else {
            builder
        };
        builder.build().await.map(|cache| Self { cache }).map_err(|error| error.to_string())
    }

    /// The chunk, if it is in memory.
    pub fn in_memory(&self, key: &Key) -> Option<Bytes> {
        self.cache.memory().get(key).map(|entry| entry.value().0.clone())
    }

    /// Whether the chunk is in memory, without counting as a use.
    pub fn is_in_memory(&self, key: &Key) -> bool {
        self.cache.memory().contains(key)
    }

    /// Whether the SSD tier may hold the chunk (its index keeps hashes: a stranger's may match).
    pub fn may_be_on_ssd(&self, key: &Key) -> bool {
        self.cache.storage().is_enabled() && self.cache.storage().may_contains(key)
    }

    /// The chunk from the SSD tier, checked; it is in memory from then on. A disk's error is
    /// a miss.
    pub async fn read_ssd(&self, key: &Key) -> Option<Bytes> {
        if !self.may_be_on_ssd(key) {
            return None;
        }
        match self.cache.get(key).await {
            Ok(entry) => entry.map(|entry| entry.value().0.clone()),
            Err(error) => {
                tracing::warn!(%error, "reading the SSD tier failed");
                None
            }
        }
    }

    /// Takes a verified chunk that came from an origin: into memory, and on its way to the SSD.
    pub fn insert(&self, key: Key, bytes: Bytes) {
        self.cache.insert(key, Chunk(bytes));
    }

    /// Takes a verified chunk that is on disk already: into memory alone.
    pub fn insert_in_memory(&self, key: Key, bytes: Bytes) {
        let properties = HybridCacheProperties::default().with_location(Location::InMem);
        self.cache.insert_with_properties(key, Chunk(bytes), properties);
    }

    /// Writes what waits to be written and ends, within `limit`.
    pub async fn close(&self, limit: Duration) {
        match tokio::time::timeout(limit, self.cache.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "closing the SSD tier failed"),
            Err(_) => tracing::warn!(?limit, "the SSD tier could not be written in time"),
        }
    }
}

/// foyer's reads and writes block: they get a runtime of their own.
fn spawner() -> Result<Spawner, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(16)
        .thread_name("edge-ssd")
        .enable_all()
        .build()
        .map(Spawner::from)
        .map_err(|error| error.to_string())
}

impl Code for Key {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.version);
        bytes[16..20].copy_from_slice(&self.track.to_le_bytes());
        bytes[20..].copy_from_slice(&self.chunk.to_le_bytes());
        writer.write_all(&bytes).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let (mut version, mut track, mut chunk) = ([0; 16], [0; 4], [0; 4]);
        reader.read_exact(&mut version).map_err(foyer::Error::io_error)?;
        reader.read_exact(&mut track).map_err(foyer::Error::io_error)?;
        reader.read_exact(&mut chunk).map_err(foyer::Error::io_error)?;
        let (track, chunk) = (u32::from_le_bytes(track), u32::from_le_bytes(chunk));
        Ok(Self { version, track, chunk })
    }

    fn estimated_size(&self) -> usize {
        24
    }
}

impl Code for Chunk {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let length = u32::try_from(self.0.len())
            .map_err(|error| foyer::Error::io_error(std::io::Error::other(error)))?;
        writer.write_all(&length.to_le_bytes()).map_err(foyer::Error::io_error)?;
        writer.write_all(&self.0).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut length = [0; 4];
        reader.read_exact(&mut length).map_err(foyer::Error::io_error)?;
        let length = u64::from(u32::from_le_bytes(length));
        let short = || {
            let text = format!("a chunk of {length} bytes");
            foyer::Error::io_error(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
        };
        if length > CHUNK_BYTES {
            return Err(short());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| short())?);
        reader.take(length).read_to_end(&mut bytes).map_err(foyer::Error::io_error)?;
        if bytes.len() as u64 != length {
            return Err(short());
        }
        Ok(Self(bytes.into()))
    }

    fn estimated_size(&self) -> usize {
        4 + self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_a_chunk_survive_the_disk_and_a_lying_length_does_not() {
        let key = Key { version: [7; 16], track: 3, chunk: 0x0102_0304 };
        let mut bytes = Vec::new();
        key.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), key.estimated_size());
        assert_eq!(Key::decode(&mut bytes.as_slice()).unwrap(), key);

        let chunk = Chunk(Bytes::from_static(b"media"));
        let mut bytes = Vec::new();
        chunk.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), chunk.estimated_size());
        assert_eq!(Chunk::decode(&mut bytes.as_slice()).unwrap().0, chunk.0);
        assert!(Chunk::decode(&mut &bytes[..6]).is_err());
        bytes[3] = 0xff;
        assert!(Chunk::decode(&mut bytes.as_slice()).is_err());
    }
}
