//! Waiting for the head of an answer: as long as it may take, its client's body comes, its hop gives
//! signs of life, and nobody has more need of its place.

use super::{Failure, Terms};
use crate::anew::End;
use crate::answered::check;
use crate::ask::HopKind;
use crate::fault::{ErrorType, Fault, connect_error, head_error};
use crate::flight::Flight;
use crate::hop::Held;
use crate::lanes::{NoConnection, Stage};
use crate::pool::{Fate, Lost, Unanswered};
use crate::sending::Sending;
use crate::upload::{SendBody, Upload};
use crate::waits::Wait;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that sends less than this of its body within a `first-byte-timeout` drips: it would
/// keep its place at the origin for as long as it likes.
const UPLOAD_BYTES_MIN: u64 = 4 << 10;

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

/// Waits for the head this long: from the request on, and again from each piece of its body.
pub(super) async fn head(
    flight: &mut Flight,
    request: Request<SendBody>,
    sending: &Sending,
    (terms, within): (&Terms, Duration),
) -> Result<Response<Incoming>, Failure> {
    let (hop, alive) = (flight.hop().clone(), flight.alive().clone());
    let (began, patience) = (Instant::now(), flight.patience());
    let mut pace = UploadPace { until: began + terms.times.first_byte, bytes: 0 };
    let stage = Stage::default();
    let mut response = std::pin::pin!(hop.pool.give(request, &sending.anew, &stage));
    let moved = || sending.upload.as_ref().and_then(|upload| upload.moved());
    let (mut long, mut since): (Option<Wait>, _) = (None, began);
    let done = loop {
        let last = moved();
        let limit = last.unwrap_or(began) + within;
        // A body that is on its way up may take longer than its head.
        let limit = if last.is_some() { limit } else { limit.min(terms.deadline) };
        // Only what goes up has a pace: without, a look that has passed would be looked at again and again.
        let mut look = if sending.upload.is_some() { limit.min(pace.until) } else { limit };
        let long_from = last.unwrap_or(since) + patience.time;
        if stage.waits_for_room() {
            // It keeps none from others.
            long = None;
        } else if Instant::now() < long_from {
            (long, look) = (None, look.min(long_from));
        } else if long.is_none() {
            long = Some(Wait::begin(&hop, patience.takes_long));
        }
        tokio::select! {
            biased;
            done = &mut response => break done,
            () = alive.cancelled() => {
                let why = format!("{}: no sign of life while it was waited for", hop.id);
                let fault = Fault::timed_out(ErrorType::HttpResponseTimeout, why);
                flight.silent(&fault);
                return Err(Failure::down(fault));
            }
            () = stage.changed() => {
                since = Instant::now();
                if stage.waits_for_room() {
                    hop.call_if_wanted();
                }
            }
            // Unless its body has gone on meanwhile.
            way = called(long.as_ref()) => if moved() == last {
                return Err(gave_way(flight, way, &stage, began));
            },
            () = tokio::time::sleep_until(look.into()) => {
                if let Some(upload) = &sending.upload
                    && pace.is_drip(upload, terms.times.first_byte, Instant::now())
                {
                    let why = "the body came too slowly".into();
                    return Err(Failure::undone(Fault::Slow { why }));
                }
                if Instant::now() >= limit && moved() == last {
                    return Err(timed_out(flight, sending, &stage, (began, terms)));
                }
            }
        }
    };
    match done {
        Ok(mut response) => {
            flight.over(response.extensions_mut().remove());
            // A node that does not know the site has done nothing: another hop may have the body.
            let is_unknown = response.status() == StatusCode::MISDIRECTED_REQUEST;
            if hop.kind == HopKind::Origin || !is_unknown {
                sending.upload.iter().for_each(|upload| upload.forget());
            }
            check(response, &hop).map_err(|fault| failed(flight, fault, false))
        }
        Err(why) => Err(unanswered(flight, sending, why)),
    }
}

async fn called(long: Option<&Wait>) -> Held {
    match long {
        Some(wait) => wait.called().await,
        None => std::future::pending().await,
    }
}

fn failed(flight: &mut Flight, fault: Fault, unsent: bool) -> Failure {
    flight.failed(&fault, !unsent);
    if unsent { Failure::unsent(fault) } else { Failure::sent(fault) }
}

/// Others wait for its place, and too many wait as long as this one.
fn gave_way(flight: &mut Flight, way: Held, stage: &Stage, began: Instant) -> Failure {
    let (hop, waited) = (&flight.hop().id, began.elapsed());
    let fault = Fault::busy(format!(
        "{hop}: no answer within {waited:?}, nor to others that hold three quarters of in-flight-max, \
         and a request waits for its place"
    ));
    flight.gave_way(way, &fault);
    if stage.is_given() { Failure::sent(fault) } else { Failure::unsent(fault) }
}

/// The time that there is for a head is over.
fn timed_out(
    flight: &mut Flight,
    sending: &Sending,
    stage: &Stage,
    (began, terms): (Instant, &Terms),
) -> Failure {
    if sending.upload.as_ref().is_some_and(|upload| upload.is_starved()) {
        let why = "the rest of the body did not come in time".into();
        return Failure::undone(Fault::Slow { why });
    }
    if stage.waits_for_room() {
        return full(flight, Unanswered::NoConnection(NoConnection::Full));
    }
    let (hop, waited) = (&flight.hop().id, began.elapsed());
    if !stage.is_given() {
        let why = format!("{hop}: no connection within {waited:?}");
        let fault = Fault::timed_out(ErrorType::ConnectionTimeout, why);
        return failed(flight, fault, true);
    }
    let why = format!("{hop}: no answer within {waited:?}");
    let fault = Fault::timed_out(ErrorType::HttpResponseTimeout, why);
    if waited * 2 < terms.times.first_byte {
        // Who asks had no more time: that says nothing of the hop.
        flight.unjudged(&fault);
        return Failure::sent(fault);
    }
    failed(flight, fault, false)
}

/// There is no head, nor will there be.
fn unanswered(flight: &mut Flight, sending: &Sending, unanswered: Unanswered) -> Failure {
    let hop = flight.hop().clone();
    let Lost { error, fate, end, is_reset } = match unanswered {
        Unanswered::NoConnection(NoConnection::Full) => return full(flight, unanswered),
        Unanswered::NoConnection(NoConnection::Silent) => {
            let why = format!("{}: {unanswered}", hop.id);
            return failed(flight, Fault::timed_out(ErrorType::ConnectionTimeout, why), true);
        }
        Unanswered::NoConnection(NoConnection::Failed(error)) => {
            return failed(flight, connect_error(&hop.id, &*error), true);
        }
        Unanswered::Lost(lost) => lost,
    };
    if let Some(why) = sending.upload.as_ref().and_then(|upload| upload.failed()) {
        // The client's fault, not the hop's: the flight ends without a verdict.
        return Failure::undone(Fault::Aborted { why: why.into() });
    }
    if error.is_connect() {
        return failed(flight, connect_error(&hop.id, &*error), true);
    }
    let fault = head_error(&hop.id, &error);
    // Who stops reading a body does not like that body, and says so in an answer that may
    // be lost with the connection.
    let is_refusal = |upload: &Arc<Upload>| upload.is_begun() && (is_reset || upload.is_cut());
    // It was sent to others as often as may be.
    if fate == Fate::Unprocessed && sending.upload.as_deref().is_none_or(Upload::is_here) {
        match end {
            End::InOrder => flight.unjudged(&fault),
            End::Refused | End::GivenUp => flight.failed(&fault, true),
        }
        return Failure::unsent(fault);
    }
    let undone = fate == Fate::Unprocessed || sending.upload.as_ref().is_some_and(is_refusal);
    if undone || fate == Fate::GivenUp {
        flight.unjudged(&fault);
        return if undone { Failure::undone(fault) } else { Failure::sent(fault) };
    }
    failed(flight, fault, false)
}

/// It waits for others to end, and is not sent: that says nothing against the hop.
fn full(flight: &mut Flight, unanswered: Unanswered) -> Failure {
    let fault = Fault::busy(format!("{}: {unanswered}", flight.hop().id));
    flight.unjudged(&fault);
    Failure::unsent(fault)
}
