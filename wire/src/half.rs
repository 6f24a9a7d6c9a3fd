//! Peers that stop sending while they are answered, and go on reading (HTTP/1.1 over TCP: half of
//! the connection is closed). hyper takes the end of what it reads in mid-answer for a peer that
//! left.
//!
//! Invariant: from a request until all of its answer has left the peer's end is not told. Who
//! really left is found when the next bytes are sent; where none are for long, it is taken to
//! have left.

use crate::patience::Wait;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Answers on their way over one connection.
#[derive(Debug, Default)]
struct Way {
    answers: AtomicUsize,
    /// The last of them was handed over, and may not have left.
    is_unsent: AtomicBool,
    /// Bytes came that belong to no request yet.
    has_part: AtomicBool,
    /// Reads that wait for them.
    reader: AtomicWaker,
    /// Requests that were read.
    calls: AtomicUsize,
    /// A request came that was not all read with its head: where it ends hyper alone knows.
    is_hypers: AtomicBool,
    /// The number of the request that has two lengths, from 1; 0 while there is none.
    two_lengths: AtomicUsize,
}

/// A stream whose end waits for the answers that go out on it.
pub struct HalfOpen<T> {
    stream: T,
    way: Arc<Way>,
    quiet_max: Duration,
    /// Once the peer sends no more.
    quiet: Option<Pin<Box<Sleep>>>,
    /// The peer has not taken all of what was last written.
    is_blocked: bool,
}

/// Makes a connection's answers known to its stream.
#[derive(Debug, Clone)]
pub struct Answers(Arc<Way>);

impl Answers {
    /// A whole head was read. Where that was all of the request (`is_whole`), the peer's end
    /// waits from now on; else from the answer's head on, since it may cut the request short.
    pub fn asked(&self, is_whole: bool) -> Asked {
        self.0.has_part.store(false, Ordering::Release);
        let number = self.0.calls.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if !is_whole {
            self.0.is_hypers.store(true, Ordering::Release);
        }
        let has_two_lengths = self.0.two_lengths.load(Ordering::Acquire) == number;
        let mut asked = Asked { way: Arc::clone(&self.0), is_counted: false, has_two_lengths };
        if is_whole {
            asked.count();
        }
        asked
    }

    /// What the peer of an HTTP/1.1 connection is waited for between answers: the head of its
    /// first request, the rest of a later one's, or another request.
    pub fn awaited(&self) -> Wait {
        let is_first = self.0.calls.load(Ordering::Acquire) == 0;
        let has_part = self.0.has_part.load(Ordering::Acquire);
        if is_first || has_part { Wait::Head } else { Wait::Idle }
    }
}

/// A request whose answer is on its way until this is dropped.
pub struct Asked {
    way: Arc<Way>,
    is_counted: bool,
    has_two_lengths: bool,
}

impl Asked {
    /// hyper dropped one of two lengths that it had.
    pub fn has_two_lengths(&self) -> bool {
        self.has_two_lengths
    }

    fn count(&mut self) {
        if !self.is_counted {
            self.is_counted = true;
            self.way.answers.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_counted {
            // First, so that one of both is seen.
            self.way.is_unsent.store(true, Ordering::Release);
            self.way.answers.fetch_sub(1, Ordering::AcqRel);
            self.way.has_part.store(false, Ordering::Release);
            self.way.reader.wake();
        }
    }
}

/// A body that is on its way until it is dropped.
pub struct Counted<B> {
    body: B,
    _asked: Option<Asked>,
}

impl<B> Counted<B> {
    /// The body of the answer to this request; to none, it is not counted.
    pub fn new(body: B, mut asked: Option<Asked>) -> Self {
        if let Some(asked) = &mut asked {
            asked.count();
        }
        Self { body, _asked: asked }
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<T> HalfOpen<T> {
    /// The stream, and what its answers are counted by.
    /// After `quiet_max` without a byte to send, its end waits no longer.
    pub fn new(stream: T, quiet_max: Duration) -> (Self, Answers) {
        let way = Arc::<Way>::default();
        let open =
            Self { stream, way: Arc::clone(&way), quiet_max, quiet: None, is_blocked: false };
        (open, Answers(way))
    }

    /// Requests that hyper has read, round and round.
    pub fn calls(&self) -> usize {
        self.way.calls.load(Ordering::Acquire)
    }

    /// The request of this number, counted from 1 among those that hyper gets, has two lengths.
    pub fn has_two_lengths(&self, number: usize) {
        self.way.two_lengths.store(number, Ordering::Release);
    }

    /// Where requests end hyper alone knows, from now on.
    pub fn is_hypers(&self) -> bool {
        self.way.is_hypers.load(Ordering::Acquire)
    }

    /// What was read last was a whole request, and hyper knows nothing of it.
    pub fn answered(&self) {
        self.way.has_part.store(false, Ordering::Release);
    }

    /// An answer is on its way, or has not left.
    pub fn is_answering(&self) -> bool {
        self.way.answers.load(Ordering::Acquire) > 0 || self.way.is_unsent.load(Ordering::Acquire)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HalfOpen<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.way.has_part.store(true, Ordering::Release);
        }
        let has_ended = buf.filled().len() == before && room > 0;
        if has_ended && this.is_answering() {
            this.way.reader.register(cx.waker());
            // The last answer may have gone meanwhile.
            if this.is_answering() {
                ready!(this.poll_quiet(cx));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> HalfOpen<T> {
    /// Ends once nothing was sent for long, though the peer would take it.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let quiet_max = self.quiet_max;
        let new = || Box::pin(tokio::time::sleep(quiet_max));
        let quiet = self.quiet.get_or_insert_with(new);
        while quiet.as_mut().poll(cx).is_ready() {
            if !self.is_blocked {
                return Poll::Ready(());
            }
            quiet.as_mut().reset(Instant::now() + self.quiet_max);
        }
        Poll::Pending
    }

    fn wrote<R>(&mut self, written: Poll<R>) -> Poll<R> {
        self.is_blocked = written.is_pending();
        if let Some(quiet) = &mut self.quiet {
            quiet.as_mut().reset(Instant::now() + self.quiet_max);
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HalfOpen<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.way.is_unsent.swap(false, Ordering::AcqRel) {
            this.way.reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
