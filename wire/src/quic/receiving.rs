//! The body of an HTTP/3 request, as the rest of the edge takes bodies; and why there is no request.

use crate::RequestBody;
use crate::unread::Why;
use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll};

type Stream = RequestStream<super::halves::RecvStream, Bytes>;

/// A request's body under way. Whatever of it is not read is refused when it is dropped.
pub struct Receiving {
    stream: Stream,
    length: Option<u64>,
    ended: bool,
}

impl Receiving {
    /// The body of the request with this head.
    pub fn of(head: &http::request::Parts, stream: Stream) -> RequestBody {
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // HTTP/3 does not say before its end whether there is a body; these methods have none.
        let has_none = length.is_none() && head.method.is_safe();
        Self { stream, length, ended: has_none || length == Some(0) }.boxed_unsync()
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
        if this.ended {
            return Poll::Ready(None);
        }
        let received: Poll<Result<Option<_>, StreamError>> = this.stream.poll_recv_data(cx);
        received.map(|received| match received {
            Ok(Some(mut data)) => Some(Ok(Frame::data(data.copy_to_bytes(data.remaining())))),
            Ok(None) => {
                this.ended = true;
                None
            }
            Err(error) => {
                this.ended = true;
                Some(Err(error.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.stream.stop_sending(Code::H3_NO_ERROR);
    }
}

/// Why a request's head could not be read, if that is what happened.
pub(super) fn unread(error: &StreamError) -> Option<Why> {
    match error {
        StreamError::HeaderTooBig { .. } => Some(Why::TooLarge),
        StreamError::Undefined(error) if error.is::<super::halves::TooLong>() => {
            Some(Why::TooLarge)
        }
        StreamError::StreamError { code, .. } if *code == Code::H3_MESSAGE_ERROR => {
            Some(Why::Malformed)
        }
        _ => None,
    }
}
