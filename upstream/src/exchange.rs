//! One exchange with one hop, up to the head of its answer.

use crate::anew::End;
use crate::answered::{check, from_s3, plain, refused};
use crate::ask::Answer;
use crate::body::UpstreamBody;
use crate::failing::Asked;
use crate::fault::{ErrorType, Fault, connect_error, head_error};
use crate::flight::Flight;
use crate::hop::{Target, Way};
use crate::lanes::{NoConnection, Stage};
use crate::newer;
use crate::pool::{Fate, Lost, Unanswered};
use crate::s3::{self, Refusal};
use crate::sending::Sending;
use crate::settings::{SiteKind, Times};
use crate::upload::{SendBody, Upload};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A client that sends less than this of its body within a `first-byte-timeout` drips: it would
/// keep its place at the origin for as long as it likes.
const UPLOAD_BYTES_MIN: u64 = 4 << 10;

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

impl Failure {
    fn unsent(fault: Fault) -> Self {
        Self { fault, unsent: true, down: false }
    }

    pub(crate) fn sent(fault: Fault) -> Self {
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
    let mut response = std::pin::pin!(hop.pool.give(request, &sending.anew, &stage));
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
        Err(Unanswered::Lost(Lost { error, fate, end, is_reset })) => {
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
                match end {
                    End::InOrder => flight.unjudged(&fault),
                    End::Refused | End::GivenUp => flight.failed(&fault, true),
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
