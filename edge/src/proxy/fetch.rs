//! Asking the origin once for all who want the same, and what becomes of its answer.
//!
//! The exchange runs in a task of its own: a client that leaves ends nothing that others wait
//! for. An answer that may not be shared goes to the one who asked; the others ask themselves,
//! and for a while nobody waits for that URL.

mod apart;
mod asking;
mod outcome;
mod settling;
mod span;
mod under_way;

pub(super) use apart::apart;
pub(super) use asking::{Asking, Sent};
pub use outcome::{Cut, Hold, Outcome, Own, Unshared, reader, reading};
pub use under_way::{Asker, Began, Fetches, keep, put};

use super::{Wanted, now_ms, pass, renewing};
use crate::error::Fault;
use crate::flights::{Ticket, Wait};
use crate::object::Object;
use crate::refused::Refused;
use crate::serve::{Answer as Answered, Edge};
use caching::{CacheStatus, Forwarded, Stored};
use heads::Head;
use http::{HeaderMap, Method, StatusCode, header};
use model::ByteRange;
use span::{Span, is_of};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use under_way::{Background, Flight};
use upstream::Urgency;

/// One exchange to be.
pub struct Fetch {
    edge: Arc<Edge>,
    wanted: Arc<Wanted>,
    stale: Option<(Arc<Head>, bool)>,
    /// No part of what comes will be kept: what the client wants is asked for to the byte.
    is_exact: bool,
    /// That of the most urgent of those who wait for it.
    urgency: Urgency,
}

/// What is stored, if it may answer in place of an origin that fails, and how long that one is
/// waited for: it is not served sooner than a viewer would leave, nor as late as the origin is
/// given up (RFC 5861 section 4: it would be answered with a 504).
struct StandIn {
    edge: Arc<Edge>,
    wanted: Arc<Wanted>,
    head: Option<Arc<Head>>,
}

impl StandIn {
    /// What a flight comes to, or the stand-in for it where it may still answer by then.
    async fn or(self, wait: Wait<Outcome>) -> Result<Outcome, Arc<Head>> {
        let mut landed =
            pin!(async { wait.landed().await.unwrap_or(Outcome::Failed(Fault::Lost)) });
        if let Some(head) = self.head {
            let patience = self.wanted.site.patience();
            if let Ok(outcome) = tokio::time::timeout(patience, &mut landed).await {
                return Ok(outcome);
            }
            if super::may_be_stale(&self.edge, &self.wanted, &head)
                && super::stored::is_here(&self.edge, &self.wanted, &head)
            {
                return Err(head);
            }
        }
        Ok(landed.await)
    }
}

impl Fetch {
    /// An exchange for a request; `stale` is what is stored, and whether a soft purge hit it.
    pub fn new(edge: &Arc<Edge>, wanted: &Arc<Wanted>, stale: Option<(Arc<Head>, bool)>) -> Self {
        let urgency = Urgency::of(wanted.priority.urgency);
        let is_part = wanted.method == Method::GET && wanted.fields.contains_key(header::RANGE);
        let is_exact =
            is_part && stale.is_none() && edge.fetches.is_unkept(wanted.key, wanted.asker());
        Self { edge: Arc::clone(edge), wanted: Arc::clone(wanted), stale, is_exact, urgency }
    }

    /// Revalidates in the background, unless somebody does so already.
    pub fn in_background(edge: &Arc<Edge>, wanted: &Arc<Wanted>, head: &Arc<Head>) {
        let fetch = Self::new(edge, wanted, Some((Arc::clone(head), false)));
        let Some(ticket) = edge.fetches.flights.claim(fetch.flight(), &fetch.urgency) else {
            return;
        };
        if fetch.has_come() {
            return ticket.land(Outcome::Failed(Fault::Changed));
        }
        let Some(background) = Background::begin(edge) else {
            return edge.metrics.revalidations_left.inc();
        };
        tokio::spawn(edge.metrics.guarded(async move {
            let _background = background;
            fetch.lead(ticket, None).await;
        }));
    }

    fn flight(&self) -> Flight {
        let selecting = self.stale.as_ref().map(|(head, _)| {
            let text = format!("{:?}", head.selecting);
            xxhash_rust::xxh3::xxh3_64(text.as_bytes())
        });
        (self.wanted.key, selecting.unwrap_or(0), self.run_asked())
    }

    /// Asks, or waits for whoever asks already. Whether it only waited comes last.
    pub async fn join(self) -> (Outcome, Option<Own>, bool) {
        let fetches = &self.edge.fetches;
        let is_of_one = self.wanted.method == Method::HEAD || self.is_exact;
        if self.wanted.is_personal() || is_of_one || fetches.is_unshared(&self.wanted.key) {
            let (outcome, alone) = self.exchange().await;
            return (outcome, alone, false);
        }
        let (wait, ticket) = fetches.flights.join(self.flight(), &self.urgency);
        let stand_in = self.stand_in();
        let Some(ticket) = ticket else {
            let outcome = stand_in.or(wait).await.unwrap_or_else(|head| Outcome::Stale(head, None));
            // The one who asked may want nothing stale.
            let outcome = match outcome {
                Outcome::Failed(fault) if !fault.starts_over() => self.failed(fault),
                outcome => outcome,
            };
            return (outcome, None, true);
        };
        // A fetch may have landed between the look and the join: all start over.
        if self.has_come() {
            ticket.land(Outcome::Failed(Fault::Changed));
            return (Outcome::Failed(Fault::Changed), None, false);
        }
        let (sender, receiver) = oneshot::channel();
        let metrics = self.edge.metrics.clone();
        tokio::spawn(metrics.guarded(self.lead(ticket, Some(sender))));
        match stand_in.or(wait).await {
            Ok(outcome) => (outcome, receiver.await.ok().flatten(), false),
            // It goes on in the background.
            Err(head) => (Outcome::Stale(head, None), None, false),
        }
    }

    fn stand_in(&self) -> StandIn {
        let head = self.stale.as_ref().filter(|_| self.may_be_stale() && self.is_here());
        StandIn {
            edge: Arc::clone(&self.edge),
            wanted: Arc::clone(&self.wanted),
            head: head.map(|(head, _)| Arc::clone(head)),
        }
    }

    /// Whether the request would now be answered without the origin.
    fn has_come(&self) -> bool {
        let (edge, wanted) = (&self.edge, &self.wanted);
        if edge.lives.find(wanted, &edge.purges).is_some() {
            return true;
        }
        let Some(variants) = edge.engine.heads.in_memory(&wanted.key) else { return false };
        super::selected(edge, wanted, &variants).is_ok_and(|found| {
            let reuse = wanted.reuse(&found.head, now_ms(), found.soft_purged);
            matches!(reuse, caching::Reuse::Fresh)
        })
    }

    async fn lead(
        self,
        ticket: Ticket<Flight, Outcome>,
        sender: Option<oneshot::Sender<Option<Own>>>,
    ) {
        let (edge, wanted) = (Arc::clone(&self.edge), Arc::clone(&self.wanted));
        let (renews, stands_in) = (self.stale.is_some(), self.may_be_stale());
        let (outcome, own) = self.exchange().await;
        let mut reading = None;
        let is_shared = match &outcome {
            Outcome::Alone => false,
            Outcome::Growing(live, _) => live.is_sharable(&wanted.caching),
            _ => true,
        };
        edge.fetches.remember(wanted.key, is_shared);
        match (sender, own) {
            (Some(sender), own) => match sender.send(own) {
                // Who asked may have been answered with what this renews.
                Err(Some(Own::Reader(reader))) if renews => {
                    drop(tokio::spawn(edge.metrics.guarded(reader.drain())))
                }
                Err(Some(Own::Reading(renewed))) if stands_in => reading = Some(renewed),
                // A client that left takes nothing.
                _ => {}
            },
            // In the background, an answer that is only kept whole has no other reader.
            (None, Some(Own::Reader(reader))) => {
                drop(tokio::spawn(edge.metrics.guarded(reader.drain())))
            }
            (None, Some(Own::Reading(renewed))) => reading = Some(renewed),
            (None, _) => {}
        }
        let renewed = match &outcome {
            Outcome::Stored { head, .. } => reading.map(|reading| (Arc::clone(head), reading)),
            _ => None,
        };
        ticket.land(outcome);
        // What was asked for on behalf of those who come next is kept for them.
        if let Some((head, reading)) = renewed {
            let object = Object::web(&wanted, &head);
            let range = span::one_range(&wanted.fields, head.bytes);
            let range = range.unwrap_or(ByteRange::new(0, head.bytes));
            edge.engine.follow(&object, range, reading).await;
        }
    }

    /// Asks for this request alone, and answers from what comes.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn alone(self, forwarded: Forwarded) -> Result<Answered, Refused> {
        let (edge, wanted) = (Arc::clone(&self.edge), Arc::clone(&self.wanted));
        let (outcome, own) = self.exchange().await;
        let told = |status| CacheStatus {
            forwarded: Some(forwarded),
            forwarded_status: status,
            ..CacheStatus::default()
        };
        match outcome {
            Outcome::Stored { head, verdict, status } => {
                let told = told(Some(status));
                let reading = reading(own);
                let how = super::stored::How::Fetched { verdict, told, reading };
                super::stored::answer(&edge, &wanted, head, how).await
            }
            Outcome::Growing(live, hold) => {
                live.answer(&edge, &wanted, (reader(own), hold), told(None)).await
            }
            Outcome::Stale(head, fault) => match own {
                Some(own) => own.answer(&edge, &wanted, told(None)).await,
                None => super::stand_in(&edge, &wanted, (head, fault), told(None)).await,
            },
            Outcome::Failed(fault) => Err(Refused::Fault(fault)),
            Outcome::Alone => match own {
                Some(own) => own.answer(&edge, &wanted, told(None)).await,
                None => Err(Refused::Fault(Fault::Lost)),
            },
        }
    }

    /// The exchange itself.
    async fn exchange(self) -> (Outcome, Option<Own>) {
        let (edge, wanted, stale) =
            (Arc::clone(&self.edge), Arc::clone(&self.wanted), self.stale.clone());
        let (outcome, own) = self.asked().await;
        if let (Outcome::Alone, Some(Own::Unshared(unshared))) = (&outcome, &own)
            && let Some(stale) = stale
        {
            renewing::by_another(&edge, &wanted, &stale, &unshared.answer);
        }
        (outcome, own)
    }

    /// Asks until there is an answer that is of use. A 304 that is of none is followed by a whole
    /// fetch, and so is a part of which what is wanted can't be cut out, though it was asked for to
    /// the byte.
    async fn asked(mut self) -> (Outcome, Option<Own>) {
        let (mut range, is_by_stored) = (self.range_to_ask().await, self.stale.is_some());
        let conditional =
            self.stale.as_ref().map(|(head, _)| caching::revalidation_fields(&head.stored));
        let conditional = conditional.filter(|fields| !fields.is_empty());
        let was_conditional = conditional.is_some();
        let mut asked = if self.is_exact { range } else { self.span_to_ask(range) };
        let (mut outcome, mut own) = self.once(conditional, asked).await;
        if was_conditional && matches!(outcome, Outcome::Failed(Fault::Changed)) {
            self.stale = None;
            (outcome, own) = self.once(None, asked).await;
        }
        // The new version ends before what is stored does.
        let is_past = is_by_stored && self.wants_end();
        if is_past && matches!(&own, Some(Own::Unshared(unshared)) if unshared.is_no_part()) {
            drop(own);
            self.stale = None;
            range = self.range_to_ask().await;
            asked = self.span_to_ask(range);
            (outcome, own) = self.once(None, asked).await;
        }
        // What suits the cache, but is neither kept nor what the client wants. Only of what is
        // stored it is known whether `If-Range` wants the part.
        let may_be_whole = self.wanted.fields.contains_key(header::IF_RANGE) && !self.is_exact;
        let range = range.filter(|_| !may_be_whole);
        let is_other = |unshared: &Unshared| {
            unshared.is_a_wrong_part()
                || unshared.is_no_part()
                || (may_be_whole && unshared.is_a_part())
        };
        if asked != range && matches!(&own, Some(Own::Unshared(unshared)) if is_other(unshared)) {
            drop(own);
            (outcome, own) = self.once(None, range).await;
        }
        let wrong = |own: &Option<Own>| match own {
            Some(Own::Unshared(unshared)) if unshared.is_a_wrong_part() => self.exact(unshared),
            _ => None,
        };
        if let Some(exact) = wrong(&own).filter(|_| !may_be_whole) {
            drop(own);
            (outcome, own) = self.once(None, Some(exact)).await;
        }
        if matches!(&own, Some(Own::Unshared(unshared)) if unshared.is_a_wrong_part()) {
            drop(own);
            return self.once(None, None).await;
        }
        (outcome, own)
    }

    async fn once(
        &self,
        conditional: Option<HeaderMap>,
        range: Option<Span>,
    ) -> (Outcome, Option<Own>) {
        let epoch = self.edge.purges.number();
        let range = range.filter(|_| conditional.is_none() || self.is_in_chunks());
        let Sent { answered, requested_ms, asked_ms, began } =
            self.send(conditional.as_ref(), range).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(fault) => return (self.failed(fault), None),
        };
        let answer = self.made_whole(answer, range);
        if is_failure(answer.head.status) && self.may_be_stale() && self.is_here() {
            return (self.failed(Fault::Answered(answer.head.status)), None);
        }
        let received_ms = now_ms();
        let sent = renewing::Sent { requested_ms, began, epoch, asked_ms };
        if answer.head.status == StatusCode::PARTIAL_CONTENT && !is_of(&answer, range) {
            let fault = match caching::is_past_counting(&answer.head.headers) {
                true => Fault::Uncounted,
                false => Fault::unavailable("answered 206 with other bytes than were asked for"),
            };
            self.wanted.site.upstream.blame(&answer.hop, &fault.to_string());
            return (self.failed(fault), None);
        }
        if answer.head.status == StatusCode::NOT_MODIFIED
            && let (Some((old, _)), true) = (&self.stale, conditional.is_some())
        {
            if self.edge.fetches.is_outdated(&self.wanted.key, began) {
                return (Outcome::Failed(Fault::Changed), None);
            }
            return self.refreshed(old, &answer, sent);
        }
        let stored = Stored {
            status: answer.head.status,
            fields: pass::received(&self.edge, &answer.head, received_ms),
            requested_ms,
            received_ms,
        };
        if let Some(head) = self.outliving(&stored) {
            let fault = Fault::Answered(stored.status);
            let own = self.unshared(answer, stored, range, false).1;
            return (Outcome::Stale(head, Some(fault)), own);
        }
        let may_teach = matches!(stored.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
            && self.wanted.method == Method::GET;
        let (outcome, own) = self.settle(answer, stored, sent, range);
        if may_teach {
            let is_unkept = matches!(&own, Some(Own::Unshared(unshared)) if unshared.is_unkept);
            let (key, asker) = (self.wanted.key, self.wanted.asker());
            self.edge.fetches.learn_kept(key, asker, !is_unkept);
        }
        (outcome, own)
    }

    /// Whether what is stored is had in parts. What is only kept whole is asked about as a whole.
    fn is_in_chunks(&self) -> bool {
        let settings = &self.wanted.caching;
        self.stale.as_ref().is_some_and(|(head, _)| head.facts(settings).has_strong_validator())
    }

    fn may_be_stale(&self) -> bool {
        self.stale.as_ref().is_some_and(|(head, soft)| self.wanted.may_stand_in(head, *soft))
    }

    /// Whether what the client wants of what is stored is here.
    fn is_here(&self) -> bool {
        let is_here = |head| super::stored::is_here(&self.edge, &self.wanted, head);
        self.stale.as_ref().is_some_and(|(head, _)| is_here(head))
    }

    /// What is stored, where all but the one who asked are better off with that than with a failure:
    /// that one wants nothing stale, or more than is here.
    fn outliving(&self, failure: &Stored) -> Option<Arc<Head>> {
        let (head, soft) = self.stale.as_ref().filter(|_| is_failure(failure.status))?;
        let settings = &self.wanted.caching;
        let outlives = caching::outlives(&head.stored, failure, now_ms(), settings, *soft);
        (outlives || self.may_be_stale()).then(|| Arc::clone(head))
    }

    fn failed(&self, fault: Fault) -> Outcome {
        match &self.stale {
            Some((head, _)) if self.may_be_stale() => Outcome::Stale(Arc::clone(head), Some(fault)),
            _ => Outcome::Failed(fault),
        }
    }
}

/// Statuses by which an origin says that it failed (RFC 5861 section 4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
