//! Which blocks are free: a buddy allocator over numbers, knowing nothing of memory.
//!
//! A block is a power of two, aligned to itself, between [`BLOCK_BYTES_MIN`] and
//! [`BLOCK_BYTES_MAX`]. It is split off a larger one when need be and merges with its free
//! neighbour when it returns, so small blocks never keep large ones from coming back. The
//! lowest free address is taken first: blocks in use stay together.

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

/// The free blocks, by order, each by its first unit of [`BLOCK_BYTES_MIN`].
#[derive(Debug)]
pub(crate) struct Blocks {
    free: [BTreeSet<u32>; ORDERS],
    used: u64,
}

impl Blocks {
    /// Whole largest blocks within `bytes_max`, all free, and their bytes; `None` for none,
    /// or for more than can be numbered.
    pub(crate) fn new(bytes_max: u64) -> Option<(Self, u64)> {
        let count = u32::try_from(bytes_max / BLOCK_BYTES_MAX as u64).ok()?;
        let units = count.checked_mul(UNITS).filter(|units| *units > 0)?;
        let mut free: [BTreeSet<u32>; ORDERS] = Default::default();
        free[ORDERS - 1] = (0..units).step_by(UNITS as usize).collect();
        Some((Self { free, used: 0 }, u64::from(units) * BLOCK_BYTES_MIN as u64))
    }

    /// Takes a block; `None` when no block of its order or above is free.
    pub(crate) fn take(&mut self, order: u8) -> Option<u32> {
        let order = usize::from(order);
        let from = (order..ORDERS).find(|order| !self.free[*order].is_empty())?;
        let unit = self.free[from].pop_first()?;
        for half in order..from {
            self.free[half].insert(unit + (1 << half));
        }
        self.used += 1 << order;
        Some(unit)
    }

    /// Takes a block back.
    pub(crate) fn give_back(&mut self, mut unit: u32, order: u8) {
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
        }
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
        assert!(Blocks::new((1 << 20) - 1).is_none());
        assert!(Blocks::new(u64::MAX).is_none());
        assert_eq!(Blocks::new(5 << 19).unwrap().1, 2 << 20);
    }

    /// What a test does to the blocks: take one of an order, give back or shrink one in use.
    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        GiveBack(usize),
        Shrink(usize, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..ORDERS as u8).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::GiveBack),
            1 => (any::<usize>(), 0..ORDERS as u8).prop_map(|(at, to)| Step::Shrink(at, to)),
        ]
    }

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap_and_all_come_back(
            count in 1u64..6,
            steps in proptest::collection::vec(step(), 0..300),
        ) {
            let (mut blocks, bytes) = Blocks::new(count << 20).unwrap();
            let mut owner = vec![None; bytes as usize / BLOCK_BYTES_MIN];
            let mut used: Vec<(u32, u8)> = Vec::new();
            for (step_number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Take(order) => {
                        let Some(unit) = blocks.take(order) else { continue };
                        prop_assert_eq!(unit % (1 << order), 0);
                        for unit in &mut owner[unit as usize..][..1 << order] {
                            prop_assert_eq!(unit.replace(step_number), None);
                        }
                        used.push((unit, order));
                    }
                    Step::GiveBack(at) if !used.is_empty() => {
                        let (unit, order) = used.swap_remove(at % used.len());
                        owner[unit as usize..][..1 << order].fill(None);
                        blocks.give_back(unit, order);
                    }
                    Step::Shrink(at, to) if !used.is_empty() => {
                        let at = at % used.len();
                        let (unit, order) = used[at];
                        if to < order {
                            blocks.shrink(unit, order, to);
                            owner[unit as usize..][1 << to..1 << order].fill(None);
                            used[at].1 = to;
                        }
                    }
                    Step::GiveBack(_) | Step::Shrink(..) => {}
                }
                let in_use = owner.iter().filter(|owner| owner.is_some()).count();
                prop_assert_eq!(blocks.bytes_used(), (in_use * BLOCK_BYTES_MIN) as u64);
            }
            for (unit, order) in used {
                blocks.give_back(unit, order);
            }
            prop_assert_eq!(blocks.bytes_used(), 0);
            for _ in 0..count {
                prop_assert!(blocks.take(ORDERS as u8 - 1).is_some());
            }
        }
    }
}
