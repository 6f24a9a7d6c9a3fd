//! Which peer owns a run of an object. Pure.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): everybody who knows the same peers names
//! the same owner, and a peer that leaves moves only what it owned. The load is bounded
//! (Mirrokni, Thorup and Zadimoghaddam, 2018): a peer that has more than its part of our
//! requests is passed over, so that what is hot spills to the next.
//!
//! Invariants: a node asks only siblings that rank above itself, or two nodes could wait for each
//! other's fetch of the same bytes. And it goes up itself only if none does: whoever stands in
//! for the owner asks the owner for what it has not, so that a region fetches a byte once.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A peer may have this share of the mean, in percent.
const LOAD_PERCENT_MAX: usize = 125;
/// Below this many requests at a time a peer is never passed over: a few requests that happen
/// to fall on one peer are no load, and spilling them would be a detour.
const LOAD_FREE: usize = 16;

/// Which run of which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) key: [u8; 16],
    pub(crate) number: u64,
}

/// A peer, or this node among its siblings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) id: &'a str,
    /// Our requests under way there.
    pub(crate) load: usize,
    /// This node.
    pub(crate) own: bool,
}

/// Stable across releases and machines.
fn score(run: &Run, id: &str) -> u64 {
    let key = u128::from_le_bytes(run.key);
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&key.to_le_bytes());
    bytes[16..].copy_from_slice(&run.number.to_le_bytes());
    xxh3_64_with_seed(id.as_bytes(), xxh3_64_with_seed(&bytes, 0))
}

/// The place of who is asked: of those that rank above this node the best with room, or the
/// owner, where none has. This node's own place if none ranks above it; none if there is nobody.
pub(crate) fn choose(run: &Run, members: &[Member<'_>]) -> Option<usize> {
    let load: usize = members.iter().map(|member| member.load).sum();
    let mean_percent = (load + 1) * LOAD_PERCENT_MAX;
    let bound = mean_percent.div_ceil(members.len().max(1) * 100).max(LOAD_FREE);
    let rank = |place: usize| (score(run, members[place].id), members[place].id);
    let own = members.iter().position(|member| member.own);
    let own_rank = own.map(rank);
    let ranked = (0..members.len()).map(|place| (rank(place), place));
    let above = ranked.filter(|(rank, _)| own_rank.is_none_or(|own| *rank > own));
    let with_room = above.clone().filter(|(_, place)| members[*place].load < bound);
    let chosen = with_room.max().or_else(|| above.max());
    chosen.map(|(_, place)| place).or(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(n: u64) -> Run {
        Run { key: u128::from(n).to_le_bytes(), number: n % 7 }
    }

    fn members(ids: &[String]) -> Vec<Member<'_>> {
        ids.iter().map(|id| Member { id, load: 0, own: false }).collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("edge-{n}")).collect()
    }

    #[test]
    fn the_hash_never_changes() {
        let ids = ids(5);
        let owners: Vec<_> =
            (0..16).map(|n| choose(&run(n), &members(&ids)).map(|place| &ids[place])).collect();
        insta::assert_debug_snapshot!(owners);
    }

    #[test]
    fn runs_of_one_object_have_several_owners() {
        let ids = ids(4);
        let mut owned = [0; 4];
        for number in 0..4000 {
            owned[choose(&Run { key: [7; 16], number }, &members(&ids)).unwrap()] += 1;
        }
        assert!(owned.iter().all(|count| (900..1100).contains(count)), "{owned:?}");
    }

    proptest! {
        #[test]
        fn a_member_that_leaves_moves_only_what_it_owned(n: u64, count in 2..9_usize, gone: usize) {
            let all = ids(count);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone % count);
            let name = |ids: &[String]| ids[choose(&run(n), &members(ids)).unwrap()].clone();
            prop_assert!(name(&all) == gone || name(&all) == name(&fewer));
        }

        #[test]
        fn order_of_the_list_is_nothing(n: u64, count in 1..9_usize, turn: usize) {
            let all = ids(count);
            let mut turned = all.clone();
            turned.rotate_left(turn % count);
            let name = |ids: &[String]| ids[choose(&run(n), &members(ids)).unwrap()].clone();
            prop_assert_eq!(name(&all), name(&turned));
        }

        /// Whatever the loads: nobody waits in a circle, and all end at the owner.
        #[test]
        fn all_siblings_come_to_the_owner(n: u64, count in 2..7_usize, loads in proptest::collection::vec(0..100_usize, 49)) {
            let ids = ids(count);
            let next = |own: usize| {
                let member = |(place, id)| Member { id, load: loads[own * 7 + place], own: place == own };
                let members: Vec<_> = ids.iter().map(String::as_str).enumerate().map(member).collect();
                choose(&run(n), &members).unwrap()
            };
            let owner = choose(&run(n), &members(&ids)).unwrap();
            for start in 0..count {
                let mut at = start;
                for _ in 1..count {
                    at = next(at);
                }
                prop_assert_eq!((at, next(at)), (owner, owner));
            }
        }

        /// However hot one run is: nobody gets more than 1.25 times the mean (rounded up), or
        /// the free number.
        #[test]
        fn a_hot_run_spills(count in 1..9_usize, requests in 1..2000_usize, hot: bool) {
            let ids = ids(count);
            let mut all = members(&ids);
            for n in 0..requests {
                let place = choose(&run(if hot { 1 } else { n as u64 }), &all);
                all[place.expect("one has room")].load += 1;
            }
            let most = all.iter().map(|member| member.load).max().unwrap();
            let bound = (requests * 125).div_ceil(count * 100).max(LOAD_FREE);
            prop_assert!(most <= bound, "{most} > {bound}");
        }
    }
}
