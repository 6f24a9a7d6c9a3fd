//! Answers whose end nothing tells but the connection's: those of unknown length to HTTP/1.0.
//!
//! Invariant: a connection on which such an answer began is only closed in peace once all of it
//! was handed over (RFC 9112 section 8: else it is incomplete). Any other end, whatever its
//! cause, is a reset, so that no peer takes a part for the whole.

use http::Version;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// What is known of one connection's last answer.
#[derive(Debug, Clone, Default)]
pub struct Unframed(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    has_begun: AtomicBool,
    has_ended: AtomicBool,
}

impl Unframed {
    /// Whether closing the connection now would tell the end of an answer that is not whole.
    /// `is_sent`: all that was written has left.
    pub fn would_lie(&self, is_sent: bool) -> bool {
        let of = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        of(&self.0.has_begun) && !(is_sent && of(&self.0.has_ended))
    }

    /// A body that goes to a request of this version.
    pub fn watch<B: Body>(&self, version: Version, body: B) -> Ending<B> {
        let is_unframed = version <= Version::HTTP_10 && body.size_hint().exact().is_none();
        Ending { body, connection: is_unframed.then(|| self.clone()) }
    }
}

/// A body that tells its connection when it has begun and when it has ended.
pub struct Ending<B> {
    body: B,
    connection: Option<Unframed>,
}

impl<B: Body + Unpin> Body for Ending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let Some(connection) = &this.connection else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        connection.0.has_begun.store(true, Ordering::Release);
        let next = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if next.is_none() {
            connection.0.has_ended.store(true, Ordering::Release);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        // An unframed one ends where it is asked for more.
        self.connection.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
