//! The memory tier is a ceiling, and what others hold of it evicts no more than it must.

use super::*;
use crate::value::Copy;
use bytes::Bytes;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;

const MIB: usize = 1 << 20;

fn memory(bytes: u64) -> Memory {
    Memory::new(bytes, Metrics::new(&Registry::new()).unwrap()).unwrap()
}

fn key(number: u32) -> Key {
    Key { body: [1; 16], number }
}

/// What chunk `number` holds.
fn content(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().repeat(length / 4 + 1);
    bytes.truncate(length);
    bytes
}

fn insert(memory: &Memory, number: u32, length: usize) {
    let mut slot = memory.slot(length).unwrap();
    slot.write(&content(number, length));
    memory.insert(Chunk::new(key(number), slot.freeze(), Copy::None));
}

fn get(memory: &Memory, number: u32) -> Option<Bytes> {
    memory.get(&key(number), |chunk| chunk.bytes().clone())
}

#[test]
fn what_is_hit_leaves_a_huge_page_that_is_spent_but_for_it() {
    let arena = Arena::of(arena::Pages::Huge, 64 << 20).unwrap();
    let memory = Memory::over(arena.clone(), Metrics::new(&Registry::new()).unwrap());
    for number in 0..32 {
        insert(&memory, number, MIB);
        let bytes = get(&memory, number).unwrap();
        arena.sent(&bytes);
        let lent = arena.lend(&bytes, &mut arena::Queued::default());
        assert!(lent.is_some());
    }
    for number in (0..32).step_by(2) {
        memory.shard(&key(number)).cache.remove(&key(number));
    }
    assert_eq!((arena.bytes_used(), arena.bytes_spent()), (32 << 20, 16 << 20));
    assert_eq!(memory.bytes_kept_and_held(), (16 << 20, 0));
    for number in (1..32).step_by(2) {
        assert_eq!(get(&memory, number).unwrap(), content(number, MIB));
    }
    // As many as it took until little enough is spent.
    assert_eq!(memory.inner.metrics.memory_moved.get(), 12);
    assert_eq!((arena.bytes_used(), arena.bytes_spent()), (20 << 20, 4 << 20));
    assert_eq!(memory.bytes_kept_and_held(), (16 << 20, 0));
    for number in (1..32).step_by(2) {
        assert_eq!(get(&memory, number).unwrap(), content(number, MIB));
    }
}

#[test]
fn the_setting_is_a_ceiling_and_an_eighth_is_spare() {
    let memory = memory(32 << 20);
    for number in 0..100 {
        insert(&memory, number, MIB);
    }
    assert!(memory.inner.arena.bytes_used() <= 28 << 20);
    assert_eq!(memory.bytes(), memory.inner.arena.bytes_used());
    // One less than fits the arena's share: what is kept beside each chunk counts.
    assert_eq!(memory.inner.metrics.memory_evictions.get(), 100 - 27);
    for number in 0..100 {
        let bytes = get(&memory, number);
        assert!(bytes.is_none_or(|bytes| bytes == content(number, MIB)));
    }
}

#[test]
fn fetches_past_the_spare_room_evict_and_none_is_refused_while_a_chunk_is_left() {
    let memory = memory(32 << 20);
    for number in 0..100 {
        insert(&memory, number, MIB);
    }
    assert!(!memory.under_pressure());
    let fetches: Vec<_> = (0..32).map(|_| memory.slot(MIB).unwrap()).collect();
    assert!(memory.under_pressure());
    assert_eq!(memory.bytes(), 0);
    assert!(memory.slot(1).is_none());
    assert_eq!(memory.inner.metrics.memory_full.get(), 1);
    drop(fetches);
    assert!(!memory.under_pressure());
    assert_eq!(memory.inner.arena.bytes_used(), 0);
}

#[test]
fn a_place_lets_others_hold_no_more_while_its_chunk_is_in_the_caches() {
    let memory = memory(32 << 20);
    let mut places: Vec<_> = (0..8).map(|_| memory.ahead(0).unwrap()).collect();
    for (number, place) in (0..).zip(&mut places) {
        let mut slot = memory.slot(MIB).unwrap();
        slot.write(&content(number, MIB));
        let (bytes, chunk) = (slot.freeze(), |bytes| Chunk::new(key(number), bytes, Copy::None));
        place.keep(chunk(bytes.clone()), true);
        memory.insert(chunk(bytes));
    }
    let slots =
        |count: usize| -> Vec<_> { (0..count).map(|_| memory.slot(MIB).unwrap()).collect() };
    let fetches = slots(4);
    let more = slots(5);
    assert!(memory.under_pressure(), "a quarter and one");
    // All of the caches' goes; what has a place stays, and its place is what holds it.
    let rest: Vec<_> = std::iter::from_fn(|| memory.slot(MIB)).collect();
    assert_eq!((rest.len(), memory.bytes_kept_and_held()), (15, (0, 32 << 20)));
    drop((more, rest));
    assert!(!memory.under_pressure(), "half of what the places hold, and an eighth");
    let one_more = slots(1);
    assert!(memory.under_pressure());
    drop(one_more);
    for number in 0..8 {
        assert_eq!(get(&memory, number).unwrap(), content(number, MIB));
    }
    drop((fetches, places));
    assert_eq!(memory.inner.places.bytes_outside(), 0);
}

#[test]
fn one_fetch_evicts_no_more_than_it_needs() {
    let memory = memory(32 << 20);
    for number in 0..27 {
        insert(&memory, number, MIB);
    }
    let fetches: Vec<_> = (0..6).map(|_| memory.slot(MIB).unwrap()).collect();
    assert_eq!(memory.inner.metrics.memory_evictions.get(), 1);
    drop(fetches);
}

#[test]
fn a_chunk_that_a_response_sends_outlives_its_eviction() {
    let memory = memory(16 << 20);
    insert(&memory, 0, MIB);
    let sent = get(&memory, 0).unwrap();
    let fetches: Vec<_> = std::iter::from_fn(|| memory.slot(MIB)).collect();
    assert_eq!(fetches.len(), 15);
    assert!(get(&memory, 0).is_none());
    assert_eq!(sent, content(0, MIB));
}

#[test]
fn small_objects_do_not_keep_large_ones_out() {
    let memory = memory(16 << 20);
    for number in 0..20_000 {
        insert(&memory, number, 1 + number as usize % 9000);
        let _ = get(&memory, number / 2);
    }
    assert!(memory.inner.arena.bytes_used() <= 14 << 20);
    let fetches: Vec<_> = (0..16).map(|_| memory.slot(MIB).unwrap()).collect();
    drop(fetches);
    assert_eq!(memory.inner.arena.bytes_used(), memory.bytes());
}

#[test]
fn foreign_bytes_are_copied_in_and_the_first_copy_stays() {
    let memory = memory(16 << 20);
    let chunk = |bytes| Chunk::new(key(1), bytes, Copy::Never);
    memory.insert(chunk(Bytes::from_static(b"media")));
    assert_eq!(memory.bytes(), 4096);
    let bytes = get(&memory, 1).unwrap();
    assert!(memory.inner.arena.contains(&bytes));
    memory.insert(chunk(Bytes::from_static(b"media")));
    assert_eq!(get(&memory, 1).unwrap().as_ptr(), bytes.as_ptr());
}

#[test]
fn mixed_sizes_leave_the_caches_nearly_full() {
    let memory = memory(64 << 20);
    let mut random = StdRng::seed_from_u64(1);
    let (mut least, mut fetching) = (u64::MAX, VecDeque::new());
    for number in 0..20_000u32 {
        let length = match random.random_range(0..10) {
            0..7 => random.random_range(100..30_000),
            7 => random.random_range(100_000..500_000),
            _ => MIB,
        };
        // Three fetches are under way at any time.
        fetching.push_back((number, memory.slot(length).unwrap()));
        if fetching.len() > 3 {
            let (number, mut slot) = fetching.pop_front().unwrap();
            slot.write(&content(number, slot.capacity()));
            memory.insert(Chunk::new(key(number), slot.freeze(), Copy::None));
        }
        let _ = get(&memory, number.saturating_sub(random.random_range(0..400)));
        if number > 5000 {
            least = least.min(memory.bytes());
        }
    }
    // Of 56 MiB: what small blocks scatter costs a tenth at worst.
    assert!(least > 48 << 20, "{least}");
}
