//! What a request by another node says of a purge that may not have come to this one.
//!
//! Invariant: what is stored since before that purge answers no such request, not even where the
//! origin fails, and an answer that says that it is newer is.

use super::{Wanted, now_ms};
use crate::serve::{Asked, Edge};
use caching::{Reuse, Settings, Why};
use heads::Head;
use http::{HeaderMap, HeaderValue, header};
use upstream::NewerThan;

/// How new the answer to a request is to be.
pub(super) struct Newer {
    than: NewerThan,
    /// A node says so, by a listener for nodes.
    by_peer: bool,
}

/// What a request says of it. By a listener for clients anybody may say so: it counts where their
/// `no-cache` does, and as that for the nodes above.
pub(super) fn than(asked: &Asked<'_>, caching: &Settings) -> Option<Newer> {
    let by_peer = asked.via.peer;
    let is_heeded = by_peer || caching.request_directives;
    let than = is_heeded.then(|| NewerThan::of(&asked.head.headers, now_ms())).flatten()?;
    Some(Newer { than, by_peer })
}

/// Whether what the origin was asked for at `asked_ms` is from before `purged_ms`, or may be.
fn is_older(asked_ms: i64, purged_ms: i64, now_ms: i64) -> bool {
    // A time to come is of a clock that was set back since, and says nothing; but what another
    // node says to be newer is taken to be newer by a millisecond.
    asked_ms <= purged_ms || asked_ms > now_ms.saturating_add(1)
}

impl Wanted {
    /// Whether what is stored is from before a purge that another node knows of.
    pub(super) fn is_older(&self, head: &Head) -> bool {
        let newer = self.newer_than.as_ref();
        newer.is_some_and(|newer| is_older(head.asked_ms, newer.than.unix_ms, now_ms()))
    }

    /// When what is asked for, which has these tags, was purged last, as far as this node or the
    /// one that asks knows; or was found to be another than a node above has, or was changed by way
    /// of this one.
    pub(super) fn purged_ms(&self, edge: &Edge, tags: &[Box<str>]) -> Option<i64> {
        let below = self.newer_than.as_ref().filter(|newer| newer.by_peer);
        let below = below.map(|newer| newer.than.unix_ms);
        let outdated = edge.engine.others_outdated_ms(&self.key);
        edge.purges.last(&self.site.name, &self.url(), tags).max(below).max(outdated)
    }

    /// What of it is sent on among a client's own fields: no client speaks for a node.
    pub(super) fn forward_newer(&self, fields: &mut HeaderMap) {
        upstream::forget_newer_than(fields);
        if self.newer_than.as_ref().is_some_and(|newer| !newer.by_peer) {
            fields.append(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
    }

    /// Whether what is stored answers the request, which selects it.
    pub(super) fn reuse(&self, head: &Head, now_ms: i64, soft_purged_ms: Option<i64>) -> Reuse {
        if self.is_older(head) {
            return match self.wishes().only_if_cached {
                true => Reuse::OnlyIfCached,
                false => Reuse::Revalidate(Why::RequestNoCache),
            };
        }
        head.facts(&self.caching).reuse(&self.fields, now_ms, &self.caching, soft_purged_ms)
    }

    /// Whether what is stored may answer in place of an origin that fails.
    pub(super) fn may_stand_in(&self, head: &Head, soft_purged_ms: Option<i64>) -> bool {
        let (fields, settings) = (&self.fields, &self.caching);
        !self.is_older(head)
            && caching::stale_on_error(fields, &head.stored, now_ms(), settings, soft_purged_ms)
    }

    /// Whether what is stored may answer before an origin that takes long.
    pub(super) fn may_go_before(&self, head: &Head, soft_purged_ms: Option<i64>) -> bool {
        let (fields, settings) = (&self.fields, &self.caching);
        !self.is_older(head)
            && caching::stale_when_slow(fields, &head.stored, now_ms(), settings, soft_purged_ms)
    }

    /// Tells another node that the answer, for which the origin was asked at `asked_ms` at the
    /// earliest, is as new as it wants. For a node that asked as a client does, those above may
    /// have done nothing.
    pub(super) fn confirm_newer(&self, fields: &mut HeaderMap, asked_ms: i64) {
        if let Some(Newer { than, by_peer }) = &self.newer_than
            && (*by_peer || asked_ms > than.unix_ms)
        {
            than.confirm(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn what_is_from_a_time_to_come_may_be_from_before_the_purge() {
        for (asked_ms, is_so) in [(999, true), (1_000, true), (1_001, false), (5_001, false)] {
            assert_eq!(is_older(asked_ms, 1_000, 5_000), is_so, "{asked_ms}");
        }
        assert!(is_older(5_002, 1_000, 5_000), "the clock was set back");
    }
}
