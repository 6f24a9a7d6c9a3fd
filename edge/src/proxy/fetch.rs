//! Asking the origin once for all who want the same, and what becomes of its answer.
//!
//! The exchange runs in a task of its own: a client that leaves ends nothing that others wait
//! for. An answer that may not be shared goes to the one who asked; the others ask themselves,
//! and for a while nobody waits for that URL.

mod span;

use super::live::Live;
use super::{Wanted, by_hop, now_ms, pass};
use crate::engine::{Arriving, GrowingReader, OWNED_RUN_BYTES, Reading};
use crate::error::Fault;
use crate::flights::{Flights, Ticket, Wait};
use crate::refused::Refused;
use crate::serve::{Answer as Answered, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Forwarded, Storable, Stored};
use heads::{Head, KeyId};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use lru::LruCache;
use model::ByteRange;
use span::{Span, is_of, part};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use upstream::{Answer, Ask, HopKind, Urgency};

/// For this long after an answer that can't be shared, requests for its URL wait for nobody.
const UNSHARED_FOR: Duration = Duration::from_secs(10);
/// URLs of which that is remembered.
const UNSHARED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// URLs of which it is remembered that a part was asked for that could not be fetched alone.
const IN_PARTS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// URLs of which the last invalidation is remembered, for answers that were under way.
const INVALIDATED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Revalidations in the background at a time; more are left to the next request.
const BACKGROUND_MAX: usize = 256;

/// What came of asking.
#[derive(Clone)]
pub enum Outcome {
    /// A stored representation: new, or found to be good still.
    Stored {
        /// It.
        head: Arc<Head>,
        /// Revalidated, or where its bytes come from.
        verdict: Verdict,
        /// The origin's status.
        status: StatusCode,
    },
    /// An answer that is kept once it is whole.
    Growing(Arc<Live>, Hold),
    /// The origin failed: what is stored may still be used.
    Stale(Arc<Head>),
    /// The answer is for the one who asked.
    Alone,
    /// Nothing to answer from.
    Failed(Fault),
}

/// Keeps a growing answer from being given up until all who waited for it read it themselves,
/// though the one who asked has left.
pub type Hold = Option<Arc<GrowingReader>>;

/// An answer that is not shared.
pub struct Unshared {
    /// It.
    pub answer: Answer,
    /// Its fields, as they are passed on.
    pub fields: HeaderMap,
    /// When it was asked for, in milliseconds since 1970 UTC.
    pub requested_ms: i64,
    /// Of the answer's bytes, those that were wanted: it was asked for whole chunks.
    pub cut: Option<Cut>,
}

impl Unshared {
    /// Whether it is a part that is not what was wanted, and of which that can't be cut out.
    fn is_a_wrong_part(&self) -> bool {
        self.is_a_part() && self.cut.is_none()
    }

    fn is_a_part(&self) -> bool {
        self.answer.head.status == StatusCode::PARTIAL_CONTENT
    }

    /// Whether it says that there is no such part.
    fn is_no_part(&self) -> bool {
        self.answer.head.status == StatusCode::RANGE_NOT_SATISFIABLE
    }
}

/// The fetch that the one who asked follows.
pub fn reading(own: Option<Own>) -> Option<Reading> {
    match own {
        Some(Own::Reading(reading)) => Some(reading),
        _ => None,
    }
}

/// The reader of the one who asked.
pub fn reader(own: Option<Own>) -> Option<GrowingReader> {
    match own {
        Some(Own::Reader(reader)) => Some(reader),
        _ => None,
    }
}

/// A part of a partial answer.
pub struct Cut {
    /// What the answer holds.
    pub given: ByteRange,
    /// The whole representation's length.
    pub total: u64,
    /// What was wanted of it.
    pub wanted: ByteRange,
}

/// What is for the one who asked only. Dropped when that one has left, so that nothing is
/// fetched on its behalf any more.
pub enum Own {
    /// An answer that is not shared.
    Unshared(Box<Unshared>),
    /// The fetch of the bytes that the answer begins with.
    Reading(Reading),
    /// The first reader of a growing answer.
    Reader(GrowingReader),
}

/// What an exchange is joined by: the URL, what selected the stored variant, and the run that
/// is asked for, since each run may have another owner: two nodes that ask each other for
/// different runs must not wait for each other.
type Flight = (KeyId, u64, u64);

/// Exchanges under way, and what is remembered of earlier ones.
pub struct Fetches {
    flights: Flights<Flight, Outcome>,
    unshared: Mutex<LruCache<KeyId, Instant>>,
    invalidated: Mutex<Invalidated>,
    in_parts: Mutex<LruCache<KeyId, ()>>,
    /// Counts exchanges and invalidations in the order in which they begin.
    clock: AtomicU64,
    background: AtomicUsize,
}

/// When an exchange began, or a URL was invalidated, among all of these: no two are at a time, as
/// they may be by a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Began(u64);

struct Invalidated {
    last: LruCache<KeyId, Began>,
    /// The last one that is not remembered: what began before may be outdated.
    forgotten: Option<Began>,
}

impl Default for Invalidated {
    fn default() -> Self {
        Self { last: LruCache::new(INVALIDATED_MAX), forgotten: None }
    }
}

/// One of the revalidations, or answers taken to their end, in the background.
struct Background(Arc<Edge>);

impl Background {
    fn begin(edge: &Arc<Edge>) -> Option<Self> {
        let background = Self(Arc::clone(edge));
        let before = edge.fetches.background.fetch_add(1, Ordering::Relaxed);
        (before < BACKGROUND_MAX).then_some(background)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.fetches.background.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            flights: Flights::new(),
            unshared: Mutex::new(LruCache::new(UNSHARED_MAX)),
            invalidated: Mutex::new(Invalidated::default()),
            in_parts: Mutex::new(LruCache::new(IN_PARTS_MAX)),
            clock: AtomicU64::new(0),
            background: AtomicUsize::new(0),
        }
    }
}

impl Fetches {
    fn is_unshared(&self, key: &KeyId) -> bool {
        let mut unshared = self.unshared.lock().unwrap_or_else(PoisonError::into_inner);
        unshared.get(key).is_some_and(|since| since.elapsed() < UNSHARED_FOR)
    }

    fn remember(&self, key: KeyId, shared: bool) {
        let mut unshared = self.unshared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared {
            unshared.pop(&key);
        } else {
            unshared.put(key, Instant::now());
        }
    }

    /// An unsafe method has changed what is there (RFC 9111 section 4.4): an answer that was
    /// asked for before is not stored.
    pub fn invalidate(&self, key: KeyId) {
        let mut invalidated = self.invalidated.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if let Some((other, at)) = invalidated.last.push(key, now)
            && other != key
        {
            invalidated.forgotten = invalidated.forgotten.max(Some(at));
        }
    }

    /// A part is wanted of an answer that is only kept whole: whether that was so before.
    pub fn is_again_in_parts(&self, key: &KeyId) -> bool {
        let mut in_parts = self.in_parts.lock().unwrap_or_else(PoisonError::into_inner);
        in_parts.put(*key, ()).is_some()
    }

    /// The next exchange begins.
    fn now(&self) -> Began {
        Began(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether what came of an exchange may no longer be what is there.
    pub fn is_outdated(&self, key: &KeyId, began: Began) -> bool {
        let mut invalidated = self.invalidated.lock().unwrap_or_else(PoisonError::into_inner);
        let at = invalidated.last.get(key).copied().max(invalidated.forgotten);
        at.is_some_and(|at| at > began)
    }
}

/// Keeps a head of an exchange, unless an invalidation comes between: that may have found nothing
/// to remove yet.
pub fn put(edge: &Edge, key: KeyId, head: &Arc<Head>, began: Began) {
    edge.engine.heads.put(key, Arc::clone(head));
    if edge.fetches.is_outdated(&key, began) {
        edge.engine.heads.remove(key, head);
    }
}

/// Takes a growing answer to its end, so that it is kept though who asked wants only a part;
/// not while too much goes on in the background.
pub fn keep(edge: &Arc<Edge>, reader: GrowingReader) {
    let Some(background) = Background::begin(edge) else {
        return edge.metrics.revalidations_left.inc();
    };
    tokio::spawn(async move {
        let _background = background;
        reader.drain().await;
    });
}

/// One exchange to be.
pub struct Fetch {
    edge: Arc<Edge>,
    wanted: Arc<Wanted>,
    stale: Option<(Arc<Head>, bool)>,
    /// Whether what comes may be stored.
    stores: bool,
    /// That of the most urgent of those who wait for it.
    urgency: Urgency,
}

/// What is stored, if it may answer in place of an origin that fails, and how long that one is
/// waited for: it is not served sooner than a viewer would leave, nor as late as the origin is
/// given up (RFC 5861 section 4: it would be answered with a 504).
struct StandIn(Option<(Arc<Head>, Duration)>);

impl StandIn {
    /// What a flight comes to, or the stand-in for it.
    async fn or(self, wait: Wait<Outcome>) -> Result<Outcome, Arc<Head>> {
        let landed = async { wait.landed().await.unwrap_or(Outcome::Failed(Fault::Lost)) };
        match self.0 {
            None => Ok(landed.await),
            Some((head, patience)) => {
                tokio::time::timeout(patience, landed).await.map_err(|_| head)
            }
        }
    }
}

/// What a request to the origin came to.
struct Sent {
    answered: Result<Answer, Fault>,
    requested_ms: i64,
    began: Began,
    /// Another node answered with what is from before a purge.
    is_outdated: bool,
}

impl Fetch {
    /// An exchange for a request; `stale` is what is stored, and whether a soft purge hit it.
    pub fn new(edge: &Arc<Edge>, wanted: &Arc<Wanted>, stale: Option<(Arc<Head>, bool)>) -> Self {
        let urgency = Urgency::of(wanted.priority.urgency);
        Self { edge: Arc::clone(edge), wanted: Arc::clone(wanted), stale, stores: true, urgency }
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
        tokio::spawn(async move {
            let _background = background;
            fetch.lead(ticket, None).await;
        });
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
        let head_of_nothing = self.wanted.method == Method::HEAD;
        if self.wanted.is_personal() || head_of_nothing || fetches.is_unshared(&self.wanted.key) {
            let (outcome, alone) = self.exchange().await;
            return (outcome, alone, false);
        }
        let (wait, ticket) = fetches.flights.join(self.flight(), &self.urgency);
        let stand_in = self.stand_in();
        let Some(ticket) = ticket else {
            let outcome = stand_in.or(wait).await.unwrap_or_else(Outcome::Stale);
            return (outcome, None, true);
        };
        // A fetch may have landed between the look and the join: all start over.
        if self.has_come() {
            ticket.land(Outcome::Failed(Fault::Changed));
            return (Outcome::Failed(Fault::Changed), None, false);
        }
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(self.lead(ticket, Some(sender)));
        match stand_in.or(wait).await {
            Ok(outcome) => (outcome, receiver.await.ok().flatten(), false),
            // It goes on in the background.
            Err(head) => (Outcome::Stale(head), None, false),
        }
    }

    fn stand_in(&self) -> StandIn {
        let head = self.stale.as_ref().map(|(head, _)| Arc::clone(head));
        let head = head.filter(|_| self.may_be_stale());
        StandIn(head.map(|head| (head, self.wanted.site.patience())))
    }

    /// Whether the request would now be answered without the origin.
    fn has_come(&self) -> bool {
        let (edge, wanted) = (&self.edge, &self.wanted);
        if edge.lives.find(wanted, &edge.purges).is_some() {
            return true;
        }
        let Some(variants) = edge.engine.heads.in_memory(&wanted.key) else { return false };
        super::selected(edge, wanted, &variants).is_ok_and(|found| {
            let (head, settings) = (&found.head, &wanted.caching);
            let reuse =
                caching::reuse(&wanted.fields, &head.stored, now_ms(), settings, found.soft_purged);
            matches!(reuse, caching::Reuse::Fresh)
        })
    }

    async fn lead(
        self,
        ticket: Ticket<Flight, Outcome>,
        sender: Option<oneshot::Sender<Option<Own>>>,
    ) {
        let (edge, wanted) = (Arc::clone(&self.edge), Arc::clone(&self.wanted));
        let renews = self.stale.is_some();
        let (outcome, own) = self.exchange().await;
        let is_shared = match &outcome {
            Outcome::Alone => false,
            Outcome::Growing(live, _) => live.is_sharable(&wanted.caching),
            _ => true,
        };
        edge.fetches.remember(wanted.key, is_shared);
        match (sender, own) {
            (Some(sender), own) => match sender.send(own) {
                // Who asked may have been answered with what this renews.
                Err(Some(Own::Reader(reader))) if renews => drop(tokio::spawn(reader.drain())),
                // A client that left takes nothing.
                _ => {}
            },
            // In the background, an answer that is only kept whole has no other reader.
            (None, Some(Own::Reader(reader))) => drop(tokio::spawn(reader.drain())),
            (None, _) => {}
        }
        ticket.land(outcome);
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
            Outcome::Stale(head) => {
                let how = super::stored::How::StandIn { told: told(None) };
                super::stored::answer(&edge, &wanted, head, how).await
            }
            Outcome::Failed(fault) => Err(Refused::Fault(fault)),
            Outcome::Alone => match own {
                Some(Own::Unshared(unshared)) => {
                    Ok(pass::answer(&edge, &wanted, *unshared, told(None)))
                }
                _ => Err(Refused::Fault(Fault::Lost)),
            },
        }
    }

    /// The exchange itself. A 304 that is of no use is followed by a whole fetch, and so is a
    /// part of which what is wanted can't be cut out.
    async fn exchange(mut self) -> (Outcome, Option<Own>) {
        let range = self.range_to_ask().await;
        let conditional =
            self.stale.as_ref().map(|(head, _)| caching::revalidation_fields(&head.stored));
        let conditional = conditional.filter(|fields| !fields.is_empty());
        let was_conditional = conditional.is_some();
        let asked = self.span_to_ask(range);
        let (mut outcome, mut own) = self.once(conditional, asked).await;
        if was_conditional && matches!(outcome, Outcome::Failed(Fault::Changed)) {
            self.stale = None;
            (outcome, own) = self.once(None, asked).await;
        }
        // What suits the cache, but is neither kept nor what the client wants. Only of what is
        // stored it is known whether `If-Range` wants the part.
        let may_be_whole = self.wanted.fields.contains_key(header::IF_RANGE);
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
        let Sent { answered, requested_ms, began, is_outdated } =
            self.send(conditional.as_ref(), range).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(fault) => return (self.failed(fault), None),
        };
        let answer = self.made_whole(answer, range);
        if is_failure(answer.head.status) && self.may_be_stale() {
            return (self.failed(Fault::Answered(answer.head.status)), None);
        }
        let received_ms = now_ms();
        if answer.head.status == StatusCode::PARTIAL_CONTENT && !is_of(&answer, range) {
            let fault = Fault::unavailable("answered 206 with other bytes than were asked for");
            self.wanted.site.upstream.blame(&answer.hop, &fault.to_string());
            return (self.failed(fault), None);
        }
        if answer.head.status == StatusCode::NOT_MODIFIED
            && let (Some((old, _)), true) = (&self.stale, conditional.is_some())
        {
            if is_outdated || self.edge.fetches.is_outdated(&self.wanted.key, began) {
                return (Outcome::Failed(Fault::Changed), None);
            }
            return (self.refreshed(old, &answer, epoch, requested_ms, received_ms), None);
        }
        let stored = Stored {
            status: answer.head.status,
            fields: caching::received_fields(&answer.head.headers, received_ms),
            requested_ms,
            received_ms,
        };
        if is_outdated {
            return self.unshared(answer, stored, range);
        }
        self.settle(answer, stored, (epoch, began), range)
    }

    /// The request to the origin: on condition, or for a range.
    fn ask(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Ask {
        let mut ask = self.wanted.site.ask(&self.wanted);
        ask.urgency = self.urgency.clone();
        match (conditional, range) {
            (Some(fields), _) => ask.fields.extend(fields.clone()),
            (None, Some(range)) => {
                ask.run = range.start / OWNED_RUN_BYTES;
                let text = match range.end {
                    Some(end) => format!("bytes={}-{}", range.start, end - 1),
                    None => format!("bytes={}-", range.start),
                };
                if let Ok(value) = HeaderValue::try_from(text) {
                    ask.fields.insert(header::RANGE, value);
                }
            }
            (None, None) => {}
        }
        ask
    }

    /// Sends the request. What another node has kept since before a purge is asked for again, so
    /// that the node asks as well: the purge may not have come to it yet.
    async fn send(&self, conditional: Option<&HeaderMap>, range: Option<Span>) -> Sent {
        let first = self.sent(self.ask(conditional, range)).await;
        if !first.is_outdated {
            return first;
        }
        let mut ask = self.ask(conditional, range);
        ask.fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.sent(ask).await
    }

    async fn sent(&self, ask: Ask) -> Sent {
        let (began, requested_ms) = (self.edge.fetches.now(), now_ms());
        let answered = self.wanted.site.upstream.send(ask).await.map_err(Fault::from);
        let is_outdated = answered.as_ref().is_ok_and(|answer| self.is_from_before_a_purge(answer));
        Sent { answered, requested_ms, began, is_outdated }
    }

    /// Whether another node's cache has answered with what was made before a purge that this
    /// node knows. An origin is not asked such things: who purges has changed it before.
    fn is_from_before_a_purge(&self, answer: &Answer) -> bool {
        let fields = &answer.head.headers;
        if answer.kind == HopKind::Origin || !fields.contains_key(header::AGE) {
            return false;
        }
        let (now, status) = (now_ms(), answer.head.status);
        let kept = Stored { status, fields: fields.clone(), requested_ms: now, received_ms: now };
        // An age is told in whole seconds.
        let made_ms = now.saturating_sub(caching::age_ms(&kept, now)).saturating_sub(1_000);
        let mut tags = caching::tags(fields).tags;
        tags.extend(self.stale.iter().flat_map(|(old, _)| old.tags.iter().cloned()));
        self.edge.purges.since(&self.wanted.site.name, &self.wanted.url, &tags, made_ms)
    }

    fn may_be_stale(&self) -> bool {
        self.stale.as_ref().is_some_and(|(head, soft)| {
            let settings = &self.wanted.caching;
            let fields = &self.wanted.fields;
            caching::stale_on_error(fields, &head.stored, now_ms(), settings, *soft)
        })
    }

    fn failed(&self, fault: Fault) -> Outcome {
        match &self.stale {
            Some((head, _)) if self.may_be_stale() => Outcome::Stale(Arc::clone(head)),
            _ => Outcome::Failed(fault),
        }
    }

    /// What is stored is still good (RFC 9111 section 4.3.4).
    fn refreshed(
        &self,
        old: &Arc<Head>,
        answer: &Answer,
        epoch: u64,
        requested_ms: i64,
        received_ms: i64,
    ) -> Outcome {
        let fields = &answer.head.headers;
        let Some(stored) = caching::refreshed(&old.stored, fields, requested_ms, received_ms)
        else {
            return Outcome::Failed(Fault::Changed);
        };
        // A 304 may say that other fields select from now on.
        let Some(selecting) = caching::selecting(&stored.fields, &self.wanted.fields) else {
            return Outcome::Failed(Fault::Changed);
        };
        let tags = caching::tags(&stored.fields).tags;
        let head = Arc::new(Head { stored, epoch, tags, selecting, ..(**old).clone() });
        self.edge.engine.heads.update(self.wanted.key, &head);
        let (verdict, status) = (Verdict::Revalidated, answer.head.status);
        Outcome::Stored { head, verdict, status }
    }

    /// What becomes of an answer: stored in chunks, kept once it is whole, or passed on.
    fn settle(
        &self,
        answer: Answer,
        stored: Stored,
        (epoch, began): (u64, Began),
        asked: Option<Span>,
    ) -> (Outcome, Option<Own>) {
        let wanted = &self.wanted;
        let (fields, request) = (&stored.fields, &wanted.fields);
        let storable =
            caching::storable(&wanted.method, request, stored.status, fields, &wanted.caching);
        let selecting = match storable {
            Storable::Yes if answer.storable && self.stores => caching::selecting(fields, request),
            _ => None,
        };
        let outdated = self.edge.fetches.is_outdated(&wanted.key, began);
        let Some(selecting) = selecting.filter(|_| !outdated) else {
            return self.unshared(answer, stored, asked);
        };
        let head = |stored: Stored, bytes: u64| Head {
            site: Arc::clone(&wanted.site.name),
            url: Arc::clone(&wanted.url),
            selecting: selecting.clone(),
            tags: caching::tags(&stored.fields).tags,
            stored,
            body: rand::random(),
            bytes,
            epoch,
            seen: heads::Seen::default(),
        };
        let strong = caching::strong_validator(&stored).is_some();
        if stored.status == StatusCode::PARTIAL_CONTENT {
            return match (strong, part(&answer, asked)) {
                (true, Some((range, total))) => {
                    let mut stored = stored;
                    stored.status = StatusCode::OK;
                    stored.fields.remove(header::CONTENT_RANGE);
                    let status = StatusCode::PARTIAL_CONTENT;
                    self.object(answer, head(stored, total), range, status, (asked, began))
                }
                _ => self.unshared(answer, stored, asked),
            };
        }
        let length = answer.body.length().filter(|_| answer.body.is_delimited());
        match length {
            Some(bytes) if strong && bytes > 0 => {
                let status = stored.status;
                let range = ByteRange::new(0, bytes);
                self.object(answer, head(stored, bytes), range, status, (asked, began))
            }
            Some(bytes) if bytes > wanted.site.unvalidated_bytes_max => {
                self.unshared(answer, stored, asked)
            }
            length => {
                let head = head(stored, length.unwrap_or(0));
                let (live, reader) = Live::start(&self.edge, wanted.key, head, answer, began);
                let hold = live.hold();
                (Outcome::Growing(live, hold), reader.map(Own::Reader))
            }
        }
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
        if let Some(old) = self.same_bytes(&head) {
            head.body = old.body;
        }
        let head = Arc::new(head);
        let object = crate::object::Object::web(super::web(&self.wanted, &head));
        let source = by_hop(answer.kind);
        let span = asked.unwrap_or(Span { start: range.start, end: None });
        let ends_early = span.end.is_some_and(|end| end < range.end());
        let arriving = Arriving {
            body: answer.body,
            range,
            wanted: span.start.min(object.bytes),
            is_unranged: range.start < span.start || ends_early,
            hop: answer.hop,
            source,
        };
        let reading = self.edge.engine.adopt(&object, arriving, &self.urgency);
        put(&self.edge, self.wanted.key, &head, began);
        (Outcome::Stored { head, verdict: source, status }, reading.map(Own::Reading))
    }

    /// What is stored with the same bytes: an origin sent them again instead of a 304, or
    /// another run of them was asked for at the same time. What is here of it stays good.
    fn same_bytes(&self, new: &Head) -> Option<Arc<Head>> {
        let same = |old: &&Arc<Head>| {
            old.bytes == new.bytes && caching::same_validator(&old.stored, &new.stored.fields)
        };
        let stale = self.stale.as_ref().map(|(old, _)| old).filter(same).cloned();
        stale.or_else(|| {
            let variants = self.edge.engine.heads.in_memory(&self.wanted.key)?;
            let good = |old: &&Arc<Head>| {
                old.selecting == new.selecting
                    && self.edge.purges.verdict(old) != heads::Verdict::Hard
            };
            variants.iter().filter(good).find(same).cloned()
        })
    }

    fn unshared(
        &self,
        answer: Answer,
        stored: Stored,
        asked: Option<Span>,
    ) -> (Outcome, Option<Own>) {
        let cut = match (stored.status, part(&answer, asked)) {
            (StatusCode::PARTIAL_CONTENT, Some((given, total))) => {
                match caching::ranges(&self.wanted.fields, total, 1) {
                    caching::Ranges::Parts(parts) => parts
                        .first()
                        .filter(|part| given.start <= part.start && part.end() <= given.end())
                        .map(|part| Cut { given, total, wanted: *part }),
                    _ => None,
                }
            }
            _ => None,
        };
        let Stored { fields, requested_ms, .. } = stored;
        let unshared = Unshared { answer, fields, requested_ms, cut };
        (Outcome::Alone, Some(Own::Unshared(Box::new(unshared))))
    }
}

/// Statuses by which an origin says that it failed (RFC 5861 section 4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
