use std::{
    collections::VecDeque,
    ops::{Bound, RangeBounds},
};

/// Packets sent and neither acknowledged nor deemed lost yet, by number
///
/// Numbers only grow, few are skipped, and packets leave mostly from the front. So this is a queue
/// in which a packet is found by its distance from the front; what leaves from the middle leaves
/// its place vacant.
pub(super) struct SentPackets<T> {
    /// In ascending order; the first and the last place are never vacant
    places: VecDeque<(u64, Option<T>)>,
    /// How many places are
    vacant: usize,
}

impl<T> Default for SentPackets<T> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            vacant: 0,
        }
    }
}

impl<T> SentPackets<T> {
    /// Places kept however few are in use, and vacant ones that are put up with
    const SPARE: usize = 64;
    /// Room is given back when not one in so many places is in use: acknowledgements come in
    /// bursts, after which room is needed again
    const SHRINK: usize = 16;

    /// The place of the first packet numbered `number` or above
    fn lower_bound(&self, number: u64) -> usize {
        let first = self.places.front().map_or(0, |place| place.0);
        // Numbers grow by at least one for each place.
        let most = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        let most = most.min(self.places.len());
        match most.checked_sub(1).map(|before| self.places[before].0) {
            Some(before) if before >= number => {
                self.places.partition_point(|place| place.0 < number)
            }
            _ => most,
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        let place = self.lower_bound(number);
        (self.places.get(place)?.0 == number).then_some(place)
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.places[self.place(number)?].1.as_ref()
    }

    /// Adds a packet, whose number must be above all that were added before
    #[inline(always)] // so that it is made in its place
    pub(super) fn push(&mut self, number: u64, packet: T) {
        debug_assert!(self.places.back().is_none_or(|last| last.0 < number));
        self.places.push_back((number, Some(packet)));
    }

    #[inline(always)] // so that it is moved once
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let packet = match self.places.front() {
            Some(first) if first.0 == number => self.places.pop_front()?.1,
            _ => self.vacate(number),
        };
        self.tidy();
        packet
    }

    fn vacate(&mut self, number: u64) -> Option<T> {
        let place = self.place(number)?;
        let packet = self.places[place].1.take()?;
        self.vacant += 1;
        Some(packet)
    }

    fn tidy(&mut self) {
        if self.vacant > 0 {
            self.close_vacant();
        }
        let capacity = self.places.capacity();
        if capacity > Self::SPARE && self.places.len() * Self::SHRINK < capacity {
            self.places.shrink_to(Ord::max(capacity / 2, Self::SPARE));
        }
    }

    fn close_vacant(&mut self) {
        while let Some((_, None)) = self.places.front() {
            self.places.pop_front();
            self.vacant -= 1;
        }
        while let Some((_, None)) = self.places.back() {
            self.places.pop_back();
            self.vacant -= 1;
        }
        if self.vacant > Self::SPARE && self.vacant * 2 > self.places.len() {
            self.places.retain(|place| place.1.is_some());
            self.vacant = 0;
        }
    }

    /// The packets with these numbers, in ascending order
    pub(super) fn range(
        &self,
        numbers: impl RangeBounds<u64>,
    ) -> impl Iterator<Item = (u64, &T)> {
        let start = match numbers.start_bound() {
            Bound::Included(&number) => self.lower_bound(number),
            Bound::Excluded(&number) => self.lower_bound(number.saturating_add(1)),
            Bound::Unbounded => 0,
        };
        let end = match numbers.end_bound() {
            Bound::Included(&number) => self.lower_bound(number.saturating_add(1)),
            Bound::Excluded(&number) => self.lower_bound(number),
            Bound::Unbounded => self.places.len(),
        };
        self.places
            .range(start..Ord::max(start, end))
            .filter_map(|(number, packet)| Some((*number, packet.as_ref()?)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.1.as_ref())
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.1.as_mut())
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().filter_map(|place| place.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::collections::BTreeMap;

    #[test]
    fn equals_a_map() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut packets, mut map) = (SentPackets::default(), BTreeMap::new());
        let mut next = 0;
        for step in 0..20_000_u64 {
            // Grows, then shrinks, and anew
            if rng.random_bool(if step % 2_000 < 900 { 0.8 } else { 0.2 }) {
                next += 1 + u64::from(rng.random_bool(0.05));
                packets.push(next, step);
                map.insert(next, step);
            }
            let number = next.saturating_sub(rng.random_range(0..300));
            assert_eq!(packets.get(number), map.get(&number));
            assert_eq!(packets.remove(number), map.remove(&number));
            let range = number..=number + 20;
            assert!(packets.range(range.clone()).eq(map.range(range).map(|(&n, p)| (n, p))));
            let above = (Bound::Excluded(number), Bound::Unbounded);
            assert_eq!(
                packets.range(above).next().map(|(n, _)| n),
                map.range(above).next().map(|(&n, _)| n)
            );
            assert!(packets.places.len() <= 2 * map.len() + 2 * SentPackets::<u64>::SPARE);
        }
        assert!(packets.values().eq(map.values()));
    }

    #[test]
    fn one_that_stays_holds_no_place_for_others() {
        let mut packets = SentPackets::default();
        packets.push(0, ());
        for number in 1..100_000 {
            packets.push(number, ());
            if number > 1 {
                packets.remove(number - 1);
            }
            assert!(packets.places.capacity() <= 256);
        }
    }
}
