//! HTTP/1.1 requests that need nothing of hyper: a plain GET whose answer is small and at hand is
//! read where hyper waits for the next head, and answered at once. hyper never sees it. All else
//! reaches hyper as it came, byte for byte, and so does what this side is not sure of.
//!
//! Invariants: a request is read here only when hyper has read all that came before, answered it
//! and sent that; each request reaches the service once; and who reads a request here finds in it
//! what hyper would.

pub mod head;

use crate::Service;
use crate::half::HalfOpen;
use crate::lengths::Lengths;
use crate::responding::Requests;
use crate::timer::HeadTimer;
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest body that is answered here. Of longer ones a head is a small part, and they
/// need not be at hand.
pub const BODY_BYTES_MAX: u64 = 64 << 10;
/// Requests that are answered in one call: over TLS hundreds may be at hand, and other connections
/// have their turns, too.
const ANSWERS_MAX: usize = 16;
/// Room for most heads of answers; what a thread keeps of it.
const HEAD_BYTES: usize = 1 << 10;

thread_local! {
    static HEAD: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(HEAD_BYTES));
}

/// A connection's stream, as hyper has it.
pub struct Direct<T, S: Service> {
    stream: HalfOpen<T>,
    requests: Arc<Requests<S>>,
    state: State,
    /// hyper's, for the next head, and how long it waits for that.
    timer: HeadTimer,
    head_max: Duration,
    /// What hyper got.
    lengths: Lengths,
    /// What is left of hyper's own answer to what it could not read.
    refusal: Option<Box<Rest>>,
}

/// Whose turn it is.
enum State {
    /// hyper has what came, and may not be done with that. It had so many requests before.
    Beside(usize),
    /// hyper waits for a head, and has no part of one.
    Between,
    /// An answer to a request that was read here leaves.
    Answering(Rest),
    /// hyper's, as long as the connection lasts.
    Off,
}

/// What is left of an answer.
struct Rest {
    head: Vec<u8>,
    sent: usize,
    body: Bytes,
}

impl<T, S: Service> Direct<T, S> {
    /// The stream of a connection that begins with a request's first byte. Where requests are not
    /// to be read here (`is_on` unset), it only passes bytes on, which `lengths` looks through.
    /// `timer` and `head_max` are hyper's.
    pub fn new(
        stream: HalfOpen<T>,
        requests: Arc<Requests<S>>,
        (timer, head_max): (HeadTimer, Duration),
        lengths: Lengths,
        is_on: bool,
    ) -> Self {
        let state = if is_on { State::Beside(0) } else { State::Off };
        Self { stream, requests, state, timer, head_max, lengths, refusal: None }
    }

    /// Whether hyper is done with what it has.
    fn look(&mut self) {
        let State::Beside(before) = self.state else { return };
        let heads = self.lengths.heads();
        let count = heads.wrapping_sub(before);
        if count > 1 || self.stream.is_hypers() {
            self.state = State::Off;
        } else if count == 1
            && self.lengths.is_between()
            && self.stream.calls() == heads
            && !self.stream.is_answering()
        {
            self.state = State::Between;
        }
    }

    /// hyper gets these bytes.
    fn pass(&mut self, came: &[u8]) {
        if came.is_empty() {
            return;
        }
        if let State::Between = self.state {
            self.state = State::Beside(self.lengths.heads());
        }
        if let Some(number) = self.lengths.take(came) {
            self.stream.has_two_lengths(number);
        }
    }
}

impl<T: AsyncWrite + Unpin, S: Service> Direct<T, S> {
    /// Sends what is left of an answer.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(rest) = &mut self.refusal {
            let sent = ready!(poll_send(&mut self.stream, cx, rest));
            self.refusal = None;
            return Poll::Ready(sent);
        }
        let State::Answering(rest) = &mut self.state else { return Poll::Ready(Ok(())) };
        // A peer that takes it slowly is not late with its next head.
        self.timer.put_off(self.head_max);
        let sent = ready!(poll_send(&mut self.stream, cx, rest));
        self.state = State::Between;
        Poll::Ready(sent)
    }
}

impl<T, S: Service> Direct<T, S> {
    /// Takes what hyper writes, if that is its own answer to what it could not read: what it writes
    /// while no request is under way. Such an answer is the last of its connection, and is sent with
    /// the fields that the service has for it.
    fn takes_refusal(&mut self, written: &[u8]) -> bool {
        let is_refusal = written.starts_with(b"HTTP/1.")
            && written.get("HTTP/1.1 ".len()) == Some(&b'4')
            && written.ends_with(head::END)
            && !self.stream.is_answering();
        if !is_refusal {
            return false;
        }
        let mut text = written[..written.len() - b"\r\n".len()].to_vec();
        head::write_fields(&self.requests.of_unread(), &mut text);
        self.refusal = Some(Box::new(Rest { head: text, sent: 0, body: Bytes::new() }));
        true
    }
}

/// Sends all of an answer.
fn poll_send<T: AsyncWrite + Unpin>(
    stream: &mut HalfOpen<T>,
    cx: &mut Context<'_>,
    rest: &mut Rest,
) -> Poll<io::Result<()>> {
    loop {
        let head = &rest.head[rest.sent..];
        if head.is_empty() && rest.body.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let pieces = [IoSlice::new(head), IoSlice::new(&rest.body)];
        let pieces = if head.is_empty() { &pieces[1..] } else { &pieces[..] };
        let bytes = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, pieces))?;
        if bytes == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = bytes.min(head.len());
        rest.sent += of_head;
        rest.body.advance(bytes - of_head);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Service> Direct<T, S> {
    /// Answers the request that these bytes are, if that is one for here. `None` leaves it to
    /// hyper, perhaps with an answer.
    fn answer(&mut self, cx: &mut Context<'_>, came: &[u8]) -> Option<Poll<io::Result<()>>> {
        let request = head::read(came)?;
        let (head, body) = self.requests.at_hand(request)?;
        self.stream.answered();
        let text = HEAD.with(|kept| std::mem::take(&mut *kept.borrow_mut()));
        let mut rest = Rest { head: text, sent: 0, body };
        head.write(&mut rest.head);
        let sent = poll_send(&mut self.stream, cx, &mut rest);
        if sent.is_pending() {
            self.state = State::Answering(rest);
        } else if rest.head.capacity() <= 4 * HEAD_BYTES {
            rest.head.clear();
            HEAD.with(|kept| *kept.borrow_mut() = rest.head);
        }
        Some(sent)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Service> AsyncRead for Direct<T, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        if matches!(this.state, State::Off) {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            this.pass(&buf.filled()[start..]);
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_rest(cx))?;
        for _ in 0..ANSWERS_MAX {
            this.look();
            let is_between = matches!(this.state, State::Between);
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let came = &buf.filled()[start..];
            let Some(sent) = is_between.then(|| this.answer(cx, came)).flatten() else {
                this.pass(came);
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(start);
            // From here on the next head is waited for, whatever came of it already.
            this.timer.put_off(this.head_max);
            ready!(sent)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin, S: Service> AsyncWrite for Direct<T, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        if this.takes_refusal(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        if let [buf] = bufs
            && this.takes_refusal(buf)
        {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            ready!(this.poll_rest(cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// The connection's end comes after what was answered.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
