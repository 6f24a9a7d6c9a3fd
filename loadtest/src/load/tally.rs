//! What came: bytes, answers, times to the first byte, bodies that were not as expected.
//! One thread counts, so nothing is locked.

use super::plan::Target;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Times beyond this are counted as this.
const TIME_MAX_US: u64 = 120_000_000;
/// Texts of failures that are kept; the others are only counted.
const TEXTS_MAX: usize = 5;

struct Known {
    bytes: Cell<Option<u64>>,
    digest: Cell<Option<u64>>,
}

/// Counters of one load.
pub(super) struct Tally {
    targets: Rc<[Target]>,
    /// Of each: length and digest, as given or learnt.
    known: Vec<Known>,
    check_every: u64,
    /// Bytes of bodies, whole or not.
    pub body_bytes: Cell<u64>,
    /// Whole answers with status 200 or 206 and the right body.
    pub answers: Cell<u64>,
    /// Answers since the very start: what [`super::plan::Until::Answers`] counts.
    pub ended: Cell<u64>,
    /// Bodies whose digest was looked at.
    pub checked: Cell<u64>,
    /// Bodies of another length or content than expected.
    pub wrong: Cell<u64>,
    /// Other statuses, broken connections, broken protocol.
    pub failures: Cell<u64>,
    /// What the first of these were.
    pub texts: RefCell<Vec<String>>,
    /// From the request's intended start to its first byte of body, in microseconds.
    pub first_byte: RefCell<Histogram<u64>>,
    /// To its last.
    pub whole: RefCell<Histogram<u64>>,
}

impl Tally {
    pub(super) fn new(targets: Rc<[Target]>, check_every: u64) -> Self {
        let histogram = || {
            RefCell::new(
                Histogram::new_with_bounds(1, TIME_MAX_US, 3).expect("the bounds are valid"),
            )
        };
        let known = targets.iter().map(|target| Known {
            bytes: Cell::new(target.bytes),
            digest: Cell::new(target.digest),
        });
        Self {
            known: known.collect(),
            targets,
            check_every,
            body_bytes: Cell::new(0),
            answers: Cell::new(0),
            ended: Cell::new(0),
            checked: Cell::new(0),
            wrong: Cell::new(0),
            failures: Cell::new(0),
            texts: RefCell::default(),
            first_byte: histogram(),
            whole: histogram(),
        }
    }

    /// Forgets the warm-up; what was wrong stays.
    pub(super) fn restart(&self) {
        self.body_bytes.set(0);
        self.answers.set(0);
        self.first_byte.borrow_mut().reset();
        self.whole.borrow_mut().reset();
    }

    pub(super) fn failed(&self, text: String) {
        add(&self.failures, 1);
        self.note(text);
    }

    fn note(&self, text: String) {
        let mut texts = self.texts.borrow_mut();
        if texts.len() < TEXTS_MAX && !texts.contains(&text) {
            texts.push(text);
        }
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// One request and what has come of its answer.
pub(super) struct Exchange {
    /// Index into the plan's targets.
    pub target: usize,
    /// For paths with `{n}`.
    pub number: u64,
    /// When it should have been sent; in a closed loop, when it was.
    since: Instant,
    /// Slow readers' times say nothing about the server.
    timed: bool,
    status: u16,
    bytes: u64,
    /// Only for a body that comes in pieces.
    hash: Option<Box<Xxh3>>,
    digest: Option<u64>,
}

impl Exchange {
    pub(super) fn new(target: usize, number: u64, since: Instant, timed: bool) -> Self {
        Self { target, number, since, timed, status: 0, bytes: 0, hash: None, digest: None }
    }

    pub(super) fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// Whether the body is hashed; of others only the length counts.
    pub(super) fn is_looked_at(&self, tally: &Tally) -> bool {
        // Each target has its turn, whatever their number.
        let round = self.number / tally.targets.len() as u64;
        (self.target as u64 + round).is_multiple_of(tally.check_every)
    }

    /// So many bytes of the body.
    pub(super) fn came(&mut self, tally: &Tally, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if self.bytes == 0 && self.timed {
            record(&tally.first_byte, self.since.elapsed());
        }
        add(&tally.body_bytes, bytes);
        self.bytes += bytes;
    }

    /// Bytes of the body, in order.
    pub(super) fn body(&mut self, tally: &Tally, bytes: &[u8]) {
        self.came(tally, bytes.len() as u64);
        if bytes.is_empty() || !self.is_looked_at(tally) {
            return;
        }
        let whole = tally.known[self.target].bytes.get() == Some(bytes.len() as u64);
        if whole && self.bytes == bytes.len() as u64 {
            self.digest = Some(xxh3_64(bytes));
        } else {
            self.digest = None;
            self.hash.get_or_insert_with(|| Box::new(Xxh3::new())).update(bytes);
        }
    }

    /// The answer is whole.
    pub(super) fn end(self, tally: &Tally) {
        add(&tally.ended, 1);
        let target = &tally.known[self.target];
        let path = || tally.targets[self.target].path_of(self.number);
        if self.status != 200 && self.status != 206 {
            return tally.failed(format!("{}: status {}", path(), self.status));
        }
        let expected = target.bytes.get().unwrap_or(self.bytes);
        if expected != self.bytes {
            add(&tally.wrong, 1);
            return tally.note(format!("{}: {} bytes of {expected}", path(), self.bytes));
        }
        target.bytes.set(Some(expected));
        let digest = self.digest.or_else(|| self.hash.as_ref().map(|hash| hash.digest()));
        if let Some(digest) = digest {
            add(&tally.checked, 1);
            let expected = target.digest.get().unwrap_or(digest);
            if expected != digest {
                add(&tally.wrong, 1);
                let text = format!("{}: XXH3 {digest:016x}, expected {expected:016x}", path());
                return tally.note(text);
            }
            target.digest.set(Some(digest));
        }
        add(&tally.answers, 1);
        if self.timed {
            record(&tally.whole, self.since.elapsed());
        }
    }
}

fn record(histogram: &RefCell<Histogram<u64>>, time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(TIME_MAX_US);
    histogram.borrow_mut().saturating_record(us.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(tally: &Tally, number: u64, status: u16, parts: &[&[u8]]) {
        let mut exchange = Exchange::new(0, number, Instant::now(), true);
        exchange.status(status);
        for part in parts {
            exchange.body(tally, part);
        }
        exchange.end(tally);
    }

    #[test]
    fn a_body_is_the_same_in_one_piece_or_in_many_and_a_wrong_one_is_told() {
        let target = Target::from_line(&format!("/a 6 {:x}", xxh3_64(b"abcdef"))).unwrap();
        let tally = Tally::new(Rc::from(vec![target]), 1);
        get(&tally, 0, 200, &[b"abcdef"]);
        get(&tally, 1, 206, &[b"ab", b"", b"cdef"]);
        assert_eq!((tally.answers.get(), tally.wrong.get(), tally.checked.get()), (2, 0, 2));
        get(&tally, 2, 200, &[b"abcdeg"]);
        get(&tally, 3, 200, &[b"abc"]);
        get(&tally, 4, 200, &[b"abcdef", b"g"]);
        get(&tally, 5, 404, &[b"abcdef"]);
        assert_eq!((tally.answers.get(), tally.wrong.get(), tally.failures.get()), (2, 3, 1));
        assert!(tally.texts.borrow()[0].contains("/a: XXH3"), "{:?}", tally.texts);
        assert_eq!(tally.texts.borrow()[1], "/a: 3 bytes of 6");
        assert_eq!(tally.texts.borrow()[3], "/a: status 404");
    }

    #[test]
    fn what_was_not_given_is_learnt_from_the_first_answer() {
        let tally = Tally::new(Rc::from(vec![Target::new("/a")]), 2);
        get(&tally, 0, 200, &[b"abc", b"def"]);
        get(&tally, 2, 200, &[b"abcdef"]);
        assert_eq!((tally.answers.get(), tally.wrong.get(), tally.checked.get()), (2, 0, 2));
        // Of odd ones only the length is looked at.
        get(&tally, 3, 200, &[b"xxxxxx"]);
        assert_eq!((tally.answers.get(), tally.wrong.get()), (3, 0));
        get(&tally, 4, 200, &[b"xxxxxx"]);
        assert_eq!((tally.answers.get(), tally.wrong.get()), (3, 1));
    }
}
