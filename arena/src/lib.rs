//! Memory for chunks: blocks of one memfd, each written once and shared as [`Bytes`].
//!
//! A [`Slot`] is its block's one writer; [`SlotReader`]s follow it, and see what is written so
//! far. The invariant that all of this crate's unsafe code rests on: of a slot's block,
//! `0..filled` is never written again and `filled..` is never read, until every slot, reader
//! and [`Bytes`] over it is gone. Only then does the block return to the arena.
//!
//! Where the kernel may use huge pages for memfds, the arena asks for them: bytes that
//! `sendfile(2)` takes from a huge page cost half as much, since the kernel counts its references
//! by the page. What that asks of the arena is told in `extents`.
//!
//! The arena's size is a hard ceiling: the mapping is that long, and [`Arena::slot`] says
//! `None` when nothing is left. What to evict then is its caller's business. Beyond it comes only
//! what sockets keep of lent pages after those were renewed: of small pages, what they have
//! unsent; of huge ones nothing ([`Queued`]), but what a closed connection's socket still sends,
//! and what a peer on the same machine has not read.

mod blocks;
mod extents;
mod lent;
mod queued;
mod slot;

pub use blocks::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, block_bytes};
pub use extents::EXTENT_BYTES;
pub use queued::{Queued, unacknowledged};
pub use slot::{Slot, SlotReader};

use blocks::{Blocks, Renewal};
use lent::Lent;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::param::page_size;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// What pages an arena's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Of 4 KiB.
    Small,
    /// Of [`EXTENT_BYTES`], as far as the kernel has any.
    Huge,
}

impl Pages {
    /// An arena of fewer bytes has small pages: it could not spare what waits in huge ones.
    pub const HUGE_ARENA_BYTES_MIN: u64 = 64 << 20;
    /// Where Linux keeps the setting: `advise`, `within_size` or `always` allow huge pages, `never`
    /// (the default) and `deny` don't.
    pub const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    /// Where Linux tells how large they are.
    const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

    /// What the kernel's setting allows an arena of `bytes_max` bytes.
    #[must_use]
    pub fn allowed(bytes_max: u64) -> Self {
        let setting = std::fs::read_to_string(Self::SETTING).unwrap_or_default();
        let are_allowed = ["[advise]", "[within_size]", "[always]"];
        let are_allowed = setting.split_whitespace().any(|word| are_allowed.contains(&word));
        // A part of a larger one can't be renewed.
        let size = std::fs::read_to_string(Self::SIZE).unwrap_or_default();
        let is_known = size.trim().parse() == Ok(EXTENT_BYTES);
        if are_allowed && is_known && bytes_max >= Self::HUGE_ARENA_BYTES_MIN {
            Self::Huge
        } else {
            Self::Small
        }
    }
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
    pages: Pages,
    /// These follow `blocks`, so that a reader needs no lock.
    bytes_used: AtomicU64,
    bytes_spent: AtomicU64,
    bytes_held: AtomicU64,
    bytes_lost: AtomicU64,
    is_crowded: AtomicBool,
}

impl Arena {
    /// Maps `bytes_max` bytes, rounded down to whole blocks of [`BLOCK_BYTES_MAX`], with such
    /// pages as the kernel [allows](Pages::allowed). It gives them as they are first written.
    ///
    /// # Errors
    /// [`enum@Error`] when that is no block at all, or can't be mapped.
    pub fn new(bytes_max: u64) -> Result<Self, Error> {
        Self::of(Pages::allowed(bytes_max), bytes_max)
    }

    /// The same with these pages; of huge ones, it is rounded down to whole pages.
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn of(pages: Pages, bytes_max: u64) -> Result<Self, Error> {
        let size = || Error::Size { bytes_max };
        let (blocks, bytes) = Blocks::new(bytes_max, pages == Pages::Huge).ok_or_else(size)?;
        let length = usize::try_from(bytes).map_err(|_| size())?;
        let (file, map) = map(length, pages).map_err(|source| Error::Map { bytes_max, source })?;
        let lent = Lent::new(length / BLOCK_BYTES_MIN);
        Ok(Self {
            shared: Arc::new(Shared {
                map,
                file,
                lent,
                blocks: Mutex::new(blocks),
                pages,
                bytes_used: AtomicU64::new(0),
                bytes_spent: AtomicU64::new(0),
                bytes_held: AtomicU64::new(0),
                bytes_lost: AtomicU64::new(0),
                is_crowded: AtomicBool::new(false),
            }),
        })
    }

    /// Room for `bytes` bytes; `None` when no block of that size is left, or when it would be
    /// more than [`BLOCK_BYTES_MAX`].
    #[must_use]
    pub fn slot(&self, bytes: usize) -> Option<Slot> {
        let order = blocks::order(bytes)?;
        let unit = self.shared.change(|blocks| blocks.take(order))?;
        Some(Slot::new(Arc::clone(&self.shared), unit, order, bytes))
    }

    /// What its pages are.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.shared.pages
    }

    /// Bytes of all blocks that are handed out, and of those that are spent.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.shared.bytes_used.load(Ordering::Relaxed)
    }

    /// Bytes that were lent and given back, and wait for the rest of their huge page.
    #[must_use]
    pub fn bytes_spent(&self) -> u64 {
        self.shared.bytes_spent.load(Ordering::Relaxed)
    }

    /// Bytes of the huge pages that sockets may queue some of.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        self.shared.bytes_held.load(Ordering::Relaxed)
    }

    /// Bytes that the kernel refused to renew, and that are out of use for good.
    #[must_use]
    pub fn bytes_lost(&self) -> u64 {
        self.shared.bytes_lost.load(Ordering::Relaxed)
    }

    /// Whether a copy of these bytes elsewhere would free more than it takes: much is spent, and
    /// at least half of what is not free around these.
    #[must_use]
    pub fn is_crowded_by(&self, bytes: &[u8]) -> bool {
        if !self.shared.is_crowded.load(Ordering::Relaxed) {
            return false;
        }
        let Some(place) = self.place(bytes) else { return false };
        let unit = (place / BLOCK_BYTES_MIN) as u32;
        self.shared.look(|blocks| blocks.extents().is_some_and(|extents| extents.crowds(unit)))
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

    /// Where these bytes begin in [`Arena::file`], for `sendfile(2)` to the socket of `queued`:
    /// the pages may be held by the kernel from then on, and are never written again. `None` for
    /// bytes that lie elsewhere, for those that were not [sent](Arena::sent) before, which are
    /// cheaper to copy, and while so much is spent, or held by sockets, that no more should be.
    #[must_use]
    pub fn lend(&self, bytes: &[u8], queued: &mut Queued) -> Option<u64> {
        if self.shared.is_crowded.load(Ordering::Relaxed) {
            return None;
        }
        let place = self.place(bytes).filter(|_| !bytes.is_empty())?;
        let (lent, unit) = (&self.shared.lent, place / BLOCK_BYTES_MIN);
        if !lent.is_worth_it(unit) || !queued.hold(&self.shared, unit as u32) {
            return None;
        }
        lent.lend(unit);
        Some(place as u64)
    }

    /// These bytes, or the first of them, were sent as copies: the next time they may be lent.
    pub fn sent(&self, bytes: &[u8]) {
        // A hole in part of a larger page would overwrite what is queued: those are never lent.
        if let Some(place) = self.place(bytes).filter(|_| page_size() == BLOCK_BYTES_MIN) {
            self.shared.lent.sent(place / BLOCK_BYTES_MIN);
        }
    }

    /// The memory, as a file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.shared.file.as_fd()
    }
}

impl Shared {
    /// Takes a block back; where pages were lent, they are replaced before anyone gets them.
    fn give_back(&self, unit: u32, order: u8) {
        let units = unit as usize..(unit as usize + (1 << order));
        let was_lent = self.lent.give_back(units);
        self.renew(self.change(|blocks| blocks.give_back(unit, order, was_lent)));
    }

    /// A socket has nothing more queued of this unit's huge page.
    fn release(&self, unit: u32) {
        self.renew(self.change(|blocks| blocks.release(unit)));
    }

    fn renew(&self, renewal: Renewal) {
        let Renewal::Units(unit, units) = renewal else { return };
        let bytes = |units: u32| u64::from(units) * BLOCK_BYTES_MIN as u64;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.file, mode, bytes(unit), bytes(units)).is_ok() {
            self.change(|blocks| blocks.renewed(unit, units));
        } else {
            self.bytes_lost.fetch_add(bytes(units), Ordering::Relaxed);
            self.change(|blocks| blocks.lost(unit));
        }
    }

    fn look<T>(&self, look: impl FnOnce(&Blocks) -> T) -> T {
        look(&self.blocks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Blocks) -> T) -> T {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut blocks);
        self.bytes_used.store(blocks.bytes_used(), Ordering::Relaxed);
        if let Some(extents) = blocks.extents() {
            self.bytes_spent.store(extents.bytes_spent(), Ordering::Relaxed);
            self.bytes_held.store(extents.bytes_held(), Ordering::Relaxed);
            self.is_crowded.store(extents.are_crowded(), Ordering::Relaxed);
        }
        changed
    }
}

/// A sealed memfd, mapped: no one can shorten it under the mapping.
fn map(length: usize, pages: Pages) -> std::io::Result<(File, MmapRaw)> {
    let file = memfd_create("nearcast-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, length as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let file = File::from(file);
    let map = MmapOptions::new().len(length).map_raw(&file)?;
    // Also where the setting is `never`: it may change, and a huge page that the arena does not
    // know of would be renewed in parts.
    let advice = match pages {
        Pages::Small => Advice::NoHugePage,
        Pages::Huge => Advice::HugePage,
    };
    match map.advise(advice) {
        // A kernel that was built without huge pages has none to be kept from.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {}
        advised => advised?,
    }
    Ok((file, map))
}
