//! A TCP socket that does not wait for ever: a peer that sends too little at first, or takes next
//! to nothing for long, has its connection ended; and one that was sent a part of an answer whose
//! end only the connection's tells has it reset. One that was told the connection's end, and has
//! not ended it itself, is lingered for.

use crate::SEND_BYTES_MIN;
use crate::linger::Socket;
use crate::pace::LOOKS;
use crate::patience::{GivenUp, Patience, Wait};
use crate::unframed::Unframed;
use arena::unacknowledged;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Bytes of the shortest sensible request, by which it is clear which protocol is spoken.
const FIRST_BYTES: usize = 24;

/// A TCP stream that ends a peer which sends too little at first, or takes next to nothing for
/// long.
pub struct Watched {
    stream: Socket,
    first_bytes: usize,
    first_by: Pin<Box<Sleep>>,
    stalled: Pin<Box<Sleep>>,
    is_stalled: bool,
    /// What the peer had not acknowledged when the limit began,
    queued_bytes: u64,
    /// and when that was.
    since: Instant,
    /// All that was written.
    sent_bytes: u64,
    patience: Patience,
    first: Wait,
    given_up: GivenUp,
    unframed: Unframed,
    /// All that was written left this side, and its end.
    is_shut: bool,
    /// The peer's end was read.
    has_ended: bool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.unframed.would_lie(self.is_shut) {
            // If even that fails, the connection was broken before.
            let _ = self.stream.set_zero_linger();
        } else if self.is_shut && !self.has_ended {
            self.stream.leave();
        }
    }
}

impl Watched {
    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// All that was written to it.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// What the peer has acknowledged of that.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.sent_bytes.saturating_sub(unacknowledged(self.stream.as_fd()))
    }

    /// Watches from now on, as patiently as said; `first` is what is awaited first.
    pub fn new(
        stream: Socket,
        unframed: Unframed,
        patience: Patience,
        (first, given_up): (Wait, GivenUp),
    ) -> Self {
        Self {
            stream,
            first_bytes: 0,
            first_by: Box::pin(tokio::time::sleep(patience.handshake)),
            stalled: Box::pin(tokio::time::sleep(patience.send)),
            is_stalled: false,
            queued_bytes: 0,
            since: Instant::now(),
            sent_bytes: 0,
            patience,
            first,
            given_up,
            unframed,
            is_shut: false,
            has_ended: false,
        }
    }

    #[cfg(test)]
    pub fn patient(stream: TcpStream) -> Self {
        let given_up = GivenUp::new(&prometheus::Registry::new()).expect("it is empty");
        let first = (Wait::Handshake, given_up);
        Self::new(crate::linger::socket(stream).0, Unframed::default(), Patience::default(), first)
    }

    /// Sends in a way of its own: `send` is called when the socket takes bytes.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let outcome = loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => break Poll::Ready(outcome),
            }
        };
        self.watch(cx, outcome)
    }

    /// Passes a write's outcome on, unless writes have stalled for too long.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            self.is_stalled = false;
            self.sent_bytes += written.as_ref().map_or(0, |bytes| *bytes as u64);
            return outcome;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.takes(unacknowledged(self.stream.as_fd()));
        }
        loop {
            ready!(self.stalled.as_mut().poll(cx));
            // A socket that has much queued takes more only when a large part of it has left.
            let queued_bytes = unacknowledged(self.stream.as_fd());
            if queued_bytes + SEND_BYTES_MIN <= self.queued_bytes {
                self.takes(queued_bytes);
            } else if self.since.elapsed() >= self.patience.send {
                break;
            } else {
                self.look_again();
            }
        }
        self.given_up.count(Wait::Send);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }

    /// The peer takes enough: the limit begins anew.
    fn takes(&mut self, queued_bytes: u64) {
        (self.queued_bytes, self.since) = (queued_bytes, Instant::now());
        self.look_again();
    }

    /// Looks several times in one limit: who stops just after a look has a part of it more, not
    /// twice as long.
    fn look_again(&mut self) {
        self.stalled.as_mut().reset(Instant::now() + self.patience.send / LOOKS);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let outcome = Pin::new(&mut *this.stream).poll_read(cx, buf);
        this.has_ended |= outcome.is_ready() && buf.remaining() == room && room > 0;
        if this.first_bytes >= FIRST_BYTES {
            return outcome;
        }
        if outcome.is_ready() {
            this.first_bytes += buf.filled().len() - before;
            return outcome;
        }
        ready!(this.first_by.as_mut().poll(cx));
        this.given_up.count(this.first);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer sends no request")))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut *this.stream).poll_write(cx, buf);
        this.watch(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut *this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = ready!(Pin::new(&mut *this.stream).poll_shutdown(cx));
        this.is_shut = shut.is_ok();
        Poll::Ready(shut)
    }
}
