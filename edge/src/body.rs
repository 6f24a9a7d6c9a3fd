//! The one body type of all protocols: a text, an object's bytes chunk by chunk, an answer that
//! is still growing, or one that is passed on as it comes.
//!
//! Invariant: bytes that can't be had end in an error, which every protocol turns into a cut
//! (connection closed, stream reset): never a clean end before the promised length.

mod sending;

pub use sending::{Piece, Sending};

use crate::account::Account;
use crate::engine::{self, GrowingReader, Step};
use crate::error::Fault;
use crate::verdict::Verdict;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use prometheus::IntCounter;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use upstream::UpstreamBody;

/// What a response sends.
pub enum Content {
    /// A text, or nothing.
    Whole(Bytes),
    /// All of an object that is one chunk, in memory.
    Held(Held),
    /// Parts of an object.
    Object(Box<Sending>),
    /// An answer that is still arriving.
    Growing(Box<Follow>),
    /// An upstream's answer, passed on.
    Passing(Box<Passing>),
}

/// A chunk's bytes, until they are handed over, and the hold on it until the response ends.
pub struct Held {
    /// All of them, or nothing.
    pub bytes: Bytes,
    /// Held for a connection that takes them late.
    pub _pin: engine::Pin,
}

/// A response's body.
pub struct Body {
    content: Content,
    account: Box<Account>,
}

/// An upstream's answer, or a part of it.
pub struct Passing {
    /// The answer's body.
    pub body: UpstreamBody,
    /// Bytes at its start that are not wanted.
    pub skipped: u64,
    /// Bytes that are wanted after that, if that is known.
    pub left: Option<u64>,
    /// Where it comes from.
    pub source: Verdict,
    /// Counts what comes, wanted or not.
    pub came: IntCounter,
}

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            if self.left == Some(0) && self.skipped == 0 {
                // Only now is it known that the answer was whole, where all of it is wanted.
                return Poll::Ready(None);
            }
            let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
            let mut data = match frame.map(|frame| frame.map(Frame::into_data)) {
                None if self.left.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Some(Err(Fault::unavailable("the answer was cut"))));
                }
                None => return Poll::Ready(None),
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault.into()))),
                // Trailers: nothing here may read them.
                Some(Ok(Err(_))) => continue,
                Some(Ok(Ok(data))) => data,
            };
            self.came.inc_by(data.len() as u64);
            let skipped = usize::try_from(self.skipped).unwrap_or(usize::MAX).min(data.len());
            data = data.slice(skipped..);
            self.skipped -= skipped as u64;
            if let Some(left) = &mut self.left {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}

/// A reader of a growing answer, as far as a response wants it.
pub struct Follow {
    state: State,
    /// Bytes that are still wanted, if there is an end to them.
    left: Option<u64>,
    verdict: Verdict,
    /// Polled before the head left.
    ahead: Option<Bytes>,
}

enum State {
    Reading(GrowingReader),
    Waiting(Pin<Box<dyn Future<Output = GrowingReader> + Send>>),
    Ended,
}

impl Follow {
    /// The next `left` bytes of the answer, or all that follow.
    pub fn new(reader: GrowingReader, left: Option<u64>, verdict: Verdict) -> Self {
        Self { state: State::Reading(reader), left, verdict, ahead: None }
    }

    /// Waits until its first bytes, or its end, are at hand, so that the head that goes before
    /// them is true.
    ///
    /// # Errors
    /// How they can't be had.
    pub async fn first(&mut self) -> Result<(), Fault> {
        self.ahead = poll_fn(|cx| self.poll(cx)).await.transpose()?;
        Ok(())
    }

    fn bytes(&self) -> Option<u64> {
        let ahead = self.ahead.as_ref().map_or(0, Bytes::len) as u64;
        self.left.map(|left| left + ahead)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(ahead)));
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Waiting(mut waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Ready(reader) => self.state = State::Reading(reader),
                    Poll::Pending => {
                        self.state = State::Waiting(waiting);
                        return Poll::Pending;
                    }
                },
                State::Reading(_) if self.left == Some(0) => return Poll::Ready(None),
                State::Reading(mut reader) => match reader.step(self.left.unwrap_or(u64::MAX)) {
                    Step::Bytes(bytes) => {
                        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                        self.state = State::Reading(reader);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Step::Wait => {
                        self.state = State::Waiting(Box::pin(async move {
                            reader.changed().await;
                            reader
                        }));
                    }
                    Step::End if self.left.is_some_and(|left| left > 0) => {
                        return Poll::Ready(Some(Err(Fault::Lost)));
                    }
                    Step::End => return Poll::Ready(None),
                    Step::Failed(fault) => return Poll::Ready(Some(Err(fault))),
                },
            }
        }
    }
}

impl Body {
    /// A body and its account.
    pub fn new(content: Content, account: Box<Account>) -> Self {
        Self { content, account }
    }

    /// All of it, if that is one piece and at hand. Else it stays as it is.
    pub fn whole(&mut self) -> Option<Bytes> {
        let (bytes, source) = match &mut self.content {
            // A text of the edge's own is no hit because it is at hand.
            Content::Whole(bytes) => (std::mem::take(bytes), self.account.verdict()),
            Content::Held(held) => (std::mem::take(&mut held.bytes), Verdict::HitMemory),
            Content::Object(sending) => sending.whole()?,
            Content::Growing(_) | Content::Passing(_) => return None,
        };
        self.account.sent(source, bytes.len() as u64);
        Some(bytes)
    }

    /// Its client took too little of it: the rest does not leave.
    pub fn untaken(&mut self) {
        self.account.cut(&"the client takes no bytes");
    }
}

impl Content {
    /// Nothing.
    pub fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// Its length, where it is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Held(held) => Some(held.bytes.len() as u64),
            Self::Object(sending) => Some(sending.bytes_left()),
            Self::Growing(follow) => follow.bytes(),
            Self::Passing(passing) => passing.left,
        }
    }

    /// The next bytes and their source.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(Bytes, Verdict), Fault>>> {
        let (data, verdict) = match self {
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => {
                return Poll::Ready(Some(Ok((std::mem::take(bytes), Verdict::HitMemory))));
            }
            Self::Held(Held { bytes, .. }) if bytes.is_empty() => return Poll::Ready(None),
            Self::Held(held) => {
                let bytes = std::mem::take(&mut held.bytes);
                return Poll::Ready(Some(Ok((bytes, Verdict::HitMemory))));
            }
            Self::Object(sending) => return sending.poll(cx),
            Self::Growing(follow) => (ready!(follow.poll(cx)), follow.verdict),
            Self::Passing(passing) => (ready!(passing.poll(cx)), passing.source),
        };
        Poll::Ready(data.map(|data| data.map(|bytes| (bytes, verdict))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        let is_text = matches!(this.content, Content::Whole(_));
        Poll::Ready(match ready!(this.content.poll(cx)) {
            None => {
                this.account.done();
                None
            }
            Some(Ok((bytes, verdict))) => {
                // A text of the edge's own is no hit because it is at hand.
                let verdict = if is_text { this.account.verdict() } else { verdict };
                this.account.sent(verdict, bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(fault)) => {
                this.account.cut(&fault);
                Some(Err(fault))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.content.bytes() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.bytes().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
