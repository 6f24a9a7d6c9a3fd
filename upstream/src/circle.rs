//! What other nodes are asked for now. One of them that asks for the same here would be given what
//! it is asked for itself: two nodes that take each other for the one to ask, and are both asked at
//! once, would wait for each other. `CDN-Loop` (RFC 8586) does not show that: it tells where one
//! request has been, and here there are two.

use crate::ask::HopId;
use caching::RangeSpec;
use http::{HeaderMap, header};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3Default;

/// Each run of so many bytes of an object has an owner of its own among nodes, so that two may well ask
/// each other for different runs.
pub const RUN_BYTES: u64 = 64 << 20;

/// For each target, who is asked for which bytes of it.
type Asked = HashMap<u64, Vec<(HopId, RangeInclusive<u64>)>>;

/// Requests to other nodes whose answers have not come to their end: what one still waits for may lie
/// behind a head.
#[derive(Clone, Default)]
pub(crate) struct AtNodes {
    asked: Arc<Mutex<Asked>>,
    /// Whether runs of one object belong to different nodes.
    splits_runs: bool,
}

/// One of them, for as long as this is held.
pub(crate) struct AtNode {
    all: AtNodes,
    target: u64,
    node: HopId,
    bytes: RangeInclusive<u64>,
}

impl AtNodes {
    pub(crate) fn new(splits_runs: bool) -> Self {
        Self { asked: Arc::default(), splits_runs }
    }

    /// Whether runs of one object belong to different nodes.
    pub(crate) fn splits_runs(&self) -> bool {
        self.splits_runs
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `node` is asked for this.
    pub(crate) fn enter(&self, node: &HopId, target: (&str, &str), fields: &HeaderMap) -> AtNode {
        let (target, bytes) = (named(target), self.bytes(fields));
        self.lock().entry(target).or_default().push((node.clone(), bytes.clone()));
        AtNode { all: self.clone(), target, node: node.clone(), bytes }
    }

    /// Which bytes are asked for: all, but where it is one range that says where it begins; where runs
    /// have owners, none beyond the first of them.
    fn bytes(&self, fields: &HeaderMap) -> RangeInclusive<u64> {
        let mut specs = fields.contains_key(header::RANGE).then(|| caching::range_specs(fields));
        let mut next = || specs.as_mut()?.next();
        let (first, last) = match (next(), next()) {
            (Some(Some(RangeSpec::From { first, last })), None) => (first, last),
            _ => (0, None),
        };
        let run_last = first | (RUN_BYTES - 1);
        let most = if self.splits_runs { run_last } else { u64::MAX };
        first..=last.unwrap_or(u64::MAX).min(most)
    }

    /// Whether one of the nodes that a request says to have passed is asked for some of the same.
    pub(crate) fn has(&self, target: (&str, &str), fields: &HeaderMap) -> bool {
        let all = self.lock();
        let Some(asked) = all.get(&named(target)) else { return false };
        let (passed, wanted) = (caching::passed(fields, true), self.bytes(fields));
        asked.iter().any(|(node, bytes)| {
            let overlap = bytes.start() <= wanted.end() && wanted.start() <= bytes.end();
            overlap && passed.contains(&node.as_str().as_bytes())
        })
    }
}

impl Drop for AtNode {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(asked) = all.get_mut(&self.target) else { return };
        let is_it = |(node, bytes): &(HopId, _)| *node == self.node && *bytes == self.bytes;
        if let Some(place) = asked.iter().position(is_it) {
            asked.swap_remove(place);
        }
        if asked.is_empty() {
            all.remove(&self.target);
        }
    }
}

fn named((host, path): (&str, &str)) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(host.as_bytes());
    hash.update(&[0]);
    hash.update(path.as_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn who_asks_for_what_it_is_asked_for_is_found_until_it_has_answered() {
        let all = AtNodes::default();
        let (film, node) = (("a.example", "/film?a=1"), HopId("edge-b".into()));
        let part = asks(&[("range", "bytes=100-199")]);
        let held = [all.enter(&node, film, &part), all.enter(&node, film, &part)];
        for (target, passed, range, is_asked) in [
            (film, "edge-b", "bytes=0-100", true),
            (film, "edge-c, edge-b", "bytes=199-", true),
            (film, "edge-b, edge-c;x=1", "bytes=-5", true),
            (film, "edge-b", "bytes=0-1,5-6", true),
            (film, "edge-b", "bytes=0-99", false),
            (film, "edge-b", "bytes=200-", false),
            (film, "edge-c", "bytes=0-", false),
            // It was there before it came to who says so.
            (film, "edge-b, edge-c;entry=1", "bytes=0-", false),
            (("b.example", "/film?a=1"), "edge-b", "bytes=0-", false),
            (("a.example", "/film"), "edge-b", "bytes=0-", false),
        ] {
            let fields = asks(&[("cdn-loop", passed), ("range", range)]);
            assert_eq!(all.has(target, &fields), is_asked, "{target:?} {fields:?}");
        }
        let whole = asks(&[("cdn-loop", "edge-b")]);
        let [first, second] = held;
        drop(first);
        assert!(all.has(film, &whole));
        drop(second);
        assert!(!all.has(film, &whole) && all.lock().is_empty());
    }

    /// Found by a review: where runs have owners, two nodes ask each other for different ones.
    #[test]
    fn who_asks_for_another_run_is_not_found_where_runs_have_owners() {
        for splits_runs in [true, false] {
            let all = AtNodes::new(splits_runs);
            let (film, node) = (("a.example", "/film"), HopId("edge-b".into()));
            let _held = all.enter(&node, film, &HeaderMap::new());
            let second = format!("bytes={RUN_BYTES}-");
            for (range, is_asked) in [("bytes=5-", true), (&*second, !splits_runs)] {
                let fields = asks(&[("cdn-loop", "edge-b"), ("range", range)]);
                assert_eq!(all.has(film, &fields), is_asked, "{range}");
            }
        }
    }
}
