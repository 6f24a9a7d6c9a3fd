//! Which origin first. Pure: what is known of each, and the object's hash.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How an origin stands, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// As far as is known.
    Good,
    /// It failed lately.
    Failing,
    /// Its health check fails.
    Down,
    /// Its breaker lets nothing pass.
    Open,
}

/// What is known of an origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    /// Hash of its URL.
    pub(crate) id: u64,
    pub(crate) standing: Standing,
    /// Much slower than others of its priority.
    pub(crate) slow: bool,
    /// The caller wants another one.
    pub(crate) avoid: bool,
}

/// The places of `origins`, best first: those that stand well, by priority; within a
/// priority by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005) of the object,
/// so that each gets its share, an object stays with its origin, and few objects move when
/// an origin comes or goes.
pub(crate) fn order(origins: &[Known], object: u64) -> Vec<usize> {
    let rank = |place: &usize| {
        let known = &origins[*place];
        (known.avoid, known.standing, known.priority, known.slow, share(known, object))
    };
    let mut places: Vec<usize> = (0..origins.len()).collect();
    places.sort_by(|a, b| {
        let ((a, a_share), (b, b_share)) = (split(rank(a)), split(rank(b)));
        a.cmp(&b).then(a_share.total_cmp(&b_share))
    });
    places
}

type Rank = (bool, Standing, u32, bool, f64);

fn split(rank: Rank) -> ((bool, Standing, u32, bool), f64) {
    ((rank.0, rank.1, rank.2, rank.3), rank.4)
}

/// The lower the better: an exponential with the weight as its rate.
fn share(known: &Known, object: u64) -> f64 {
    let hash = xxh3_64_with_seed(&object.to_le_bytes(), known.id);
    // 53 bits make a number within (0, 1] that a float holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(known.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(id: u64, weight: u32, priority: u32) -> Known {
        let standing = Standing::Good;
        Known { priority, weight, id, standing, slow: false, avoid: false }
    }

    #[test]
    fn weights_are_shares() {
        let origins = [known(1, 1, 0), known(2, 3, 0), known(3, 50, 1)];
        let mut firsts = [0_u32; 3];
        (0..40_000).for_each(|object| firsts[order(&origins, object)[0]] += 1);
        assert!((9_500..10_500).contains(&firsts[0]), "{firsts:?}");
        assert_eq!(firsts[2], 0);
    }

    #[test]
    fn standing_goes_before_priority_and_slowness_after_it() {
        let mut origins = [known(1, 1, 0), known(2, 1, 1)];
        origins[0].slow = true;
        assert_eq!(order(&origins, 7), [0, 1]);
        for standing in [Standing::Failing, Standing::Down, Standing::Open] {
            origins[0].standing = standing;
            assert_eq!(order(&origins, 7), [1, 0]);
        }
        origins[1].avoid = true;
        assert_eq!(order(&origins, 7), [0, 1]);
    }

    proptest! {
        #[test]
        fn an_origin_that_leaves_moves_only_its_own_objects(
            object: u64, count in 2..8_u64, gone in 0..8_usize, weight in 1..9_u32,
        ) {
            let all: Vec<Known> = (0..count).map(|id| known(id, weight, 0)).collect();
            let mut fewer = all.clone();
            let gone = fewer.remove(gone % all.len());
            let first = |origins: &[Known]| origins[order(origins, object)[0]].id;
            prop_assert!(first(&all) == gone.id || first(&all) == first(&fewer));
        }
    }
}
