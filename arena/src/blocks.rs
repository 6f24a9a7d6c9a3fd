//! Which blocks are free: a buddy allocator over numbers, knowing nothing of memory.
//!
//! A block is a power of two, aligned to itself, between [`BLOCK_BYTES_MIN`] and
//! [`BLOCK_BYTES_MAX`]. It is split off a larger one when need be and merges with its free
//! neighbour when it returns, so small blocks never keep large ones from coming back. The
//! lowest free address is taken first: blocks in use stay together.

use crate::extents::{self, EXTENT_UNITS, Extents};
use std::collections::BTreeSet;

/// Bytes of the largest block: a whole chunk.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes of the smallest block: a page, the least that memory comes in.
pub const BLOCK_BYTES_MIN: usize = 4 << 10;
/// Sizes of blocks; a block of order `n` is `BLOCK_BYTES_MIN << n` bytes.
const ORDERS: usize = (BLOCK_BYTES_MAX / BLOCK_BYTES_MIN).ilog2() as usize + 1;
/// Smallest blocks in a largest one.
const UNITS: u32 = (BLOCK_BYTES_MAX / BLOCK_BYTES_MIN) as u32;

/// Bytes of the block that `bytes` bytes take, if one is large enough.
#[must_use]
pub fn block_bytes(bytes: usize) -> Option<usize> {
    order(bytes).map(|order| BLOCK_BYTES_MIN << order)
}

/// The order of the smallest block for `bytes` bytes.
pub(crate) fn order(bytes: usize) -> Option<u8> {
    let order = bytes.div_ceil(BLOCK_BYTES_MIN).next_power_of_two().ilog2() as usize;
    (order < ORDERS).then_some(order as u8)
}

/// Free blocks of an order that are looked at for one in an extent of which nothing is spent.
const LOOKED_AT_MAX: usize = 32;

/// The free blocks, by order, each by its first unit of [`BLOCK_BYTES_MIN`].
#[derive(Debug)]
pub(crate) struct Blocks {
    free: [BTreeSet<u32>; ORDERS],
    /// Units that are not free: in use, or spent.
    used: u64,
    /// Where pages are huge.
    extents: Option<Extents>,
}

/// What is to be done after a block was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Nothing: it waits for others of its extent, or has been freed.
    None,
    /// These units, withdrawn until then, want new memory.
    Units(u32, u32),
}

impl Blocks {
    /// Whole largest blocks within `bytes_max`, all free, and their bytes; `None` for none,
    /// or for more than can be numbered.
    pub(crate) fn new(bytes_max: u64, are_huge: bool) -> Option<(Self, u64)> {
        let count = u32::try_from(bytes_max / BLOCK_BYTES_MAX as u64).ok()?;
        let mut units = count.checked_mul(UNITS)?;
        if are_huge {
            units -= units % EXTENT_UNITS;
        }
        if units == 0 {
            return None;
        }
        let mut free: [BTreeSet<u32>; ORDERS] = Default::default();
        free[ORDERS - 1] = (0..units).step_by(UNITS as usize).collect();
        let extents = are_huge.then(|| Extents::new(units));
        Some((Self { free, used: 0, extents }, u64::from(units) * BLOCK_BYTES_MIN as u64))
    }

    /// Takes a block; `None` when no block of its order or above is free.
    pub(crate) fn take(&mut self, order: u8) -> Option<u32> {
        let order = usize::from(order);
        let (from, unit) = self.pick(order)?;
        self.free[from].remove(&unit);
        for half in order..from {
            self.free[half].insert(unit + (1 << half));
        }
        self.used += 1 << order;
        if let Some(extents) = &mut self.extents {
            extents.take(unit, 1 << order);
        }
        Some(unit)
    }

    /// The order and first unit of the free block to take one of `order` from: the lowest of the
    /// smallest that do, if possible where nothing is spent.
    fn pick(&self, order: usize) -> Option<(usize, u32)> {
        let lowest = || (order..ORDERS).find_map(|from| Some((from, *self.free[from].first()?)));
        let Some(extents) = self.extents.as_ref().filter(|extents| extents.bytes_spent() > 0)
        else {
            return lowest();
        };
        let clean = |from: usize| {
            let mut looked_at = self.free[from].iter().take(LOOKED_AT_MAX);
            looked_at.find(|unit| !extents.is_spent(**unit)).map(|unit| (from, *unit))
        };
        (order..ORDERS).find_map(clean).or_else(lowest)
    }

    /// Takes a block back, which the kernel may hold if it `was_lent`.
    pub(crate) fn give_back(&mut self, unit: u32, order: u8, was_lent: bool) -> Renewal {
        let units = 1 << order;
        let Some(extents) = &mut self.extents else {
            if was_lent {
                return Renewal::Units(unit, units);
            }
            self.free(unit, order);
            return Renewal::None;
        };
        if was_lent {
            extents.spend(unit, units);
        } else {
            extents.give_back(unit, units);
            self.free(unit, order);
        }
        self.withdraw(unit)
    }

    /// One more socket queues some of this unit's extent; false if it may not.
    pub(crate) fn hold(&mut self, unit: u32) -> bool {
        self.extents.as_mut().is_none_or(|extents| extents.hold(unit))
    }

    /// One socket less does.
    pub(crate) fn release(&mut self, unit: u32) -> Renewal {
        if let Some(extents) = &mut self.extents {
            extents.release(unit);
        }
        self.withdraw(unit)
    }

    /// Withdraws all of a unit's extent, if what is spent there can be renewed.
    fn withdraw(&mut self, unit: u32) -> Renewal {
        if !self.extents.as_ref().is_some_and(|extents| extents.is_renewable(unit)) {
            return Renewal::None;
        }
        let start = extents::start(unit);
        for (order, free) in self.free.iter_mut().enumerate() {
            let inside: Vec<u32> = free.range(start..start + EXTENT_UNITS).copied().collect();
            for unit in inside {
                free.remove(&unit);
                self.used += 1 << order;
            }
        }
        Renewal::Units(start, EXTENT_UNITS)
    }

    /// Units that were withdrawn have new memory.
    pub(crate) fn renewed(&mut self, unit: u32, units: u32) {
        if let Some(extents) = &mut self.extents {
            extents.renew(unit);
        }
        // A block, or blocks of the largest size.
        let step = units.min(UNITS);
        for unit in (unit..unit + units).step_by(step as usize) {
            self.free(unit, step.ilog2() as u8);
        }
    }

    /// Units that were withdrawn get no new memory: they are in use for good.
    pub(crate) fn lost(&mut self, unit: u32) {
        if let Some(extents) = &mut self.extents {
            extents.renew(unit);
        }
    }

    /// A block is free.
    fn free(&mut self, mut unit: u32, order: u8) {
        let mut order = usize::from(order);
        self.used -= 1 << order;
        while order + 1 < ORDERS && self.free[order].remove(&(unit ^ (1 << order))) {
            unit &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(unit);
    }

    /// Takes back all of a block but its first `BLOCK_BYTES_MIN << to` bytes.
    pub(crate) fn shrink(&mut self, unit: u32, from: u8, to: u8) {
        // The half next to a block in use never merges, so each is free by itself.
        for half in usize::from(to)..usize::from(from) {
            self.free[half].insert(unit + (1 << half));
            self.used -= 1 << half;
            if let Some(extents) = &mut self.extents {
                extents.give_back(unit, 1 << half);
            }
        }
    }

    /// Where pages are huge: how much of them is in use, and how much spent.
    pub(crate) fn extents(&self) -> Option<&Extents> {
        self.extents.as_ref()
    }

    pub(crate) fn bytes_used(&self) -> u64 {
        self.used * BLOCK_BYTES_MIN as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_round_up_to_a_block() {
        let cases = [
            (0, Some(4096)),
            (1, Some(4096)),
            (4096, Some(4096)),
            (4097, Some(8192)),
            (600 << 10, Some(1 << 20)),
            (1 << 20, Some(1 << 20)),
            ((1 << 20) + 1, None),
            (usize::MAX, None),
        ];
        for (bytes, block) in cases {
            assert_eq!(block_bytes(bytes), block, "{bytes}");
        }
        assert!(Blocks::new((1 << 20) - 1, false).is_none());
        assert!(Blocks::new(u64::MAX, false).is_none());
        assert_eq!(Blocks::new(5 << 19, false).unwrap().1, 2 << 20);
        assert_eq!(Blocks::new(7 << 19, true).unwrap().1, 2 << 20);
        assert!(Blocks::new(1 << 20, true).is_none());
    }

    /// What a test does to the blocks: take one of an order, give back or shrink one in use.
    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        GiveBack(usize),
        Shrink(usize, u8),
        Spend(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..ORDERS as u8).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::GiveBack),
            1 => (any::<usize>(), 0..ORDERS as u8).prop_map(|(at, to)| Step::Shrink(at, to)),
            1 => any::<usize>().prop_map(Step::Spend),
        ]
    }

    proptest! {
        /// Spent blocks are no one's until their renewal, which touches nothing in use.
        #[test]
        fn blocks_in_use_never_overlap_and_all_come_back(
            are_huge in any::<bool>(),
            count in 1u64..4,
            steps in proptest::collection::vec(step(), 0..300),
        ) {
            let (mut blocks, bytes) = Blocks::new(count << 21, are_huge).unwrap();
            let mut owner = vec![Free; bytes as usize / BLOCK_BYTES_MIN];
            let mut used: Vec<(u32, u8)> = Vec::new();
            for (step_number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Take(order) => {
                        let Some(unit) = blocks.take(order) else { continue };
                        prop_assert_eq!(unit % (1 << order), 0);
                        for unit in &mut owner[unit as usize..][..1 << order] {
                            prop_assert_eq!(std::mem::replace(unit, Used(step_number)), Free);
                        }
                        used.push((unit, order));
                    }
                    Step::GiveBack(at) | Step::Spend(at) if !used.is_empty() => {
                        let (unit, order) = used.swap_remove(at % used.len());
                        let is_spent = matches!(step, Step::Spend(_));
                        owner[unit as usize..][..1 << order].fill(if is_spent { Spent } else { Free });
                        renew(&mut blocks, &mut owner, unit, order, is_spent)?;
                    }
                    Step::Shrink(at, to) if !used.is_empty() => {
                        let at = at % used.len();
                        let (unit, order) = used[at];
                        if to < order {
                            blocks.shrink(unit, order, to);
                            owner[unit as usize..][1 << to..1 << order].fill(Free);
                            used[at].1 = to;
                        }
                    }
                    Step::GiveBack(_) | Step::Spend(_) | Step::Shrink(..) => {}
                }
                let in_use = owner.iter().filter(|owner| **owner != Free).count();
                prop_assert_eq!(blocks.bytes_used(), (in_use * BLOCK_BYTES_MIN) as u64);
                let spent = owner.iter().filter(|owner| **owner == Spent).count();
                let told = blocks.extents().map_or(0, Extents::bytes_spent);
                prop_assert_eq!(told, (spent * BLOCK_BYTES_MIN) as u64);
            }
            for (unit, order) in used {
                owner[unit as usize..][..1 << order].fill(Free);
                renew(&mut blocks, &mut owner, unit, order, false)?;
            }
            prop_assert_eq!(blocks.bytes_used(), 0);
            for _ in 0..2 * count {
                prop_assert!(blocks.take(ORDERS as u8 - 1).is_some());
            }
        }
    }

    /// Whose a unit is.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Owner {
        Free,
        Used(usize),
        Spent,
    }
    use Owner::{Free, Spent, Used};

    /// Gives a block back, and renews what can be.
    fn renew(
        blocks: &mut Blocks,
        owner: &mut [Owner],
        unit: u32,
        order: u8,
        is_spent: bool,
    ) -> Result<(), TestCaseError> {
        let Renewal::Units(start, units) = blocks.give_back(unit, order, is_spent) else {
            return Ok(());
        };
        for unit in &mut owner[start as usize..][..units as usize] {
            prop_assert!(!matches!(unit, Used(_)));
            *unit = Free;
        }
        // Withdrawn meanwhile.
        if let Some(other) = blocks.take(0) {
            prop_assert!(!(start..start + units).contains(&other));
            prop_assert_eq!(blocks.give_back(other, 0, false), Renewal::None);
        }
        blocks.renewed(start, units);
        Ok(())
    }
}
