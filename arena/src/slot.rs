//! A block while it is written and read. All unsafe code is here, but for one system call.

use crate::{BLOCK_BYTES_MIN, Shared, blocks};
use bytes::Bytes;
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A block in use. Its last owner gives it back.
#[derive(Debug)]
struct Block {
    shared: Arc<Shared>,
    /// Place in the arena, in units of [`BLOCK_BYTES_MIN`].
    unit: u32,
    /// Changed by [`Slot::freeze`] alone.
    order: AtomicU8,
    /// Bytes that are written, and will not change. Moved by the one [`Slot`] alone.
    filled: AtomicUsize,
}

impl Block {
    /// The block's first byte. At least `BLOCK_BYTES_MIN << order` bytes from there are this
    /// block's own.
    fn start(&self) -> *mut u8 {
        // Within the mapping, as every block is; so neither offset nor address wraps.
        self.shared.map.as_mut_ptr().wrapping_add(self.unit as usize * BLOCK_BYTES_MIN)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let order = *self.order.get_mut();
        self.shared.give_back(self.unit, order);
    }
}

/// The one writer of a block.
#[derive(Debug)]
pub struct Slot {
    block: Arc<Block>,
    capacity: usize,
}

impl Slot {
    /// Over a block that was just taken, large enough for `capacity` bytes.
    pub(crate) fn new(shared: Arc<Shared>, unit: u32, order: u8, capacity: usize) -> Self {
        let (order, filled) = (AtomicU8::new(order), AtomicUsize::new(0));
        Self { block: Arc::new(Block { shared, unit, order, filled }), capacity }
    }

    /// Appends as much of `bytes` as there is room for, shows it to the readers, and returns
    /// how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let filled = self.filled();
        let taken = bytes.len().min(self.capacity - filled);
        let bytes = &bytes[..taken];
        // SAFETY: `filled + taken <= capacity`, which is within the block, which is within the
        // mapping: the target is valid. No one else writes there: the block is this slot's
        // (the allocator hands out no byte twice) and `&mut self` is its only writer. No one
        // reads there: readers stay below `filled`. `bytes` can't overlap it for the same
        // reason: a slice over the arena ends below its own block's `filled`.
        unsafe {
            let target = self.block.start().add(filled);
            target.copy_from_nonoverlapping(bytes.as_ptr(), taken);
        }
        self.block.filled.store(filled + taken, Ordering::Release);
        taken
    }

    /// Bytes written so far.
    #[must_use]
    pub fn filled(&self) -> usize {
        // Written by this thread, or by one that handed the slot over.
        self.block.filled.load(Ordering::Relaxed)
    }

    /// Whether it lies on a huge page of which some is spent, and keeps that from renewal.
    #[must_use]
    pub fn is_beside_spent(&self) -> bool {
        let unit = self.block.unit;
        let look = |blocks: &blocks::Blocks| blocks.extents().is_some_and(|all| all.is_spent(unit));
        self.block.shared.look(look)
    }

    /// Bytes that were asked for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Follows the writing.
    #[must_use]
    pub fn reader(&self) -> SlotReader {
        SlotReader { block: Arc::clone(&self.block) }
    }

    /// Ends the writing: what is written. Of the block's rest, what can be given back is.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        let filled = self.filled();
        let order = self.block.order.load(Ordering::Relaxed);
        if let Some(fits) = blocks::order(filled).filter(|fits| *fits < order) {
            // Readers stay below `filled`, and with this slot ends the only writer: nothing
            // touches the rest again.
            self.block.order.store(fits, Ordering::Relaxed);
            self.block.shared.change(|blocks| blocks.shrink(self.block.unit, order, fits));
        }
        Bytes::from_owner(Piece { range: 0..filled, block: self.block })
    }
}

/// Sees what a [`Slot`]'s writer has written so far, never more.
#[derive(Debug, Clone)]
pub struct SlotReader {
    block: Arc<Block>,
}

impl SlotReader {
    /// Bytes written so far.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.block.filled.load(Ordering::Acquire)
    }

    /// Bytes of the slot; `None` when `range` ends past what is written, or is none.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.filled() {
            return None;
        }
        Some(Bytes::from_owner(Piece { block: Arc::clone(&self.block), range }))
    }
}

/// Part of a block. Made only with `range.end` at most a value of `filled` that was seen.
struct Piece {
    block: Arc<Block>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range is within the block, so within the mapping, which lives as long as
        // `self.block`. All of it is written (a memfd's bytes are never uninitialised anyhow)
        // and never written again while `self.block` lives: the slot writes from `filled` on,
        // `filled` only grows, and the allocator hands the block to no one else before the
        // last owner is gone. The writes happened before: whoever made this piece was the
        // writer itself or has loaded `filled` with Acquire.
        unsafe {
            let start = self.block.start().add(self.range.start);
            slice::from_raw_parts(start, self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Arena, Error, Pages, Queued};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::mpsc;
    use std::thread;

    /// Bytes that tell by themselves whose they are.
    fn pattern(seed: usize, length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| (seed.wrapping_mul(31) ^ at.wrapping_mul(7) ^ (at >> 8)) as u8)
            .collect()
    }

    #[test]
    fn a_slot_takes_what_it_has_room_for_and_shows_no_more_than_is_written() {
        let arena = Arena::new(2 << 20).unwrap();
        let mut slot = arena.slot(5000).unwrap();
        let reader = slot.reader();
        assert_eq!((slot.capacity(), slot.filled(), reader.filled()), (5000, 0, 0));
        assert_eq!(slot.write(&[7; 3000]), 3000);
        assert_eq!(reader.bytes(1000..3000).unwrap(), vec![7; 2000]);
        assert!(reader.bytes(1000..3001).is_none());
        assert!(reader.bytes(usize::MAX - 1..usize::MAX).is_none());
        assert_eq!(slot.write(&[8; 3000]), 2000);
        assert_eq!(slot.write(&[9]), 0);
        let bytes = slot.freeze();
        assert!(arena.contains(&bytes) && arena.contains(&bytes[10..20]));
        assert!(!arena.contains(&[7; 3]));
        assert_eq!(bytes[..3000], vec![7; 3000]);
        assert_eq!(bytes[3000..], vec![8; 2000]);
        assert_eq!(arena.bytes_used(), 8192);
        drop(reader);
        drop(bytes);
        assert_eq!(arena.bytes_used(), 0);
    }

    #[test]
    fn the_size_is_a_ceiling() {
        let arena = Arena::new((3 << 20) + 5).unwrap();
        assert_eq!(arena.bytes_max(), 3 << 20);
        let mut slots: Vec<_> = (0..3).map(|_| arena.slot(1 << 20).unwrap()).collect();
        assert!(arena.slot(1).is_none());
        slots.pop();
        assert!(arena.slot((1 << 20) + 1).is_none());
        assert!(arena.slot(1 << 20).is_some());
        assert!(matches!(Arena::new(1 << 19), Err(Error::Size { .. })));
        assert!(Arena::new(u64::MAX).is_err());
    }

    #[test]
    fn a_short_body_in_a_large_slot_keeps_a_small_block() {
        let arena = Arena::new(1 << 20).unwrap();
        let mut slot = arena.slot(1 << 20).unwrap();
        let reader = slot.reader();
        slot.write(&pattern(1, 100));
        let first = slot.freeze();
        assert_eq!(arena.bytes_used(), 4096);
        // The rest is another's now.
        let mut other = arena.slot(512 << 10).unwrap();
        other.write(&vec![0xff; 512 << 10]);
        assert_eq!(first, pattern(1, 100));
        assert_eq!(reader.bytes(0..100).unwrap(), pattern(1, 100));
        drop((first, reader, other));
        assert!(arena.slot(1 << 20).is_some());
    }

    #[test]
    fn a_huge_page_is_renewed_when_nothing_of_it_is_in_use() {
        let arena = Arena::of(Pages::Huge, 64 << 20).unwrap();
        let fill = |byte: u8| {
            let mut slot = arena.slot(1 << 20).unwrap();
            slot.write(&vec![byte; 1 << 20]);
            let bytes = slot.freeze();
            arena.sent(&bytes);
            let lent = arena.lend(&bytes, &mut Queued::default());
            (bytes, lent)
        };
        let mut chunks: Vec<_> = (0..64).map(fill).collect();
        assert!(arena.slot(1).is_none());
        // As the kernel does, these keep the pages.
        let pipes: Vec<_> = chunks.iter().map(|(_, lent)| queue(&arena, lent.unwrap())).collect();
        // One of each two goes: the other keeps it.
        let kept: Vec<_> = (0..4).map(|at| chunks.remove(at)).collect();
        let other = chunks.remove(0);
        assert!(arena.slot(1).is_none());
        assert_eq!(arena.bytes_spent(), 0);
        drop(kept);
        assert_eq!(arena.bytes_spent(), 4 << 20);
        assert!(arena.slot(1).is_none());
        // With the other, all of the page is new.
        drop(other);
        assert_eq!((arena.bytes_spent(), arena.bytes_used()), (3 << 20, 62 << 20));
        let (anew, _) = fill(200);
        assert_eq!(anew, vec![200; 1 << 20]);
        // Too much waits: nothing more is lent, and what is alone on its page had better go.
        chunks.retain(|(bytes, _)| bytes[0] % 2 == 1);
        assert!(arena.bytes_spent() > arena.bytes_max() / 16);
        assert!(arena.is_crowded_by(&chunks[9].0) && !arena.is_crowded_by(&anew));
        assert_eq!(arena.lend(&chunks[9].0, &mut Queued::default()), None);
        drop((chunks, anew));
        assert_eq!((arena.bytes_used(), arena.bytes_spent()), (0, 0));
        let again: Vec<_> = (0..64).map(|_| fill(100)).collect();
        assert!(again.iter().all(|(_, lent)| lent.is_some()));
        for (byte, mut pipe) in pipes.into_iter().enumerate() {
            let mut got = vec![0; 4096];
            std::io::Read::read_exact(&mut pipe, &mut got).unwrap();
            assert_eq!(got, vec![byte as u8; 4096]);
        }
    }

    /// Has the kernel queue 4 KiB of the arena.
    fn queue(arena: &Arena, mut at: u64) -> std::io::PipeReader {
        let (receive, send) = std::io::pipe().unwrap();
        let sent = rustix::fs::sendfile(&send, arena.file(), Some(&mut at), 4096).unwrap();
        assert_eq!(sent, 4096);
        receive
    }

    #[test]
    fn lent_pages_are_never_written_again() {
        let arena = Arena::new(1 << 20).unwrap();
        let fill = |byte: u8, bytes: usize| {
            let mut slot = arena.slot(bytes).unwrap();
            slot.write(&vec![byte; bytes]);
            slot.freeze()
        };
        let first = fill(1, 1 << 20);
        // What was never sent is copied, however often a busy socket is offered it. Once it was
        // sent, it is lent, and so is what is left of it.
        let lend = |bytes: &[u8]| arena.lend(bytes, &mut Queued::default());
        assert_eq!((lend(&first[8192..]), lend(&first[8192..])), (None, None));
        arena.sent(&first[8192..]);
        assert_eq!(lend(&first[8192..]), Some(8192));
        assert_eq!(lend(&first[70_000..]), Some(70_000));
        assert_eq!(lend(&first[..0]), None);
        arena.sent(&[1; 10]);
        assert_eq!(lend(&[1; 10]), None);
        // As the kernel does, this keeps the old page.
        let receive = queue(&arena, 8192);
        drop(first);
        let second = fill(2, 1 << 20);
        let mut got = vec![0; 4096];
        std::io::Read::read_exact(&mut &receive, &mut got).unwrap();
        assert_eq!(got, vec![1; 4096]);
        assert_eq!(second, vec![2; 1 << 20]);
        // A new body is sent for the first time again.
        assert_eq!(lend(&second[8192..]), None);
    }

    /// What a test does to slots: open one, write to one, freeze one, drop a slot or bytes.
    #[derive(Debug, Clone)]
    enum Step {
        Open(usize),
        Write(usize, usize),
        Read(usize, usize, usize),
        Freeze(usize),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let any = any::<usize>;
        prop_oneof![
            (0usize..200_000).prop_map(Step::Open),
            (any(), 0usize..60_000).prop_map(|(at, length)| Step::Write(at, length)),
            (any(), any(), any()).prop_map(|(at, from, to)| Step::Read(at, from, to)),
            any().prop_map(Step::Freeze),
            any().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_interleaving_shows_other_bytes(
            are_huge in any::<bool>(),
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let pages = if are_huge { Pages::Huge } else { Pages::Small };
            let arena = Arena::of(pages, 4 << 20).unwrap();
            let mut slots = Vec::new();
            let mut held: Vec<(Vec<u8>, Bytes)> = Vec::new();
            for (seed, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Open(length) => slots.extend(arena.slot(length).map(|slot| (seed, slot))),
                    Step::Write(at, length) if !slots.is_empty() => {
                        let at = at % slots.len();
                        let (seed, slot) = &mut slots[at];
                        let filled = slot.filled();
                        let taken = slot.write(&pattern(*seed, filled + length)[filled..]);
                        prop_assert_eq!(taken, length.min(slot.capacity() - filled));
                    }
                    Step::Read(at, from, to) if !slots.is_empty() => {
                        let (seed, slot) = &slots[at % slots.len()];
                        let end = to % (slot.filled() + 1);
                        let start = from % (end + 1);
                        let bytes = slot.reader().bytes(start..end).unwrap();
                        arena.sent(&bytes);
                        let _ = arena.lend(&bytes, &mut Queued::default());
                        held.push((pattern(*seed, end)[start..].to_vec(), bytes));
                    }
                    Step::Freeze(at) if !slots.is_empty() => {
                        let (seed, slot) = slots.swap_remove(at % slots.len());
                        held.push((pattern(seed, slot.filled()), slot.freeze()));
                    }
                    Step::Drop(at) if !held.is_empty() => {
                        let at = at % (held.len() + slots.len());
                        if at < held.len() {
                            held.swap_remove(at);
                        } else {
                            slots.swap_remove(at - held.len());
                        }
                    }
                    _ => {}
                }
                for (expected, bytes) in &held {
                    prop_assert_eq!(expected, bytes);
                }
            }
            drop((slots, held));
            prop_assert_eq!(arena.bytes_used(), 0);
        }
    }

    /// Writers on some threads, readers that follow them on others, in an arena so small that
    /// every block is reused all the time.
    #[test]
    fn threads_see_what_was_written_and_nothing_else() {
        const ROUNDS: usize = 400;
        let arena = Arena::new(1 << 20).unwrap();
        thread::scope(|scope| {
            for writer in 0..3 {
                let (send, receive) = mpsc::sync_channel::<(usize, usize, super::SlotReader)>(2);
                let arena = arena.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let seed = writer * ROUNDS + round;
                        let length = 1 + seed * 7919 % 100_000;
                        let Some(mut slot) = arena.slot(length) else {
                            thread::yield_now();
                            continue;
                        };
                        let bytes = pattern(seed, length);
                        send.send((seed, length, slot.reader())).unwrap();
                        for piece in bytes.chunks(4093) {
                            assert_eq!(slot.write(piece), piece.len());
                        }
                        assert_eq!(slot.freeze(), bytes);
                    }
                });
                scope.spawn(move || {
                    for (seed, length, reader) in receive {
                        let bytes = pattern(seed, length);
                        let mut seen = 0;
                        while seen < length {
                            let filled = reader.filled();
                            let piece = reader.bytes(seen..filled).unwrap();
                            assert_eq!(piece, bytes[seen..filled]);
                            seen = filled;
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(arena.bytes_used(), 0);
    }
}
