//! The request to the origin, or to another node before it, and what is done where that answers
//! from before a purge.
//!
//! Invariant: what another node has kept since before a purge that this node knows of, or that a
//! node below it does, is never given on.

use super::super::{Wanted, now_ms};
use super::Fetch;
use super::span::Span;
use super::under_way::Began;
use crate::engine::OWNED_RUN_BYTES;
use crate::error::Fault;
use crate::serve::Edge;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use upstream::{Answer, Ask, HopKind, Misread, Purges};

/// What a request to the origin came to.
pub(in crate::proxy) struct Sent {
    pub(in crate::proxy) answered: Result<Answer, Fault>,
    pub(in crate::proxy) requested_ms: i64,
    /// When the origin was asked at the earliest, whichever nodes are between.
    pub(in crate::proxy) asked_ms: i64,
    pub(in crate::proxy) began: Began,
}

impl Fetch {
    /// The request to the origin, perhaps on condition or for a range. With both it answers 304,
    /// or with the range of the new version (RFC 9110 section 13.2.2).
    fn ask(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Ask {
        let mut ask = self.wanted.site.ask(&self.wanted);
        ask.urgency = self.urgency.clone();
        if self.is_in_background {
            ask.answer_by = None;
        }
        if let Some(fields) = conditional {
            ask.fields.extend(fields.clone());
        }
        // What will not be kept is the client's alone: so is what it says of what it has of it, and of
        // the range.
        let own = [
            (header::IF_NONE_MATCH, self.is_on_own),
            (header::IF_MODIFIED_SINCE, self.is_on_own),
            (header::IF_RANGE, self.is_exact),
        ];
        for name in own.into_iter().filter_map(|(name, is_sent)| is_sent.then_some(name)) {
            for condition in self.wanted.fields.get_all(&name) {
                ask.fields.append(&name, condition.clone());
            }
        }
        if let Some(range) = range {
            ask.run = range.start / OWNED_RUN_BYTES;
            let text = match range.end {
                Some(end) => format!("bytes={}-{}", range.start, end - 1),
                None => format!("bytes={}-", range.start),
            };
            if let Ok(value) = HeaderValue::try_from(text) {
                ask.fields.insert(header::RANGE, value);
            }
        }
        ask
    }

    /// Asks, for all who want the same. An origin that takes no range which has an end is asked for
    /// one that has none, once, and what it sends is left at that end; one that begins at
    /// the first byte whatever is asked for is asked for the whole, once.
    pub(super) async fn send(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Sent {
        let mut sent = self.asking().send(|| self.ask(conditional, range)).await;
        let Some(span) = range else { return sent };
        let mut wider = [Misread::Digits, Misread::NoStart].into_iter();
        while let Some(misread) = misread(&sent)
            && wider.any(|way| way == misread)
        {
            drop(sent);
            let range = (misread == Misread::Digits).then_some(Span { end: None, ..span });
            let reach = range.and(span.end);
            let mut ask = Ask { at_the_origin: true, reach, ..self.ask(conditional, range) };
            if range.is_none() {
                ask.fields.remove(header::IF_RANGE);
            }
            sent = self.asking().once(ask).await;
        }
        sent
    }

    /// When what is asked for was purged last, as far as is known before it is asked for.
    pub(super) fn purges(&self) -> Purges {
        self.asking().purges(None)
    }

    fn asking(&self) -> Asking<'_> {
        let tags = self.stale.as_ref().map_or(&[][..], |(old, _)| &old.tags);
        Asking { edge: &self.edge, wanted: &self.wanted, tags }
    }
}

fn misread(sent: &Sent) -> Option<Misread> {
    sent.answered.as_ref().err().and_then(Fault::misread)
}

/// What is asked for on a request's behalf.
pub(in crate::proxy) struct Asking<'a> {
    pub(in crate::proxy) edge: &'a Edge,
    pub(in crate::proxy) wanted: &'a Wanted,
    /// Those of what is stored of it.
    pub(in crate::proxy) tags: &'a [Box<str>],
}

impl Asking<'_> {
    /// Sends the request. Another node is told of the last purge, which may not have come to it
    /// yet: it asks as well then, unless it has done so since. Where the answer alone tells, by its
    /// tags, that it was purged, that node is asked again; one that answers from before the purge
    /// for all that is passed by.
    pub(in crate::proxy) async fn send(&self, ask: impl Fn() -> Ask) -> Sent {
        let known = self.purges(None);
        let first = self.once(Ask { purges: known, ..ask() }).await;
        let Some(purges) = self.purged_since(&first) else { return first };
        drop(first);
        if known.max(purges) != known {
            let second = self.once(Ask { purges, ..ask() }).await;
            if self.purged_since(&second).is_none() {
                return second;
            }
        }
        self.edge.metrics.nodes_passed_by.inc();
        self.once(Ask { at_the_origin: true, ..ask() }).await
    }

    /// Sends the request as it is.
    pub(in crate::proxy) async fn once(&self, ask: Ask) -> Sent {
        let (began, requested_ms) = (self.edge.fetches.now(), now_ms());
        let mut answered = self.wanted.site.upstream.send(ask).await.map_err(Fault::from);
        if let Ok(answer) = &mut answered {
            self.wanted.caching.cookies.leave_out_of_answer(&mut answer.head.headers);
        }
        let asked_ms = answered.as_ref().map_or(requested_ms, |answer| answer.asked_ms);
        Sent { answered, requested_ms, asked_ms, began }
    }

    /// When the last purges were, if another node's cache has answered with what may be from before
    /// them. An origin is not asked such things: who purges has changed it before. A 304 is about
    /// bytes that are here, or that the client has.
    fn purged_since(&self, sent: &Sent) -> Option<Purges> {
        let answer = sent.answered.as_ref().ok()?;
        let (status, fields) = (answer.head.status, &answer.head.headers);
        if answer.kind == HopKind::Origin {
            return None;
        }
        let purges = self.purges(Some(fields));
        let is_older = fields.contains_key(header::AGE) && Some(answer.asked_ms) <= purges.last_ms;
        let is_ended =
            status != StatusCode::NOT_MODIFIED && Some(answer.fetched_ms) <= purges.any_hard_ms();
        (is_older || is_ended).then_some(purges)
    }

    /// When what is asked for was purged last, as far as this node or the one that asks knows; by
    /// the tags of what is stored and of an answer, too.
    pub(in crate::proxy) fn purges(&self, answered: Option<&HeaderMap>) -> Purges {
        let mut tags = answered.map(|fields| caching::tags(fields).tags).unwrap_or_default();
        tags.extend(self.tags.iter().cloned());
        self.wanted.purges(&self.edge.engine, &tags)
    }
}
