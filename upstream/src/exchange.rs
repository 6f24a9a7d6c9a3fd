//! One exchange with one hop, up to the head of its answer.

mod head;

use crate::answered::{from_s3, plain, refused};
use crate::ask::{Answer, HopKind};
use crate::body::UpstreamBody;
use crate::failing::Asked;
use crate::fault::{ErrorType, Fault};
use crate::hop::{Hop, Target, Way};
use crate::newer;
use crate::s3::{self, Bucket, Refusal};
use crate::said;
use crate::sending::Sending;
use crate::settings::{SiteKind, Times};
use crate::skew;
use crate::within::Within;
use http::{HeaderMap, Method, StatusCode};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// An exchange that came to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// The hop can't have seen any of the request.
    pub(crate) unsent: bool,
    /// The hop is found to be down while it is asked: that says nothing about others of its kind.
    pub(crate) down: bool,
    /// The hop can't have carried it out, or has said that it has not.
    pub(crate) undone: bool,
}

/// What an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) kind: SiteKind,
    pub(crate) times: Times,
    pub(crate) deadline: Instant,
    /// Another node asks.
    pub(crate) by_peer: bool,
}

impl Terms {
    /// How long the head is waited for; another node is told that it is to be sooner.
    fn head_within(&self, hop: &Hop, fields: &mut HeaderMap) -> Duration {
        if hop.kind == HopKind::Origin {
            return self.times.first_byte;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let within = Within::of(left, self.by_peer);
        within.tell(fields);
        within.waited
    }
}

impl Failure {
    pub(crate) fn unsent(fault: Fault) -> Self {
        Self { unsent: true, ..Self::undone(fault) }
    }

    /// Of what was sent in part, or was not looked at.
    pub(crate) fn undone(fault: Fault) -> Self {
        Self { undone: true, ..Self::sent(fault) }
    }

    pub(crate) fn sent(fault: Fault) -> Self {
        Self { fault, unsent: false, down: false, undone: false }
    }

    pub(crate) fn down(fault: Fault) -> Self {
        Self { down: true, ..Self::sent(fault) }
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
        let (sent_ms, told) = sending.tell_purges(&way.hop, request.headers_mut());
        let within = terms.head_within(&way.hop, request.headers_mut());
        let given = Instant::now();
        let response = head::head(&mut flight, request, sending, (terms, within)).await?;
        let head_after = given.elapsed();
        flight.head(response.status());
        if way.hop.kind == HopKind::Origin {
            let came = SystemTime::now();
            let asked = came.checked_sub(started.elapsed()).unwrap_or(came);
            let skew = skew::seconds(response.headers(), asked, came);
            skew.into_iter().for_each(|seconds| way.meter.skew.set(seconds));
        }
        let is_of_no_range = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
        let place = is_of_no_range.then(|| flight.place().clone());
        let mut answer = match &way.hop.place {
            Target::Http { .. } => plain(response, flight, sending, terms)?,
            Target::S3(bucket) if s3::may_be_refusal(response.status()) => {
                let (head, held) = refused(response, flight, terms).await?;
                match bucket.refusal(&head, &held, keys.as_ref()).await {
                    Refusal::Again(reason) if again => {
                        way.meter.refused(reason);
                        again = false;
                        continue;
                    }
                    Refusal::Mistaken(why) => {
                        let why = format!("{}: {why}", way.hop.id);
                        let error = ErrorType::ProxyConfigurationError;
                        let fault = Fault::unavailable(error, why);
                        way.tell(&fault);
                        return Err(Failure::sent(fault));
                    }
                    Refusal::Absent => {
                        if !head.status.is_redirection() {
                            taken(way, bucket);
                        }
                        from_s3(head, UpstreamBody::held(held), way)
                    }
                    Refusal::Final(reason) | Refusal::Again(reason) => {
                        way.meter.refused(reason);
                        if let Some(why) = bucket.refused(reason, keys.as_ref()) {
                            let (site, hop) = (&way.meter.site, &way.hop.id);
                            tracing::warn!(site, %hop, why, "the bucket refuses the keys");
                        }
                        from_s3(head, UpstreamBody::held(held), way)
                    }
                }
            }
            Target::S3(bucket) => {
                if s3::is_of_an_object(response.status()) {
                    taken(way, bucket);
                }
                let answer = plain(response, flight, sending, terms)?;
                from_s3(answer.head, answer.body, way)
            }
        };
        let told = (told.0, &told.1);
        let times = newer::times(&mut answer.head.headers, answer.kind, told, sent_ms);
        (answer.asked_ms, answer.fetched_ms) = (times.asked_ms, times.fetched_ms);
        if answer.kind != HopKind::Origin {
            // Of other methods no node says when.
            let is_timed = matches!(sending.method, Method::GET | Method::HEAD);
            let is_as_to_clients = times.is_as_to_clients && is_timed;
            let named = (&*way.meter.site, way.hop.id.as_str());
            way.remarks.of(&answer.head.headers, named, is_as_to_clients);
        }
        if said::take_unsure(&mut answer.head.headers) && answer.kind != HopKind::Origin {
            sending.anew.unsure.note();
        }
        let is_held = said::take_held_in_vain(&mut answer.head.headers);
        let was_held_in_vain = is_held && answer.kind != HopKind::Origin;
        return Ok(Answer { head_after, was_held_in_vain, place, ..answer });
    }
}

/// The bucket takes the keys.
fn taken(way: &Way, bucket: &Bucket) {
    if bucket.taken() {
        let (site, hop) = (&way.meter.site, &way.hop.id);
        tracing::warn!(site, %hop, "the bucket takes the keys again");
    }
}
