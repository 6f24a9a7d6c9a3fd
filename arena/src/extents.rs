//! Huge pages: what is lent of one may only be renewed as a whole.
//!
//! A hole punched into part of a huge page does not give that part new memory: the kernel
//! overwrites the old with zeros, which a peer would get that has not read yet. So a lent block
//! that is given back is *spent*: no one's until all blocks of its extent, which is a huge page,
//! are free or spent. Then the extent gets new memory at once.
//!
//! Memory that is spent serves no one. [`Extents::are_crowded`] says when it is so much that no
//! more should be lent, and [`Extents::crowds`] which bytes keep most of a page spent.

use crate::BLOCK_BYTES_MIN;

/// A huge page of x86-64 and of 64-bit Arm with pages of 4 KiB.
pub const EXTENT_BYTES: usize = 2 << 20;
/// Smallest blocks in an extent.
pub(crate) const EXTENT_UNITS: u32 = (EXTENT_BYTES / BLOCK_BYTES_MIN) as u32;
/// One part in so many of the arena may be spent before it is crowded: half of what the memory
/// tier sets aside.
const SPENT_SHARE: u64 = 16;

/// What is in use and what is spent, by extent.
#[derive(Debug)]
pub(crate) struct Extents {
    extents: Box<[Extent]>,
    spent: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Extent {
    /// Units, each.
    used: u16,
    spent: u16,
}

fn of(unit: u32) -> usize {
    (unit / EXTENT_UNITS) as usize
}

impl Extents {
    /// Of an arena of so many units, all free.
    pub(crate) fn new(units: u32) -> Self {
        let count = units.div_ceil(EXTENT_UNITS) as usize;
        Self { extents: vec![Extent::default(); count].into_boxed_slice(), spent: 0 }
    }

    /// So many units from this one on are taken.
    pub(crate) fn take(&mut self, unit: u32, units: u32) {
        self.extents[of(unit)].used += units as u16;
    }

    /// So many units from this one on are free again.
    pub(crate) fn give_back(&mut self, unit: u32, units: u32) {
        self.extents[of(unit)].used -= units as u16;
    }

    /// So many units from this one on are spent.
    pub(crate) fn spend(&mut self, unit: u32, units: u32) {
        let extent = &mut self.extents[of(unit)];
        extent.used -= units as u16;
        extent.spent += units as u16;
        self.spent += u64::from(units);
    }

    /// Whether nothing of this unit's extent is in use, and some of it spent.
    pub(crate) fn is_renewable(&self, unit: u32) -> bool {
        let extent = self.extents[of(unit)];
        extent.used == 0 && extent.spent > 0
    }

    /// The extent of this unit has new memory.
    pub(crate) fn renew(&mut self, unit: u32) {
        let extent = &mut self.extents[of(unit)];
        self.spent -= u64::from(std::mem::take(&mut extent.spent));
    }

    /// Whether part of this unit's extent is spent: what is put there keeps it so.
    pub(crate) fn is_spent(&self, unit: u32) -> bool {
        self.extents[of(unit)].spent > 0
    }

    /// Whether at least as much of this unit's extent is spent as in use.
    pub(crate) fn crowds(&self, unit: u32) -> bool {
        let extent = self.extents[of(unit)];
        extent.spent > 0 && extent.spent >= extent.used
    }

    /// Whether more is spent than should be.
    pub(crate) fn are_crowded(&self) -> bool {
        let units = self.extents.len() as u64 * u64::from(EXTENT_UNITS);
        self.spent > units / SPENT_SHARE
    }

    pub(crate) fn bytes_spent(&self) -> u64 {
        self.spent * BLOCK_BYTES_MIN as u64
    }
}

/// The first unit of this one's extent.
pub(crate) fn start(unit: u32) -> u32 {
    unit / EXTENT_UNITS * EXTENT_UNITS
}
