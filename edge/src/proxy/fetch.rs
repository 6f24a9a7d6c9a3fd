//! Asking the origin once for all who want the same, and what becomes of its answer.
//!
//! The exchange runs in a task of its own: a client that leaves ends nothing that others wait
//! for. An answer that may not be shared goes to the one who asked; the others ask themselves,
//! and for a while nobody waits for that URL.

mod apart;
mod asking;
mod joining;
mod outcome;
mod settling;
mod span;
mod told;
mod under_way;
mod unstored;

pub(super) use apart::apart;
pub(super) use asking::{Asking, Sent};
pub use outcome::{Cut, Hold, Outcome, Own, Unshared, reader, reading};
pub use under_way::{Asker, Began, Fetches, keep, put};
pub use unstored::{Unstored, tell};

use super::{Found, Wanted, now_ms, pass, renewing};
use crate::error::Fault;
use crate::flights::Ticket;
use crate::object::Object;
use crate::refused::Refused;
use crate::serve::{Answer as Answered, Edge};
use caching::{CacheStatus, Forwarded, Storable, Stored};
use heads::Head;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use model::ByteRange;
use span::{Span, is_of};
use std::sync::Arc;
use tokio::sync::oneshot;
use told::Told;
use under_way::{Background, Flight, Unkept};
use upstream::Urgency;

/// What is stored, and since when a soft purge has made it stale (see [`caching::reuse`]).
pub type Stale = (Arc<Head>, Option<i64>);

/// One exchange to be.
pub struct Fetch {
    edge: Arc<Edge>,
    wanted: Arc<Wanted>,
    stale: Option<Stale>,
    /// Nothing of what comes will be kept: it is asked for on the client's own conditions.
    is_on_own: bool,
    /// No part of what comes will be kept: what the client wants is asked for to the byte.
    is_exact: bool,
    /// That of the most urgent of those who wait for it.
    urgency: Urgency,
    /// Who asked has been answered.
    is_in_background: bool,
}

impl Fetch {
    /// An exchange for a request; `stale` is what is stored.
    pub fn new(edge: &Arc<Edge>, wanted: &Arc<Wanted>, stale: Option<Stale>) -> Self {
        let urgency = Urgency::of(wanted.priority.urgency);
        // What a HEAD is told others are told, too.
        let is_new = wanted.method == Method::GET && stale.is_none();
        let unkept = if is_new { edge.fetches.unkept(wanted) } else { None };
        let is_exact = unkept.is_some() && wanted.fields.contains_key(header::RANGE);
        let is_on_own = unkept == Some(Unkept::All) && wanted.names_what_it_has();
        Self {
            edge: Arc::clone(edge),
            wanted: Arc::clone(wanted),
            stale,
            is_on_own,
            is_exact,
            urgency,
            is_in_background: false,
        }
    }

    /// Revalidates in the background, unless somebody does so already.
    pub fn in_background(edge: &Arc<Edge>, wanted: &Arc<Wanted>, stale: Stale) {
        let fetch = Self { is_in_background: true, ..Self::new(edge, wanted, Some(stale)) };
        let (_, Some(ticket)) = fetch.board() else { return };
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

    async fn lead(
        self,
        ticket: Ticket<Flight, Outcome>,
        sender: Option<oneshot::Sender<Option<Own>>>,
    ) {
        let (edge, wanted) = (Arc::clone(&self.edge), Arc::clone(&self.wanted));
        let (renews, stands_in) = (self.stale.is_some(), self.may_be_stale());
        let is_first_head = wanted.method == Method::HEAD && !renews;
        let before = (edge.fetches.now(), edge.purges.number());
        let (mut outcome, own) = self.exchange().await;
        if let Some(Own::Unshared(unshared)) = &own {
            let of_head = || Told::of(&edge, &wanted, unshared, before);
            let told = is_first_head.then(of_head).flatten();
            let told = told.or_else(|| Told::of_held(&wanted, unshared, before.1));
            outcome = told.map_or(outcome, Outcome::Told);
        }
        // Who waited for it, and is to ask anew, does so beside others who select another variant.
        let is_reload = wanted.varies_as() != wanted.key;
        if let Some(selecting) = outcome.selecting(is_reload) {
            edge.fetches.learn_varied(&wanted, selecting);
        }
        let mut reading = None;
        let is_shared = match &outcome {
            Outcome::Alone => false,
            Outcome::Growing(live, _) => live.is_sharable(&wanted.caching),
            _ => true,
        };
        // A new version that a HEAD is told of is that one's alone: of a GET that says nothing. Nor
        // does what a GET was told alone for a reason of its own.
        let is_telling = match wanted.method {
            Method::HEAD => is_first_head && !is_shared,
            _ => !matches!(&own, Some(Own::Unshared(unshared)) if unshared.is_of_request),
        };
        if is_telling {
            edge.fetches.remember(wanted.key, is_shared);
        }
        match (sender, own) {
            (Some(sender), own) => match sender.send(own) {
                // Who asked may have been answered with what this renews.
                Err(Some(Own::Reader(reader))) if renews => {
                    drop(tokio::spawn(edge.metrics.guarded(reader.drain())))
                }
                Err(Some(Own::Reading(renewed))) if stands_in => reading = Some(renewed),
                // A client that left takes nothing, and takes nothing from those who waited with it.
                Err(Some(Own::Reading(left))) => {
                    if let Outcome::Stored { hold, .. } = &mut outcome {
                        *hold = Some(Arc::new(left));
                    }
                }
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
            Outcome::Stored { head, verdict, status, .. } => {
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
            Outcome::Failed(fault) => Err(Refused::Fault(fault).forwarded(forwarded)),
            Outcome::Told(_) | Outcome::Alone => match own {
                Some(own) => own.answer(&edge, &wanted, told(None)).await,
                None => Err(Refused::Fault(Fault::Lost).forwarded(forwarded)),
            },
        }
    }

    /// The exchange itself.
    async fn exchange(self) -> (Outcome, Option<Own>) {
        let (edge, wanted) = (Arc::clone(&self.edge), Arc::clone(&self.wanted));
        let stale = self.stale.clone().or_else(|| self.ended_below());
        let (outcome, own) = self.asked().await;
        if let (Outcome::Alone, Some(Own::Unshared(unshared))) = (&outcome, &own)
            && let Some(stale) = stale
        {
            renewing::by_another(&edge, &wanted, &stale, &unshared.answer);
        }
        (outcome, own)
    }

    /// What has ended for the node that asks alone: an answer that takes its place in no store may end
    /// it for all.
    fn ended_below(&self) -> Option<Stale> {
        let variants = self.edge.engine.heads.in_memory(&self.wanted.key)?;
        let is_it = |head: &&Arc<Head>| self.wanted.is_ended(head) && self.wanted.selects(head);
        variants.iter().find(is_it).map(|head| (Arc::clone(head), None))
    }

    /// Asks until there is an answer that is of use. A 304 that is of none is followed by a whole
    /// fetch, and so is a part of which what is wanted can't be cut out, though it was asked for to
    /// the byte, and a 416 to the first of several ranges.
    async fn asked(mut self) -> (Outcome, Option<Own>) {
        let (mut range, is_by_stored) = (self.range_to_ask().await, self.stale.is_some());
        let conditional = self
            .stale
            .as_ref()
            .map(|(head, _)| caching::revalidation_fields(&head.stored, now_ms()));
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
            Some(Own::Unshared(unshared))
                if unshared.is_a_wrong_part() || unshared.is_no_part() =>
            {
                self.exact(unshared)
            }
            _ => None,
        };
        if let Some(exact) = wrong(&own).filter(|exact| !may_be_whole && asked != Some(*exact)) {
            drop(own);
            (outcome, own) = self.once(None, Some(exact)).await;
        }
        // Of several ranges it was asked for the first one, past whose end another may be in (RFC
        // 9110 section 15.5.17).
        let has_others = caching::range_specs(&self.wanted.fields).nth(1).is_some();
        let is_useless = |unshared: &Unshared| {
            unshared.is_a_wrong_part() || (has_others && unshared.is_no_part())
        };
        if matches!(&own, Some(Own::Unshared(unshared)) if is_useless(unshared)) {
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
            // Of anything else that would be no part of it, the try has failed.
            let fault = Fault::Uncounted;
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
            let own = self.unshared(answer, stored, range, None).1;
            return (Outcome::Stale(head, Some(fault)), own);
        }
        let may_teach = matches!(stored.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
            && self.wanted.method == Method::GET;
        let is_for_all = self.is_on_own && self.is_confirmed_for_all(&stored);
        let (outcome, own) = self.settle(answer, stored, sent, range);
        if may_teach || is_for_all {
            let unkept = match &own {
                Some(Own::Unshared(unshared)) => unshared.unkept,
                _ => None,
            };
            self.edge.fetches.learn_unkept(&self.wanted, unkept);
        }
        (outcome, own)
    }

    /// Whether the client's own copy is found to be good, and said to be such as others may have: the
    /// next one who asks is sent it.
    fn is_confirmed_for_all(&self, stored: &Stored) -> bool {
        let Wanted { method, fields, caching, .. } = &*self.wanted;
        // One that says nothing of caches has not taken back what the answer before it said.
        let said = |name: &HeaderName| stored.fields.contains_key(name);
        stored.status == StatusCode::NOT_MODIFIED
            && [header::CACHE_CONTROL, header::EXPIRES].iter().chain(&caching.targeted).any(said)
            && caching::storable(method, fields, StatusCode::OK, &stored.fields, caching)
                == Storable::Yes
    }

    /// Whether what is stored is had in parts. What is only kept whole is asked about as a whole.
    fn is_in_chunks(&self) -> bool {
        let settings = &self.wanted.caching;
        self.stale.as_ref().is_some_and(|(head, _)| head.facts(settings).has_strong_validator())
    }

    fn may_be_stale(&self) -> bool {
        self.stale
            .as_ref()
            .is_some_and(|(head, purged_ms)| self.wanted.may_stand_in(head, *purged_ms))
    }

    /// Whether what the client wants of what is stored is here.
    fn is_here(&self) -> bool {
        let is_here = |head| super::stored::is_here(&self.edge, &self.wanted, head);
        self.stale.as_ref().is_some_and(|(head, _)| is_here(head))
    }

    /// What is stored, where all but the one who asked are better off with that than with a failure:
    /// that one wants nothing stale, or more than is here.
    fn outliving(&self, failure: &Stored) -> Option<Arc<Head>> {
        let (head, purged_ms) = self.stale.as_ref().filter(|_| is_failure(failure.status))?;
        let settings = &self.wanted.caching;
        let outlives = caching::outlives(&head.stored, failure, now_ms(), settings, *purged_ms);
        (outlives || self.may_be_stale()).then(|| Arc::clone(head))
    }

    /// Whether an error leaves what is stored to all others, and takes no place there itself.
    fn is_outlived(&self, answer: &Stored) -> bool {
        let variants = self.edge.engine.heads.in_memory(&self.wanted.key);
        let found = variants
            .filter(|_| answer.status.is_client_error() || answer.status.is_server_error())
            .and_then(|variants| super::selected(&self.edge, &self.wanted, &variants).ok());
        found.is_some_and(|Found { head, soft_purged_ms }| {
            let settings = &self.wanted.caching;
            caching::outlives(&head.stored, answer, now_ms(), settings, soft_purged_ms)
        })
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
