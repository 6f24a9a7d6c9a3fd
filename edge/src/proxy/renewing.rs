//! What a 304, an answer that takes no place in the store and the answer to a HEAD make of the
//! stored heads that they are about.
//!
//! Invariant: what one client was told stays with that one, unless a whole answer might say it to
//! all.

use super::fetch::{Began, put};
use super::{Wanted, now_ms, pass};
use crate::serve::Edge;
use caching::{Exchange, HeadUpdate, Renewal, Stored};
use heads::Head;
use http::response::Parts;
use http::{Method, StatusCode};
use std::sync::Arc;
use upstream::Answer;

/// A stored head that a 304 says is good still.
pub enum Renewed {
    /// For all.
    Shared(Arc<Head>),
    /// For the one who asked.
    Alone(Arc<Head>),
}

/// When a request was sent to the origin, and what of purges was known then.
#[derive(Clone, Copy)]
pub struct Sent {
    /// In milliseconds since 1970 UTC.
    pub requested_ms: i64,
    /// Among exchanges and invalidations.
    pub began: Began,
    /// The number of the last purge.
    pub epoch: u64,
    /// When the origin was asked at the earliest, likewise.
    pub asked_ms: i64,
}

/// Renews a stored head by the 304 that came for it (RFC 9111 section 4.3.4); none if that is
/// about another one, or a hard purge has ended it: since it was looked up, and perhaps before the
/// origin was asked, so that the renewed head would be from after that purge.
pub fn by_304(
    edge: &Edge,
    wanted: &Wanted,
    old: &Arc<Head>,
    answer: &Parts,
    sent: Sent,
) -> Option<Renewed> {
    if edge.purges.verdict(old) == heads::Verdict::Hard {
        return None;
    }
    let fields = pass::via(edge, answer);
    let (stored, ends) =
        match caching::refreshed(exchange(wanted, sent.requested_ms), &old.stored, &fields) {
            Renewal::Changed => return None,
            Renewal::Alone { renewed, ends } => (renewed, ends),
            Renewal::Shared(renewed) => {
                let renewed = renewed_head(old, renewed, wanted)?;
                let head = Head { epoch: sent.epoch, asked_ms: sent.asked_ms, ..renewed };
                return Some(Renewed::Shared(shared(edge, wanted, old, head, sent.began)));
            }
        };
    if ends {
        edge.engine.remove_head(wanted.key, old);
    }
    let Sent { epoch, asked_ms, .. } = sent;
    Some(Renewed::Alone(Arc::new(Head { stored, epoch, asked_ms, ..(**old).clone() })))
}

/// Keeps a renewed head.
fn shared(edge: &Edge, wanted: &Wanted, old: &Head, head: Head, began: Began) -> Arc<Head> {
    if head.selecting == old.selecting {
        return edge.engine.heads.update(wanted.key, &head);
    }
    // Who selected the old one may not select this one.
    let head = Arc::new(head);
    put(edge, wanted.key, &head, began);
    edge.engine.remove_head(wanted.key, old);
    head
}

/// The origin gave another answer than a 304, which is not stored: the stored head ends with it,
/// where that is not about the one who asked (RFC 9111 section 4.3.3). What an S3 origin refuses is
/// about this edge's key.
pub fn by_another(
    edge: &Edge,
    wanted: &Wanted,
    (old, soft_purged_ms): &(Arc<Head>, Option<i64>),
    answer: &Answer,
) {
    let (fields, settings) = (&wanted.fields, &wanted.caching);
    let status = answer.head.status;
    if wanted.method == Method::GET
        && answer.storable
        && caching::ends(fields, &old.stored, status, now_ms(), settings, soft_purged_ms.is_some())
    {
        edge.engine.remove_head(wanted.key, old);
    }
}

/// The answer to a condition that failed here has another version than what is stored, and was had of
/// the origin later, at `asked_ms`: what is stored ends, so that the next one who asks for that
/// version has it kept. Else each part of it would be asked for anew, for as long as the old one is
/// fresh.
pub fn by_another_version(edge: &Edge, wanted: &Wanted, answer: &Answer, asked_ms: i64) {
    let is_version = matches!(answer.head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    if wanted.method != Method::GET || !is_version || caching::is_of_one(&wanted.fields) {
        return;
    }
    let Some(variants) = edge.engine.heads.in_memory(&wanted.key) else { return };
    let fields = caching::received_fields(&answer.head.headers, now_ms());
    let is_known = caching::strong_validator_of(&fields).is_some();
    for old in variants.iter().filter(|old| wanted.selects(old)) {
        let is_other = is_known && !caching::same_validator(&old.stored, &fields);
        if is_other && old.facts(&wanted.caching).has_strong_validator() && old.asked_ms < asked_ms
        {
            edge.engine.remove_head(wanted.key, old);
        }
    }
}

/// The origin's answer to a HEAD says something of what is stored (RFC 9111 section 4.3.5).
pub fn by_head(edge: &Edge, wanted: &Wanted, head: &Parts, requested_ms: i64) {
    if wanted.method != Method::HEAD {
        return;
    }
    let Some(variants) = edge.engine.heads.in_memory(&wanted.key) else { return };
    let (status, fields) = (head.status, pass::via(edge, head));
    for old in variants.iter() {
        if !wanted.selects(old) {
            continue;
        }
        let exchange = exchange(wanted, requested_ms);
        let stored = match caching::head_update(exchange, &old.stored, old.bytes, status, &fields) {
            HeadUpdate::Refreshed(stored) => Some(stored),
            HeadUpdate::Outdated => None,
            HeadUpdate::Unrelated => continue,
        };
        let new = stored.and_then(|stored| renewed_head(old, stored, wanted));
        match new.filter(|new| new.selecting == old.selecting) {
            Some(new) => drop(edge.engine.heads.update(wanted.key, &new)),
            None => edge.engine.remove_head(wanted.key, old),
        }
    }
}

fn exchange(wanted: &Wanted, requested_ms: i64) -> Exchange<'_> {
    let (request, settings) = (&wanted.fields, &wanted.caching);
    Exchange { request, settings, requested_ms, received_ms: now_ms() }
}

/// A head with what it is found by, as its new fields say; none if no later request finds it.
fn renewed_head(old: &Head, stored: Stored, wanted: &Wanted) -> Option<Head> {
    let mut selecting = wanted.selecting(&stored.fields)?;
    let names = |selecting: &caching::Selecting| {
        selecting.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    if names(&selecting) == names(&old.selecting) {
        // Who asked may have said the same in other words.
        selecting.clone_from(&old.selecting);
    }
    let tags = caching::tags(&stored.fields).tags;
    Some(Head { stored, tags, selecting, ..old.clone() })
}
