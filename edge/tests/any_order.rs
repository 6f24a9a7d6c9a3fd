//! In whatever order ranges, whole fetches, failures, new versions, purges, evictions from memory
//! and SSD, restarts in order and by SIGKILL, and leaving clients come, over HTTP/1.1, 2 and 3: an
//! answer that ends cleanly is one version's bytes, and nothing is left behind. The same of an edge
//! below two parents that stop and come back, where purges come to any of them. Each seed is one
//! history. What histories found is told in `regressions`.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod order;
mod versions;

use order::{EXPECTED, EXPECTED_IN_TREES, Role, Shape, Tally, Used, World, expect_few};

/// Histories run by default; `NEARCAST_SEEDS=100`, or `NEARCAST_SEEDS=40-60`, for others.
const SEEDS: u64 = 12;
/// The same of several nodes.
const SEEDS_OF_TREES: u64 = 4;
/// So many times as many more at most, where something that is expected has not taken place.
const MORE: u64 = 3;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("NEARCAST_SEEDS") else { return 0..default };
    let number = |text: &str| text.parse().expect("NEARCAST_SEEDS is N or FIRST-END");
    match text.split_once('-') {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&text),
    }
}

/// Runs histories, each on a runtime of its own, whose threads end with it. Of as many as there
/// are by default, all that is expected must have taken place: what comes together in a history
/// depends on the machine, too, so there are more of them until it has.
fn run(shape: Shape, default: u64, expected: &[&str]) {
    let (used, tally) = (Used::default(), Tally::default());
    let live = |seed| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        tally.add_all(&runtime.block_on(World::live(seed, shape, &used)));
        runtime.shutdown_background();
    };
    let seeds = seeds(default);
    let count = seeds.end.saturating_sub(seeds.start);
    let more =
        seeds.end..seeds.end.saturating_add(if count < default { 0 } else { MORE * default });
    seeds.for_each(live);
    more.take_while(|_| !tally.missing(expected).is_empty()).for_each(live);
    tally.print();
    if count >= default {
        tally.expect_all(expected);
        expect_few(&tally);
    }
}

/// It is started anew to be an edge.
#[test]
fn whatever_comes_in_whatever_order_an_answer_is_of_one_version() {
    match Role::own() {
        Some(role) => role.play(),
        None => run(Shape::Alone, SEEDS, &EXPECTED),
    }
}

#[test]
fn whatever_comes_to_a_node_or_those_above_it_an_answer_is_of_one_version() {
    run(Shape::Tree, SEEDS_OF_TREES, &EXPECTED_IN_TREES);
}
