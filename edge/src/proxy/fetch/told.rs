//! Answers of which nothing is kept, and which those who waited for them get as well: what the origin
//! says to a HEAD of what is not stored, where a stored answer would be theirs (RFC 9111 section 4),
//! and that it has held a reload in vain.

use super::super::{Wanted, now_ms, stored as kept};
use super::outcome::Unshared;
use super::under_way::Began;
use crate::body::Content;
use crate::serve::{Answer, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Precondition, Selecting, Source, Storable, Stored};
use heads::Head;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use std::sync::Arc;

/// What all are told of an answer to a reload that was held in vain: when to ask again, and which
/// pages may know, by what of the request. A node that is told so has others who wait.
const TOLD_ON: [HeaderName; 5] = [
    header::RETRY_AFTER,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::VARY,
];

/// The head, as that of something stored.
pub struct Told {
    /// It.
    pub head: Head,
    /// The length that it tells.
    length: Option<u64>,
    /// It is for all who have waited for it, though it has no lifetime.
    is_held: bool,
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
        let stored = stored(unshared, fields.clone());
        let settings = &wanted.caching;
        let storable = caching::storable(&Method::GET, request, stored.status, fields, settings);
        let is_shared = unshared.answer.storable
            && matches!(storable, Storable::Yes)
            && caching::freshness(&stored, settings).source != Source::None
            && !edge.fetches.is_outdated(&wanted.key, began);
        let selecting = wanted.selecting(fields).filter(|_| is_shared)?;
        let length = unshared.answer.head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let head = known(wanted, unshared, (stored, selecting), epoch);
        let head = Head { bytes: length.unwrap_or(0), ..head };
        Some(Arc::new(Self { head, length, is_held: false }))
    }

    /// That a packager has held a reload for as long as a player is to wait. Had each who waited for
    /// that ask for itself, each would be held as long again. It may not be stored, so it is not the
    /// origin's answer that they share (RFC 9111 section 4), but the fact that there is none: they are
    /// told so by this node (RFC 9110 section 15.6.4), with nothing more of the answer than
    /// [`TOLD_ON`]. Where the origin says that it is about the one who asked, or whom it is for can't be
    /// told, it is that one's alone.
    pub fn of_held(wanted: &Wanted, unshared: &Unshared, epoch: u64) -> Option<Arc<Self>> {
        let fields = &unshared.fields;
        let is_for_one = caching::is_for_one(&wanted.fields, fields, &wanted.caching);
        let is_shared = unshared.answer.was_held_in_vain && !is_for_one;
        let selecting = wanted.selecting(fields).filter(|_| is_shared)?;
        // Each may stand on several lines, each of which counts.
        let lines = |name: &HeaderName| {
            let name = name.clone();
            fields.get_all(&name).iter().cloned().map(move |line| (name.clone(), line))
        };
        let mut fields: HeaderMap = TOLD_ON.iter().flat_map(lines).collect();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let head = known(wanted, unshared, (stored(unshared, fields), selecting), epoch);
        Some(Arc::new(Self { head, length: None, is_held: true }))
    }

    /// Whether it is for a request that has waited for it, and selects it.
    pub fn is_for(&self, wanted: &Wanted) -> bool {
        if self.is_held {
            return true;
        }
        let stored = &self.head.stored;
        let precondition = caching::precondition(&wanted.method, &wanted.fields, stored);
        !matches!(precondition, Precondition::Failed)
            && caching::joinable(&wanted.fields, stored, &wanted.caching)
    }

    /// Tells one of those.
    pub fn answer(&self, edge: &Edge, wanted: &Wanted, told: CacheStatus<'_>) -> Answer {
        let (head, verdict) = (&self.head, Verdict::Filling);
        let mut headers = kept::fields(wanted, head, !self.is_held, now_ms());
        wanted.tell_times(&mut headers, head.asked_ms, head.fetched_ms);
        if self.is_held && wanted.by_peer {
            upstream::tell_held_in_vain(&mut headers);
        }
        let status = head.stored.status;
        let detail = Some(verdict.name());
        let told = CacheStatus { forwarded_status: Some(status), detail, ..told };
        told.append(edge.node.id(), &mut headers);
        let mut answer = Answer::new(verdict, status, headers, Content::empty());
        answer.promised = self.length;
        answer
    }
}

fn stored(unshared: &Unshared, fields: HeaderMap) -> Stored {
    Stored {
        status: unshared.answer.head.status,
        fields,
        requested_ms: unshared.requested_ms,
        received_ms: now_ms(),
    }
}

/// What is known of an answer, as of one that is stored.
fn known(
    wanted: &Wanted,
    unshared: &Unshared,
    (stored, selecting): (Stored, Selecting),
    epoch: u64,
) -> Head {
    Head {
        site: Arc::clone(&wanted.site.name),
        url: wanted.url(),
        selecting,
        tags: caching::tags(&unshared.fields).tags,
        stored,
        body: [0; 16],
        bytes: 0,
        epoch,
        asked_ms: unshared.answer.asked_ms,
        fetched_ms: unshared.answer.fetched_ms,
        seen: heads::Seen::default(),
        read: heads::Read::default(),
    }
}
