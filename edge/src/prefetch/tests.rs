//! What is fetched ahead, and when no more is.

use super::budget::{HALF_LIFE, IN_FLIGHT_BYTES_MAX, REQUEST_BYTES};
use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn prefetch() -> (Prefetch, Instant) {
    (Prefetch::new(Settings::default(), &Registry::new()).unwrap(), Instant::now())
}

fn bytes(prefetch: &Prefetch, fate: &str) -> u64 {
    prefetch.0.bytes.with_label_values(&[fate]).get()
}

fn outcome(prefetch: &Prefetch, of: &str) -> u64 {
    prefetch.0.outcomes.with_label_values(&[of]).get()
}

#[test]
fn who_watches_in_sequence_gets_the_next_segments() {
    let (prefetch, _) = prefetch();
    let of = |track, number| prefetch.following([track; 16], number, 10);
    assert_eq!(of(1, 0), 1..3);
    assert_eq!(of(1, 1), 2..4);
    assert_eq!(of(2, 5), 6..6, "a jump into another track");
    assert_eq!(of(2, 6), 7..9);
    assert_eq!(of(2, 6), 7..7, "asked again: the range of a player that retries");
    assert_eq!(of(2, 7), 8..10);
    assert_eq!(of(2, 8), 9..10);
    assert_eq!(of(2, 9), 10..10, "the last one");
    assert_eq!(of(1, 2), 3..5, "another viewer of another track");
    let last = prefetch.following([3; 16], u32::MAX, u32::MAX);
    assert!(last.is_empty());
}

#[test]
fn several_viewers_of_a_track_are_told_apart() {
    let (prefetch, _) = prefetch();
    for step in 1..20 {
        for viewer in 0..8 {
            let number = 100 * viewer + step;
            let next = prefetch.following([1; 16], number, 10_000);
            assert_eq!(next.is_empty(), step == 1, "viewer {viewer}, step {step}");
        }
    }
}

#[test]
fn the_budget_follows_the_demand() {
    let (prefetch, now) = prefetch();
    let mut key = 0;
    let mut fetch = |now, count: usize| {
        (0..count)
            .filter(|_| {
                key += 1;
                prefetch.permit(now, key, MIB, false).map(|permit| permit.fetched(MIB)).is_some()
            })
            .count()
    };
    assert_eq!(fetch(now, 20), 8, "the floor");
    prefetch.demanded(|| now, 40 * MIB);
    assert_eq!(fetch(now, 20), 10, "a quarter of the demand");
    assert_eq!(
        fetch(now + HALF_LIFE, 20),
        4,
        "9 MiB of spending have faded, and 5 of the demand's share"
    );
    assert_eq!(outcome(&prefetch, "over-share"), 12 + 10 + 16);
    assert_eq!(bytes(&prefetch, "fetched"), 22 * MIB);
}

#[test]
fn a_failed_prefetch_costs_nothing_and_may_be_tried_again() {
    let (prefetch, now) = prefetch();
    for _ in 0..100 {
        drop(prefetch.permit(now, 1, 8 * MIB, false).unwrap());
    }
    assert_eq!((outcome(&prefetch, "failed"), bytes(&prefetch, "fetched")), (100, 0));
    let state = prefetch.0.state();
    assert_eq!((state.budget.in_flight_bytes, state.known.len()), (0, 0));
}

#[test]
fn what_is_given_up_costs_what_came_and_is_not_tried_again() {
    let (prefetch, now) = prefetch();
    let mut permit = prefetch.permit(now, 1, 2 * MIB, false).unwrap();
    assert!(permit.raise(now, 5 * MIB));
    assert!(!permit.raise(now, 9 * MIB));
    assert_eq!(prefetch.0.state().budget.in_flight_bytes, 5 * MIB);
    permit.gave_up(7 * MIB);
    assert_eq!((outcome(&prefetch, "failed"), bytes(&prefetch, "fetched")), (1, 7 * MIB));
    assert!(prefetch.permit(now, 1, MIB / 2, false).is_none(), "known");
    assert!(prefetch.permit(now, 2, 2 * MIB, false).is_none(), "over its share");
    assert!(prefetch.permit(now, 3, MIB, false).is_some());
    assert_eq!(prefetch.0.state().budget.in_flight_bytes, 0);
}

#[test]
fn what_came_to_nothing_costs_a_request_and_is_not_tried_again() {
    let (prefetch, now) = prefetch();
    let mut count = 0;
    // Each in a folder of its own.
    let hint = |number| Hint { folder: number, player: number };
    while let Some(permit) = prefetch.permit_hinted(now, (count, hint(count)), 2 * MIB, false) {
        permit.in_vain(0);
        count += 1;
    }
    let floor = 8 * MIB;
    assert_eq!(count, (floor - 2 * MIB) / REQUEST_BYTES + 1);
    assert_eq!((outcome(&prefetch, "over-share"), bytes(&prefetch, "fetched")), (1, 0));
    assert!(prefetch.awaited(0).is_none());
    assert!(prefetch.permit(now, 0, MIB, false).is_none());
    assert_eq!(outcome(&prefetch, "known"), 1, "whoever asked for it did not use it");
    assert_eq!(bytes(&prefetch, "useful"), 0);
}

#[test]
fn what_brought_little_costs_a_request() {
    let (prefetch, now) = prefetch();
    let small = |key| prefetch.permit(now, key, 2 * MIB, false).map(|permit| permit.fetched(100));
    assert_eq!((0..1000).filter_map(small).count(), 97);
    assert_eq!(bytes(&prefetch, "fetched"), 9700);
}

#[test]
fn a_player_whose_hints_came_to_nothing_is_left_alone_for_a_while() {
    let (prefetch, now) = prefetch();
    let hint = Hint { folder: 9, player: 1 };
    let permit = |now, key| prefetch.permit_hinted(now, (key, hint), MIB, false);
    for key in 0..3 {
        permit(now, key).unwrap().in_vain(0);
    }
    assert!(permit(now, 3).is_none());
    assert_eq!(outcome(&prefetch, "in-vain"), 1);
    let later = now + vain::LEFT_FOR;
    permit(later, 3).unwrap().fetched(MIB);
    permit(later, 4).unwrap().in_vain(0);
    assert!(permit(later, 5).is_none());
}

#[test]
fn bytes_in_flight_are_bounded() {
    let (prefetch, now) = prefetch();
    prefetch.demanded(|| now, 1 << 40);
    let held: Vec<_> =
        (0..10).filter_map(|key| prefetch.permit(now, key, 10 * MIB, false)).collect();
    assert_eq!((held.len(), outcome(&prefetch, "in-flight")), (3, 7));
    drop(held);
    assert!(prefetch.permit(now, 20, 10 * MIB, false).is_some());
    assert!(prefetch.permit(now, 21, u64::MAX, false).is_none());
}

#[test]
fn what_was_prefetched_is_useful_or_wasted() {
    let (prefetch, now) = prefetch();
    for key in [1, 2] {
        prefetch.permit(now, key, MIB, false).unwrap().fetched(MIB / 2);
    }
    assert!(prefetch.permit(now, 1, MIB, false).is_none(), "known");
    let used = prefetch.awaited(1).unwrap();
    prefetch.used(used, 0, MIB);
    assert_eq!(bytes(&prefetch, "useful"), 0, "it was fetched anew");
    for _ in 0..3 {
        prefetch.used(used, MIB / 4, 0);
    }
    assert!(prefetch.awaited(1).is_none() && prefetch.awaited(3).is_none());
    assert_eq!(bytes(&prefetch, "useful"), MIB / 2);
    assert!(prefetch.permit(now, 1, MIB, true).is_none(), "pressed");
    assert!(prefetch.permit(now + USED_WITHIN, 4, MIB, false).is_some());
    assert_eq!(bytes(&prefetch, "wasted"), MIB / 2);
}

#[test]
fn who_asks_before_it_is_here_shares_one_fetch() {
    let (prefetch, now) = prefetch();
    let permit = prefetch.permit(now, 1, MIB, false).unwrap();
    let used = prefetch.awaited(1).unwrap();
    prefetch.used(used, 0, MIB / 4);
    assert_eq!(bytes(&prefetch, "useful"), 0);
    permit.fetched(MIB);
    prefetch.used(used, 0, MIB / 4);
    assert_eq!(bytes(&prefetch, "useful"), MIB / 2);
    assert!(prefetch.permit(now + USED_WITHIN, 2, MIB, false).is_some());
    assert_eq!(bytes(&prefetch, "wasted"), MIB / 2);
}

#[test]
fn settings_switch_it_off() {
    let off = Settings { segments: 0, demand_percent: 0 };
    let prefetch = Prefetch::new(off, &Registry::new()).unwrap();
    let now = Instant::now();
    prefetch.demanded(|| now, 1 << 40);
    assert!(prefetch.following([0; 16], 0, 10).is_empty());
    assert!(prefetch.permit(now, 1, 1, false).is_none());
}

proptest! {
    #[test]
    fn whatever_happens_the_budget_holds(
        steps in prop::collection::vec((0u8..5, 0u64..6, 0u64..40 * MIB, 0u64..100), 0..80),
    ) {
        let (prefetch, mut now) = prefetch();
        let mut held: Vec<Permit> = Vec::new();
        let mut fetched = 0;
        for (what, key, size, wait) in steps {
            now += Duration::from_secs(wait);
            match what {
                0 => prefetch.demanded(|| now, size),
                1 => {
                    let awaited = prefetch.awaited(key);
                    awaited.into_iter().for_each(|used| prefetch.used(used, size, wait));
                }
                2 if !held.is_empty() => drop(held.remove(0)),
                3 if !held.is_empty() => {
                    let permit = held.remove(0);
                    let half = permit.bytes / 2;
                    fetched += half;
                    permit.fetched(half);
                }
                _ => held.extend(prefetch.permit(now, key, size, false)),
            }
            let in_flight: u64 = held.iter().map(|permit| permit.bytes).sum();
            prop_assert!(in_flight <= IN_FLIGHT_BYTES_MAX);
            prop_assert_eq!(prefetch.0.state().budget.in_flight_bytes, in_flight);
            prop_assert_eq!(bytes(&prefetch, "fetched"), fetched);
            prop_assert!(bytes(&prefetch, "useful") + bytes(&prefetch, "wasted") <= fetched);
        }
    }
}
