//! In which order the answers of a connection leave (RFC 9218 section 10): the more urgent before
//! others; of one urgency one after another, as they were asked for, but those that are of use in
//! parts (`i`) take turns, all of them together as often as the first of the others. The first packet
//! of each has a turn, too, so that who asks for many things hears of each at once.
//!
//! Invariant: what has left before an answer only grows, and is never by what leaves after it.

use caching::Priority;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::outlets::locked;

/// Urgencies of RFC 9218 section 4.1.
const URGENCIES: usize = 8;
/// Bytes that the least packet of QUIC has room for (RFC 9000 section 14).
pub const PACKET_BYTES_MIN: usize = 1_200;

/// The place of an answer among others.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    priority: Priority,
    stream: u64,
}

impl Order {
    /// Of the answer to a request of this priority, by this stream.
    pub fn new(priority: Priority, stream: u64) -> Self {
        Self { priority, stream }
    }

    /// quinn's priority for its first packet. What has the higher number leaves first.
    pub fn first(&self) -> i32 {
        2 * (i32::from(Priority::default().urgency) - i32::from(self.priority.urgency))
    }

    /// The same for what follows. Our quinn-proto sends streams of an odd number one after another,
    /// in turn with those of the even number above it; another one would send them behind these.
    pub fn rest(&self) -> i32 {
        self.first() - i32::from(self.is_in_order())
    }

    fn is_in_order(&self) -> bool {
        !self.priority.incremental
    }

    fn key(&self) -> (u8, u64) {
        (self.priority.urgency, self.stream)
    }
}

/// Bytes that answers of a connection have handed over.
#[derive(Default)]
pub struct Tally {
    urgencies: [AtomicU64; URGENCIES],
    /// Answers under way that leave one after another, by urgency and stream.
    in_order: Mutex<BTreeMap<(u8, u64), Left>>,
}

/// What has left of an answer, and since it is under way of those right before it that no longer
/// are.
#[derive(Default)]
struct Left {
    own: u64,
    before: u64,
}

/// An answer under way, for as long as it is.
pub struct Place<'a> {
    tally: &'a Tally,
    order: Order,
}

impl Tally {
    /// An answer has handed over so many.
    pub fn add(&self, order: &Order, bytes: usize) {
        if let Some(all) = self.urgencies.get(usize::from(order.priority.urgency)) {
            all.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// An answer that does not leave at once.
    pub fn place(&self, order: Order) -> Place<'_> {
        if order.is_in_order() {
            locked(&self.in_order).insert(order.key(), Left::default());
        }
        Place { tally: self, order }
    }

    /// What all of them have handed over.
    pub fn all(&self) -> u64 {
        self.urgencies.iter().map(|urgency| urgency.load(Relaxed)).sum()
    }
}

impl Place<'_> {
    pub fn order(&self) -> &Order {
        &self.order
    }

    pub fn tally(&self) -> &Tally {
        self.tally
    }

    /// It has handed over so many.
    pub fn add(&self, bytes: usize) {
        self.tally.add(&self.order, bytes);
        if let Some(left) = locked(&self.tally.in_order).get_mut(&self.order.key()) {
            left.own += bytes as u64;
        }
    }

    /// What those have handed over that leave before it.
    pub fn before(&self) -> u64 {
        let (urgency, stream) = self.order.key();
        let urgent = self.tally.urgencies.iter().take(urgency.into());
        let urgent: u64 = urgent.map(|urgency| urgency.load(Relaxed)).sum();
        if !self.order.is_in_order() {
            return urgent;
        }
        let in_order = locked(&self.tally.in_order);
        let earlier = in_order.range((urgency, 0)..=(urgency, stream));
        let left = earlier.map(|((_, of), left)| match *of == stream {
            true => left.before,
            false => left.before + left.own,
        });
        urgent + left.sum::<u64>()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut in_order = locked(&self.tally.in_order);
        let (urgency, stream) = self.order.key();
        let Some(left) = in_order.remove(&(urgency, stream)) else { return };
        if let Some((_, next)) = in_order.range_mut((urgency, stream)..=(urgency, u64::MAX)).next()
        {
            next.before += left.before + left.own;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(urgency: u8, incremental: bool, stream: u64) -> Order {
        Order::new(Priority { urgency, incremental }, stream)
    }

    #[test]
    fn what_is_more_urgent_has_the_higher_number() {
        let all = (0..8).map(|urgency| order(urgency, false, 0));
        let numbers: Vec<_> = all.flat_map(|order| [order.first(), order.rest()]).collect();
        assert!(numbers.is_sorted_by(|one, next| one > next), "{numbers:?}");
        let of_use_in_parts = order(3, true, 0);
        assert_eq!((of_use_in_parts.first(), of_use_in_parts.rest()), (0, 0));
        assert_eq!(order(3, false, 8).rest(), -1);
    }

    #[test]
    fn what_left_before_one_is_the_more_urgents_and_the_earlier_ones() {
        let tally = Tally::default();
        let place = |urgency, incremental, stream| tally.place(order(urgency, incremental, stream));
        let (second, first) = (place(3, false, 4), place(3, false, 0));
        let (third, in_parts) = (place(3, false, 8), place(3, true, 12));
        let (urgent, idle) = (place(1, false, 16), place(5, false, 20));
        let before = || [&first, &second, &third, &in_parts, &idle].map(Place::before);
        first.add(1);
        assert_eq!(before(), [0, 1, 1, 0, 1]);
        in_parts.add(10);
        third.add(100);
        assert_eq!(before(), [0, 1, 1, 0, 111]);
        urgent.add(1_000);
        second.add(10_000);
        let expected = [1_000, 1_001, 11_001, 1_000, 11_111];
        assert_eq!(before(), expected);
        // Who ends is not forgotten by those behind it.
        drop(second);
        let before = || [&first, &third, &in_parts, &idle].map(Place::before);
        assert_eq!(before(), [1_000, 11_001, 1_000, 11_111]);
        drop(first);
        let before = || [&third, &in_parts, &idle].map(Place::before);
        assert_eq!(before(), [11_001, 1_000, 11_111]);
        let late = place(3, false, 2);
        late.add(7);
        assert_eq!((late.before(), third.before(), tally.all()), (1_000, 11_008, 11_118));
    }
}
