//! Whether a connection's peer takes what it asked for. HTTP/2 has a window for each stream: a
//! peer that opens none takes nothing, though its connection looks alive.
//!
//! Invariant: a connection is found stalled only while pieces of its bodies wait for the peer,
//! and no byte of any of them has left for the whole limit.

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Looks at a connection's pace in one limit.
const LOOKS: u32 = 4;

/// What is known of one connection's bodies.
#[derive(Debug)]
pub struct Pace {
    /// Pieces that were handed over, and have not left yet.
    waiting: AtomicUsize,
    /// Grows whenever a piece is handed over, or a part of one leaves.
    moves: AtomicU64,
}

impl Pace {
    /// A connection that starts now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { waiting: AtomicUsize::new(0), moves: AtomicU64::new(0) })
    }

    /// Bytes left.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends once the peer has taken nothing for `limit`, and a part of it at most. `queued` tells
    /// what the socket has that the peer has not acknowledged.
    pub async fn stalled(&self, limit: Duration, queued: impl Fn() -> u64) {
        let mut looks = Looks::default();
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            if looks.find_stalled(self, queued()) {
                return;
            }
        }
    }

    /// A body; where `is_watched`, its pace counts.
    pub fn watch<B: Body>(self: &Arc<Self>, body: B, is_watched: bool) -> Paced<B> {
        let pace = is_watched.then(|| Arc::clone(self));
        Paced { body, pace, failed: None }
    }
}

/// What was seen of a connection by looking at it now and then.
#[derive(Debug, Default)]
struct Looks {
    moves: u64,
    queued: u64,
    /// So many looks in a row found pieces waiting, and no move.
    quiet: u32,
}

impl Looks {
    fn find_stalled(&mut self, pace: &Pace, queued: u64) -> bool {
        let moves = pace.moves.load(Ordering::Relaxed);
        let stands = moves == self.moves && queued >= self.queued;
        let is_quiet = pace.waiting.load(Ordering::Relaxed) > 0 && stands;
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        (self.moves, self.queued) = (moves, queued);
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
            pace.moved();
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
            pace.moved();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            pace.waiting.fetch_sub(1, Ordering::Relaxed);
            pace.moved();
        }
    }
}

/// A body whose pieces tell of their pace. Its error comes a turn late: hyper first sends what it
/// has, the head at least, and then cuts.
pub struct Paced<B: Body> {
    body: B,
    pace: Option<Arc<Pace>>,
    failed: Option<B::Error>,
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
                let frame = frame.map_data(|bytes| Piece::new(bytes, this.pace.clone()));
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
        let mut stalled_within = |most: u32| (1..=most).find(|_| looks.find_stalled(&pace, 0));
        assert_eq!(stalled_within(20), None, "nothing waits");
        let piece = |bytes| Piece::new(Bytes::from(vec![0; bytes]), Some(Arc::clone(&pace)));
        let mut steady = piece(100);
        for _ in 0..20 {
            assert_eq!(stalled_within(LOOKS), None, "a byte now and then");
            steady.advance(1);
        }
        drop(steady);
        assert_eq!(stalled_within(20), None, "it has left");
        let _waiting = [piece(5), piece(0)];
        // The first look sees them come.
        assert_eq!(stalled_within(20), Some(LOOKS + 1));
    }
}
