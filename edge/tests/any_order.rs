//! In whatever order ranges, whole fetches, failures, new versions, purges, evictions from memory
//! and SSD, restarts in order and by SIGKILL, and leaving clients come, over HTTP/1.1, 2 and 3: an
//! answer that ends cleanly is one version's bytes, and nothing is left behind. Each seed is one
//! history. What histories found is told in `regressions`.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod order;
mod versions;

use order::{EXPECTED, Role, Tally, Used, World, expect_few};

/// Histories run by default; `NEARCAST_SEEDS=100`, or `NEARCAST_SEEDS=40-60`, for others.
const SEEDS: u64 = 12;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("NEARCAST_SEEDS") else { return 0..SEEDS };
    let number = |text: &str| text.parse().expect("NEARCAST_SEEDS is N or FIRST-END");
    match text.split_once('-') {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&text),
    }
}

/// Runs a history on a runtime of its own, whose threads end with it.
fn run(seed: u64, used: &Used) -> Tally {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tally = runtime.block_on(World::live(seed, used));
    runtime.shutdown_background();
    tally
}

/// The one test of this file, which starts it anew to be an edge.
#[test]
fn whatever_comes_in_whatever_order_an_answer_is_of_one_version() {
    if let Some(role) = Role::own() {
        return role.play();
    }
    let (used, tally) = (Used::default(), Tally::default());
    let seeds = seeds();
    let count = seeds.end.saturating_sub(seeds.start);
    seeds.for_each(|seed| tally.add_all(&run(seed, &used)));
    tally.print();
    if count >= SEEDS {
        tally.expect_all(&EXPECTED);
        expect_few(&tally);
    }
}
