//! Which block a disk evicts: the one that was written longest ago, over restarts as well
//! (foyer's own picker starts with an order drawn by lot). And what was written to it, so that
//! what is still wanted can be written anew before its block goes.
//!
//! foyer's own way to keep entries (reinsertion) is of no use: they keep their old sequence
//! numbers, and its recovery ends a block at a number that falls.

use crate::value::Key;
use foyer::{EvictionInfo, EvictionPicker};
use prometheus::IntCounter;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A chunk and the bytes that it takes on disk.
pub(super) type Written = (Key, u32);

/// What a block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List {
    /// It lies beside the block.
    OnDisk,
    /// It does not yet.
    Here(Vec<Written>),
}

/// What a store and its picker tell each other.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Whether the store is open.
    open: AtomicBool,
    /// Blocks evicted in this run.
    pub(super) evicted: AtomicU64,
    /// Blocks that are empty, beside the one that is being filled.
    clean: AtomicUsize,
    /// Blocks that are looked through before they are evicted.
    ahead: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Blocks that may be evicted, by when they were filled.
    order: BTreeSet<(u128, u32)>,
    /// Of the block that is being filled.
    filling: Vec<Written>,
    /// Of full blocks, until they are looked through.
    lists: HashMap<u32, List>,
    /// Blocks that were filled or emptied, and whose lists on the disk are of another time.
    changed: HashSet<u32>,
}

impl Blocks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store is open, over `count` blocks in all, of which the next `ahead` to go are looked
    /// through: what comes now is written in this run.
    pub(super) fn opened(&self, count: usize, ahead: usize) {
        self.ahead.store(ahead, Ordering::Relaxed);
        let holding = self.lock().order.len();
        let clean = count.saturating_sub(holding).saturating_sub(1);
        self.clean.store(clean, Ordering::Relaxed);
        self.open.store(true, Ordering::Release);
    }

    /// Before this run these blocks were filled, and their lists lie beside them.
    pub(super) fn were_filled(&self, listed: HashSet<u32>) {
        self.lock().lists = listed.into_iter().map(|block| (block, List::OnDisk)).collect();
    }

    /// Blocks whose lists on the disk are of another time, each once: what is to be there instead,
    /// if there is anything.
    pub(super) fn changed(&self) -> Vec<(u32, Option<Vec<Written>>)> {
        let mut state = self.lock();
        let changed = mem::take(&mut state.changed);
        let list = |block: u32| match state.lists.get(&block) {
            Some(List::Here(written)) => Some((block, Some(written.clone()))),
            Some(List::OnDisk) => None,
            None => Some((block, None)),
        };
        changed.into_iter().filter_map(list).collect()
    }

    /// The list of a block lies beside it, unless the block has changed again.
    pub(super) fn saved(&self, block: u32) {
        let mut state = self.lock();
        if !state.changed.contains(&block)
            && let Some(list) = state.lists.get_mut(&block)
        {
            *list = List::OnDisk;
        }
    }

    /// What the block holds that is being filled.
    pub(super) fn filling(&self) -> Vec<Written> {
        self.lock().filling.clone()
    }

    /// Whether there are empty blocks beside those that are kept empty for the writer.
    pub(super) fn has_room(&self) -> bool {
        self.clean.load(Ordering::Relaxed) > self.ahead.load(Ordering::Relaxed)
    }

    /// Blocks that may have parts that were never written.
    pub(super) fn unwritten(&self) -> usize {
        // And the one that is being filled.
        self.clean.load(Ordering::Relaxed) + 1
    }

    /// Chunks are about to be written. Those that find their block full count as part of it
    /// all the same: they come up a little early.
    pub(super) fn writing(&self, chunks: impl Iterator<Item = Written>) {
        self.lock().filling.extend(chunks);
    }

    /// The lists of the blocks that are evicted next, each once.
    pub(super) fn due(&self) -> Vec<(u32, List)> {
        if self.has_room() {
            return Vec::new();
        }
        let mut state = self.lock();
        let ahead = self.ahead.load(Ordering::Relaxed);
        let next: Vec<u32> = state.order.iter().take(ahead).map(|(_, block)| *block).collect();
        let list = |block| Some((block, state.lists.remove(&block)?));
        next.into_iter().filter_map(list).collect()
    }
}

/// Picks blocks in the order in which they were filled.
#[derive(Debug)]
pub(super) struct Fifo {
    /// When each block was last written before this run.
    before: Vec<u128>,
    /// Ranks later than any time.
    next: u128,
    blocks: Arc<Blocks>,
    counted: IntCounter,
}

impl Fifo {
    /// Over blocks that were written last at these times. Counts what it evicts.
    pub(super) fn new(before: Vec<u128>, blocks: Arc<Blocks>, counted: IntCounter) -> Self {
        let next = before.iter().max().map_or(0, |last| last + 1);
        Self { before, next, blocks, counted }
    }
}

impl EvictionPicker for Fifo {
    fn pick(&mut self, info: EvictionInfo<'_>) -> Option<u32> {
        let state = self.blocks.lock();
        state.order.iter().map(|(_, block)| *block).find(|block| info.evictable.contains(block))
    }

    fn on_block_evictable(&mut self, info: EvictionInfo<'_>, block: u32) {
        let open = self.blocks.open.load(Ordering::Acquire);
        let before = self.before.get(block as usize).copied().filter(|_| !open);
        self.next += 1;
        let mut state = self.blocks.lock();
        state.order.insert((before.unwrap_or(self.next), block));
        self.blocks.clean.store(info.clean, Ordering::Relaxed);
        if open {
            let written = mem::take(&mut state.filling);
            state.lists.insert(block, List::Here(written));
            state.changed.insert(block);
        }
    }

    fn on_block_evict(&mut self, _: EvictionInfo<'_>, block: u32) {
        let mut state = self.blocks.lock();
        state.order.retain(|(_, other)| *other != block);
        state.lists.remove(&block);
        state.changed.insert(block);
        self.blocks.evicted.fetch_add(1, Ordering::Relaxed);
        self.counted.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(evictable: &HashSet<u32>) -> EvictionInfo<'_> {
        with_clean(evictable, 1)
    }

    fn with_clean(evictable: &HashSet<u32>, clean: usize) -> EvictionInfo<'_> {
        EvictionInfo { blocks: &[], evictable, clean }
    }

    #[test]
    fn what_a_block_holds_comes_up_once_before_it_goes_and_not_while_there_is_room() {
        let blocks = Arc::new(Blocks::default());
        let counted = IntCounter::new("evicted", "blocks").unwrap();
        let mut fifo = Fifo::new(vec![0; 8], Arc::clone(&blocks), counted);
        blocks.opened(8, 2);
        assert!(blocks.has_room());
        let key = |number| Key { body: [0; 16], number };
        let evictable = HashSet::new();
        for block in 0..4 {
            blocks.writing([(key(block * 2), 1), (key(block * 2 + 1), 1)].into_iter());
            fifo.on_block_evictable(with_clean(&evictable, 5 - block as usize), block);
        }
        let list = |first| vec![(key(first), 1), (key(first + 1), 1)];
        assert_eq!(blocks.due(), [(0, List::Here(list(0))), (1, List::Here(list(2)))]);
        assert!(blocks.due().is_empty());
        // What was looked through already needs no list.
        let mut changed = blocks.changed();
        changed.sort_unstable();
        let (third, fourth) = ((2, Some(list(4))), (3, Some(list(6))));
        assert_eq!(changed, [(0, None), (1, None), third, fourth]);
        blocks.saved(2);
        fifo.on_block_evict(info(&evictable), 0);
        assert_eq!(blocks.due(), [(2, List::OnDisk)]);
        assert_eq!(blocks.changed(), [(0, None)]);
        fifo.on_block_evict(info(&evictable), 1);
        blocks.writing([(key(8), 1)].into_iter());
        fifo.on_block_evictable(with_clean(&evictable, 3), 0);
        assert!(blocks.due().is_empty(), "there is room");
        // Saved when the block has been emptied, and filled anew: the new one is to be saved.
        assert_eq!(blocks.changed().len(), 2);
        fifo.on_block_evict(info(&evictable), 0);
        blocks.writing([(key(9), 1)].into_iter());
        fifo.on_block_evictable(with_clean(&evictable, 3), 0);
        blocks.saved(0);
        assert_eq!(blocks.changed(), [(0, Some(vec![(key(9), 1)]))]);
        // And when it has been emptied alone: none is to be there.
        fifo.on_block_evict(info(&evictable), 0);
        blocks.saved(0);
        assert_eq!(blocks.changed(), [(0, None)]);
    }

    #[test]
    fn blocks_go_in_the_order_in_which_they_were_filled_over_restarts_too() {
        let counted = IntCounter::new("evicted", "blocks").unwrap();
        let blocks = Arc::new(Blocks::default());
        let mut fifo = Fifo::new(vec![30, 10, 20, 40], Arc::clone(&blocks), counted.clone());
        let mut evictable: HashSet<u32> = [0, 1, 2].into();
        for block in [0, 1, 2] {
            fifo.on_block_evictable(info(&evictable), block);
        }
        // Block 3 was empty at first, with the time of a run before.
        blocks.opened(4, 2);
        assert!(!blocks.has_room());
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
