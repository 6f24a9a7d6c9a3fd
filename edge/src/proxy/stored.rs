//! Answers from what is stored: 304, whole, one range or several, with the age that it has.

use super::{Wanted, now_ms, pass, web, without_body};
use crate::body::{Content, Piece, Sending};
use crate::compress;
use crate::engine::Reading;
use crate::error::Fault;
use crate::object::Object;
use crate::refused::Refused;
use crate::serve::{Answer, Edge, set};
use crate::verdict::Verdict;
use bytes::Bytes;
use caching::{CacheStatus, Precondition, Ranges, Stored};
use heads::Head;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{ByteRange, chunk};
use std::future::poll_fn;
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

/// Answers from a stored head.
///
/// # Errors
/// [`Refused::Fault`] with [`Fault::Changed`] or [`Fault::Gone`]: what was stored is no longer
/// good, start over.
pub async fn answer(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    head: Arc<Head>,
    mut how: How,
) -> Result<Answer, Refused> {
    let was_stored = match &how {
        How::Fresh | How::Stale | How::StandIn { .. } => true,
        How::Fetched { verdict, told, .. } => *verdict == Verdict::Revalidated || told.collapsed,
    };
    let mut headers = fields(&head.stored, was_stored);
    let fixed = match &how {
        How::Fresh => None,
        How::Stale | How::StandIn { .. } => Some(Verdict::Stale),
        How::Fetched { verdict, .. } => Some(*verdict),
    };
    let compresses = wanted.site.compress
        && compress::is_compressible(head.stored.status, &head.stored.fields, head.bytes);
    if compresses {
        compress::vary(&mut headers);
    }
    match caching::precondition(&wanted.method, &wanted.fields, &head.stored) {
        // Only the origin may decide (RFC 9111 section 4.3.2).
        Precondition::Failed => {
            return Box::pin(pass::on(edge, wanted, crate::serve::no_body())).await;
        }
        Precondition::NotModified => {
            let verdict = fixed.unwrap_or(Verdict::HitMemory);
            tell(edge, wanted, &head, &how, verdict, &mut headers);
            if compresses && compress::choose(&wanted.fields).is_some() {
                compress::weaken(&mut headers);
            }
            return Ok(unchanged(&headers, verdict));
        }
        Precondition::Go => {}
    }
    let object = Object::web(web(wanted, &head));
    if !object.can_be_fetched() && !edge.engine.is_whole(&object) {
        edge.engine.heads.remove(wanted.key, &head);
        return Err(Refused::Fault(Fault::Gone));
    }
    let mut status = head.stored.status;
    let parts = parts(wanted, &head, status)?;
    let pieces = match &parts {
        None => vec![Piece::Part(ByteRange::new(0, head.bytes))],
        Some(parts) => {
            status = StatusCode::PARTIAL_CONTENT;
            partial(&mut headers, parts, head.bytes)
        }
    };
    let urgency = wanted.priority.urgency;
    let encoding = compress::choose(&wanted.fields).filter(|_| compresses && parts.is_none());
    if let Some(encoding) = encoding {
        let known = edge.engine.foresee(&object, 0..object.chunks());
        let id = compress::body_id(&object.body, encoding);
        let whole = whole(edge, &object, urgency);
        if let Some(pieces) = edge.encoded.of(&edge.engine, id, encoding, whole).await {
            let verdict = fixed.unwrap_or(known);
            let bytes = pieces.iter().map(Bytes::len).sum::<usize>() as u64;
            compress::encoded(&mut headers, encoding, bytes);
            tell(edge, wanted, &head, &how, verdict, &mut headers);
            let pieces = pieces.into_iter().map(Piece::Text).collect();
            let sending = Sending::new(&edge.engine, object, pieces, urgency);
            let content = Content::Object(Box::new(sending));
            return Ok(without_body(wanted, Answer::new(verdict, status, headers, content)));
        }
    }
    let mut sending = Sending::new(&edge.engine, object.clone(), pieces, urgency);
    if let How::Fetched { verdict, reading, .. } = &mut how
        && let Some(reading) = reading.take()
    {
        sending = sending.by_own_fetch(reading, *verdict);
    }
    let verdict = if wanted.method == Method::HEAD || head.bytes == 0 {
        edge.engine.foresee(&object, chunk::covering(ByteRange::new(0, head.bytes.min(1))))
    } else {
        sending.first().await?
    };
    let verdict = match fixed {
        Some(fixed @ (Verdict::Stale | Verdict::Revalidated)) if verdict.is_hit() => fixed,
        Some(fixed) if !fixed.is_hit() && verdict.is_hit() => fixed,
        _ => verdict,
    };
    tell(edge, wanted, &head, &how, verdict, &mut headers);
    let content = Content::Object(Box::new(sending));
    Ok(without_body(wanted, Answer::new(verdict, status, headers, content)))
}

/// All of an object's bytes; it is a text of bounded size.
async fn whole(edge: &Edge, object: &Object, urgency: u8) -> Option<Vec<Bytes>> {
    let pieces = vec![Piece::Part(ByteRange::new(0, object.bytes))];
    let mut sending = Sending::new(&edge.engine, object.clone(), pieces, urgency);
    let mut whole = Vec::new();
    while let Some(next) = poll_fn(|cx| sending.poll(cx)).await {
        whole.push(next.ok()?.0);
    }
    Some(whole)
}

/// The fields of a stored response as they are sent: with its age if it was stored before, and
/// without what `no-cache="..."` names.
pub fn fields(stored: &Stored, was_stored: bool) -> HeaderMap {
    let mut headers =
        if was_stored { caching::reused_fields(stored, now_ms()) } else { stored.fields.clone() };
    // That is about the origin's own address.
    headers.remove(header::ALT_SVC);
    if headers.contains_key(header::AGE) {
        headers.insert(header::AGE, caching::age_field(stored, now_ms()));
    }
    headers
}

/// A 304, if that is what the client's own condition asks for.
pub fn precondition(
    wanted: &Wanted,
    head: &Head,
    headers: &HeaderMap,
    verdict: Verdict,
) -> Option<Answer> {
    let found = caching::precondition(&wanted.method, &wanted.fields, &head.stored);
    matches!(found, Precondition::NotModified).then(|| unchanged(headers, verdict))
}

fn unchanged(headers: &HeaderMap, verdict: Verdict) -> Answer {
    let fields = caching::not_modified_fields(headers);
    Answer::new(verdict, StatusCode::NOT_MODIFIED, fields, Content::empty())
}

fn tell(
    edge: &Edge,
    wanted: &Wanted,
    head: &Head,
    how: &How,
    verdict: Verdict,
    headers: &mut HeaderMap,
) {
    let left_ms = caching::fresh_for_ms(&head.stored, now_ms(), &wanted.caching);
    let mut told = match how {
        How::Fetched { told, verdict, .. } => {
            CacheStatus { stored: *verdict != Verdict::Revalidated, ..*told }
        }
        How::StandIn { told } => *told,
        _ if verdict.is_hit() || verdict == Verdict::Stale => {
            CacheStatus { hit: true, ..CacheStatus::default() }
        }
        _ => CacheStatus {
            forwarded: Some(caching::Forwarded::Partial),
            stored: true,
            collapsed: verdict == Verdict::Filling,
            ..CacheStatus::default()
        },
    };
    told.ttl_s = Some(left_ms.div_euclid(1000));
    told.detail = Some(verdict.name());
    told.append(edge.node.id(), headers);
}

/// The parts that the client wants; none for the whole.
fn parts(
    wanted: &Wanted,
    head: &Head,
    status: StatusCode,
) -> Result<Option<Vec<ByteRange>>, Refused> {
    let fields = &wanted.fields;
    if status != StatusCode::OK
        || wanted.method != Method::GET
        || !caching::if_range(fields, &head.stored)
    {
        return Ok(None);
    }
    match caching::ranges(fields, head.bytes, wanted.site.ranges_max) {
        Ranges::Whole => Ok(None),
        Ranges::Parts(parts) => Ok(Some(parts)),
        Ranges::Unsatisfiable => Err(Refused::Range { bytes: head.bytes }),
        Ranges::TooMany => Err(Refused::Ranges { most: wanted.site.ranges_max }),
    }
}

/// The fields and the pieces of a partial answer (RFC 9110 section 15.3.7).
fn partial(headers: &mut HeaderMap, parts: &[ByteRange], bytes: u64) -> Vec<Piece> {
    let range = |part: &ByteRange| format!("bytes {}-{}/{bytes}", part.start, part.end() - 1);
    if let [part] = parts {
        set(headers, header::CONTENT_RANGE, range(part));
        return vec![Piece::Part(*part)];
    }
    let boundary = format!("{:032x}", rand::random::<u128>());
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let kind = kind.to_str().unwrap_or("application/octet-stream").to_owned();
    set(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let text = format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
            range(part)
        );
        pieces.push(Piece::Text(Bytes::from(text)));
        pieces.push(Piece::Part(*part));
    }
    pieces.push(Piece::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    pieces
}
