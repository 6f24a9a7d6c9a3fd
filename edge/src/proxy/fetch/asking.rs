//! The request to the origin, or to another node before it, and whether what came is from before
//! a purge.

use super::super::now_ms;
use super::Fetch;
use super::span::Span;
use super::under_way::Began;
use crate::engine::OWNED_RUN_BYTES;
use crate::error::Fault;
use caching::Stored;
use http::{HeaderMap, HeaderValue, header};
use upstream::{Answer, Ask, HopKind};

/// What a request to the origin came to.
pub(super) struct Sent {
    pub(super) answered: Result<Answer, Fault>,
    pub(super) requested_ms: i64,
    pub(super) began: Began,
    /// Another node answered with what is from before a purge.
    pub(super) is_outdated: bool,
}

impl Fetch {
    /// The request to the origin, perhaps on condition or for a range. With both it answers 304,
    /// or with the range of the new version (RFC 9110 section 13.2.2).
    fn ask(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Ask {
        let mut ask = self.wanted.site.ask(&self.wanted);
        ask.urgency = self.urgency.clone();
        if let Some(fields) = conditional {
            ask.fields.extend(fields.clone());
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

    /// Sends the request. What another node has kept since before a purge is asked for again, so
    /// that the node asks as well: the purge may not have come to it yet.
    pub(super) async fn send(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Sent {
        let first = self.sent(self.ask(conditional, range)).await;
        if !first.is_outdated {
            return first;
        }
        let mut ask = self.ask(conditional, range);
        ask.fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.sent(ask).await
    }

    async fn sent(&self, ask: Ask) -> Sent {
        let (began, requested_ms) = (self.edge.fetches.now(), now_ms());
        let answered = self.wanted.site.upstream.send(ask).await.map_err(Fault::from);
        let is_outdated = answered.as_ref().is_ok_and(|answer| self.is_from_before_a_purge(answer));
        Sent { answered, requested_ms, began, is_outdated }
    }

    /// Whether another node's cache has answered with what was made before a purge that this
    /// node knows. An origin is not asked such things: who purges has changed it before.
    fn is_from_before_a_purge(&self, answer: &Answer) -> bool {
        let fields = &answer.head.headers;
        if answer.kind == HopKind::Origin || !fields.contains_key(header::AGE) {
            return false;
        }
        let (now, status) = (now_ms(), answer.head.status);
        let kept = Stored { status, fields: fields.clone(), requested_ms: now, received_ms: now };
        // An age is told in whole seconds.
        let made_ms = now.saturating_sub(caching::age_ms(&kept, now)).saturating_sub(1_000);
        let mut tags = caching::tags(fields).tags;
        tags.extend(self.stale.iter().flat_map(|(old, _)| old.tags.iter().cloned()));
        self.edge.purges.since(&self.wanted.site.name, &self.wanted.url(), &tags, made_ms)
    }
}
