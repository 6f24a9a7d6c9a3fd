//! Which pages the kernel may hold: `sendfile(2)` queues pages, not copies, and returns before
//! the peer has them. Filled anew, such a page would carry another's bytes to that peer.
//!
//! Invariant: a page that was lent is never written again. Before its block is handed out
//! anew, a hole is punched there: what is queued keeps the old page, the block gets a new one.
//!
//! That costs about as much as the copy which lending saves, so only bytes that were sent before
//! are lent.

use crate::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Units of the smallest block in a word of bits.
const WORD_UNITS: usize = u64::BITS as usize;
/// Words for a largest block.
const REGION_WORDS: usize = BLOCK_BYTES_MAX / BLOCK_BYTES_MIN / WORD_UNITS;

/// A bit for each smallest block.
#[derive(Debug)]
struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(units: usize) -> Self {
        Self((0..units.div_ceil(WORD_UNITS)).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, unit: usize) {
        if !self.is_set(unit) {
            self.0[unit / WORD_UNITS].fetch_or(1 << (unit % WORD_UNITS), Ordering::Relaxed);
        }
    }

    fn is_set(&self, unit: usize) -> bool {
        self.0[unit / WORD_UNITS].load(Ordering::Relaxed) & 1 << (unit % WORD_UNITS) != 0
    }

    /// Clears bits; whether any was set.
    fn clear(&self, units: Range<usize>) -> bool {
        let mut any = false;
        let mut unit = units.start;
        while unit < units.end {
            let end = units.end.min((unit / WORD_UNITS + 1) * WORD_UNITS);
            let mask = (u64::MAX >> (WORD_UNITS - (end - unit))) << (unit % WORD_UNITS);
            let word = &self.0[unit / WORD_UNITS];
            if word.load(Ordering::Relaxed) & mask != 0 {
                any |= word.fetch_and(!mask, Ordering::Relaxed) & mask != 0;
            }
            unit = end;
        }
        any
    }

    /// Whether a bit is set in the largest block around a unit.
    fn any_around(&self, unit: usize) -> bool {
        let start = unit / WORD_UNITS / REGION_WORDS * REGION_WORDS;
        self.0.iter().skip(start).take(REGION_WORDS).any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

/// What was sent, and what of it was lent. All orderings are relaxed: who lends holds the bytes,
/// and gives them up, with the ordering of an `Arc`, before their block comes here again.
#[derive(Debug)]
pub(crate) struct Lent {
    sent: Bits,
    lent: Bits,
}

impl Lent {
    /// For an arena of so many of the smallest blocks.
    pub(crate) fn new(units: usize) -> Self {
        Self { sent: Bits::new(units), lent: Bits::new(units) }
    }

    /// Whether bytes that begin in this unit are worth lending: they were sent before, or are the
    /// rest, which begins anywhere, of a piece that was.
    pub(crate) fn is_worth_it(&self, unit: usize) -> bool {
        self.sent.is_set(unit) || self.lent.any_around(unit)
    }

    /// Bytes that begin in this unit were sent as copies. A mark at the first unit is enough,
    /// for a piece lies within its block; also below.
    pub(crate) fn sent(&self, unit: usize) {
        self.sent.set(unit);
    }

    /// Bytes that begin in this unit are about to be lent.
    pub(crate) fn lend(&self, unit: usize) {
        self.lent.set(unit);
    }

    /// A block is given back: whether any of it was lent.
    pub(crate) fn give_back(&self, units: Range<usize>) -> bool {
        self.sent.clear(units.clone());
        self.lent.clear(units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn bits_are_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0usize..600, 0usize..300), 0..200),
        ) {
            let (bits, mut set) = (Bits::new(600), BTreeSet::new());
            for (sets, start, count) in steps {
                prop_assert_eq!(bits.is_set(start), set.contains(&start));
                if sets {
                    bits.set(start);
                    set.insert(start);
                } else {
                    let end = (start + count).min(600);
                    let inside: Vec<usize> = set.range(start..end).copied().collect();
                    prop_assert_eq!(bits.clear(start..end), !inside.is_empty());
                    set.retain(|unit| !inside.contains(unit));
                }
                let region = start / 256 * 256;
                prop_assert_eq!(bits.any_around(start), set.range(region..region + 256).count() > 0);
            }
        }
    }
}
