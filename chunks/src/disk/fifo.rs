//! Which block a disk evicts: the one that was written longest ago, over restarts as well
//! (foyer's own picker starts with an order drawn by lot).

use foyer::{EvictionInfo, EvictionPicker};
use prometheus::IntCounter;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a store and its picker tell each other.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The store is open: what comes now was written in this run.
    pub(super) open: AtomicBool,
    /// Blocks evicted in this run.
    pub(super) evicted: AtomicU64,
}

/// Blocks in the order in which they were filled.
#[derive(Debug)]
pub(super) struct Fifo {
    /// When each block was last written before this run.
    before: Vec<u128>,
    /// Ranks later than any time.
    next: u128,
    order: BTreeSet<(u128, u32)>,
    shared: Arc<Blocks>,
    counted: IntCounter,
}

impl Fifo {
    /// Over blocks that were written last at these times. Counts what it evicts.
    pub(super) fn new(before: Vec<u128>, shared: Arc<Blocks>, counted: IntCounter) -> Self {
        let next = before.iter().max().map_or(0, |last| last + 1);
        Self { before, next, order: BTreeSet::new(), shared, counted }
    }
}

impl EvictionPicker for Fifo {
    fn pick(&mut self, info: EvictionInfo<'_>) -> Option<u32> {
        self.order.iter().map(|(_, block)| *block).find(|block| info.evictable.contains(block))
    }

    fn on_block_evictable(&mut self, _: EvictionInfo<'_>, block: u32) {
        let before = self.before.get(block as usize).copied();
        let rank = before.filter(|_| !self.shared.open.load(Ordering::Acquire));
        self.next += 1;
        self.order.insert((rank.unwrap_or(self.next), block));
    }

    fn on_block_evict(&mut self, _: EvictionInfo<'_>, block: u32) {
        self.order.retain(|(_, other)| *other != block);
        self.shared.evicted.fetch_add(1, Ordering::Relaxed);
        self.counted.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn info(evictable: &HashSet<u32>) -> EvictionInfo<'_> {
        EvictionInfo { blocks: &[], evictable, clean: 1 }
    }

    #[test]
    fn blocks_go_in_the_order_in_which_they_were_filled_over_restarts_too() {
        let counted = IntCounter::new("evicted", "blocks").unwrap();
        let shared = Arc::new(Blocks::default());
        let mut fifo = Fifo::new(vec![30, 10, 20, 40], Arc::clone(&shared), counted.clone());
        let mut evictable: HashSet<u32> = [0, 1, 2].into();
        for block in [0, 1, 2] {
            fifo.on_block_evictable(info(&evictable), block);
        }
        // Block 3 was empty at first, with the time of a run before.
        shared.open.store(true, Ordering::Release);
        evictable.insert(3);
        fifo.on_block_evictable(info(&evictable), 3);
        for expected in [1, 2, 0, 3] {
            let picked = fifo.pick(info(&evictable)).unwrap();
            assert_eq!(picked, expected);
            evictable.remove(&picked);
            fifo.on_block_evict(info(&evictable), picked);
        }
        assert_eq!(fifo.pick(info(&evictable)), None);
        assert_eq!(counted.get(), 4);
    }
}
