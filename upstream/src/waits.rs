//! Who waits long for the head of an answer, in a place that others wait for.
//!
//! Requests that an origin lets hang, and that share nothing, would have all its places for as long
//! as a `first-byte-timeout` each. So of those that wait long, as many are left alone as three
//! quarters of the places: what is known to be answered after such a wait, and then what came first.
//! What is beyond makes way, one for each request that waits for a place.
//!
//! Invariant: while nobody waits for a place, nobody makes way; and as many as three quarters of the
//! places are waited in to the end, so a hop that is slow with all it is asked goes on answering.
//! Where its connections take fewer requests at a time, what they take are its places.

use crate::hop::{Held, Hop};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// One part in so many of a hop's places is not for those that wait long, if others want it.
const OTHERS_SHARE: usize = 4;

/// Those who wait long at a hop, in the order in which that began.
#[derive(Default)]
pub(crate) struct Waits(Mutex<Row>);

#[derive(Default)]
struct Row {
    next: u64,
    waits: BTreeMap<u64, (bool, Arc<Notify>)>,
}

impl Row {
    /// Who is to make way next, where `kept` are left alone: of what hangs, as far as is known, those
    /// that came first.
    fn last(&self, kept: usize) -> Option<u64> {
        let of =
            |long: bool| self.waits.iter().filter(move |(_, (takes_long, _))| *takes_long == long);
        let odd = of(false).nth(kept.saturating_sub(of(true).count()));
        odd.or_else(|| of(true).nth(kept)).map(|(number, _)| *number)
    }
}

/// So many of a hop's places are left to those that wait long.
fn kept(places: usize) -> usize {
    (places - places.div_ceil(OTHERS_SHARE)).max(1)
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request waits for one of so many places: calls one who is to make way, if any is.
    pub(crate) fn call(&self, places: usize) {
        let mut row = self.lock();
        let called = row.last(kept(places)).and_then(|number| row.waits.remove(&number));
        if let Some((_, called)) = called {
            called.notify_one();
        }
    }
}

/// A long wait, until it is dropped.
pub(crate) struct Wait {
    hop: Arc<Hop>,
    number: u64,
    takes_long: bool,
    called: Arc<Notify>,
}

impl Wait {
    pub(crate) fn begin(hop: &Arc<Hop>, takes_long: bool) -> Self {
        let number = {
            let mut row = hop.waits.lock();
            row.next += 1;
            row.next
        };
        let wait = Self { hop: Arc::clone(hop), number, takes_long, called: Arc::default() };
        wait.stand();
        wait
    }

    /// In the row again; perhaps there is need of it already.
    fn stand(&self) {
        let standing = (self.takes_long, Arc::clone(&self.called));
        self.hop.waits.lock().waits.insert(self.number, standing);
        self.hop.call_if_wanted();
    }

    /// Until it is to make way, which it has begun to do then.
    pub(crate) async fn called(&self) -> Held {
        loop {
            self.called.notified().await;
            match self.hop.make_way() {
                Some(held) => return held,
                // Who waited for a place has one.
                None => self.stand(),
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.hop.waits.lock().waits.remove(&self.number);
        // It may have been called, and have its answer instead.
        self.hop.call_if_wanted();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(takes_long: &[bool]) -> Row {
        let waits =
            takes_long.iter().zip(1..).map(|(long, number)| (number, (*long, Arc::default())));
        Row { next: 0, waits: waits.collect() }
    }

    #[test]
    fn three_quarters_are_left_alone_and_one_at_the_least() {
        assert_eq!([1, 2, 3, 4, 8, 512].map(kept), [1, 1, 2, 3, 6, 384]);
    }

    #[test]
    fn what_takes_long_for_a_reason_goes_after_what_hangs() {
        let last = |takes_long: &[bool]| row(takes_long).last(3);
        assert_eq!(last(&[false, false, false]), None);
        assert_eq!(last(&[false, false, false, false, false]), Some(4));
        assert_eq!(last(&[false, true, false, false, true]), Some(3));
        assert_eq!(last(&[true, false, true, true, true]), Some(2));
        assert_eq!((last(&[true, true, true]), last(&[true, true, true, true])), (None, Some(4)));
    }
}
