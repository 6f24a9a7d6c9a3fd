//! What a request by another node says of a purge that may not have come to this one.
//!
//! Invariant: what is stored since before that purge answers no such request, not even where the
//! origin fails, and an answer that says that it is newer is. After a hard purge not even the origin's
//! word that it has the same brings the bytes back.

use super::{Wanted, now_ms};
use crate::engine::Engine;
use crate::serve::{Asked, Edge};
use caching::{Reuse, Settings, Why};
use heads::{Head, KeyId};
use http::{HeaderMap, HeaderValue, header};
use upstream::{NewerThan, Purges};

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

impl Newer {
    /// Has no node asked for what is from before the hard purge of `key` that a node tells of: before
    /// anything is looked up for it, so that what it finds gets nothing older any more.
    pub(super) fn note(&self, edge: &Edge, key: &KeyId, fields: &HeaderMap) {
        if let Some(hard_ms) = self.than.purges.hard_ms.filter(|_| self.by_peer) {
            let nodes = caching::passed(fields, true);
            let is_beside = nodes.last().is_some_and(|id| edge.node.is_beside(id));
            edge.engine.told_of_purge(key, hard_ms, is_beside);
        }
    }
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
        let newer = self.newer_than.as_ref().and_then(|newer| newer.than.purges.last_ms);
        newer.is_some_and(|last_ms| is_older(head.asked_ms, last_ms, now_ms()))
            || self.is_ended(head)
    }

    /// Whether its bytes are from before a hard purge that another node knows of, whatever the origin
    /// was asked about them since: to that node nothing of it is stored. Clients, who may say what
    /// they like, get nothing to be fetched again.
    pub(super) fn is_ended(&self, head: &Head) -> bool {
        let hard_ms = self.below().hard_ms;
        hard_ms.is_some_and(|hard_ms| is_older(head.fetched_ms, hard_ms, now_ms()))
    }

    /// What the node that asks knows of purges.
    fn below(&self) -> Purges {
        let below = self.newer_than.as_ref().filter(|newer| newer.by_peer);
        below.map(|newer| newer.than.purges).unwrap_or_default()
    }

    /// When what is asked for, which has these tags, was purged last, as far as this node or the
    /// one that asks knows; or was found to be another than a node above has, or was changed by way
    /// of this one.
    pub fn purges(&self, engine: &Engine, tags: &[Box<str>]) -> Purges {
        self.below().max(engine.purges_of(&self.key, (&self.site.name, &self.url()), tags))
    }

    /// Counts a request by another node that knows of a purge since what is stored here, of which
    /// this has been `found` for it.
    pub(super) fn count_told(&self, edge: &Edge, found: Option<&Head>) {
        if !self.by_peer || self.newer_than.is_none() {
            return;
        }
        let has_ended = || {
            let variants = edge.engine.heads.in_memory(&self.key);
            variants.is_some_and(|variants| variants.iter().any(|head| self.is_ended(head)))
        };
        let strength = match found {
            Some(head) if self.is_older(head) => "soft",
            None if has_ended() => "hard",
            _ => return,
        };
        edge.metrics.purges_told.with_label_values(&[strength]).inc();
    }

    /// What of it is sent on among a client's own fields: no client speaks for a node.
    pub(super) fn forward_newer(&self, fields: &mut HeaderMap) {
        upstream::forget_purges(fields);
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

    /// Tells another node that the answer is as new as it wants, and when the origin was asked for
    /// its bytes at the earliest. Of a node that asked as a client does nobody knows that it is one, and
    /// those above may have done nothing for it: it is told, of what it asked itself, whether the origin
    /// was asked about the answer since, at `asked_ms`, and nothing of its bytes.
    pub(super) fn tell_times(&self, fields: &mut HeaderMap, asked_ms: i64, fetched_ms: i64) {
        if let Some(Newer { than, by_peer }) = &self.newer_than {
            let (asked_ms, fetched_ms) =
                if *by_peer { (i64::MAX, i64::MAX) } else { (asked_ms, i64::MIN) };
            than.confirm(fields, asked_ms, fetched_ms);
        }
        if self.by_peer {
            upstream::tell_fetched(fields, fetched_ms, now_ms());
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
