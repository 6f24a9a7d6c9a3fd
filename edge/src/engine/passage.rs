//! A way past memory: bytes of a chunk, from the fetch that brings them to its only reader, at that
//! one's pace.
//!
//! Invariant: what goes in comes out in order. It ends early where the fetch does; how that failed,
//! if it did, its reader is told by [`super::Reading::failed`].

use crate::verdict::Verdict;
use bytes::{Buf, Bytes};
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
}

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
/// `at` of the object.
pub fn passage(at: u64, filled: usize, source: Verdict) -> (Entrance, Exit) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (Entrance { pieces: sender, filled }, Exit { at, source, pieces })
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

    /// Puts in a piece, for which there is room.
    pub fn put(&mut self, piece: Bytes) {
        self.filled += piece.len();
        // Who reads no more is noticed when there is to be room for the next.
        let _ = self.pieces.try_send(piece);
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
