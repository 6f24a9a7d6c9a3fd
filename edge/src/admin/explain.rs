//! What is stored of one URL, told for `nearcast explain`. Plain functions: the time, the purges'
//! verdict and where chunks are come in as values.

use caching::Settings;
use heads::{Head, Verdict};
use model::admin::{ChunkPlace, ChunkRun, VariantState};
use model::chunk;
use std::ops::Range;

/// Runs of chunks that are told of one body, and chunks that are looked at; the rest is told as
/// not looked at.
const RUNS_MAX: usize = 10_000;
const LOOKED_MAX: u32 = 1 << 17;

/// What is known of one stored representation.
pub(crate) fn variant(
    head: &Head,
    (purged, soft_purged_ms): (Verdict, Option<i64>),
    settings: &Settings,
    now_ms: i64,
    place: impl Fn(u32) -> ChunkPlace,
) -> VariantState {
    let stored = &head.stored;
    let freshness = caching::freshness(stored, settings);
    let selecting = head.selecting.iter();
    VariantState {
        selecting: selecting.map(|(name, value)| (name.to_string(), value.clone())).collect(),
        status: stored.status.as_u16(),
        validator: validator(head),
        received_ms: stored.received_ms,
        asked_ms: head.asked_ms,
        fetched_ms: Some(head.fetched_ms).filter(|ms| *ms > i64::MIN),
        age_ms: caching::age_ms(stored, now_ms),
        lifetime_ms: freshness.lifetime_ms,
        waived_ms: freshness.waived_ms,
        fresh_for_ms: caching::fresh_for_ms(stored, now_ms, settings),
        lifetime_from: freshness.source.as_str().to_owned(),
        while_revalidate_ms: freshness.while_revalidate_ms,
        if_error_ms: freshness.if_error_ms,
        must_revalidate: freshness.must_revalidate,
        no_cache: freshness.no_cache,
        immutable: freshness.immutable,
        tags: head.tags.iter().map(|tag| tag_name(tag)).collect(),
        epoch: head.epoch,
        purge: word(purged).to_owned(),
        soft_purged_for_ms: soft_purged_ms.map(|at_ms| now_ms.saturating_sub(at_ms).max(0)),
        body: hex::encode(head.body),
        bytes: head.bytes,
        chunks: runs(0..chunk::count(head.bytes), place),
    }
}

fn tag_name(tag: &str) -> String {
    let name = if tag == caching::OTHER_TAGS { "(more than are kept: any tag)" } else { tag };
    name.to_owned()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Soft => "soft",
        Verdict::Hard => "hard",
    }
}

fn validator(head: &Head) -> Option<String> {
    let value = match caching::strong_validator(&head.stored)? {
        caching::Validator::ETag(value) | caching::Validator::Date(value) => value,
    };
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Where the chunks `numbers` are, neighbours of one place together.
pub(crate) fn runs(numbers: Range<u64>, place: impl Fn(u32) -> ChunkPlace) -> Vec<ChunkRun> {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (start, end) = (number(numbers.start), number(numbers.end));
    let mut runs: Vec<ChunkRun> = Vec::new();
    let most = end.min(start.saturating_add(LOOKED_MAX));
    for number in start..most {
        let (place, full) = (place(number), runs.len() == RUNS_MAX);
        match runs.last_mut() {
            Some(last) if last.place == place => last.last = number,
            Some(_) if full => break,
            _ => runs.push(ChunkRun { first: number, last: number, place }),
        }
    }
    let rest = runs.last().map_or(start, |run| run.last + 1);
    if rest < end {
        runs.push(ChunkRun { first: rest, last: end - 1, place: ChunkPlace::NotLookedAt });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_cover_a_body_and_differ_from_their_neighbours(
            places in proptest::collection::vec(0..3u8, 0..40),
        ) {
            let place = |number: u32| match places[number as usize] {
                0 => ChunkPlace::Memory,
                1 => ChunkPlace::Filling,
                _ => ChunkPlace::Absent,
            };
            let runs = runs(0..places.len() as u64, place);
            let told = runs.iter().flat_map(|run| (run.first..=run.last).map(|n| (n, run.place)));
            let wanted = (0u32..).take(places.len()).map(|number| (number, place(number)));
            prop_assert!(told.eq(wanted));
            prop_assert!(runs.windows(2).all(|pair| pair[0].place != pair[1].place));
        }
    }

    #[test]
    fn what_is_not_looked_at_is_told() {
        let last = |places: &dyn Fn(u32) -> ChunkPlace| {
            let looked = std::cell::Cell::new(0);
            let place = |number| {
                looked.set(looked.get() + 1);
                places(number)
            };
            let runs = runs(5..1 << 24, place);
            let run = runs.last().unwrap();
            assert_eq!((run.place, run.last), (ChunkPlace::NotLookedAt, (1 << 24) - 1));
            (runs.len(), run.first, looked.get())
        };
        assert_eq!(last(&|_| ChunkPlace::Absent), (2, 5 + LOOKED_MAX, LOOKED_MAX));
        let alternating = |number: u32| match number % 2 {
            0 => ChunkPlace::Memory,
            _ => ChunkPlace::Disk,
        };
        let runs_max = u32::try_from(RUNS_MAX).unwrap();
        assert_eq!(last(&alternating), (RUNS_MAX + 1, 5 + runs_max, runs_max + 1));
    }
}
