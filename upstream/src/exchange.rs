//! One exchange with one hop, up to the head of its answer.

use crate::ask::{Answer, Ask, HopKind};
use crate::body::UpstreamBody;
use crate::connect::{FIELDS_MAX, HEAD_BYTES_MAX};
use crate::failing::Asked;
use crate::fault::{ErrorType, Fault, connect_error, head_error};
use crate::flight::Flight;
use crate::hop::{Hop, Target, Way};
use crate::lanes::{NoConnection, Stage};
use crate::newer;
use crate::place::Place;
use crate::pool::{Fate, Lost, Unanswered};
use crate::s3::{self, Keys, Refusal};
use crate::settings::{SiteKind, Times};
use crate::turns::Urgency;
use crate::upload::{SendBody, Upload};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest silence between events of a stream of events, which come when they come.
const EVENTS_STALL: Duration = Duration::from_secs(600);

/// A client that sends less than this of its body within a `first-byte-timeout` drips: it would
/// keep its place at the origin for as long as it likes.
const UPLOAD_BYTES_MIN: u64 = 4 << 10;

/// A request, ready to be made for any hop.
pub(crate) struct Sending {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) fields: HeaderMap,
    pub(crate) newer_than_ms: Option<i64>,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) pass_host: bool,
    pub(crate) urgency: Urgency,
    /// For the first hop that is asked.
    place: Mutex<Option<Place>>,
}

/// An exchange that came to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// The hop can't have seen any of the request.
    pub(crate) unsent: bool,
    /// The hop is found to be down while it is asked: that says nothing about others of its kind.
    pub(crate) down: bool,
}

/// What an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) kind: SiteKind,
    pub(crate) times: Times,
    pub(crate) deadline: Instant,
}

impl Sending {
    /// `fields` are those to send, cleaned.
    pub(crate) fn new(ask: Ask, fields: HeaderMap) -> Self {
        Self {
            method: ask.method,
            path: ask.path,
            host: ask.host,
            fields,
            newer_than_ms: ask.newer_than_ms,
            upload: ask.body.map(Upload::new),
            pass_host: false,
            urgency: ask.urgency,
            place: Mutex::new(ask.place),
        }
    }

    /// The request for a hop, made anew, and the keys that it is signed with.
    pub(crate) async fn request(
        &self,
        hop: &Hop,
    ) -> Result<(Request<SendBody>, Option<Arc<Keys>>), Fault> {
        let (uri, fields, keys) = match &hop.place {
            Target::Http { scheme, authority, prefix } => {
                let shown = self.pass_host || hop.kind != HopKind::Origin;
                let host = if shown { &self.host } else { authority };
                // Connections are kept for each authority of a URL. Those of HTTP/1.1 serve any
                // host, and clients choose what they ask for: one authority, and `Host` apart.
                let mut fields = self.fields.clone();
                let name = if *scheme == "http" && shown {
                    let named = host.parse::<Authority>().ok();
                    let named = named.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
                    let named = named.ok_or_else(|| Fault::refused(format!("host {host:?}")))?;
                    fields.insert(header::HOST, named);
                    authority
                } else {
                    host
                };
                let uri = format!("{scheme}://{name}{prefix}{}", self.path);
                let uri =
                    uri.parse().map_err(|error| Fault::refused(format!("{uri:?}: {error}")))?;
                (uri, fields, None)
            }
            Target::S3(bucket) => {
                let signed = bucket.request(&self.method, &self.path, &self.fields).await?;
                (signed.uri, signed.fields, signed.keys)
            }
        };
        let mut request = Request::new(SendBody::new(self.upload.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = fields;
        Ok((request, keys))
    }

    /// Tells another node how new its answer is to be; gives what was said.
    fn tell_newer_than(&self, hop: &Hop, fields: &mut HeaderMap) -> Option<HeaderValue> {
        let newer_than_ms = self.newer_than_ms.filter(|_| hop.kind != HopKind::Origin)?;
        Some(newer::tell(fields, newer_than_ms, now_ms()))
    }
}

/// Milliseconds since 1970 UTC.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Failure {
    fn unsent(fault: Fault) -> Self {
        Self { fault, unsent: true, down: false }
    }

    fn sent(fault: Fault) -> Self {
        Self { fault, unsent: false, down: false }
    }

    pub(crate) fn down(fault: Fault) -> Self {
        Self { fault, unsent: false, down: true }
    }
}

/// Asks a hop.
pub(crate) async fn exchange(
    way: &Arc<Way>,
    sending: &Sending,
    terms: &Terms,
) -> Result<Answer, Failure> {
    let started = Instant::now();
    let mut again = true;
    loop {
        let kept = sending.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let asked = Asked::of(&sending.path);
        let entered = way.enter(kept, asked, &sending.urgency, terms.deadline).await;
        let mut flight = entered.map_err(Failure::unsent)?;
        let (mut request, keys) = sending.request(&way.hop).await.map_err(Failure::unsent)?;
        let newer_than = sending.tell_newer_than(&way.hop, request.headers_mut());
        let response = head(&mut flight, request, sending, terms).await?;
        flight.head(response.status());
        let mut answer = match &way.hop.place {
            Target::Http { .. } => plain(response, flight, sending, terms)?,
            Target::S3(bucket)
                if s3::is_refusal(response.status())
                    || response.status() == StatusCode::NOT_FOUND =>
            {
                let (head, held) = refused(response, flight, terms).await?;
                match bucket.refusal(&head, &held, keys.as_ref()) {
                    Refusal::Again if again => {
                        again = false;
                        continue;
                    }
                    Refusal::NoBucket => {
                        let why = format!("{}: there is no such bucket", way.hop.id);
                        let error = ErrorType::ProxyConfigurationError;
                        let fault = Fault::unavailable(error, why);
                        way.tell(&fault);
                        return Err(Failure::sent(fault));
                    }
                    Refusal::Final | Refusal::Again => from_s3(head, UpstreamBody::held(held), way),
                }
            }
            Target::S3(_) => {
                let answer = plain(response, flight, sending, terms)?;
                from_s3(answer.head, answer.body, way)
            }
        };
        answer.is_newer = newer::take(&mut answer.head.headers, newer_than.as_ref());
        return Ok(Answer { head_after: started.elapsed(), ..answer });
    }
}

/// How much of its body a client is to have sent until when.
struct UploadPace {
    until: Instant,
    /// What it had sent a `first-byte-timeout` before that.
    bytes: u64,
}

impl UploadPace {
    /// Whether too little came in the time that has passed, and more is waited for.
    fn is_drip(&mut self, upload: &Upload, within: Duration, now: Instant) -> bool {
        if now < self.until {
            return false;
        }
        let (before, bytes) = (self.bytes, upload.bytes());
        *self = Self { until: now + within, bytes };
        upload.is_starved() && bytes > 0 && bytes - before < UPLOAD_BYTES_MIN
    }
}

/// Waits for the head: from the request on, and again from each piece of its body.
async fn head(
    flight: &mut Flight,
    request: Request<SendBody>,
    sending: &Sending,
    terms: &Terms,
) -> Result<Response<Incoming>, Failure> {
    let (hop, alive) = (flight.hop().clone(), flight.alive().clone());
    let began = Instant::now();
    let mut pace = UploadPace { until: began + terms.times.first_byte, bytes: 0 };
    let stage = Stage::default();
    let mut response = std::pin::pin!(hop.pool.give(request, &stage));
    let fail = |flight: &mut Flight, fault: Fault, unsent: bool| {
        flight.failed(&fault, !unsent);
        Failure { fault, unsent, down: false }
    };
    let done = loop {
        let moved = sending.upload.as_ref().and_then(|upload| upload.moved());
        let limit = moved.unwrap_or(began) + terms.times.first_byte;
        // A body that is on its way up may take longer than its head.
        let limit = if moved.is_some() { limit } else { limit.min(terms.deadline) };
        tokio::select! {
            done = &mut response => break done,
            () = alive.cancelled() => {
                let why = format!("{}: no sign of life while it was waited for", hop.id);
                let fault = Fault::timed_out(ErrorType::HttpResponseTimeout, why);
                flight.silent(&fault);
                return Err(Failure::down(fault));
            }
            () = tokio::time::sleep_until(limit.min(pace.until).into()) => {
                if let Some(upload) = &sending.upload
                    && pace.is_drip(upload, terms.times.first_byte, Instant::now())
                {
                    let why = "the body came too slowly".into();
                    return Err(Failure::sent(Fault::Slow { why }));
                }
                if Instant::now() < limit {
                    continue;
                }
                let now = sending.upload.as_ref().and_then(|upload| upload.moved());
                if now == moved {
                    if sending.upload.as_ref().is_some_and(|upload| upload.is_starved()) {
                        let why = "the rest of the body did not come in time".into();
                        return Err(Failure::sent(Fault::Slow { why }));
                    }
                    if stage.waits_for_room() {
                        return Err(full(flight, Unanswered::NoConnection(NoConnection::Full)));
                    }
                    if !stage.is_given() {
                        let why = format!("{}: no connection within {:?}", hop.id, began.elapsed());
                        let fault = Fault::timed_out(ErrorType::ConnectionTimeout, why);
                        return Err(fail(flight, fault, true));
                    }
                    let why = format!("{}: no answer within {:?}", hop.id, began.elapsed());
                    let fault = Fault::timed_out(ErrorType::HttpResponseTimeout, why);
                    return Err(fail(flight, fault, false));
                }
            }
        }
    };
    match done {
        Ok(mut response) => {
            flight.over(response.extensions_mut().remove());
            sending.upload.iter().for_each(|upload| upload.forget());
            check(response, &hop).map_err(|fault| fail(flight, fault, false))
        }
        Err(unanswered @ Unanswered::NoConnection(NoConnection::Full)) => {
            Err(full(flight, unanswered))
        }
        Err(unanswered @ Unanswered::NoConnection(NoConnection::Silent)) => {
            let why = format!("{}: {unanswered}", hop.id);
            Err(fail(flight, Fault::timed_out(ErrorType::ConnectionTimeout, why), true))
        }
        Err(Unanswered::NoConnection(NoConnection::Failed(error))) => {
            Err(fail(flight, connect_error(&hop.id, &*error), true))
        }
        Err(Unanswered::Lost(Lost { error, fate, in_order, is_reset })) => {
            if let Some(why) = sending.upload.as_ref().and_then(|upload| upload.failed()) {
                // The client's fault, not the hop's: the flight ends without a verdict.
                let fault = Fault::Aborted { why: why.into() };
                return Err(Failure::sent(fault));
            }
            if error.is_connect() {
                return Err(fail(flight, connect_error(&hop.id, &*error), true));
            }
            let fault = head_error(&hop.id, &error);
            // Who stops reading a body does not like that body, and says so in an answer that may
            // be lost with the connection.
            let is_refusal =
                |upload: &Arc<Upload>| upload.is_begun() && (is_reset || upload.is_cut());
            // It was sent to others as often as may be.
            if fate == Fate::Unprocessed && sending.upload.as_deref().is_none_or(Upload::is_here) {
                match in_order {
                    true => flight.unjudged(&fault),
                    false => flight.failed(&fault, true),
                }
                return Err(Failure::unsent(fault));
            }
            if fate != Fate::Unknown || sending.upload.as_ref().is_some_and(is_refusal) {
                flight.unjudged(&fault);
                return Err(Failure::sent(fault));
            }
            Err(fail(flight, fault, false))
        }
    }
}

/// It waits for others to end, and is not sent: that says nothing against the hop.
fn full(flight: &mut Flight, unanswered: Unanswered) -> Failure {
    let fault = Fault::busy(format!("{}: {unanswered}", flight.hop().id));
    flight.unjudged(&fault);
    Failure::unsent(fault)
}

/// What no server may answer.
fn check(response: Response<Incoming>, hop: &Hop) -> Result<Response<Incoming>, Fault> {
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

fn plain(
    response: Response<Incoming>,
    mut flight: Flight,
    sending: &Sending,
    terms: &Terms,
) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
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
    let body = if has_no_content(&sending.method, head.status) && !body.is_end_stream() {
        // RFC 9110 section 6.4.1. Over HTTP/2 it may come all the same, and is not read.
        flight.whole();
        UpstreamBody::held(bytes::Bytes::new())
    } else {
        UpstreamBody::live(body, flight, (stall, !events), (delimited, alone))
    };
    Ok(Answer {
        head,
        body,
        hop,
        kind,
        storable: true,
        is_newer: false,
        head_after: Duration::ZERO,
        retried: 0,
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
async fn refused(
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

fn from_s3(mut head: http::response::Parts, body: UpstreamBody, way: &Way) -> Answer {
    let storable = !s3::is_refusal(head.status);
    s3::clean(&mut head);
    let (hop, kind) = (way.hop.id.clone(), way.hop.kind);
    let head_after = Duration::ZERO;
    Answer { head, body, hop, kind, storable, is_newer: false, head_after, retried: 0 }
}
