//! Which peer owns a run of an object. Pure.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): everybody who knows the same peers names
//! the same owner, and a peer that leaves moves only what it owned. The load is bounded
//! (Mirrokni, Thorup and Zadimoghaddam, 2018): a peer that has more than its part of our
//! requests is passed over, so that what is hot spills to the next.
//!
//! Invariant: a node asks only siblings that rank above itself. Were it to pass itself over,
//! two nodes could wait for each other's fetch of the same bytes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A peer may have this share of the mean, in percent.
const LOAD_PERCENT_MAX: usize = 125;
/// Below this many requests at a time a peer is never passed over: a few requests that happen
/// to fall on one peer are no load, and spilling them would fetch their bytes twice.
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
    /// This node: it has always room.
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

/// The place of the owner: the best of those with room. Some member always has room, unless
/// there is none.
pub(crate) fn owner(run: &Run, members: &[Member<'_>]) -> Option<usize> {
    let load: usize = members.iter().map(|member| member.load).sum();
    let mean_percent = (load + 1) * LOAD_PERCENT_MAX;
    let bound = mean_percent.div_ceil(members.len().max(1) * 100).max(LOAD_FREE);
    let with_room =
        members.iter().enumerate().filter(|(_, member)| member.own || member.load < bound);
    with_room.max_by_key(|(_, member)| (score(run, member.id), member.id)).map(|(place, _)| place)
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
            (0..16).map(|n| owner(&run(n), &members(&ids)).map(|place| &ids[place])).collect();
        insta::assert_debug_snapshot!(owners);
    }

    #[test]
    fn runs_of_one_object_have_several_owners() {
        let ids = ids(4);
        let mut owned = [0; 4];
        for number in 0..4000 {
            owned[owner(&Run { key: [7; 16], number }, &members(&ids)).unwrap()] += 1;
        }
        assert!(owned.iter().all(|count| (900..1100).contains(count)), "{owned:?}");
    }

    proptest! {
        #[test]
        fn a_member_that_leaves_moves_only_what_it_owned(n: u64, count in 2..9_usize, gone: usize) {
            let all = ids(count);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone % count);
            let name = |ids: &[String]| ids[owner(&run(n), &members(ids)).unwrap()].clone();
            prop_assert!(name(&all) == gone || name(&all) == name(&fewer));
        }

        #[test]
        fn order_of_the_list_is_nothing(n: u64, count in 1..9_usize, turn: usize) {
            let all = ids(count);
            let mut turned = all.clone();
            turned.rotate_left(turn % count);
            let name = |ids: &[String]| ids[owner(&run(n), &members(ids)).unwrap()].clone();
            prop_assert_eq!(name(&all), name(&turned));
        }

        /// Each node's next hop ranks above it, whatever the loads: nobody waits in a circle.
        #[test]
        fn no_two_siblings_ask_each_other(n: u64, count in 2..7_usize, loads in proptest::collection::vec(0..100_usize, 49)) {
            let ids = ids(count);
            let next = |own: usize| {
                let member = |(place, id)| Member { id, load: loads[own * 7 + place], own: place == own };
                let members: Vec<_> = ids.iter().map(String::as_str).enumerate().map(member).collect();
                owner(&run(n), &members).unwrap()
            };
            for start in 0..count {
                let mut at = start;
                for _ in 0..count {
                    at = next(at);
                }
                prop_assert_eq!(next(at), at);
            }
        }

        /// However hot one run is: nobody gets more than 1.25 times the mean (rounded up), or
        /// the free number.
        #[test]
        fn a_hot_run_spills(count in 1..9_usize, requests in 1..2000_usize, hot: bool) {
            let ids = ids(count);
            let mut all = members(&ids);
            for n in 0..requests {
                let place = owner(&run(if hot { 1 } else { n as u64 }), &all);
                all[place.expect("one has room")].load += 1;
            }
            let most = all.iter().map(|member| member.load).max().unwrap();
            let bound = (requests * 125).div_ceil(count * 100).max(LOAD_FREE);
            prop_assert!(most <= bound, "{most} > {bound}");
        }
    }
}
