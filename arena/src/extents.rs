//! Huge pages: what is lent of one may only be renewed as a whole.
//!
//! A hole punched into part of a huge page does not give that part new memory: the kernel
//! overwrites the old with zeros, which a peer would get that has not read yet. So a lent block
//! that is given back is *spent*: no one's until all blocks of its extent, which is a huge page,
//! are free or spent. Then the extent gets new memory at once.
//!
//! Memory that is spent serves no one. [`Extents::are_crowded`] says when it is so much that no
//! more should be lent, and [`Extents::crowds`] which bytes keep most of a page spent.
//!
//! New memory for a page whose old one a socket still queues would make two pages of one. So an
//! extent is *held* while sockets may queue any of it, and renewed when none does; and no more
//! than a part of all extents may be held.

use crate::BLOCK_BYTES_MIN;

/// A huge page of x86-64 and of 64-bit Arm with pages of 4 KiB.
pub const EXTENT_BYTES: usize = 2 << 20;
/// Smallest blocks in an extent.
pub(crate) const EXTENT_UNITS: u32 = (EXTENT_BYTES / BLOCK_BYTES_MIN) as u32;
/// One part in so many of the arena may be spent before it is crowded: half of what the memory
/// tier sets aside.
const SPENT_SHARE: u64 = 16;
/// One extent in so many may be held by sockets: if all of them became spent, that much of the
/// arena would wait for slow readers.
const HELD_SHARE: usize = 4;

/// What is in use and what is spent, by extent.
#[derive(Debug)]
pub(crate) struct Extents {
    extents: Box<[Extent]>,
    spent: u64,
    held: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Extent {
    /// Units, each.
    used: u16,
    spent: u16,
    /// Sockets that may queue some of it.
    holders: u32,
}

fn of(unit: u32) -> usize {
    (unit / EXTENT_UNITS) as usize
}

impl Extents {
    /// Of an arena of so many units, all free.
    pub(crate) fn new(units: u32) -> Self {
        let count = units.div_ceil(EXTENT_UNITS) as usize;
        Self { extents: vec![Extent::default(); count].into_boxed_slice(), spent: 0, held: 0 }
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

    /// One more socket queues some of this unit's extent; false if it may not.
    pub(crate) fn hold(&mut self, unit: u32) -> bool {
        let held_max = (self.extents.len() / HELD_SHARE).max(1);
        let extent = &mut self.extents[of(unit)];
        if extent.holders == 0 && self.held >= held_max {
            return false;
        }
        self.held += usize::from(extent.holders == 0);
        extent.holders += 1;
        true
    }

    /// One socket less does.
    pub(crate) fn release(&mut self, unit: u32) {
        let extent = &mut self.extents[of(unit)];
        extent.holders -= 1;
        self.held -= usize::from(extent.holders == 0);
    }

    /// Whether nothing of this unit's extent is in use or queued, and some of it spent.
    pub(crate) fn is_renewable(&self, unit: u32) -> bool {
        let extent = self.extents[of(unit)];
        extent.used == 0 && extent.spent > 0 && extent.holders == 0
    }

    /// The extent of this unit has new memory, or is given up.
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

    pub(crate) fn bytes_held(&self) -> u64 {
        (self.held * EXTENT_BYTES) as u64
    }
}

/// The first unit of this one's extent.
pub(crate) fn start(unit: u32) -> u32 {
    unit / EXTENT_UNITS * EXTENT_UNITS
}
