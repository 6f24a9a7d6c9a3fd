//! Which edge first? A pure function of the fleet and the title.

use crate::fleet::EdgeState;
use crate::{EdgeId, TitleId};
use std::collections::HashSet;

/// An edge above this share of its capacity gets a play only if nobody else can take it.
pub const LOAD_MAX: f64 = 0.9;

/// The healthy edges, best first: those with room before those without; among these, edges
/// that hold the title before others; among these, by rendezvous hashing, so that the title's
/// owner (who fetches it on demand) is the same for everybody and changes for few titles when
/// an edge joins or leaves (Thaler and Ravishankar, 1998).
#[must_use]
pub fn rank<'a>(
    edges: &'a [EdgeState],
    holders: &HashSet<EdgeId>,
    title: &TitleId,
) -> Vec<&'a EdgeState> {
    let mut ranked: Vec<&EdgeState> =
        edges.iter().filter(|edge| edge.healthy && !edge.urls.is_empty()).collect();
    ranked.sort_by_cached_key(|edge| {
        let full = edge.load >= LOAD_MAX;
        let absent = !holders.contains(&edge.id);
        (full, absent, std::cmp::Reverse(score(title, &edge.id)), edge.id.clone())
    });
    ranked
}

/// Rendezvous score of an edge for a title; stable across releases and machines.
fn score(title: &TitleId, edge: &EdgeId) -> u64 {
    let hash = blake3::hash(format!("{title}\n{edge}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(count: usize) -> Vec<EdgeState> {
        let edge = |n| EdgeState {
            id: format!("edge-{n}").parse().unwrap(),
            urls: vec![format!("http://127.0.0.{n}:8080")],
            healthy: true,
            load: 0.1,
        };
        (1..=count).map(edge).collect()
    }

    fn first(edges: &[EdgeState], title: &str) -> EdgeId {
        rank(edges, &HashSet::new(), &title.parse().unwrap())[0].id.clone()
    }

    #[test]
    fn a_holder_goes_before_the_owner_and_a_full_holder_after_it() {
        let mut edges = fleet(4);
        let title: TitleId = "film".parse().unwrap();
        let last = rank(&edges, &HashSet::new(), &title)[3].id.clone();
        let holders = HashSet::from([last.clone()]);
        assert_eq!(rank(&edges, &holders, &title)[0].id, last);
        edges.iter_mut().filter(|edge| edge.id == last).for_each(|edge| edge.load = 0.95);
        assert_eq!(rank(&edges, &holders, &title)[3].id, last);
    }

    #[test]
    fn a_dead_edge_is_not_named() {
        let mut edges = fleet(3);
        edges[1].healthy = false;
        let title = "film".parse().unwrap();
        let ranked = rank(&edges, &HashSet::new(), &title);
        assert_eq!(ranked.len(), 2);
        assert!(ranked.iter().all(|edge| edge.id.as_str() != "edge-2"));
    }

    #[test]
    fn an_edge_that_leaves_moves_only_its_own_titles() {
        let edges = fleet(5);
        for n in 0..200 {
            let title = format!("title-{n}");
            let before = first(&edges, &title);
            let after = first(&edges[..4], &title);
            assert!(before == after || before.as_str() == "edge-5");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        let owners: Vec<String> =
            (0..8).map(|n| first(&fleet(4), &format!("title-{n}")).to_string()).collect();
        insta::assert_debug_snapshot!(owners);
    }
}
