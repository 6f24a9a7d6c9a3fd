//! What a request by another node says of a purge that may not have come to this one.
//!
//! Invariant: what is stored since before that purge answers no such request, not even where the
//! origin fails, and an answer that says that it is newer is.

use super::{Wanted, now_ms};
use crate::serve::Asked;
use caching::{Reuse, Settings, Why};
use heads::Head;
use http::HeaderMap;
use upstream::NewerThan;

/// How new the answer to a request is to be. By a listener for clients anybody may say so: it
/// counts where their `no-cache` does, which is no less.
pub(super) fn than(asked: &Asked<'_>, caching: &Settings) -> Option<NewerThan> {
    let is_heeded = asked.via.peer || caching.request_directives;
    is_heeded.then(|| NewerThan::of(&asked.head.headers, now_ms())).flatten()
}

impl Wanted {
    /// Whether what is stored is from before a purge that another node knows of.
    pub(super) fn is_older(&self, head: &Head) -> bool {
        self.newer_than.as_ref().is_some_and(|newer| head.asked_ms <= newer.unix_ms)
    }

    /// Whether what is stored answers the request, which selects it.
    pub(super) fn reuse(&self, head: &Head, now_ms: i64, soft_purged: bool) -> Reuse {
        if self.is_older(head) {
            return Reuse::Revalidate(Why::RequestNoCache);
        }
        head.facts(&self.caching).reuse(&self.fields, now_ms, &self.caching, soft_purged)
    }

    /// Whether what is stored may answer in place of an origin that fails.
    pub(super) fn may_stand_in(&self, head: &Head, soft_purged: bool) -> bool {
        let (fields, settings) = (&self.fields, &self.caching);
        !self.is_older(head)
            && caching::stale_on_error(fields, &head.stored, now_ms(), settings, soft_purged)
    }

    /// Tells another node that the answer is as new as it wants.
    pub(super) fn confirm_newer(&self, fields: &mut HeaderMap) {
        if let Some(newer) = &self.newer_than {
            newer.confirm(fields);
        }
    }
}
