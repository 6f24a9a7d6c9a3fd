//! Memory for chunks: blocks of one memfd, each written once and shared as [`Bytes`].
//!
//! A [`Slot`] is its block's one writer; [`SlotReader`]s follow it, and see what is written so
//! far. The invariant that all of this crate's unsafe code rests on: of a slot's block,
//! `0..filled` is never written again and `filled..` is never read, until every slot, reader
//! and [`Bytes`] over it is gone. Only then does the block return to the arena.
//!
//! The arena's size is a hard ceiling: the mapping is that long, and [`Arena::slot`] says
//! `None` when nothing is left. What to evict then is its caller's business.

mod blocks;
mod lent;
mod slot;

pub use blocks::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, block_bytes};
pub use slot::{Slot, SlotReader};

use blocks::Blocks;
use lent::Lent;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

#[cfg(doc)]
use bytes::Bytes;

/// Why an arena can't be made.
#[derive(Debug, Error)]
pub enum Error {
    /// Less than one block of the largest size, or more than can be mapped.
    #[error(
        "an arena of {bytes_max} bytes: expected {BLOCK_BYTES_MAX} or more, as far as can be mapped"
    )]
    Size {
        /// The size asked for.
        bytes_max: u64,
    },
    /// The kernel refuses the memory.
    #[error("an arena of {bytes_max} bytes can't be mapped")]
    Map {
        /// The size asked for.
        bytes_max: u64,
        /// What the kernel says.
        source: std::io::Error,
    },
}

/// A fixed amount of memory, handed out in blocks. Clones share it.
#[derive(Debug, Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

/// What the arena's handles and slots share.
#[derive(Debug)]
struct Shared {
    map: MmapRaw,
    file: File,
    lent: Lent,
    blocks: Mutex<Blocks>,
    /// Follows `blocks`, so that a reader needs no lock.
    bytes_used: AtomicU64,
}

impl Arena {
    /// Maps `bytes_max` bytes, rounded down to whole blocks of [`BLOCK_BYTES_MAX`]. The kernel
    /// gives the pages as they are first written.
    ///
    /// # Errors
    /// [`enum@Error`] when that is no block at all, or can't be mapped.
    pub fn new(bytes_max: u64) -> Result<Self, Error> {
        let size = || Error::Size { bytes_max };
        let (blocks, bytes) = Blocks::new(bytes_max).ok_or_else(size)?;
        let length = usize::try_from(bytes).map_err(|_| size())?;
        let (file, map) = map(length).map_err(|source| Error::Map { bytes_max, source })?;
        let lent = Lent::new(length / BLOCK_BYTES_MIN);
        let (blocks, bytes_used) = (Mutex::new(blocks), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { map, file, lent, blocks, bytes_used }) })
    }

    /// Room for `bytes` bytes; `None` when no block of that size is left, or when it would be
    /// more than [`BLOCK_BYTES_MAX`].
    #[must_use]
    pub fn slot(&self, bytes: usize) -> Option<Slot> {
        let order = blocks::order(bytes)?;
        let unit = self.shared.change(|blocks| blocks.take(order))?;
        Some(Slot::new(Arc::clone(&self.shared), unit, order, bytes))
    }

    /// Bytes of all blocks that are handed out.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.shared.bytes_used.load(Ordering::Relaxed)
    }

    /// Bytes that can be handed out.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.shared.map.len() as u64
    }

    /// Whether these bytes lie in this arena.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.place(bytes).is_some()
    }

    fn place(&self, bytes: &[u8]) -> Option<usize> {
        let start = self.shared.map.as_ptr().addr();
        let place = bytes.as_ptr().addr().checked_sub(start)?;
        (place + bytes.len() <= self.shared.map.len()).then_some(place)
    }

    /// Where these bytes begin in [`Arena::file`], for `sendfile(2)`: the pages may be held by
    /// the kernel from then on, and are never written again. `None` for bytes that lie
    /// elsewhere, and for those that are sent for the first time, which are cheaper to copy.
    #[must_use]
    pub fn lend(&self, bytes: &[u8]) -> Option<u64> {
        let place = self.place(bytes).filter(|_| !bytes.is_empty())?;
        self.shared.lent.lend(place / BLOCK_BYTES_MIN).then_some(place as u64)
    }

    /// The memory, as a file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.shared.file.as_fd()
    }
}

impl Shared {
    /// Takes a block back, with new pages where old ones were lent.
    fn give_back(&self, unit: u32, order: u8) {
        let units = unit as usize..(unit as usize + (1 << order));
        if self.lent.give_back(units.clone()) && self.renew(&units).is_err() {
            // Without new pages it is in use for good, and counted as that.
            return;
        }
        self.change(|blocks| blocks.give_back(unit, order));
    }

    fn renew(&self, units: &Range<usize>) -> std::io::Result<()> {
        let bytes = BLOCK_BYTES_MIN as u64;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, mode, units.start as u64 * bytes, units.len() as u64 * bytes)?;
        Ok(())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Blocks) -> T) -> T {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut blocks);
        self.bytes_used.store(blocks.bytes_used(), Ordering::Relaxed);
        changed
    }
}

/// A sealed memfd, mapped: no one can shorten it under the mapping.
fn map(length: usize) -> std::io::Result<(File, MmapRaw)> {
    let file = memfd_create("nearcast-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, length as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let file = File::from(file);
    let map = MmapOptions::new().len(length).map_raw(&file)?;
    Ok((file, map))
}
