//! Answers from what is stored: 304, whole, one range or several, with the age that it has.

mod partial;

use super::{Site, Wanted, now_ms, pass, without_body};
use crate::body::{Content, Piece, Sending};
use crate::compress::{self, Encoding};
use crate::engine::Reading;
use crate::error::Fault;
use crate::object::Object;
use crate::refused::Refused;
use crate::serve::{Answer, Edge};
use crate::verdict::Verdict;
use bytes::Bytes;
use caching::{CacheStatus, Forwarded, Precondition, Settings, Stored};
use futures::stream::{self, Stream};
use heads::Head;
use http::{HeaderMap, Method, StatusCode, header};
use model::{ByteRange, chunk};
pub use partial::wants_parts;
use partial::{Partial, partial, parts};
use std::sync::Arc;

/// Why the stored representation answers.
pub enum How {
    /// It is fresh.
    Fresh,
    /// It is stale, and good enough.
    Stale,
    /// It is stale, and the origin, which was asked, failed or is too slow.
    StandIn {
        /// What is known for `Cache-Status`.
        told: CacheStatus<'static>,
    },
    /// It was just fetched or revalidated.
    Fetched {
        /// Revalidated, or the source.
        verdict: Verdict,
        /// What is known for `Cache-Status`.
        told: CacheStatus<'static>,
        /// The fetch of its bytes, if this request started it.
        reading: Option<Reading>,
    },
}

/// Answers from a fresh head at once, if all that is wanted is in memory and goes as it is. None
/// says nothing of why not.
pub fn at_hand(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    head: &Arc<Head>,
    now_ms: i64,
) -> Option<Answer> {
    match prepare(edge, wanted, head, &How::Fresh, now_ms).ok()? {
        Step::Done(answer) => Some(answer),
        Step::Send(ready) if ready.encoding.is_none() && ready.can_be_had(edge) => {
            ready.at_hand(edge)
        }
        Step::Send(_) | Step::Pass => None,
    }
}

/// Answers from a stored head.
///
/// # Errors
/// [`Refused::Fault`] with [`Fault::Changed`] or [`Fault::Gone`]: what was stored is no longer
/// good, start over.
pub async fn answer(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    head: Arc<Head>,
    how: How,
) -> Result<Answer, Refused> {
    match prepare(edge, wanted, &head, &how, now_ms())? {
        Step::Done(answer) => Ok(answer),
        // RFC 9111 section 5.2.1.7, for each byte of it; a HEAD is answered as the GET would be
        // (RFC 9110 section 9.3.2).
        step if wanted.wishes().only_if_cached
            && (matches!(step, Step::Pass) || !is_stored(edge, wanted, &head)) =>
        {
            Err(Refused::OnlyIfCached)
        }
        Step::Pass => Box::pin(pass::on(edge, wanted, &head.tags, crate::serve::no_body())).await,
        Step::Send(ready) if !ready.can_be_had(edge) => {
            edge.engine.remove_head(wanted.key, &head);
            edge.fetches.is_lost(wanted.key, &head);
            Err(Refused::Fault(Fault::Gone))
        }
        Step::Send(ready) => ready.answer(edge, how).await,
    }
}

/// The fields of the whole of a fresh head, in memory, as they are sent to a request that says
/// nothing on caches, on parts or on encodings; none where the answer depends on more.
pub fn plain_fields(
    edge: &Edge,
    (site, settings): (&Site, &Arc<Settings>),
    head: &Head,
    now_ms: i64,
) -> Option<HeaderMap> {
    if compresses(site, head) {
        return None;
    }
    let facts = head.facts(settings);
    let mut headers = facts.reused_fields(&head.stored, now_ms);
    pass::keep_for(&HeaderMap::new(), settings, &mut headers);
    let told = CacheStatus { hit: true, ..CacheStatus::default() };
    let left_ms = facts.fresh_for_ms(now_ms);
    told_by(edge, told, Verdict::HitMemory, Some(left_ms), &mut headers);
    Some(headers)
}

/// Whether a stored body is compressed for who takes that.
pub fn compresses(site: &Site, head: &Head) -> bool {
    let Stored { status, fields, .. } = &head.stored;
    site.compress && compress::is_compressible(*status, fields, head.bytes)
}

/// Whether all that a request wants of a stored representation is here, so that it can be sent
/// though the origin fails.
pub fn is_here(edge: &Edge, wanted: &Arc<Wanted>, head: &Arc<Head>) -> bool {
    wanted.method == Method::HEAD || is_stored(edge, wanted, head)
}

/// Whether all is here that a GET with the same fields would want.
fn is_stored(edge: &Edge, wanted: &Arc<Wanted>, head: &Arc<Head>) -> bool {
    let precondition = caching::precondition(&wanted.method, &wanted.fields, &head.stored);
    if !matches!(precondition, Precondition::Go) {
        return true;
    }
    let object = Object::web(wanted, head);
    match parts(wanted, head, head.stored.status) {
        Ok(None) => edge.engine.is_whole(&object),
        Ok(Some(parts)) => {
            parts.iter().all(|part| edge.engine.are_here(&object, chunk::covering(*part)))
        }
        Err(_) => true,
    }
}

/// What comes of a request and a stored head, before any byte of the body is asked for.
enum Step<'a> {
    /// There is nothing to send.
    Done(Answer),
    /// Only the origin may decide (RFC 9111 section 4.3.2).
    Pass,
    /// The body, or parts of it.
    Send(Ready<'a>),
}

/// An answer but for its body, and what the body's source decides of its head.
struct Ready<'a> {
    wanted: &'a Wanted,
    head: &'a Head,
    status: StatusCode,
    headers: HeaderMap,
    object: Object,
    /// The parts that are wanted; none for the whole.
    parts: Option<Vec<ByteRange>>,
    /// What the whole is to be compressed by.
    encoding: Option<Encoding>,
    now_ms: i64,
}

fn prepare<'a>(
    edge: &Edge,
    wanted: &'a Arc<Wanted>,
    head: &'a Arc<Head>,
    how: &How,
    now_ms: i64,
) -> Result<Step<'a>, Refused> {
    let was_stored = match how {
        How::Fresh | How::Stale | How::StandIn { .. } => true,
        How::Fetched { verdict, told, .. } => *verdict == Verdict::Revalidated || told.collapsed,
    };
    let mut headers = fields(wanted, head, was_stored, now_ms);
    wanted.tell_times(&mut headers, head.asked_ms, head.fetched_ms);
    // A node is given the text, to keep once and to encode for its own clients.
    let compresses = !wanted.by_peer && compresses(&wanted.site, head);
    if compresses {
        compress::vary(&mut headers);
    }
    match caching::precondition(&wanted.method, &wanted.fields, &head.stored) {
        Precondition::Failed => return Ok(Step::Pass),
        Precondition::NotModified => {
            let verdict = fixed(how).unwrap_or(Verdict::HitMemory);
            tell(edge, wanted, (head, now_ms), how, verdict, &mut headers);
            if compresses && compress::choose(&wanted.fields).is_some() {
                compress::weaken(&mut headers);
            }
            return Ok(Step::Done(unchanged(&headers, verdict)));
        }
        Precondition::Go => {}
    }
    let status = head.stored.status;
    let parts = parts(wanted, head, status)?;
    let encoding = match compresses && parts.is_none() {
        true => compress::choose(&wanted.fields),
        false => None,
    };
    let object = Object::web(wanted, head);
    Ok(Step::Send(Ready { wanted, head, status, headers, object, parts, encoding, now_ms }))
}

impl Ready<'_> {
    /// Whether its bytes are here or can be fetched.
    fn can_be_had(&self, edge: &Edge) -> bool {
        self.object.can_be_fetched() || edge.engine.is_whole(&self.object)
    }

    /// Nothing of the body is sent.
    fn is_bodiless(&self) -> bool {
        self.wanted.method == Method::HEAD || self.head.bytes == 0
    }

    fn at_hand(mut self, edge: &Arc<Edge>) -> Option<Answer> {
        let mut sending = self.sending(edge);
        let verdict = match self.is_bodiless() {
            true => self.of_first_byte(edge),
            false => sending.first_in_memory()?,
        };
        Some(self.finish(edge, &How::Fresh, verdict, sending))
    }

    async fn answer(mut self, edge: &Arc<Edge>, mut how: How) -> Result<Answer, Refused> {
        if let Some(encoding) = self.encoding {
            let known = edge.engine.foresee(&self.object, 0..self.object.chunks());
            let id = compress::body_id(&self.object.body, encoding);
            let whole = || whole(edge, &self.object, self.wanted.priority.urgency);
            if let Some(pieces) = edge.encoded.of(&edge.engine, id, encoding, whole).await {
                let verdict = fixed(&how).unwrap_or(known);
                let bytes = pieces.iter().map(Bytes::len).sum::<usize>() as u64;
                compress::encoded(&mut self.headers, encoding, bytes);
                let pieces = pieces.into_iter().map(Piece::Text).collect();
                let sending = self.sending_pieces(edge, pieces);
                return Ok(self.finish(edge, &how, verdict, sending));
            }
        }
        let mut sending = self.sending(edge);
        if let How::Fetched { verdict, reading, .. } = &mut how
            && let Some(reading) = reading.take()
        {
            sending = sending.by_own_fetch(reading, *verdict);
        }
        let verdict = match self.is_bodiless() {
            true => self.of_first_byte(edge),
            false => {
                let begun = begin(&mut sending, self.wanted.site.has_changed_lately(self.now_ms));
                begun.await.map_err(|fault| failed(&how, fault))?
            }
        };
        let verdict = match fixed(&how) {
            Some(fixed @ (Verdict::Stale | Verdict::Revalidated)) if verdict.is_hit() => fixed,
            Some(fixed) if !fixed.is_hit() && verdict.is_hit() => fixed,
            _ => verdict,
        };
        Ok(self.finish(edge, &how, verdict, sending))
    }

    /// What is sent, in order; the head says so.
    fn sending(&mut self, edge: &Arc<Edge>) -> Sending {
        let whole = ByteRange::new(0, self.head.bytes);
        let part = match self.parts.as_deref() {
            None => whole,
            Some(parts) => {
                self.status = StatusCode::PARTIAL_CONTENT;
                match partial(&mut self.headers, parts, self.head.bytes) {
                    Partial::One(part) => part,
                    Partial::Several(pieces) => return self.sending_pieces(edge, pieces),
                }
            }
        };
        let urgency = self.wanted.priority.urgency;
        Sending::part(&edge.engine, self.object.clone(), part, urgency)
    }

    fn sending_pieces(&self, edge: &Arc<Edge>, pieces: Vec<Piece>) -> Sending {
        let urgency = self.wanted.priority.urgency;
        Sending::new(&edge.engine, self.object.clone(), pieces, urgency)
    }

    /// Of what has no body the stored head is all: nothing is missing, wherever the body is.
    fn of_first_byte(&self, edge: &Edge) -> Verdict {
        let first = chunk::covering(ByteRange::new(0, self.head.bytes.min(1)));
        let foreseen = edge.engine.foresee(&self.object, first);
        if foreseen.is_hit() { foreseen } else { Verdict::HitMemory }
    }

    fn finish(self, edge: &Edge, how: &How, verdict: Verdict, sending: Sending) -> Answer {
        let mut headers = self.headers;
        tell(edge, self.wanted, (self.head, self.now_ms), how, verdict, &mut headers);
        let content = Content::Object(Box::new(sending));
        without_body(self.wanted, Answer::new(verdict, self.status, headers, content))
    }
}

/// Waits for the first bytes; `looks_ahead`, also for the first missing ones that come soon.
async fn begin(sending: &mut Sending, looks_ahead: bool) -> Result<Verdict, Fault> {
    let ahead = if looks_ahead { sending.border().await? } else { None };
    let first = sending.first().await?;
    Ok(ahead.map_or(first, |ahead| ahead.max(first)))
}

/// The body failed before the head went out: what the head would have told of the origin is told of
/// the failure.
fn failed(how: &How, fault: Fault) -> Refused {
    let told = match how {
        How::Fetched { told, .. } | How::StandIn { told } => *told,
        How::Fresh | How::Stale => CacheStatus::default(),
    };
    let forwarded = told.forwarded.unwrap_or(Forwarded::Partial);
    Refused::Fault(fault).answered(forwarded, told.forwarded_status)
}

/// The verdict of what is not a plain hit.
fn fixed(how: &How) -> Option<Verdict> {
    match how {
        How::Fresh => None,
        How::Stale | How::StandIn { .. } => Some(Verdict::Stale),
        // Who only waited asked for none of it, whether or not all has come by now.
        How::Fetched { verdict, told, .. } => match told.collapsed {
            true if *verdict != Verdict::Revalidated => Some(Verdict::Filling),
            _ => Some(*verdict),
        },
    }
}

/// All of an object's bytes; it is a text of bounded size.
fn whole(
    edge: &Edge,
    object: &Object,
    urgency: u8,
) -> impl Stream<Item = Result<Bytes, Fault>> + use<> {
    let whole = ByteRange::new(0, object.bytes);
    let mut sending = Sending::part(&edge.engine, object.clone(), whole, urgency);
    stream::poll_fn(move |cx| sending.poll(cx).map_ok(|(bytes, _)| bytes))
}

/// The fields of a stored response as they are sent: with its age if it was stored before, and
/// without what `no-cache="..."` names.
pub fn fields(wanted: &Wanted, head: &Head, was_stored: bool, now_ms: i64) -> HeaderMap {
    let mut headers = if was_stored {
        head.facts(&wanted.caching).reused_fields(&head.stored, now_ms)
    } else {
        let mut headers = head.stored.fields.clone();
        if headers.contains_key(header::AGE) {
            headers.insert(header::AGE, head.facts(&wanted.caching).age_field(now_ms));
        }
        headers
    };
    pass::keep_for(&wanted.fields, &wanted.caching, &mut headers);
    headers
}

/// The 304 for a client whose own condition asks for it, of the fields of a whole answer.
pub fn unchanged(headers: &HeaderMap, verdict: Verdict) -> Answer {
    let fields = caching::not_modified_fields(headers);
    Answer::new(verdict, StatusCode::NOT_MODIFIED, fields, Content::empty())
}

fn tell(
    edge: &Edge,
    wanted: &Wanted,
    (head, now_ms): (&Head, i64),
    how: &How,
    verdict: Verdict,
    headers: &mut HeaderMap,
) {
    // A purge ends what is left of its time.
    let is_purged = edge.purges.verdict(head) != heads::Verdict::Valid;
    let left_ms = head.facts(&wanted.caching).fresh_for_ms(now_ms);
    let left_ms = Some(left_ms).filter(|left_ms| *left_ms < 0 || !is_purged);
    let told = match how {
        How::Fetched { told, verdict, .. } => {
            CacheStatus { stored: *verdict != Verdict::Revalidated, ..*told }
        }
        How::StandIn { told } => *told,
        _ if verdict.is_hit() || verdict == Verdict::Stale => {
            CacheStatus { hit: true, ..CacheStatus::default() }
        }
        _ => CacheStatus {
            forwarded: Some(Forwarded::Partial),
            stored: true,
            collapsed: verdict == Verdict::Filling,
            ..CacheStatus::default()
        },
    };
    told_by(edge, told, verdict, left_ms, headers);
}

fn told_by(
    edge: &Edge,
    mut told: CacheStatus<'_>,
    verdict: Verdict,
    left_ms: Option<i64>,
    headers: &mut HeaderMap,
) {
    told.ttl_s = left_ms.map(|left_ms| left_ms.div_euclid(1000));
    told.detail = Some(verdict.name());
    told.append(edge.node.id(), headers);
}
