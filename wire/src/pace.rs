//! Whether a connection's peer takes what it asked for. HTTP/2 has a window for each stream: a
//! peer that opens none takes nothing, though its connection looks alive.
//!
//! Invariant: a connection is found stalled only while some body waits for the peer, and none
//! of its bodies has been asked for more for the whole limit.

use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What is known of one connection's bodies.
pub struct Pace {
    since: Instant,
    /// Bodies of which bytes were handed over, and that were not asked for more since.
    waiting: AtomicUsize,
    /// When a body was last asked for bytes, in milliseconds after `since`.
    asked_ms: AtomicU64,
}

impl Pace {
    /// A connection that starts now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            waiting: AtomicUsize::new(0),
            asked_ms: AtomicU64::new(0),
        })
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends once the peer has taken nothing for `limit`.
    pub async fn stalled(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(limit / 4).await;
            let quiet_ms = self.elapsed_ms() - self.asked_ms.load(Ordering::Acquire);
            if self.waiting.load(Ordering::Acquire) > 0 && quiet_ms >= limit_ms {
                return;
            }
        }
    }

    /// A body; where `is_watched`, its pace counts.
    pub fn watch<B: Body>(self: &Arc<Self>, body: B, is_watched: bool) -> Paced<B> {
        let pace = is_watched.then(|| Arc::clone(self));
        Paced { body, pace, is_waiting: false, failed: None }
    }
}

/// A body that tells its connection's [`Pace`] when it is asked for bytes. Its error comes a
/// turn late: hyper first sends what it has, the head at least, and then cuts.
pub struct Paced<B: Body> {
    body: B,
    pace: Option<Arc<Pace>>,
    is_waiting: bool,
    failed: Option<B::Error>,
}

impl<B: Body> Paced<B> {
    fn waits(&mut self, waits: bool) {
        let Some(pace) = self.pace.as_ref().filter(|_| waits != self.is_waiting) else { return };
        self.is_waiting = waits;
        if waits {
            pace.waiting.fetch_add(1, Ordering::AcqRel);
        } else {
            pace.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl<B: Body<Error: Unpin> + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if let Some(pace) = &this.pace {
            pace.asked_ms.store(pace.elapsed_ms(), Ordering::Release);
        }
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = Pin::new(&mut this.body).poll_frame(cx);
        this.waits(matches!(next, Poll::Ready(Some(Ok(_)))));
        if let Poll::Ready(Some(Err(error))) = next {
            this.failed = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> Drop for Paced<B> {
    fn drop(&mut self) {
        self.waits(false);
    }
}
