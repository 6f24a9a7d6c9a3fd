//! One connection as its requests see it: whether it was there before them, whether it ended, and
//! whether a byte of an answer came first.

mod bytes;

pub(crate) use bytes::Linked;

use crate::connect::H2_STREAMS_MAX;
use crate::frames::Said;
use crate::idle::Idle;
use http::Extensions;
use hyper_util::client::legacy::connect::CaptureConnection;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// In place of a count of requests, to which none can be added: the connection is closed from here.
const GIVEN_UP: usize = usize::MAX;
/// What is known of a connection. Its times are of tokio's clock, as those of hyper-util's pool.
#[derive(Debug)]
pub(crate) struct Link {
    opened: Instant,
    /// It takes requests until then.
    until: Instant,
    /// And until this long after the last one (HTTP/2).
    idle_max: Duration,
    /// When one was last sent its way, in microseconds since it was opened.
    asked_us: AtomicU64,
    /// Several requests at a time go over it (HTTP/2).
    shared: bool,
    /// Something came, ever.
    spoke: AtomicBool,
    /// Something came since something was last sent.
    heard: AtomicBool,
    /// When something came last, in microseconds since it was opened.
    heard_us: AtomicU64,
    /// The other side ended it, well or badly.
    ended: AtomicBool,
    /// The other side did not take what was sent.
    reset: AtomicBool,
    /// The other side ended it in order, after it had taken a request at least (HTTP/2).
    in_order: AtomicBool,
    /// It takes no more requests.
    left: AtomicBool,
    /// Requests under way (HTTP/2; also HTTP/1.1 where the idle ones are counted over all hosts), or
    /// [`GIVEN_UP`].
    streams: AtomicUsize,
    /// One was, and is over.
    used: AtomicBool,
    /// Where it is counted while none is; nowhere if its hop has one host for all.
    idle: Weak<Idle>,
    /// Cancelled when it is to be closed from here.
    given_up: CancellationToken,
    /// Keeps requests off it then; nothing once its bytes are gone.
    captured: Mutex<Option<CaptureConnection>>,
    /// How many of them the other side takes at a time, and this one asks for.
    streams_max: AtomicUsize,
    /// Cancelled when that has come.
    settled: CancellationToken,
    /// Cancelled when nobody has its bytes any more.
    closed: CancellationToken,
    pub(crate) listed: AtomicBool,
}

impl Link {
    /// Whether it was opened before then, and nothing came over it since.
    pub(crate) fn is_unheard_since(&self, then: Instant) -> bool {
        self.opened < then
            && self.opened + Duration::from_micros(self.heard_us.load(Relaxed)) < then
    }

    /// Whether a request that began then was not the first one, or need not have been.
    pub(crate) fn is_before(&self, began: Instant) -> bool {
        self.shared || self.opened < began
    }

    fn age_us(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn came(&self) {
        self.heard_us.store(self.age_us(), Relaxed);
        self.spoke.store(true, Relaxed);
        self.heard.store(true, Relaxed);
    }

    /// Whether it is to take no more requests.
    pub(crate) fn is_old(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Whether several requests at a time go over it.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until it is.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn told(&self, said: Said) {
        match said {
            Said::StreamsMax(most) => {
                self.streams_max.store(most.min(H2_STREAMS_MAX) as usize, Relaxed);
            }
            Said::Settled => self.settled.cancel(),
            Said::Goaway { last, error } => {
                self.in_order.store(last > 0 && error == 0, Relaxed);
                self.leave();
            }
        }
    }

    /// No more requests are to go over it.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    pub(crate) fn takes_requests(&self) -> bool {
        let is_over = self.left.load(Relaxed) || self.ended.load(Relaxed) || self.is_closed();
        !is_over && !self.is_old() && !self.is_unasked()
    }

    /// A request is about to go over it.
    pub(crate) fn asked(&self) {
        self.asked_us.store(self.age_us(), Relaxed);
    }

    fn is_unasked(&self) -> bool {
        let asked = self.opened + Duration::from_micros(self.asked_us.load(Relaxed));
        asked.elapsed() >= self.idle_max
    }

    /// Waits until it is known how many requests at a time it takes.
    pub(crate) async fn settled(&self) {
        if self.shared {
            self.settled.cancelled().await;
        }
    }

    /// Requests under way (HTTP/2).
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Whether none is, and it is there.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams() == 0 && !self.is_closed()
    }

    /// Whether idle ones of its hop are counted over all hosts.
    pub(crate) fn is_counted(&self) -> bool {
        self.idle.strong_count() > 0
    }

    /// Has it closed, if no request is under way, nor may be about to be: over one that was not used
    /// yet, that is so for `opening_max`.
    pub(crate) fn give_up(&self, opening_max: Duration) -> bool {
        let is_new = !self.used.load(Relaxed) && self.opened.elapsed() < opening_max;
        let is_given_up =
            !is_new && self.streams.compare_exchange(0, GIVEN_UP, Relaxed, Relaxed).is_ok();
        if is_given_up {
            self.take_captured().iter().for_each(poison);
            self.leave();
            self.given_up.cancel();
        }
        is_given_up
    }

    /// By this, no request is to go over it should it be given up.
    pub(crate) fn capture(&self, captured: CaptureConnection) {
        let mut known = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_counted() && !self.is_closed() {
            *known = Some(captured);
        }
    }

    fn take_captured(&self) -> Option<CaptureConnection> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether another one may be sent at once.
    pub(crate) fn has_room(&self) -> bool {
        self.streams() < self.streams_max.load(Relaxed)
    }

    /// Whether the other side, which takes requests, takes no more over this connection.
    pub(crate) fn has_ended_in_order(&self) -> bool {
        self.in_order.load(Relaxed)
    }

    /// Whether the other side dropped it with something unread.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// Whether it was there before a request that began then and has no answer, and ended without
    /// a byte of one: it was given up, most likely before the request was seen (RFC 9112 section
    /// 9.3.1), which says nothing of the server.
    pub(crate) fn is_stale(&self, began: Instant) -> bool {
        let unheard = self.shared || !self.heard.load(Relaxed);
        let reused = self.opened < began || (!self.shared && self.spoke.load(Relaxed));
        self.ended.load(Relaxed) && unheard && reused
    }
}

/// The connection that a request goes over, once it has one.
pub(crate) fn link(captured: &CaptureConnection) -> Option<Arc<Link>> {
    let mut extras = Extensions::new();
    captured.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove()
}

/// No request goes any more over that connection.
pub(crate) fn poison(captured: &CaptureConnection) {
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.poison();
    }
    link(captured).iter().for_each(|link| link.leave());
}

/// A request under way over a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    link: Arc<Link>,
    /// Told when it ends (HTTP/2).
    room: Option<Arc<Notify>>,
}

impl Stream {
    /// None if the connection was given up.
    pub(crate) fn begin(link: Arc<Link>, room: Option<Arc<Notify>>) -> Option<Self> {
        let one_more = |streams: usize| streams.checked_add(1);
        link.streams.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Self { link, room })
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn is_over(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.link, link)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.used.store(true, Relaxed);
        if self.link.streams.fetch_sub(1, Relaxed) == 1
            && let Some(idle) = self.link.idle.upgrade()
        {
            idle.add(&self.link);
        }
        self.room.iter().for_each(|room| room.notify_one());
    }
}
