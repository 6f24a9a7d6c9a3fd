//! What becomes of an answer: it refreshes what is stored, is stored itself, in chunks or once it
//! is whole, or goes to the one who asked.

use super::super::by_hop;
use super::super::live::Live;
use super::super::renewing::{self, Renewed};
use super::Fetch;
use super::outcome::{Outcome, Own, Unshared};
use super::span::{Part, Span};
use super::under_way::{Began, Unkept, put};
use super::unstored::{self, Unstored};
use crate::compress;
use crate::engine::{Arriving, LEFT_BYTES_MAX, UNVALIDATED_BYTES_MAX};
use crate::error::Fault;
use crate::object::OBJECT_BYTES_MAX;
use crate::verdict::Verdict;
use caching::{Storable, Stored};
use heads::Head;
use http::{StatusCode, header};
use model::ByteRange;
use std::sync::Arc;
use upstream::Answer;

impl Fetch {
    /// What is stored is still good (RFC 9111 section 4.3.4).
    pub(super) fn refreshed(
        &self,
        old: &Arc<Head>,
        answer: &Answer,
        sent: renewing::Sent,
    ) -> (Outcome, Option<Own>) {
        let (verdict, status) = (Verdict::Revalidated, answer.head.status);
        match renewing::by_304(&self.edge, &self.wanted, old, &answer.head, sent) {
            None => (Outcome::Failed(Fault::Changed), None),
            Some(Renewed::Shared(head)) => {
                (Outcome::Stored { head, verdict, status, hold: None }, None)
            }
            Some(Renewed::Alone(head)) => (Outcome::Alone, Some(Own::Renewed(head, status))),
        }
    }

    /// What becomes of an answer: stored in chunks, kept once it is whole, or passed on.
    pub(super) fn settle(
        &self,
        answer: Answer,
        stored: Stored,
        sent: renewing::Sent,
        asked: Option<Span>,
    ) -> (Outcome, Option<Own>) {
        let renewing::Sent { began, epoch, asked_ms, .. } = sent;
        let (wanted, fetched_ms) = (&self.wanted, answer.fetched_ms);
        let (fields, request) = (&stored.fields, &wanted.fields);
        let storable =
            caching::storable(&wanted.method, request, stored.status, fields, &wanted.caching);
        let selecting = match storable {
            Storable::Yes if answer.storable => wanted.selecting(fields),
            _ => None,
        };
        let outdated = self.edge.fetches.is_outdated(&wanted.key, began);
        let is_outlived = self.is_outlived(&stored);
        let Some(selecting) = selecting.filter(|_| !outdated && !is_outlived) else {
            let is_unkept = matches!(storable, Storable::No(reason) if !reason.is_of_request());
            let unkept = is_unkept.then_some(Unkept::All);
            // A 304 is about what the client has: why that is not here has been told.
            if let Storable::No(reason) = storable
                && stored.status != StatusCode::NOT_MODIFIED
            {
                self.not_stored(Unstored::Said(reason));
            }
            let is_for_one = match storable {
                Storable::Yes => outdated || is_outlived,
                Storable::No(reason) => reason.is_of_request(),
            };
            // It must not keep others from waiting for one another.
            let is_of_request = is_for_one || caching::is_about_request(stored.status);
            let unshared = self.unshared_of(answer, stored, asked, unkept);
            let own = Own::Unshared(Box::new(Unshared { is_of_request, ..unshared }));
            return (Outcome::Alone, Some(own));
        };
        let head = |stored: Stored, bytes: u64| Head {
            site: Arc::clone(&wanted.site.name),
            url: wanted.url(),
            selecting: selecting.clone(),
            tags: self.tags(&stored),
            stored,
            body: rand::random(),
            bytes,
            epoch,
            asked_ms,
            fetched_ms,
            seen: heads::Seen::default(),
            read: heads::Read::default(),
        };
        let strong = caching::strong_validator(&stored).is_some();
        let fits = |bytes: u64| bytes <= OBJECT_BYTES_MAX;
        if stored.status == StatusCode::PARTIAL_CONTENT {
            return match Part::of(&answer, asked) {
                Some(Part { given, total: Some(total), is_enough: true, .. })
                    if strong && fits(total) =>
                {
                    let mut stored = stored;
                    stored.status = StatusCode::OK;
                    stored.fields.remove(header::CONTENT_RANGE);
                    compress::remove_content_digests(&mut stored.fields);
                    let status = StatusCode::PARTIAL_CONTENT;
                    self.object(answer, head(stored, total), given, status, (asked, began))
                }
                part => {
                    let unkept = match part {
                        _ if !strong => Some(Unstored::Unvalidated),
                        Some(Part { total: None, .. }) => Some(Unstored::Unmeasured),
                        Some(Part { total: Some(total), .. }) if !fits(total) => {
                            Some(Unstored::TooLong)
                        }
                        _ => None,
                    };
                    unkept.into_iter().for_each(|why| self.not_stored(why));
                    self.unshared(answer, stored, asked, unkept.map(|_| Unkept::Parts))
                }
            };
        }
        let length = answer.body.length().filter(|_| answer.body.is_delimited());
        match length {
            Some(bytes) if strong && bytes > 0 && fits(bytes) => {
                let status = stored.status;
                let range = ByteRange::new(0, bytes);
                self.object(answer, head(stored, bytes), range, status, (asked, began))
            }
            Some(bytes) if bytes > wanted.site.unvalidated_bytes_max => {
                self.not_stored(Unstored::TooLong);
                self.unshared(answer, stored, asked, Some(Unkept::Parts))
            }
            length => {
                if !answer.body.is_delimited() {
                    self.not_stored(Unstored::Undelimited);
                }
                let bytes_max = match strong {
                    true => UNVALIDATED_BYTES_MAX,
                    false => wanted.site.unvalidated_bytes_max,
                };
                let head = head(stored, length.unwrap_or(0));
                let (live, reader) =
                    Live::start(&self.edge, wanted.key, head, (answer, bytes_max), began);
                let hold = live.hold();
                (Outcome::Growing(live, hold), reader.map(Own::Reader))
            }
        }
    }

    fn not_stored(&self, why: Unstored) {
        unstored::tell(&self.edge, self.wanted.key, &self.wanted.url(), why);
    }

    /// What purges find it by. Where the origin gave more than are kept, any of them do.
    fn tags(&self, stored: &Stored) -> Vec<Box<str>> {
        let caching::Tags { tags, dropped } = caching::tags(&stored.fields);
        if dropped > 0 {
            self.edge.metrics.answers_overtagged.inc();
            let url = self.wanted.url();
            tracing::debug!(%url, dropped, "more tags than are kept: any purge by tag ends it");
        }
        tags
    }

    /// An answer that is stored in chunks while it comes.
    fn object(
        &self,
        answer: Answer,
        mut head: Head,
        range: ByteRange,
        status: StatusCode,
        (asked, began): (Option<Span>, Began),
    ) -> (Outcome, Option<Own>) {
        // A page is its own (RFC 9111 section 4.3.3), were it known by what another client's is: not
        // every origin names each of its own. It is taken to its end, whoever leaves. Of what is larger
        // the name is believed: each answer in full, where a 304 would do, would fetch a film anew.
        let is_whole = range.start == 0 && range.end() == head.bytes;
        let is_own = is_whole
            && head.bytes <= LEFT_BYTES_MAX
            && !self.wanted.fields.contains_key(header::RANGE);
        if !is_own
            && let Some(old) = self.same_bytes(&head)
            && let Some(fetched_ms) =
                self.edge.engine.joins(&self.wanted.key, &old, head.fetched_ms)
        {
            (head.body, head.fetched_ms) = (old.body, fetched_ms);
        }
        let head = Arc::new(head);
        let object = crate::object::Object::web(&self.wanted, &head);
        let source = by_hop(answer.kind);
        let span = asked.unwrap_or(Span { start: range.start, end: None });
        let ends_early = span.end.is_some_and(|end| end < range.end());
        // RFC 9110 section 14.3. That it was asked for a part that is all of it, and sent no part,
        // says less: many servers that know ranges do so.
        let ranges = head.stored.fields.get(header::ACCEPT_RANGES);
        let knows_none = status == StatusCode::OK && ranges.is_some_and(|it| it == "none");
        let arriving = Arriving {
            body: answer.body,
            range,
            wanted: span.start.min(object.bytes)
                ..span.end.map_or(object.bytes, |end| end.min(object.bytes)),
            is_unranged: range.start < span.start || ends_early || knows_none,
            may_be_unranged: status == StatusCode::OK && ranges.is_none(),
            is_measured: true,
            hop: answer.hop,
            source,
            retried: answer.retried,
        };
        let reading = self.edge.engine.adopt(&object, arriving, &self.urgency);
        put(&self.edge, self.wanted.key, &head, began);
        let stored = Outcome::Stored { head, verdict: source, status, hold: None };
        (stored, reading.map(Own::Reading))
    }

    /// What is stored with the same bytes: an origin sent all of them to who asked for a part, or of
    /// what is large, or another run of them was asked for at the same time. What is here of it stays
    /// good.
    fn same_bytes(&self, new: &Head) -> Option<Arc<Head>> {
        // What a hard purge has ended by now, here or at who asks, is not to be had by its old name
        // again.
        let same = |old: &&Arc<Head>| {
            old.bytes == new.bytes
                && old.stored.status == new.stored.status
                && caching::same_validator(&old.stored, &new.stored.fields)
                && self.edge.purges.verdict(old) != heads::Verdict::Hard
                && !self.wanted.is_ended(old)
        };
        let variants = self.edge.engine.heads.in_memory(&self.wanted.key).unwrap_or_default();
        let mut good = variants.iter().filter(|old| old.selecting == new.selecting).peekable();
        if good.peek().is_some() {
            // What was stored before it has been replaced, perhaps.
            return good.find(same).cloned();
        }
        self.stale.as_ref().map(|(old, _)| old).filter(same).cloned()
    }

    pub(super) fn unshared(
        &self,
        answer: Answer,
        stored: Stored,
        asked: Option<Span>,
        unkept: Option<Unkept>,
    ) -> (Outcome, Option<Own>) {
        let unshared = self.unshared_of(answer, stored, asked, unkept);
        (Outcome::Alone, Some(Own::Unshared(Box::new(unshared))))
    }

    fn unshared_of(
        &self,
        answer: Answer,
        stored: Stored,
        asked: Option<Span>,
        unkept: Option<Unkept>,
    ) -> Unshared {
        let part =
            Part::of(&answer, asked).filter(|_| stored.status == StatusCode::PARTIAL_CONTENT);
        let cut = part.and_then(|part| part.cut(&self.wanted.fields));
        let Stored { fields, requested_ms, .. } = stored;
        Unshared { answer, fields, requested_ms, cut, unkept, is_of_request: false }
    }
}
