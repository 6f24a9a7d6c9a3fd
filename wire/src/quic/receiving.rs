//! The body of an HTTP/3 request, as the rest of the edge takes bodies; and why there is no request.

use super::outlets::Outlet;
use crate::unread::Why;
use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

type Stream = RequestStream<super::halves::RecvStream, Bytes>;

/// Times that h3 has nothing, before others of its thread have their turn.
const NONES_PER_TURN: u32 = 64;

/// The body is not as long as the head says (RFC 9114 section 4.1.2).
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("Content-Length is {said}, and {came} bytes of body came")]
pub struct Unlike {
    said: u64,
    came: u64,
}

/// A request's body under way. Whatever of it is not read is refused when it is dropped.
pub struct Receiving {
    stream: Stream,
    /// Knows when the stream has ended, and with how much of a body.
    outlet: Arc<Outlet>,
    length: Option<u64>,
    /// Bytes so far.
    came: u64,
    /// What completes a body of a known length. It is passed on once the stream ends there, since
    /// nobody may look at a body beyond its length.
    last: Bytes,
    code: Code,
    /// What came before anybody asked.
    first: Option<Bytes>,
    /// Times that h3 had nothing.
    nones: u32,
    ended: bool,
}

impl Receiving {
    /// The body of the request with this head. Where its length is 0 it is over at once, and what
    /// comes behind the head all the same is refused, but the request is not: who passes on a body
    /// of no bytes asks for none, and so would never be told.
    pub fn of(head: &http::request::Parts, stream: Stream, outlet: Arc<Outlet>) -> Self {
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // HTTP/3 does not say before its end whether there is a body; these methods have none.
        let has_none = length.is_none() && head.method.is_safe();
        let ended = has_none || length == Some(0);
        let (last, code) = (Bytes::new(), Code::H3_NO_ERROR);
        Self { stream, outlet, length, came: 0, last, code, first: None, nones: 0, ended }
    }

    /// Waits for the first of a body that the head promises, or for all of it where it comes in
    /// one piece. Who answers without reading the body would else never know that there is none,
    /// and so no request (RFC 9114 section 4.1.2).
    ///
    /// # Errors
    /// Why there is no body, and whether that makes the request malformed.
    pub async fn begun(&mut self) -> Result<(), (String, Option<Why>)> {
        match self.frame().await {
            Some(Err(error)) => {
                let is_malformed = self.code == Code::H3_MESSAGE_ERROR;
                Err((error.to_string(), is_malformed.then_some(Why::Malformed)))
            }
            Some(Ok(frame)) => {
                self.first = frame.into_data().ok();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What has come of the body, if that is enough to be passed on.
    fn took(&mut self, piece: Option<Bytes>) -> Result<Option<Bytes>, Unlike> {
        self.came += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let unlike = |said: &u64| self.came > *said || (piece.is_none() && self.came < *said);
        if let Some(said) = self.length.filter(unlike) {
            return Err(Unlike { said, came: self.came });
        }
        match piece {
            Some(piece) if self.length == Some(self.came) => {
                // After it there may be empty frames.
                if self.last.is_empty() {
                    self.last = piece;
                }
                Ok(None)
            }
            Some(piece) => Ok(Some(piece)),
            None => Ok(Some(std::mem::take(&mut self.last))),
        }
    }
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            let received: Result<Option<_>, StreamError> = ready!(this.stream.poll_recv_data(cx));
            let piece = match received {
                // h3 makes the same of an empty frame, and of trailers, as of the end.
                Ok(None) if this.outlet.body() != Some(this.came) => {
                    this.nones = this.nones.wrapping_add(1);
                    if this.nones.is_multiple_of(NONES_PER_TURN) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                Ok(piece) => piece.map(|mut data| data.copy_to_bytes(data.remaining())),
                Err(error) => {
                    this.ended = true;
                    if unread(&error) == Some(Why::Malformed) {
                        this.code = Code::H3_MESSAGE_ERROR;
                    }
                    return Poll::Ready(Some(Err(error.into())));
                }
            };
            this.ended = piece.is_none();
            match this.took(piece) {
                Ok(Some(last)) if last.is_empty() && this.ended => return Poll::Ready(None),
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(unlike) => {
                    (this.ended, this.code) = (true, Code::H3_MESSAGE_ERROR);
                    return Poll::Ready(Some(Err(unlike.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.stream.stop_sending(self.code);
    }
}

/// Why a request's head could not be read, if that is what happened.
pub(super) fn unread(error: &StreamError) -> Option<Why> {
    match error {
        StreamError::HeaderTooBig { .. } => Some(Why::TooLarge),
        StreamError::Undefined(error) if error.is::<super::halves::TooLong>() => {
            Some(Why::TooLarge)
        }
        StreamError::Undefined(error)
            if error.is::<super::heading::Malformed>()
                || error.is::<super::frames::Fault>()
                || error.is::<super::control::Broken>() =>
        {
            Some(Why::Malformed)
        }
        StreamError::StreamError { code, .. } if *code == Code::H3_MESSAGE_ERROR => {
            Some(Why::Malformed)
        }
        _ => None,
    }
}
