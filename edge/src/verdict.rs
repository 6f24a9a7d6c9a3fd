//! The named answers of the request path, and how `Cache-Status` (RFC 9211) tells them.

use caching::{CacheStatus, Forwarded};
use http::HeaderValue;
use model::EdgeId;

/// How a request was answered. Declared from cheapest to costliest: when a body has several
/// sources, the costliest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// From memory.
    HitMemory,
    /// From the fill plan's files.
    HitPlan,
    /// From the reactive SSD tier.
    HitSsd,
    /// Somebody else's fetch from the origin was joined.
    Filling,
    /// Fetched from a sibling for this request.
    Sibling,
    /// Fetched from a parent for this request.
    Parent,
    /// Fetched from the origin for this request.
    Origin,
    /// Stored, and found to be good still.
    Revalidated,
    /// Stored and stale, but good enough.
    Stale,
    /// Passed on: not cached by its method, or not to be shared.
    Bypass,
    /// The steering manifest, made from the edge's view of the fleet.
    Steering,
    /// A CORS preflight, or another OPTIONS that is for this edge itself.
    Preflight,
    /// The client has it already (304).
    Unchanged,
    /// Not allowed, or not well-formed.
    Refused,
    /// There is no such thing.
    Absent,
    /// The origin failed.
    Failed,
    /// Too much to do.
    Busy,
}

impl Verdict {
    /// How many there are.
    pub const COUNT: usize = Self::Busy as usize + 1;

    /// Stable, for metrics, logs and `Cache-Status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HitMemory => "hit-memory",
            Self::HitPlan => "hit-plan",
            Self::HitSsd => "hit-ssd",
            Self::Filling => "filling",
            Self::Sibling => "sibling",
            Self::Parent => "parent",
            Self::Origin => "origin",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::Steering => "steering",
            Self::Preflight => "preflight",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Busy => "busy",
        }
    }

    /// Whether the bytes were here when they were asked for.
    #[must_use]
    pub fn is_hit(self) -> bool {
        matches!(self, Self::HitMemory | Self::HitPlan | Self::HitSsd)
    }

    /// The `Cache-Status` field: what was known when the headers left.
    #[must_use]
    pub fn cache_status(self, edge: &EdgeId) -> HeaderValue {
        let is_fetched = matches!(self, Self::Sibling | Self::Parent | Self::Origin);
        let is_forwarded = is_fetched || matches!(self, Self::Filling | Self::Failed);
        let told = CacheStatus {
            hit: self.is_hit(),
            forwarded: is_forwarded.then_some(Forwarded::Miss),
            stored: is_fetched,
            collapsed: self == Self::Filling,
            detail: Some(self.name()),
            ..CacheStatus::default()
        };
        told.value(edge.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_of_each_source() {
        let edge: EdgeId = "edge-a".parse().unwrap();
        let of = |verdict: Verdict| verdict.cache_status(&edge);
        assert_eq!(of(Verdict::HitPlan), "edge-a;hit;detail=\"hit-plan\"");
        assert_eq!(of(Verdict::Origin), "edge-a;fwd=miss;stored;detail=\"origin\"");
        assert_eq!(of(Verdict::Filling), "edge-a;fwd=miss;collapsed;detail=\"filling\"");
        assert_eq!(of(Verdict::Refused), "edge-a;detail=\"refused\"");
    }

    #[test]
    fn the_costliest_source_names_a_body() {
        assert_eq!(Verdict::HitMemory.max(Verdict::Origin), Verdict::Origin);
        assert_eq!(Verdict::Filling.max(Verdict::HitSsd), Verdict::Filling);
    }
}
