//! Bodies cut to size. Our h2 sends a large piece as a run of DATA frames that are, each with a
//! head, a record long; cut to such frames beforehand, they are sent one by one.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes of a frame's head (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;
/// Payload of a frame that is one record with its head; below what every peer takes (section
/// 6.5.2: at least 16,384).
pub const FRAME_BYTES: usize = crate::batch::RECORD_BYTES - HEAD_BYTES;

/// A body whose pieces have at most so many bytes.
pub struct Cut<B> {
    body: B,
    bytes_max: usize,
    rest: Bytes,
}

impl<B> Cut<B> {
    /// Cuts `body` to pieces of `bytes_max`, more than 0. No byte is copied.
    pub fn new(body: B, bytes_max: usize) -> Self {
        Self { body, bytes_max, rest: Bytes::new() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Cut<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx))
                .map(|got| got.map(Frame::into_data))
            {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Ok(Ok(data))) => this.rest = data,
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(this.bytes_max));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + rest);
        } else {
            hint.set_lower(hint.lower() + rest);
        }
        hint
    }
}
