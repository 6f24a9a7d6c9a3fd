//! Whether a connection's peer takes what it asked for. HTTP/2 has a window for each stream: a
//! peer that opens none takes nothing, though its connection looks alive.
//!
//! Invariant: a connection is found stalled while pieces of its bodies wait for the peer, and less
//! than [`SEND_BYTES_MIN`] of any of them has left in the whole limit. What else leaves, answers
//! to pings and settings, does not count: a peer has as many of those as it likes.

use crate::SEND_BYTES_MIN;
use crate::idle::{Requested, UnderWay};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Looks at a connection's pace in one limit.
pub const LOOKS: u32 = 4;

/// What is known of one connection's requests, and of the bodies of its answers.
#[derive(Debug)]
pub struct Pace {
    /// Pieces that were handed over, and have not left yet.
    waiting: AtomicUsize,
    /// Grows by the bytes of pieces that are written, and by [`SEND_BYTES_MIN`] more with the
    /// last ones of each: who takes small ones whole takes enough.
    taken: AtomicU64,
    pub requested: Requested,
}

impl Pace {
    /// A connection that starts now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            requested: Requested::default(),
        })
    }

    /// A number that grows whenever bytes of a piece are written.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Pieces of bodies wait for the peer.
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// So many bytes of a body that is whole were written, by who has no piece of it.
    #[cfg(feature = "at-hand")]
    pub fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64 + SEND_BYTES_MIN, Ordering::Relaxed);
    }

    /// Ends once the peer has taken next to nothing for `limit`, and a part of it at most. `left`
    /// tells how far it has acknowledged what was written of bodies, in bytes.
    pub async fn stalled(&self, limit: Duration, left: impl Fn() -> u64) {
        let mut looks = Looks::default();
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            if looks.find_stalled(self.waits(), self.taken() + left()) {
                return;
            }
        }
    }
}

/// What was seen of a connection by looking at it now and then.
#[derive(Debug, Default)]
struct Looks {
    /// How far the peer was when the limit began; not known while nothing waits.
    from: Option<u64>,
    /// So many looks since then found pieces waiting.
    quiet: u32,
}

impl Looks {
    fn find_stalled(&mut self, waits: bool, taken: u64) -> bool {
        match self.from {
            Some(from) if waits && taken < from + SEND_BYTES_MIN => self.quiet += 1,
            _ => (self.from, self.quiet) = (waits.then_some(taken), 0),
        }
        self.quiet >= LOOKS
    }
}

/// A piece of a body, which tells its connection's [`Pace`] when parts of it leave.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    pace: Option<Arc<Pace>>,
}

impl Piece {
    fn new(bytes: Bytes, pace: Option<Arc<Pace>>) -> Self {
        if let Some(pace) = &pace {
            pace.waiting.fetch_add(1, Ordering::Relaxed);
        }
        Self { bytes, pace }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        if let Some(pace) = &self.pace {
            let whole = if self.bytes.is_empty() { SEND_BYTES_MIN } else { 0 };
            pace.taken.fetch_add(bytes as u64 + whole, Ordering::Relaxed);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            pace.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A body whose pieces tell of their pace. Its error comes a turn late: hyper first sends what it
/// has, the head at least, and then cuts.
pub struct Paced<B: Body> {
    body: B,
    request: Option<UnderWay>,
    failed: Option<B::Error>,
}

impl<B: Body> Paced<B> {
    /// The body of the answer to this request; to none, its pace does not count.
    pub fn new(body: B, request: Option<UnderWay>) -> Self {
        Self { body, request, failed: None }
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Paced<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let pace = this.request.as_ref().map(|request| Arc::clone(request.pace()));
                let frame = frame.map_data(|bytes| Piece::new(bytes, pace));
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stalls_while_a_piece_waits_and_nothing_leaves() {
        let pace = Pace::new();
        let mut looks = Looks::default();
        let mut stalled_within = |most: u32| {
            let waits = || pace.waiting.load(Ordering::Relaxed) > 0;
            (1..=most).find(|_| looks.find_stalled(waits(), pace.taken()))
        };
        assert_eq!(stalled_within(20), None, "nothing waits");
        let piece = |bytes| Piece::new(Bytes::from(vec![0; bytes]), Some(Arc::clone(&pace)));
        let least = usize::try_from(SEND_BYTES_MIN).unwrap();
        let mut steady = piece(100 * least);
        for _ in 0..20 {
            assert_eq!(stalled_within(LOOKS), None, "little by little");
            steady.advance(least);
        }
        drop(steady);
        assert_eq!(stalled_within(20), None, "it has left");
        for _ in 0..20 {
            let (mut small, _next) = (piece(1), piece(1));
            small.advance(1);
            assert_eq!(stalled_within(LOOKS), None, "small ones, whole");
        }
        assert_eq!(stalled_within(20), None, "they have left");
        let mut holding = piece(100 * least);
        let bytes = (0..20).find(|_| {
            holding.advance(1);
            stalled_within(1).is_some()
        });
        assert_eq!(bytes, Some(LOOKS as usize), "a byte now and then");
        drop(holding);
        assert_eq!(stalled_within(20), None, "it is gone");
        let _waiting = [piece(5), piece(0)];
        // The first look sees them come.
        assert_eq!(stalled_within(20), Some(LOOKS + 1));
    }
}
