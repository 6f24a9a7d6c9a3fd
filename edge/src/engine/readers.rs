//! Who reads what a fetch brings: how far the foremost of them has got, whether there is still
//! anybody, and how the fetch failed those who have not got to the end of it yet.
//!
//! Invariant: who has joined is counted until it leaves, and nobody joins what was given up.

use super::passage::Exit;
use crate::error::Fault;
use crate::verdict::Verdict;
use chunks::Ahead;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use upstream::Urgency;

/// Who reads what one fetch brings, and how far the foremost of them has got.
pub struct Readers {
    state: Mutex<State>,
    wanted: AtomicU64,
    /// Bytes of the object before this one are taken.
    taken: AtomicU64,
    /// The fetch is to know of every byte that is taken, and of all who wait for a chunk.
    paced: AtomicBool,
    /// A chunk went past memory, ever. Thousands may read one of which none does.
    passes: AtomicBool,
    changed: Notify,
    urgency: Urgency,
}

/// How a fetch ended before it had brought all.
#[derive(Clone)]
pub struct Failed {
    /// From the first chunk that it did not bring to the last.
    pub chunks: Range<u64>,
    /// Why.
    pub fault: Fault,
    /// Who was asked last.
    pub source: Verdict,
    /// How often in a row that was on top of the first.
    pub repeats: u32,
    /// Whether the origin has been asked, after another node whose origin failed.
    pub is_last: bool,
}

#[derive(Default)]
struct State {
    reading: usize,
    /// Nobody may join any more.
    over: bool,
    /// Chunks, by number, that are here before anybody has got to them, and that the foremost is
    /// taking.
    ahead: VecDeque<(u64, Ahead)>,
    /// A chunk that goes past memory, until its reader comes for it.
    passed: Option<(u64, Exit)>,
    /// Nothing of it comes any more.
    failed: Option<Failed>,
}

/// One reader's interest in a fetch, for as long as it is held.
pub struct Reading(Arc<Readers>);

impl Readers {
    fn new(urgency: &Urgency) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wanted: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            paced: AtomicBool::new(false),
            passes: AtomicBool::new(false),
            changed: Notify::new(),
            urgency: urgency.clone(),
        })
    }

    /// Those of a fetch that begins, with the first of them, who has got to chunk `number`.
    pub fn begin(number: u64, urgency: &Urgency) -> (Arc<Self>, Reading) {
        let readers = Self::new(urgency);
        let reading = readers.join(number).expect("these readers are new: nothing gave them up");
        (readers, reading)
    }

    /// How urgent the most urgent of them is.
    pub fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins, unless the fetch has been given up.
    pub fn join(self: &Arc<Self>, number: u64) -> Option<Reading> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        state.reading += 1;
        drop(state);
        self.want(number);
        Some(Reading(Arc::clone(self)))
    }

    fn want(&self, number: u64) {
        if self.wanted.fetch_max(number, Ordering::AcqRel) < number {
            self.changed.notify_one();
        }
        self.let_go(number);
    }

    /// Keeps a chunk, in its place, until the foremost reader has it.
    pub fn keep(&self, number: u64, ahead: Ahead) {
        let mut state = self.lock();
        if state.reading > 0 && number >= self.wanted() {
            state.ahead.push_back((number, ahead));
        }
    }

    /// Lets go of the chunks before this one.
    fn let_go(&self, number: u64) {
        self.lock().ahead.retain(|(kept, _)| *kept >= number);
    }

    /// Somebody waits for a chunk.
    pub fn joined(&self) {
        if self.paced.load(Ordering::Acquire) {
            self.changed.notify_one();
        }
    }

    /// There is something to look at.
    pub fn tell(&self) {
        self.changed.notify_one();
    }

    /// The last chunk that anybody has got to.
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    /// Up to which byte of the object the foremost has taken what it read.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether [`Self::changed`] tells of every byte that is taken.
    pub fn pace(&self, paced: bool) {
        self.paced.store(paced, Ordering::Release);
    }

    /// Whether one reads, and no more.
    pub fn is_one(&self) -> bool {
        self.lock().reading == 1
    }

    /// Chunk `number` comes out there, if there is one reader. Nobody may join meanwhile.
    pub fn pass(&self, number: u64, exit: Exit) -> bool {
        let mut state = self.lock();
        let is_one = state.reading == 1;
        if is_one {
            state.passed = Some((number, exit));
            self.passes.store(true, Ordering::Release);
        }
        is_one
    }

    /// Whether nobody reads.
    pub fn is_left(&self) -> bool {
        self.lock().reading == 0
    }

    /// Gives the fetch up if nobody reads; from then on nobody can join it.
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        state.over = state.over || state.reading == 0;
        state.over
    }

    /// Whether it has been given up.
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// The fetch brings nothing more. Who reads may not have got to what it fails to bring, and is
    /// told when it does.
    pub fn fail(&self, failed: Failed) {
        self.lock().failed = Some(failed);
    }

    /// Waits until somebody gets further, or the last one leaves.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Reading {
    /// The reader has got to this chunk.
    pub fn want(&self, number: u64) {
        self.0.want(number);
    }

    /// Where this chunk comes past memory, if it does, from byte `at` of the object on; once.
    pub fn passed(&self, number: u64, at: u64) -> Option<Exit> {
        if !self.0.passes.load(Ordering::Acquire) {
            return None;
        }
        let (of, exit) = self.0.lock().passed.take()?;
        (of == number && exit.is_before(at)).then_some(exit)
    }

    /// Whether this chunk comes past memory.
    pub fn is_passed(&self, number: u64) -> bool {
        self.0.lock().passed.as_ref().is_some_and(|(of, _)| *of == number)
    }

    /// Whether it is one of these.
    pub fn is_of(&self, readers: &Arc<Readers>) -> bool {
        Arc::ptr_eq(&self.0, readers)
    }

    /// Whether it is the only one.
    pub fn is_one(&self) -> bool {
        self.0.is_one()
    }

    /// The reader has taken what is before this byte of the object, or has no need of it.
    pub fn took(&self, byte: u64) {
        // Thousands may follow one fetch: most have nothing to tell.
        if self.0.taken() < byte {
            self.0.taken.fetch_max(byte, Ordering::AcqRel);
            if self.0.paced.load(Ordering::Acquire) {
                self.0.changed.notify_one();
            }
        }
    }

    /// How the fetch failed to bring this chunk, if it did.
    pub fn failed(&self, number: u64) -> Option<Failed> {
        self.0.lock().failed.clone().filter(|failed| failed.chunks.contains(&number))
    }

    /// The reader holds all of this chunk that it wants.
    pub fn has(&self, number: u64) {
        self.0.let_go(number + 1);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reading -= 1;
        if state.reading == 0 {
            state.ahead.clear();
            state.passed = None;
            self.0.changed.notify_one();
        }
    }
}
