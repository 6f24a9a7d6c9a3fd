//! One place to ask: its connections, its limits, and what is known of its health.

mod known;

pub(crate) use known::Known;

use crate::ask::{HopId, HopKind};
use crate::breaker::{self, State};
use crate::failing::Asked;
use crate::fault::{ErrorType, Fault};
use crate::flight::Flight;
use crate::health::Health;
use crate::metrics::Meter;
use crate::order::Standing;
use crate::place::Place;
use crate::pool::Pool;
use crate::pulse::Pulse;
use crate::s3::Bucket;
use crate::said::Remarks;
use crate::turns::{Refused, Turn, Turns, Urgency};
use crate::waits::Waits;
use counting::Untold;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A hop that failed is asked after the others for this long.
const AVOIDED: Duration = Duration::from_secs(5);
/// One part in so many of a hop's places may be held by answers that wait for slow readers. Each
/// occupies a connection of the hop's, and what the kernel buffers of it here.
const HELD_SHARE: usize = 2;
/// No answer waits for a reader with less than one part in so many of a hop's places free: who asks
/// for something finds one.
const FREE_SHARE: usize = 8;
/// The longest wait for another request to end: who waits longer is told to come back later.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(5);

/// A hop; shared by the sites that use it.
pub(crate) struct Hop {
    pub(crate) id: HopId,
    pub(crate) kind: HopKind,
    pub(crate) place: Target,
    pub(crate) pool: Pool,
    /// Whether it gives signs of life, where that is looked after: a node's.
    pub(crate) pulse: Option<Pulse>,
    state: Mutex<Known>,
    pub(crate) health: Health,
    slots: Turns,
    pub(crate) waits: Waits,
    limits: Limits,
    queued: AtomicUsize,
    held: AtomicUsize,
    yielding: AtomicUsize,
    pub(crate) under_way: AtomicUsize,
}

/// How its requests are made.
pub(crate) enum Target {
    Http { scheme: &'static str, authority: String, prefix: String },
    S3(Bucket),
}

/// How much it is asked at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) in_flight_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) breaker: breaker::Limits,
}

/// A hop as one site uses it.
pub(crate) struct Way {
    pub(crate) hop: Arc<Hop>,
    pub(crate) meter: Meter,
    untold: Mutex<Untold>,
    pub(crate) remarks: Remarks,
}

/// What is known of a hop, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopStatus {
    /// Which.
    pub hop: HopId,
    /// What it is.
    pub kind: HopKind,
    /// Its breaker.
    pub breaker: State,
    /// What its active health check says; true without one.
    pub healthy: bool,
    /// Requests under way, of all sites.
    pub in_flight: usize,
    /// Half of the heads come within this time; nothing before there were enough.
    pub p50: Option<Duration>,
    /// 99 of 100 heads come within this time.
    pub p99: Option<Duration>,
}

impl Hop {
    pub(crate) fn new(
        (id, kind): (HopId, HopKind),
        place: Target,
        pool: Pool,
        pulse: Option<Pulse>,
        limits: Limits,
    ) -> Self {
        let known = Known::new(limits.breaker, Instant::now());
        Self {
            id,
            kind,
            place,
            pool,
            pulse,
            state: Mutex::new(known),
            health: Health::new(),
            slots: Turns::new(limits.in_flight_max, limits.queue_max),
            waits: Waits::default(),
            limits,
            queued: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            yielding: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests under way and waiting.
    pub(crate) fn load(&self) -> usize {
        self.under_way.load(SeqCst) + self.queued.load(Relaxed)
    }

    /// Whether it has places to spare.
    pub(crate) fn is_at_ease(&self) -> bool {
        let most = self.limits.in_flight_max;
        self.load() <= most - most / FREE_SHARE && self.pool.waiting() == 0
    }

    /// A place for an answer that is to wait for its readers; none: as many do already.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Held> {
        let most = self.limits.in_flight_max.div_ceil(HELD_SHARE);
        Held::begin(self, |hop| &hop.held, most)
    }

    /// Has an answer, or who waits for one, make way for a request that waits for a place; none: as
    /// many do already as there are such requests.
    pub(crate) fn make_way(self: &Arc<Self>) -> Option<Held> {
        Held::begin(self, |hop| &hop.yielding, self.waiting())
    }

    /// Has one of those who wait long make way, if more requests wait for a place than do already.
    pub(crate) fn call_if_wanted(&self) {
        if self.waiting() > self.yielding.load(Relaxed) {
            self.call();
        }
    }

    fn call(&self) {
        self.waits.call(self.places());
    }

    /// Requests that wait for a place, or for room on the connections.
    fn waiting(&self) -> usize {
        self.queued.load(Relaxed) + self.pool.waiting()
    }

    /// How many there are: where some have a place and no room, the others are what there is room for.
    fn places(&self) -> usize {
        let most = self.limits.in_flight_max;
        match self.pool.waiting() {
            0 => most,
            waiting => self.under_way.load(SeqCst).saturating_sub(waiting).clamp(1, most),
        }
    }

    /// Whether its breaker would let a request pass.
    pub(crate) fn would_admit(&self) -> bool {
        self.known().would_admit(Instant::now())
    }

    /// Whether requests to it are under way.
    pub(crate) fn is_asked(&self) -> bool {
        self.under_way.load(SeqCst) > 0
    }

    /// Whether it gave no sign of life when it was last looked after.
    pub(crate) fn is_silent(&self) -> bool {
        self.known().alive.is_cancelled()
    }

    /// It gives no sign of life: whoever waits for it is to go elsewhere.
    pub(crate) fn lost(&self, why: &dyn Display) {
        let alive = self.known().alive.clone();
        if !alive.is_cancelled() {
            alive.cancel();
            self.pulse.iter().for_each(|pulse| pulse.up(false));
            tracing::warn!(hop = %self.id, %why, "the node is silent");
        }
    }

    /// It answers again.
    pub(crate) fn back(&self) {
        let mut known = self.known();
        known.alive = CancellationToken::new();
        known.breaker.close(Instant::now());
        drop(known);
        self.pulse.iter().for_each(|pulse| pulse.up(true));
        tracing::warn!(hop = %self.id, "the node answers again");
    }

    pub(crate) fn standing(&self) -> Standing {
        let now = Instant::now();
        let known = self.known();
        let lately = |at: Instant| now.duration_since(at) < AVOIDED;
        if !known.would_admit(now) {
            Standing::Open
        } else if !self.health.is_well() {
            Standing::Down
        } else if known.failed.is_some_and(lately) {
            Standing::Failing
        } else {
            Standing::Good
        }
    }

    /// Whether it is time to see if it is still slow; then a request is to be sent.
    pub(crate) fn look_again(&self) -> bool {
        self.known().look_again(Instant::now())
    }

    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        self.known().quantile(share)
    }

    /// As told to operators.
    pub(crate) fn breaker(&self) -> State {
        self.known().state(Instant::now())
    }

    pub(crate) fn status(&self) -> HopStatus {
        let known = self.known();
        HopStatus {
            hop: self.id.clone(),
            kind: self.kind,
            breaker: known.state(Instant::now()),
            healthy: self.health.is_well(),
            in_flight: self.under_way.load(SeqCst),
            p50: known.quantile(0.5),
            p99: known.quantile(0.99),
        }
    }
}

/// Counts an answer that may wait for its readers, or what makes way.
pub(crate) struct Held(Arc<Hop>, fn(&Hop) -> &AtomicUsize);

impl Held {
    fn begin(hop: &Arc<Hop>, count: fn(&Hop) -> &AtomicUsize, most: usize) -> Option<Self> {
        let one_more = |held| (held < most).then_some(held + 1);
        count(hop).fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Self(Arc::clone(hop), count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

/// A count that is one less when this is dropped.
struct Counted<'a>(&'a AtomicUsize, &'a prometheus::IntGauge);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
        self.1.dec();
    }
}

impl Way {
    pub(crate) fn new(hop: Arc<Hop>, meter: Meter) -> Self {
        Self { hop, meter, untold: Mutex::default(), remarks: Remarks::new() }
    }

    /// Puts into the log that there was no good answer, and why: the first at once, others
    /// together, with the last one's reason.
    pub(crate) fn tell(&self, why: &dyn Display) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failures) = untold.add(1, Instant::now()) {
            let (site, hop) = (&self.meter.site, &self.hop.id);
            tracing::warn!(site, %hop, failures, %why, "no good answer");
        }
    }

    /// A place for a request: the one that `kept` is, if that is here; else waits for one until
    /// `deadline`, the most urgent first. Then asks the breaker.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the breaker is open, [`Fault::Busy`] when the queue is full
    /// or no slot came free in time.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        kept: Option<Place>,
        asked: Asked,
        urgency: &Urgency,
        deadline: Instant,
    ) -> Result<Flight, Fault> {
        // One elsewhere is given back before this hop is waited for.
        let place = match kept.filter(|kept| kept.is_at(&self.hop)) {
            Some(kept) => kept,
            None => Place::new(&self.hop, self.slot(urgency, deadline).await?),
        };
        let admitted = {
            let mut known = self.hop.known();
            let alive = known.alive.clone();
            let is_silent = alive.is_cancelled();
            let pass = if is_silent { None } else { known.breaker.admit(asked, Instant::now()) };
            pass.map(|pass| (pass, known.patience(asked), alive))
        };
        let Some((pass, patience, alive)) = admitted else {
            self.meter.ended("open");
            let why = format!("{}: it failed too often lately", self.hop.id);
            return Err(Fault::unavailable(ErrorType::DestinationUnavailable, why));
        };
        Ok(Flight::begin(self.clone(), place, (asked, pass, patience), alive))
    }

    async fn slot(&self, urgency: &Urgency, deadline: Instant) -> Result<Turn, Fault> {
        let hop = &self.hop;
        if let Some(slot) = hop.slots.take_now() {
            return Ok(slot);
        }
        let busy = |what: String| {
            self.meter.ended("busy");
            let fault = Fault::busy(format!("{}: {what}", hop.id));
            self.tell(&fault);
            Err(fault)
        };
        hop.queued.fetch_add(1, Relaxed);
        self.meter.queued.inc();
        let _counted = Counted(&hop.queued, &self.meter.queued);
        hop.call();
        let deadline = deadline.min(Instant::now() + QUEUE_TIME_MAX);
        match tokio::time::timeout_at(deadline.into(), hop.slots.take(urgency)).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(Refused)) => {
                let (in_flight, queue) = (hop.limits.in_flight_max, hop.limits.queue_max);
                busy(format!("{in_flight} requests under way and {queue} waiting"))
            }
            Err(_) => busy("no request under way ended in time".to_owned()),
        }
    }

    /// The hop gave something wrong.
    pub(crate) fn blame(&self, why: &str) {
        let peer = self.hop.kind != HopKind::Origin;
        self.tell(&why);
        self.note(Some(&why), |known, now| {
            known.bad(now);
            if peer {
                known.breaker.blamed(now);
            }
        });
        self.meter.ended("wrong");
    }

    /// It answers: closes its breaker, if that is open.
    pub(crate) fn close(&self) -> bool {
        let mut is_open = false;
        self.note(None, |known, now| {
            is_open = known.breaker.state(now) != State::Closed;
            if is_open {
                known.breaker.close(now);
            }
        });
        is_open
    }

    /// `why`: what it did wrong, if that is what changes.
    pub(crate) fn note(&self, why: Option<&dyn Display>, change: impl FnOnce(&mut Known, Instant)) {
        let now = Instant::now();
        let mut known = self.hop.known();
        let before = known.breaker.state(now);
        change(&mut known, now);
        let after = known.breaker.state(now);
        drop(known);
        if before != after && (before == State::Closed || after == State::Closed) {
            let why = why.map(tracing::field::display);
            // A node's breaker is that of all sites.
            let is_origin = self.hop.kind == HopKind::Origin;
            let site = is_origin.then_some(&*self.meter.site);
            tracing::warn!(site, hop = %self.hop.id, ?before, ?after, why, "breaker");
        }
    }
}
