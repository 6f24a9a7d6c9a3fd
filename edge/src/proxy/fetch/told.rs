//! What the origin answers to a HEAD of what is not stored: nothing of it is kept, but those who wait
//! for the same answer get it, where a stored one would be theirs (RFC 9111 section 4).

use super::super::{Wanted, now_ms, stored};
use super::outcome::Unshared;
use super::under_way::Began;
use crate::body::Content;
use crate::serve::{Answer, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Precondition, Source, Storable, Stored};
use heads::Head;
use http::{Method, header};
use std::sync::Arc;

/// The head, as that of something stored.
pub struct Told {
    /// It.
    pub head: Head,
    /// The length that it tells.
    length: Option<u64>,
}

impl Told {
    /// None where it is for the one who asked alone. `began` and `epoch` are from before that.
    pub fn of(
        edge: &Edge,
        wanted: &Wanted,
        unshared: &Unshared,
        (began, epoch): (Began, u64),
    ) -> Option<Arc<Self>> {
        let (fields, request) = (&unshared.fields, &wanted.fields);
        let stored = Stored {
            status: unshared.answer.head.status,
            fields: fields.clone(),
            requested_ms: unshared.requested_ms,
            received_ms: now_ms(),
        };
        let settings = &wanted.caching;
        let storable = caching::storable(&Method::GET, request, stored.status, fields, settings);
        let is_shared = unshared.answer.storable
            && matches!(storable, Storable::Yes)
            && caching::freshness(&stored, settings).source != Source::None
            && !edge.fetches.is_outdated(&wanted.key, began);
        let selecting = wanted.selecting(fields).filter(|_| is_shared)?;
        let length = unshared.answer.head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let head = Head {
            site: Arc::clone(&wanted.site.name),
            url: wanted.url(),
            selecting,
            tags: caching::tags(fields).tags,
            stored,
            body: [0; 16],
            bytes: length.unwrap_or(0),
            epoch,
            asked_ms: unshared.answer.asked_ms,
            fetched_ms: unshared.answer.fetched_ms,
            seen: heads::Seen::default(),
            read: heads::Read::default(),
        };
        Some(Arc::new(Self { head, length }))
    }

    /// Whether it is for a HEAD that has waited for it.
    pub fn is_for(&self, wanted: &Wanted) -> bool {
        let stored = &self.head.stored;
        let precondition = caching::precondition(&wanted.method, &wanted.fields, stored);
        !matches!(precondition, Precondition::Failed)
            && caching::joinable(&wanted.fields, stored, &wanted.caching)
    }

    /// Tells one of those.
    pub fn answer(&self, edge: &Edge, wanted: &Wanted, told: CacheStatus<'_>) -> Answer {
        let (head, verdict) = (&self.head, Verdict::Filling);
        let mut headers = stored::fields(wanted, head, true, now_ms());
        wanted.tell_times(&mut headers, head.asked_ms, head.fetched_ms);
        let status = head.stored.status;
        let detail = Some(verdict.name());
        let told = CacheStatus { forwarded_status: Some(status), detail, ..told };
        told.append(edge.node.id(), &mut headers);
        let mut answer = Answer::new(verdict, status, headers, Content::empty());
        answer.promised = self.length;
        answer
    }
}
