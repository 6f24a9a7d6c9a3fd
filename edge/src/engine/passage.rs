//! A way past memory: bytes of a chunk, from the fetch that brings them to its only reader, at that
//! one's pace.
//!
//! Invariant: what goes in comes out in order. It ends early where the fetch does; how that failed,
//! if it did, its reader is told by [`super::Reading::failed`]. Of a title's chunk only whole leaves
//! come out, which are verified.

use crate::verdict::Verdict;
use bytes::{Buf, Bytes, BytesMut};
use model::tree::Leaves;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Pieces that wait in it, each of what came in one read of the origin's connection (64 KiB at
/// most), or of what had come of the chunk before.
const PIECES_MAX: usize = 1;

/// Where bytes go in.
pub struct Entrance {
    pieces: mpsc::Sender<Bytes>,
    /// Bytes of the chunk that have gone in, or need not.
    filled: usize,
    /// Of a title's chunk, the last of these, which await the rest of their leaf.
    unverified: Option<Unverified>,
}

/// The beginning of a leaf.
pub struct Unverified {
    leaves: Arc<Leaves>,
    bytes: BytesMut,
}

/// A leaf is not what its title stands for; it has to come again.
pub struct Wrong;

/// Where they come out.
pub struct Exit {
    /// Where the next piece begins in the object.
    at: u64,
    source: Verdict,
    pieces: mpsc::Receiver<Bytes>,
}

/// The reader is gone, or reads elsewhere.
pub struct Unread;

/// Both ends of one for a chunk of which `filled` bytes need not pass, which are those before byte
/// `at` of the object. Of a title's chunk, which has these `leaves`, that is where one begins.
pub fn passage(
    at: u64,
    filled: usize,
    source: Verdict,
    leaves: Option<Arc<Leaves>>,
) -> (Entrance, Exit) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let unverified = leaves.map(|leaves| Unverified { leaves, bytes: BytesMut::new() });
    (Entrance { pieces: sender, filled, unverified }, Exit { at, source, pieces })
}

impl Entrance {
    /// Bytes of the chunk that are not to go in any more.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Waits until there is room for a piece.
    pub async fn room(&self) -> Result<(), Unread> {
        self.pieces.reserve().await.map(drop).map_err(|_| Unread)
    }

    /// How many bytes the next piece may have.
    pub fn piece_bytes_max(&self) -> usize {
        let Some(Unverified { leaves, bytes }) = &self.unverified else { return usize::MAX };
        leaves.around(self.filled - bytes.len()).end - self.filled
    }

    /// Puts in a piece, for which there is room.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn put(&mut self, piece: Bytes) -> Result<(), Wrong> {
        self.filled += piece.len();
        let Some(Unverified { leaves, bytes }) = &mut self.unverified else {
            self.send(piece);
            return Ok(());
        };
        bytes.extend_from_slice(&piece);
        let start = self.filled - bytes.len();
        if self.filled < leaves.around(start).end {
            return Ok(());
        }
        let leaf = std::mem::take(bytes).freeze();
        if !leaves.is_leaf(start, &leaf) {
            self.filled = start;
            return Err(Wrong);
        }
        self.send(leaf);
        Ok(())
    }

    /// Puts in what was here, of which the first bytes are verified; there is room. The rest is less
    /// than a leaf.
    pub fn put_first(&mut self, tail: Bytes, verified: usize) {
        self.filled += tail.len();
        match &mut self.unverified {
            Some(Unverified { bytes, .. }) => {
                bytes.extend_from_slice(&tail[verified..]);
                self.send(tail.slice(..verified));
            }
            None => self.send(tail),
        }
    }

    fn send(&self, piece: Bytes) {
        if !piece.is_empty() {
            // Who reads no more is noticed when there is to be room for the next.
            let _ = self.pieces.try_send(piece);
        }
    }
}

impl Exit {
    /// Whether all bytes from `at` of the object on come out here.
    pub fn is_before(&self, at: u64) -> bool {
        self.at <= at
    }

    /// Who brings them.
    pub fn source(&self) -> Verdict {
        self.source
    }

    /// The next bytes from `at` of the object on, `most` at most; none if no more come.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: u64, most: usize) -> Poll<Option<Bytes>> {
        loop {
            let Some(mut piece) = std::task::ready!(self.pieces.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            let passed_over = usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX);
            self.at += piece.len() as u64;
            if passed_over < piece.len() {
                piece.advance(passed_over);
                piece.truncate(most);
                return Poll::Ready(Some(piece));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use model::tree::LEAF_BYTES;
    use std::future::poll_fn;

    #[test]
    fn a_wrong_leaf_does_not_come_out_and_is_to_come_again() {
        let chunk = Bytes::from(vec![7; LEAF_BYTES + 100]);
        let leaves = Arc::new(Leaves::of(&chunk));
        // The first three bytes were taken, and two more of those that are here.
        let (mut entrance, mut exit) = passage(3, 3, Verdict::Origin, Some(leaves));
        let mut come = |at| poll_fn(|cx| exit.poll(cx, at, usize::MAX)).now_or_never().flatten();
        entrance.put_first(chunk.slice(3..LEAF_BYTES + 10), LEAF_BYTES - 3);
        assert_eq!((entrance.filled(), entrance.piece_bytes_max()), (LEAF_BYTES + 10, 90));
        assert_eq!(come(5).unwrap(), chunk.slice(5..LEAF_BYTES));
        assert!(entrance.put(Bytes::from(vec![8; 90])).is_err());
        assert_eq!((come(LEAF_BYTES as u64), entrance.filled()), (None, LEAF_BYTES));
        assert!(entrance.put(chunk.slice(LEAF_BYTES..LEAF_BYTES + 99)).is_ok());
        assert_eq!(come(LEAF_BYTES as u64), None);
        assert!(entrance.put(chunk.slice(LEAF_BYTES + 99..)).is_ok());
        assert_eq!(come(LEAF_BYTES as u64).unwrap(), chunk.slice(LEAF_BYTES..));
    }
}
