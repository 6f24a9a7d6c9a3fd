//! What becomes of the head of an answer: whether any server may say that, and which body is to
//! come behind it.

use crate::ask::{Answer, HopKind};
use crate::body::UpstreamBody;
use crate::connect::{FIELDS_MAX, HEAD_BYTES_MAX};
use crate::exchange::{Failure, Terms};
use crate::fault::{ErrorType, Fault};
use crate::fitting;
use crate::flight::Flight;
use crate::hop::{Hop, Way};
use crate::s3;
use crate::sending::Sending;
use crate::settings::SiteKind;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use std::time::Duration;

/// The longest silence between events of a stream of events, which come when they come.
const EVENTS_STALL: Duration = Duration::from_secs(600);

/// What no server may answer.
pub(crate) fn check(response: Response<Incoming>, hop: &Hop) -> Result<Response<Incoming>, Fault> {
    if response.status().is_informational() {
        let why = format!("{}: it answered {}", hop.id, response.status());
        return Err(Fault::unavailable(ErrorType::HttpUpgradeFailed, why));
    }
    let fields = response.headers();
    let codings: Vec<&[u8]> =
        fields.get_all(header::TRANSFER_ENCODING).iter().map(|value| value.as_bytes()).collect();
    // Two lengths, or a coding that nobody asked for: no two readers agree on the end
    // (RFC 9112, 6.3).
    let plain = codings.is_empty()
        || (codings.len() == 1
            && codings[0].eq_ignore_ascii_case(b"chunked")
            && response.version() != Version::HTTP_10
            && !fields.contains_key(header::CONTENT_LENGTH));
    if !plain {
        let why = format!("{}: a Transfer-Encoding that fits no body", hop.id);
        return Err(Fault::unavailable(ErrorType::HttpProtocolError, why));
    }
    let size =
        |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let bytes: usize = fields.iter().map(size).sum();
    if fields.len() > FIELDS_MAX || bytes > HEAD_BYTES_MAX {
        let why = format!("{}: a head of {} fields and {bytes} bytes", hop.id, fields.len());
        return Err(Fault::unavailable(ErrorType::HttpResponseHeaderSectionSize, why));
    }
    Ok(response)
}

pub(crate) fn plain(
    response: Response<Incoming>,
    mut flight: Flight,
    sending: &Sending,
    terms: &Terms,
) -> Result<Answer, Failure> {
    let (mut head, body) = response.into_parts();
    if let Some(why) = fitting::wrong(&sending.method, &sending.fields, &head) {
        let why = format!("{}: it answered {why}", flight.hop().id);
        let misread = fitting::misread(&sending.fields, &head);
        let is_origin = flight.hop().kind == HopKind::Origin;
        let misread = misread.filter(|_| is_origin);
        let misread = misread.map(|misread| (misread, flight.hop().id.clone()));
        let fault = Fault::Wrong { why: why.into(), misread };
        flight.failed(&fault, true);
        return Err(Failure::sent(fault));
    }
    let redirect = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
    if redirect && terms.kind == SiteKind::Title {
        let to = head.headers.get(header::LOCATION).map(|to| to.as_bytes().escape_ascii());
        let to = to.map(|to| to.to_string()).unwrap_or_default();
        let why = format!("{}: {} to {to:?}", flight.hop().id, head.status);
        let fault = Fault::Redirected { why: why.into() };
        flight.failed(&fault, true);
        return Err(Failure::sent(fault));
    }
    let delimited = is_delimited(&sending.method, &head);
    let alone = head.version < Version::HTTP_2;
    let events = head.headers.get(header::CONTENT_TYPE);
    let events = events.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let stall = if events { EVENTS_STALL } else { terms.times.stall };
    let (hop, kind) = (flight.hop().id.clone(), flight.hop().kind);
    let wanted = fitting::shortened(&sending.method, &sending.fields, sending.reach, &mut head);
    let mut body = if has_no_content(&sending.method, head.status) && !body.is_end_stream() {
        // RFC 9110 section 6.4.1. Over HTTP/2 it may come all the same, and is not read.
        flight.whole();
        UpstreamBody::held(bytes::Bytes::new())
    } else {
        UpstreamBody::live(body, flight, (stall, !events), (delimited, alone))
    };
    wanted.into_iter().for_each(|bytes| body.leave_after(bytes));
    Ok(Answer {
        head,
        body,
        hop,
        kind,
        storable: true,
        asked_ms: i64::MIN,
        fetched_ms: i64::MIN,
        head_after: Duration::ZERO,
        was_held_in_vain: false,
        retried: 0,
        place: None,
    })
}

/// Whether the end of the body can be told from a connection that broke (RFC 9112, 6.3).
fn is_delimited(method: &Method, head: &http::response::Parts) -> bool {
    let fields = &head.headers;
    has_no_content(method, head.status)
        || head.version >= Version::HTTP_2
        || fields.contains_key(header::CONTENT_LENGTH)
        || fields.contains_key(header::TRANSFER_ENCODING)
}

/// Whether an answer is its head alone, whatever comes behind that.
fn has_no_content(method: &Method, status: StatusCode) -> bool {
    let none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    none || *method == Method::HEAD
}

/// A refusal of S3, with what it says.
pub(crate) async fn refused(
    response: Response<Incoming>,
    mut flight: Flight,
    terms: &Terms,
) -> Result<(http::response::Parts, bytes::Bytes), Failure> {
    let (head, body) = response.into_parts();
    let whole = Limited::new(body, s3::ERROR_BYTES_MAX).collect();
    match tokio::time::timeout(terms.times.stall, whole).await {
        Ok(Ok(whole)) => {
            flight.whole();
            Ok((head, whole.to_bytes()))
        }
        _ => {
            let why = format!("{}: {} with a bad body", flight.hop().id, head.status);
            let fault = Fault::unavailable(ErrorType::HttpResponseIncomplete, why);
            flight.failed(&fault, true);
            Err(Failure::sent(fault))
        }
    }
}

pub(crate) fn from_s3(mut head: http::response::Parts, body: UpstreamBody, way: &Way) -> Answer {
    let storable = !s3::is_refusal(head.status);
    s3::clean(&mut head);
    let (hop, kind) = (way.hop.id.clone(), way.hop.kind);
    Answer {
        head,
        body,
        hop,
        kind,
        storable,
        asked_ms: i64::MIN,
        fetched_ms: i64::MIN,
        head_after: Duration::ZERO,
        was_held_in_vain: false,
        retried: 0,
        place: None,
    }
}
