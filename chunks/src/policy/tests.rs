//! The policy's promises, on requests made up here.

use super::*;
use proptest::prelude::*;

const MIB: u32 = 1 << 20;
const GIB: u64 = 1 << 30;

fn chunk(title: u8, number: u32) -> ChunkId {
    ChunkId::new(&[title; 16], number)
}

/// A viewer plays chunks `from..to` of a title: all missed, as on a cold edge.
fn play(policy: &Policy, title: u8, numbers: std::ops::Range<u32>, hour: u64) {
    for number in numbers {
        policy.requested(chunk(title, number), MIB, Duration::from_secs(hour * 3600));
        policy.missed(MIB);
    }
}

#[test]
fn the_second_viewer_makes_a_title_worth_writing_and_the_first_does_not() {
    let policy = Policy::new(4 * GIB);
    play(&policy, 1, 0..300, 0);
    for number in 0..300 {
        assert!(!policy.admit(chunk(1, number), MIB, false), "{number}");
    }
    play(&policy, 1, 0..20, 3);
    // What the second viewer saw, and what lies just ahead of it.
    for number in 0..64 {
        assert!(policy.admit(chunk(1, number), MIB, false), "{number}");
    }
    assert!(!policy.admit(chunk(2, 0), MIB, false));
}

#[test]
fn a_disk_with_room_takes_what_was_asked_for_once_beyond_the_budget() {
    let policy = Policy::new(GIB);
    policy.requested(chunk(1, 0), MIB, Duration::ZERO);
    let begins = policy.stats();
    assert!(!policy.admit(chunk(2, 0), MIB, true), "nobody asked for it");
    assert!(policy.admit(chunk(1, 0), MIB, true));
    assert!(!policy.admit(chunk(1, 0), MIB, false));
    let bytes = u64::from(MIB);
    assert_eq!(policy.stats(), Stats { admitted_bytes: bytes, filled_bytes: bytes, ..begins });
}

#[test]
fn a_small_object_is_written_when_it_is_asked_for_again_and_a_day_later_too() {
    let policy = Policy::new(4 * GIB);
    play(&policy, 9, 0..100, 0);
    policy.requested(chunk(1, 0), 100, Duration::ZERO);
    assert!(!policy.admit(chunk(1, 0), 100, false));
    policy.requested(chunk(1, 0), 100, Duration::from_secs(86_400));
    assert!(policy.admit(chunk(1, 0), 100, false));
}

#[test]
fn what_comes_again_by_another_name_is_as_much_wanted() {
    let policy = Policy::new(4 * GIB);
    play(&policy, 1, 0..3, 0);
    policy.inherit(chunk(2, 0), chunk(1, 0));
    assert!(!policy.admit(chunk(2, 0), MIB, false), "one viewer makes nothing worth writing");
    play(&policy, 2, 0..3, 1);
    policy.inherit(chunk(3, 0), chunk(2, 0));
    for number in 0..3 {
        assert!(policy.admit(chunk(3, number), MIB, false), "{number}");
        // What is gone takes no room in the tables.
        assert!(!policy.admit(chunk(2, number), MIB, true), "{number}");
    }
    policy.inherit(chunk(5, 0), chunk(4, 0));
    assert!(!policy.admit(chunk(5, 0), MIB, true), "nobody asked for either");
}

#[test]
fn of_more_than_fits_the_most_watched_stay_and_the_others_go() {
    let policy = Policy::new(GIB);
    // Eight titles of 256 MiB: title 8 is played nine times, title 1 twice.
    for round in 1..=9 {
        for title in 1..=8u8 {
            if u64::from(title) + 1 >= 10 - round {
                play(&policy, title, 0..256, round);
            }
        }
    }
    // The next round of the sweep tells where the line is.
    play(&policy, 8, 0..1024, 10);
    let threshold = policy.stats().threshold;
    assert!((5.0..8.0).contains(&threshold), "{threshold}");
    assert!(policy.keep(chunk(8, 7), MIB));
    assert!(!policy.keep(chunk(3, 7), MIB));
    assert!(!policy.keep(chunk(77, 0), MIB));
    assert!(!policy.admit(chunk(3, 7), MIB, false));
}

#[test]
fn what_is_no_longer_watched_fades() {
    let policy = Policy::new(GIB);
    play(&policy, 1, 0..64, 0);
    play(&policy, 1, 0..64, 1);
    assert!(policy.admit(chunk(1, 0), MIB, false));
    play(&policy, 2, 0..1, 24 * 8);
    assert!(!policy.admit(chunk(1, 0), MIB, false));
}

/// A disk that has less than its setting says: budget and threshold follow what there is.
#[test]
fn a_disk_that_is_smaller_than_thought_is_filled_and_written_as_such() {
    let (thought, right) = (Policy::new(16 * GIB), Policy::new(GIB));
    thought.resized(16 * GIB, GIB);
    // More than there is room for; the tables, of another size, are gone round in time.
    for policy in [&thought, &right] {
        for number in 0..4096 {
            policy.requested(chunk(1, number), MIB, Duration::ZERO);
            policy.requested(chunk(1, number), MIB, Duration::ZERO);
        }
        for _ in 0..100_000 {
            policy.missed(MIB);
        }
    }
    assert!(right.stats().threshold > 1.0);
    assert_eq!(thought.stats(), right.stats());
    thought.resized(GIB, 2 * GIB);
    thought.missed(u32::MAX);
    assert!(thought.stats().budget_bytes > right.stats().budget_bytes);
}

#[test]
fn many_viewers_at_a_time_do_not_make_a_title_of_many_plays() {
    let policy = Policy::new(GIB);
    // Twenty viewers, each 50 chunks behind the next.
    for step in 0..50 {
        for viewer in 0..20 {
            policy.requested(chunk(1, viewer * 50 + step), MIB, Duration::ZERO);
        }
    }
    let score = policy.score(chunk(1, 0));
    assert!((1.0..=2.5).contains(&score), "{score}");
}

#[test]
fn the_tables_are_as_large_as_stated() {
    let per_tb = Popularity::table_bytes(1_000_000_000_000);
    assert!(per_tb <= TABLE_BYTES_PER_TB, "{per_tb}");
    assert!(per_tb > TABLE_BYTES_PER_TB * 9 / 10, "{per_tb}");
}

#[test]
fn numbers_that_are_neighbours_are_known_as_such_and_bodies_differ() {
    let id = |number| ChunkId::new(&[5; 16], number);
    assert_eq!(id(64).stretch(), id(127).stretch());
    assert_ne!(id(63).stretch(), id(64).stretch());
    assert_eq!(id(0).title(), id((1 << 24) - 1).title());
    assert_eq!(id(1 << 24), id(0));
    assert_ne!(id(0).title(), ChunkId::new(&[6; 16], 0).title());
}

proptest! {
    /// Whatever is asked for and in whatever order, half of what was missed is the most that
    /// is written, beyond the budget to begin with and what there was room for.
    #[test]
    fn never_more_is_written_than_half_of_what_was_missed(
        asks in prop::collection::vec((0u8..6, 0u32..200, 1u32..=MIB, 0u8..5), 1..2000),
    ) {
        let policy = Policy::new(64 << 20);
        let begins = policy.stats().budget_bytes;
        let (mut missed, mut written) = (0, 0);
        for (title, number, bytes, what) in asks {
            let id = chunk(title, number);
            match what {
                0 | 1 => policy.requested(id, bytes, Duration::from_secs(u64::from(number))),
                2 | 3 => {
                    policy.missed(bytes);
                    missed += u64::from(bytes);
                    written += if policy.admit(id, bytes, what == 3) { u64::from(bytes) } else { 0 };
                }
                _ => written += if policy.keep(id, bytes) { u64::from(bytes) } else { 0 },
            }
            let stats = policy.stats();
            prop_assert!(written <= missed / 2 + begins + stats.filled_bytes);
            prop_assert_eq!(stats.admitted_bytes + stats.kept_bytes, written);
        }
    }
}
