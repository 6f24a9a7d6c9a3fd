//! Whether a connection's peer asks for anything: it has a limit to do so, from the connection's
//! begin and from its last answer on, whatever else it sends. A half of HTTP/2's preface, of its
//! settings or of a request's head, and answers to pings, are no request.
//!
//! hyper has that limit for HTTP/1.1 alone, so this is for what may be HTTP/2.

use crate::pace::{LOOKS, Pace};
use crate::patience::Wait;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What is known of one connection's requests.
#[derive(Debug, Default)]
pub struct Requested {
    under_way: AtomicUsize,
    /// How many there were, round and round.
    begun: AtomicUsize,
    is_http1: AtomicBool,
}

impl Requested {
    /// The connection turned out to be one of HTTP/1.1: hyper's timer is enough.
    pub fn is_http1(&self) {
        self.is_http1.store(true, Ordering::Relaxed);
    }
}

/// A request whose answer is on its way until this is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Pace>);

impl UnderWay {
    /// A request that came just now.
    pub fn new(pace: &Arc<Pace>) -> Self {
        pace.requested.under_way.fetch_add(1, Ordering::Relaxed);
        pace.requested.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pace))
    }

    /// Its connection's.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requested.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace {
    /// Ends once the peer has asked for nothing for `limit`, and a part of it at most, while none
    /// of what it asked for was on its way; with what it was waited for. `left` as for `stalled`.
    pub async fn idle(&self, limit: Duration, left: impl Fn() -> u64) -> Wait {
        let Requested { under_way, begun, is_http1 } = &self.requested;
        let seen = || (begun.load(Ordering::Relaxed), self.taken() + left());
        let is_asked = || under_way.load(Ordering::Relaxed) > 0 || self.waits();
        idle(limit, is_asked, seen).await;
        if is_http1.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        if seen() == (0, 0) { Wait::Head } else { Wait::Idle }
    }
}

/// Ends once nothing was asked for `limit`, and a part of it at most, and what was `seen` of the
/// connection's requests and answers stood still.
pub async fn idle<T: PartialEq>(
    limit: Duration,
    is_asked: impl Fn() -> bool,
    seen: impl Fn() -> T,
) {
    let (mut last, mut quiet) = (seen(), 0);
    while quiet < LOOKS {
        tokio::time::sleep(limit / LOOKS).await;
        let now = seen();
        quiet = if is_asked() || now != last { 0 } else { quiet + 1 };
        last = now;
    }
}
