//! Requests' streams on their way to h3: those that are not read without it.
//!
//! Invariant: at most as many wait as a peer may have open, and h3 is woken for each.

use super::outlets::locked;
use super::transport::BidiStream;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// The way of a connection's streams to h3.
#[derive(Clone, Default)]
pub struct Inlet(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    streams: VecDeque<BidiStream>,
    /// Whether what else comes is refused.
    open: bool,
    /// By when the head of the one that h3 took last is to be here.
    by: Option<Instant>,
    waker: Option<Waker>,
}

impl Inlet {
    /// Hands a stream to h3.
    pub fn hand(&self, stream: BidiStream) {
        let mut waiting = locked(&self.0);
        waiting.streams.push_back(stream);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// From now on what else comes is accepted only to be refused.
    pub fn open(&self) {
        let mut waiting = locked(&self.0);
        waiting.open = true;
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// By when the head of the stream that h3 took last is to be here; none where nothing of it
    /// was waited for before.
    pub fn by(&self) -> Option<Instant> {
        locked(&self.0).by
    }

    /// The next stream for h3; ready without one when what else comes is refused.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<BidiStream>> {
        let mut waiting = locked(&self.0);
        let stream = waiting.streams.pop_front();
        waiting.by = stream.as_ref().and_then(BidiStream::by);
        if stream.is_some() {
            return Poll::Ready(stream);
        }
        // One that was accepted before may still come.
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if waiting.open { Poll::Ready(None) } else { Poll::Pending }
    }
}
