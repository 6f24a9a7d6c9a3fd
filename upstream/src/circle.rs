//! What other nodes are asked for now. One of them that asks for the same here would be given what
//! it is asked for itself: two nodes that take each other for the one to ask, and are both asked at
//! once, would wait for each other. `CDN-Loop` (RFC 8586) does not show that: it tells where one
//! request has been, and here there are two.
//!
//! Whoever asks for any bytes of what nobody knows yet waits for the same head, and parts of it may be
//! fetched together. So what counts as the same is all of an object, or of one run of it.

use crate::ask::HopId;
use http::HeaderMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3Default;

/// Each run of so many bytes of an object has an owner of its own among nodes, so that two may well ask
/// each other for different runs.
pub const RUN_BYTES: u64 = 64 << 20;

/// Who is asked for a target, or a run of it.
type Asked = HashMap<u64, Vec<HopId>>;

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
    what: u64,
    node: HopId,
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

    /// `node` is asked for this run of a target.
    pub(crate) fn enter(&self, node: &HopId, target: (&str, &str), run: u64) -> AtNode {
        let what = self.what(target, run);
        self.lock().entry(what).or_default().push(node.clone());
        AtNode { all: self.clone(), what, node: node.clone() }
    }

    /// Whether one of the nodes that a request says to have passed is asked for the same.
    pub(crate) fn has(&self, target: (&str, &str), run: u64, fields: &HeaderMap) -> bool {
        let what = self.what(target, run);
        let all = self.lock();
        let Some(asked) = all.get(&what) else { return false };
        let passed = caching::passed(fields, true);
        let is_passed = |node: &HopId| {
            passed.iter().any(|id| id.eq_ignore_ascii_case(node.as_str().as_bytes()))
        };
        asked.iter().any(is_passed)
    }

    /// Host and path, and where runs have owners, which.
    fn what(&self, (host, path): (&str, &str), run: u64) -> u64 {
        let run = if self.splits_runs { run } else { 0 };
        let mut hash = Xxh3Default::new();
        hash.update(&run.to_le_bytes());
        hash.update(host.as_bytes());
        hash.update(&[0]);
        hash.update(path.as_bytes());
        hash.digest()
    }
}

impl Drop for AtNode {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(asked) = all.get_mut(&self.what) else { return };
        if let Some(place) = asked.iter().position(|node| *node == self.node) {
            asked.swap_remove(place);
        }
        if asked.is_empty() {
            all.remove(&self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(nodes: &str) -> HeaderMap {
        [(http::HeaderName::from_static("cdn-loop"), nodes.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn who_asks_for_what_it_is_asked_for_is_found_until_that_has_come() {
        let all = AtNodes::default();
        let (film, node) = (("a.example", "/film?a=1"), HopId("edge-b".into()));
        let held = [all.enter(&node, film, 0), all.enter(&node, film, 0)];
        for (target, nodes, is_asked) in [
            (film, "edge-b", true),
            (film, "edge-c, Edge-B", true),
            (film, "edge-b, edge-c;x=1", true),
            (film, "edge-c", false),
            // It was there before it came to who says so.
            (film, "edge-b, edge-c;entry=1", false),
            (("b.example", "/film?a=1"), "edge-b", false),
            (("a.example", "/film"), "edge-b", false),
        ] {
            assert_eq!(all.has(target, 0, &passed(nodes)), is_asked, "{target:?} {nodes}");
        }
        let [first, second] = held;
        drop(first);
        assert!(all.has(film, 0, &passed("edge-b")));
        drop(second);
        assert!(!all.has(film, 0, &passed("edge-b")) && all.lock().is_empty());
    }

    /// Found by a review: where runs have owners, two nodes rightly ask each other for different ones.
    #[test]
    fn runs_are_the_same_but_where_they_have_owners() {
        for splits_runs in [false, true] {
            let all = AtNodes::new(splits_runs);
            let film = ("a.example", "/film");
            let _held = all.enter(&HopId("edge-b".into()), film, 1);
            assert!(all.has(film, 1, &passed("edge-b")));
            assert_eq!(all.has(film, 0, &passed("edge-b")), !splits_runs);
        }
    }
}
