//! Changes of a shard's heads that are not on disk yet: what the writer takes next, and what a
//! read from disk is corrected by until then.
//!
//! Of changes to one variant only their sum is kept, so a head refreshed a million times is
//! written once a batch.

use crate::head::{Head, KeyId, VARIANTS_MAX, Variants};
use std::collections::HashMap;
use std::sync::Arc;

/// What becomes of one variant's row.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// It holds this head, whatever it held.
    Put(Arc<Head>),
    /// It holds this head, if it holds one of the same body.
    Refresh(Arc<Head>),
    /// It goes.
    Gone,
    /// It goes, if it holds this body.
    GoneIf([u8; 16]),
}

/// What becomes of one key's rows: first `clear`, then `changes`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    /// All go that were there.
    pub(crate) clear: bool,
    /// By variant; [`VARIANTS_MAX`] heads that are put at most.
    pub(crate) changes: Vec<(i64, Change)>,
    /// They were used lately.
    pub(crate) touch: bool,
}

impl Rows {
    fn change(&mut self, variant: i64) -> Option<&mut Change> {
        self.changes.iter_mut().find(|(other, _)| *other == variant).map(|(_, change)| change)
    }

    fn set(&mut self, variant: i64, change: Change) {
        match self.change(variant) {
            Some(slot) => *slot = change,
            None => self.changes.push((variant, change)),
        }
    }

    /// The head is the newest: what was put last comes last.
    pub(crate) fn put(&mut self, head: Arc<Head>) {
        let variant = head.variant();
        self.changes.retain(|(other, _)| *other != variant);
        self.changes.push((variant, Change::Put(head)));
        let is_put = |(_, change): &(i64, Change)| matches!(change, Change::Put(_));
        let puts = self.changes.iter().filter(|change| is_put(change)).count();
        if puts >= VARIANTS_MAX {
            // So many crowd out all others, on disk, too.
            self.clear = true;
            self.changes.retain(is_put);
            self.changes.drain(..puts - VARIANTS_MAX);
        }
    }

    pub(crate) fn refresh(&mut self, head: Arc<Head>) {
        let (variant, clear) = (head.variant(), self.clear);
        match self.change(variant) {
            Some(Change::Put(old)) if old.body == head.body => self.set(variant, Change::Put(head)),
            Some(Change::Refresh(_)) => self.set(variant, Change::Refresh(head)),
            // Another body is there, or none: nothing to refresh.
            Some(_) => {}
            None if clear => {}
            None => self.changes.push((variant, Change::Refresh(head))),
        }
    }

    pub(crate) fn remove(&mut self, variant: i64, body: [u8; 16]) {
        let clear = self.clear;
        match self.change(variant) {
            Some(Change::Put(head)) if head.body != body => {}
            Some(Change::Put(_) | Change::Gone) => self.set(variant, Change::Gone),
            Some(Change::GoneIf(other)) if *other != body => self.set(variant, Change::Gone),
            Some(_) => self.set(variant, Change::GoneIf(body)),
            None if clear => {}
            None => self.changes.push((variant, Change::GoneIf(body))),
        }
    }

    /// The row of `variant` goes, whatever it holds.
    pub(crate) fn replace_with_nothing(&mut self, variant: i64) {
        self.set(variant, Change::Gone);
    }

    pub(crate) fn remove_all(&mut self) {
        *self = Self { clear: true, ..Self::default() };
    }

    /// These, and then `later`.
    fn then(&mut self, later: Self) {
        if later.clear {
            *self = later;
            return;
        }
        self.touch |= later.touch;
        for (variant, change) in later.changes {
            match change {
                Change::Put(head) => self.put(head),
                Change::Refresh(head) => self.refresh(head),
                Change::Gone => self.replace_with_nothing(variant),
                Change::GoneIf(body) => self.remove(variant, body),
            }
        }
    }

    /// What is read from disk, as it will be once these are there.
    fn over(&self, disk: Variants) -> Variants {
        let start = if self.clear { Variants::default() } else { disk };
        self.changes.iter().fold(start, |variants, (variant, change)| match change {
            Change::Put(head) => variants.with(Arc::clone(head)),
            Change::Refresh(head) => variants.refreshed(head).unwrap_or(variants),
            Change::Gone => variants.without(|head| head.variant() == *variant),
            Change::GoneIf(body) => {
                variants.without(|head| head.variant() == *variant && head.body == *body)
            }
        })
    }

    fn is_touch_alone(&self) -> bool {
        !self.clear && self.changes.is_empty()
    }

    fn bytes(&self) -> usize {
        let heads = self.changes.iter().map(|(_, change)| match change {
            Change::Put(head) | Change::Refresh(head) => head.memory_bytes(),
            Change::Gone | Change::GoneIf(_) => 0,
        });
        size_of::<(KeyId, Self)>()
            + heads.map(|bytes| bytes + size_of::<(i64, Change)>()).sum::<usize>()
    }
}

/// The changes of many keys.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) keys: HashMap<KeyId, Rows>,
    bytes: usize,
}

impl Pending {
    /// Changes one key's rows.
    pub(crate) fn change(&mut self, key: KeyId, change: impl FnOnce(&mut Rows)) {
        let rows = self.keys.entry(key).or_default();
        let before = if rows.is_touch_alone() && !rows.touch { 0 } else { rows.bytes() };
        change(rows);
        if rows.is_touch_alone() && !rows.touch {
            self.keys.remove(&key);
            self.bytes -= before;
            return;
        }
        self.bytes = self.bytes - before + rows.bytes();
    }

    /// Corrects what was read from disk.
    pub(crate) fn over(&self, key: &KeyId, disk: Variants) -> Variants {
        match self.keys.get(key) {
            Some(rows) => rows.over(disk),
            None => disk,
        }
    }

    /// Whether there is a change of `key`.
    pub(crate) fn has(&self, key: &KeyId) -> bool {
        self.keys.contains_key(key)
    }

    /// Bytes that these take in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Puts these, which could not be written, before those that came since.
    pub(crate) fn return_to(self, since: &mut Self) {
        let later = std::mem::replace(since, self);
        for (key, rows) in later.keys {
            since.change(key, |before| before.then(rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{head, selected};
    use proptest::prelude::*;

    /// One change of two variants with few bodies.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Put(u8, u8),
        Refresh(u8, u8),
        Remove(u8, u8),
        RemoveAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = || (0..2u8, 0..3u8);
        prop_oneof![
            at().prop_map(|(variant, body)| Step::Put(variant, body)),
            at().prop_map(|(variant, body)| Step::Refresh(variant, body)),
            at().prop_map(|(variant, body)| Step::Remove(variant, body)),
            Just(Step::RemoveAll),
        ]
    }

    fn of(variant: u8, body: u8) -> Arc<Head> {
        Arc::new(selected(head("s", "s.test/a", body), if variant == 0 { "br" } else { "gzip" }))
    }

    fn rows_after(rows: &mut Rows, step: Step) {
        match step {
            Step::Put(variant, body) => rows.put(of(variant, body)),
            Step::Refresh(variant, body) => rows.refresh(of(variant, body)),
            Step::Remove(variant, body) => rows.remove(of(variant, body).variant(), [body; 16]),
            Step::RemoveAll => rows.remove_all(),
        }
    }

    fn one_by_one(variants: Variants, step: Step) -> Variants {
        match step {
            Step::Put(variant, body) => variants.with(of(variant, body)),
            Step::Refresh(..) => variants,
            Step::Remove(variant, body) => {
                let gone = of(variant, body);
                variants.without(|head| head.variant() == gone.variant() && head.body == gone.body)
            }
            Step::RemoveAll => Variants::default(),
        }
    }

    fn shown(variants: &Variants) -> Vec<(i64, u8)> {
        let mut shown: Vec<_> =
            variants.iter().map(|head| (head.variant(), head.body[0])).collect();
        shown.sort_unstable();
        shown
    }

    proptest! {
        /// Never a head more than the steps leave; one fewer only where a head was removed that
        /// is not there, which costs a miss.
        #[test]
        fn the_sum_of_steps_is_the_steps(
            before in proptest::collection::vec((0..2u8, 0..3u8), 0..3),
            steps in proptest::collection::vec(step(), 0..12),
            cut in 0..12usize,
        ) {
            let disk = before.iter().fold(Variants::default(), |variants, (variant, body)| {
                variants.with(of(*variant, *body))
            });
            let wanted = steps.iter().fold(disk.clone(), |all, step| one_by_one(all, *step));
            let (mut first, mut second) = (Pending::default(), Pending::default());
            for (place, step) in steps.iter().enumerate() {
                let half = if place < cut { &mut first } else { &mut second };
                half.change(KeyId([1; 16]), |rows| rows_after(rows, *step));
            }
            first.return_to(&mut second);
            let got = shown(&second.over(&KeyId([1; 16]), disk));
            let wanted = shown(&wanted);
            prop_assert!(got.iter().all(|head| wanted.contains(head)), "{got:?} of {wanted:?}");
            let certain = steps.iter().filter(|step| matches!(step, Step::Remove(..))).count() < 2;
            prop_assert!(!certain || got == wanted, "{got:?} is not {wanted:?}");
            let rows = &second.keys.get(&KeyId([1; 16])).map_or(0, |rows| rows.changes.len());
            prop_assert!(*rows <= 2);
        }
    }

    #[test]
    fn a_million_refreshes_are_one_change() {
        let mut pending = Pending::default();
        for _ in 0..1_000_000 / 100 {
            pending.change(KeyId([1; 16]), |rows| rows.refresh(of(0, 1)));
        }
        let once = pending.bytes();
        pending.change(KeyId([1; 16]), |rows| rows.refresh(of(0, 1)));
        assert_eq!((pending.keys.len(), pending.bytes()), (1, once));
    }
}
