//! One fetch a chunk, however many read: the in-flight table.
//!
//! Invariant: a key is in the table exactly while somebody holds its [`Claim`]; whoever reads
//! is told each step of it, and its end, whatever becomes of the task that held it. A fetch
//! that was given up or failed is never told as an end of the bytes.

use super::passage::Exit;
use super::readers::{Readers, Reading};
use crate::error::Fault;
use crate::verdict::Verdict;
use arena::SlotReader;
use bytes::Bytes;
use chunks::Key;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use upstream::Urgency;

/// How far a chunk has come.
#[derive(Clone)]
pub enum Progress {
    /// Nothing yet.
    Waiting,
    /// The bytes up to `filled` may be sent; more follow.
    Open {
        /// Where they are.
        reader: SlotReader,
        /// How many.
        filled: usize,
        /// Where they come from.
        source: Verdict,
    },
    /// It is here.
    Landed(Bytes, Verdict),
    /// It will not come by this fetch, but by another one that is under way, or that whoever asks
    /// next begins; or past memory, for its only reader.
    Moved,
    /// It will not come by this fetch.
    Failed(Fault),
}

struct Entry {
    progress: watch::Receiver<Progress>,
    readers: Arc<Readers>,
    id: u64,
}

impl Entry {
    /// One more reader, who has got to chunk `number`; or one that reads it already.
    fn join(&self, number: u64, followed: Option<&Reading>) -> Option<Coming> {
        let reading = match followed.filter(|followed| followed.is_of(&self.readers)) {
            Some(followed) => {
                followed.want(number);
                None
            }
            None => Some(self.readers.join(number)?),
        };
        let progress = self.progress.clone();
        self.readers.joined();
        Some(Coming { progress, reading, is_own: false })
    }
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    claims: u64,
}

/// What is being fetched now.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<Table>>);

/// The right, and duty, to bring a chunk.
pub struct Claim {
    key: Key,
    id: u64,
    progress: watch::Sender<Progress>,
    table: InFlight,
    /// Or passed: there is nothing more to tell.
    landed: bool,
    /// What is told when it is dropped without having landed.
    unlanded: Progress,
}

/// A chunk that is being fetched, for one reader.
pub struct Coming {
    /// Its steps.
    pub progress: watch::Receiver<Progress>,
    /// Keeps the fetch going; none if who asked has that already.
    pub reading: Option<Reading>,
    /// This reader's request started it.
    pub is_own: bool,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch of `key`, on behalf of who may have `followed` it; who comes first gets the
    /// claim, and its readers, too.
    pub fn join(
        &self,
        key: Key,
        urgency: u8,
        followed: Option<&Reading>,
    ) -> (Coming, Option<(Claim, Arc<Readers>)>) {
        let number = u64::from(key.number);
        let mut table = self.lock();
        if let Some(entry) = table.entries.get(&key)
            && let Some(coming) = entry.join(number, followed)
        {
            entry.readers.urgency().raise(urgency);
            return (coming, None);
        }
        if followed.is_some_and(|followed| followed.is_passed(number)) {
            // It has left the table since who asks has looked.
            let progress = watch::channel(Progress::Moved).1;
            return (Coming { progress, reading: None, is_own: false }, None);
        }
        let (readers, reading) = Readers::begin(number, &Urgency::of(urgency));
        let (claim, progress) = self.insert(&mut table, key, &readers);
        let coming = Coming { progress, reading: Some(reading), is_own: true };
        (coming, Some((claim, readers)))
    }

    /// Joins the fetch of `key`, if there is one.
    pub fn follow(&self, key: &Key) -> Option<Coming> {
        self.lock().entries.get(key)?.join(u64::from(key.number), None)
    }

    /// Claims `key` for a fetch that others started, unless somebody fetches it already.
    pub fn claim(&self, key: Key, readers: &Arc<Readers>) -> Option<Claim> {
        let mut table = self.lock();
        match table.entries.entry(key) {
            Slot::Occupied(entry) if !entry.get().readers.is_over() => None,
            _ => Some(self.insert(&mut table, key, readers).0),
        }
    }

    fn insert(
        &self,
        table: &mut Table,
        key: Key,
        readers: &Arc<Readers>,
    ) -> (Claim, watch::Receiver<Progress>) {
        let (sender, progress) = watch::channel(Progress::Waiting);
        table.claims += 1;
        let id = table.claims;
        let readers = Arc::clone(readers);
        table.entries.insert(key, Entry { progress: progress.clone(), readers, id });
        let unlanded = Progress::Failed(Fault::Lost);
        let claim =
            Claim { key, id, progress: sender, table: self.clone(), landed: false, unlanded };
        (claim, progress)
    }

    /// Chunks that are being fetched now.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether somebody fetches `key` now.
    pub fn has(&self, key: &Key) -> bool {
        self.lock().entries.contains_key(key)
    }
}

impl Coming {
    /// A chunk that can't be had.
    pub fn failed(fault: Fault) -> Self {
        let progress = watch::channel(Progress::Failed(fault)).1;
        Self { progress, reading: None, is_own: false }
    }
}

impl Claim {
    /// What it is for.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether somebody waits for it: one receiver is the table's.
    pub fn is_awaited(&self) -> bool {
        self.progress.receiver_count() > 1
    }

    /// Whether several do.
    pub fn is_shared(&self) -> bool {
        self.progress.receiver_count() > 2
    }

    /// The first `filled` bytes may be sent.
    pub fn open(&self, reader: SlotReader, filled: usize, source: Verdict) {
        self.progress.send_replace(Progress::Open { reader, filled, source });
    }

    /// It is here. Who comes later must find it in a tier, or fetch again.
    pub fn land(mut self, bytes: Bytes, source: Verdict) {
        self.landed = true;
        self.progress.send_replace(Progress::Landed(bytes, source));
    }

    /// It goes past memory from now on, if it has one reader, who finds it at `exit`. It is out of
    /// the table before that is told. False: it has more readers, or none.
    pub fn pass(&mut self, exit: Exit) -> bool {
        let mut table = self.table.lock();
        let entry = table.entries.get(&self.key).filter(|entry| entry.id == self.id);
        if !entry.is_some_and(|entry| entry.readers.pass(u64::from(self.key.number), exit)) {
            return false;
        }
        table.entries.remove(&self.key);
        drop(table);
        self.landed = true;
        self.progress.send_replace(Progress::Moved);
        true
    }

    /// It can't be had by this fetch. It is out of the table before that is told, so that who asks
    /// anew at once does not find it again.
    pub fn fail(mut self, fault: Fault) {
        self.unlanded = Progress::Failed(fault);
    }

    /// An event of this fetch leaves it to another one; told likewise.
    pub fn hand_over(mut self) {
        self.unlanded = Progress::Moved;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        if table.entries.get(&self.key).is_some_and(|entry| entry.id == self.id) {
            table.entries.remove(&self.key);
        }
        drop(table);
        if !self.landed {
            self.progress.send_replace(std::mem::replace(&mut self.unlanded, Progress::Waiting));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Waker};

    fn key(number: u32) -> Key {
        Key { body: [7; 16], number }
    }

    #[test]
    fn one_fetches_and_all_are_told() {
        let table = InFlight::default();
        let (first, claim) = table.join(key(1), 3, None);
        let (second, none) = table.join(key(1), 3, None);
        assert!(none.is_none());
        claim.unwrap().0.land(Bytes::from_static(b"x"), Verdict::Origin);
        for coming in [first, second] {
            assert!(
                matches!(&*coming.progress.borrow(), Progress::Landed(bytes, _) if bytes == "x")
            );
        }
        assert!(!table.has(&key(1)));
    }

    #[test]
    fn a_lost_claim_is_told_as_a_failure_and_can_be_taken_again() {
        let table = InFlight::default();
        let (coming, claim) = table.join(key(1), 3, None);
        drop(claim);
        assert!(matches!(&*coming.progress.borrow(), Progress::Failed(Fault::Lost)));
        assert!(table.join(key(1), 3, None).1.is_some());
    }

    /// Looks into the table in the moment in which a step is told.
    struct Look(InFlight, AtomicU64);

    impl std::task::Wake for Look {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0.count() as u64 + 1, Ordering::Release);
        }
    }

    #[test]
    fn an_end_without_bytes_is_told_once_who_asks_anew_does_not_find_it() {
        let ends: [fn(Claim); 3] = [|claim| claim.fail(Fault::Busy), Claim::hand_over, drop];
        for end in ends {
            let table = InFlight::default();
            let (mut coming, claim) = table.join(key(1), 3, None);
            let look = Arc::new(Look(table, AtomicU64::new(0)));
            let waker = Waker::from(Arc::clone(&look));
            let mut told = std::pin::pin!(coming.progress.changed());
            assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            end(claim.unwrap().0);
            assert_eq!(look.1.load(Ordering::Acquire), 1, "nothing is in the table by then");
        }
    }

    #[test]
    fn a_fetch_that_was_given_up_is_joined_by_nobody() {
        let table = InFlight::default();
        let (coming, claim) = table.join(key(1), 3, None);
        let (claim, readers) = claim.unwrap();
        assert!(!readers.give_up());
        drop(coming);
        assert!(readers.is_left() && readers.give_up());
        let (_coming, anew) = table.join(key(1), 3, None);
        assert!(anew.is_some());
        // The end of the old claim does not touch the new one.
        drop(claim);
        assert!(table.has(&key(1)));
    }
}
