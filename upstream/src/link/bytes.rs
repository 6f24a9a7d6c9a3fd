//! The bytes of a connection, of which what is known of it is read.
//!
//! Invariant: what an HTTP/1.1 server said before it cut the connection is read, even if it cut
//! it while it was sent to.

use super::Link;
use crate::connect::H2_STREAMS_MAX;
use crate::frames::Scan;
use crate::idle::Idle;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How long the reader has for what came before a cut.
const CUT_READ_MAX: Duration = Duration::from_secs(10);

/// A connection's bytes.
#[derive(Debug)]
pub(crate) struct Linked {
    io: TokioIo<Io>,
    link: Arc<Link>,
    /// Of HTTP/2.
    frames: Option<Scan>,
    /// The reader has come to its end.
    is_over: bool,
    /// Since something could not be sent.
    cut: Option<Pin<Box<Sleep>>>,
    /// Until it is to be closed from here, where that may be.
    given_up: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Linked {
    /// One that takes requests for `age`, and, of HTTP/2, for `idle_max` after the last one; while it
    /// has none it is counted in `idle`.
    pub(crate) fn new(
        stream: Io,
        age: Duration,
        idle_max: Duration,
        idle: Option<&Arc<Idle>>,
    ) -> Self {
        let no = || AtomicBool::new(false);
        let opened = Instant::now();
        let link = Link {
            opened,
            until: opened + age,
            idle_max,
            asked_us: AtomicU64::new(0),
            shared: stream.connected().is_negotiated_h2(),
            spoke: no(),
            heard: no(),
            heard_us: AtomicU64::new(0),
            ended: no(),
            in_order: no(),
            left: no(),
            streams: AtomicUsize::new(0),
            used: no(),
            idle: idle.map(Arc::downgrade).unwrap_or_default(),
            given_up: CancellationToken::new(),
            captured: Mutex::default(),
            streams_max: AtomicUsize::new(H2_STREAMS_MAX as usize),
            settled: CancellationToken::new(),
            reset: no(),
            closed: CancellationToken::new(),
            listed: no(),
        };
        let frames = link.shared.then(Scan::default);
        let link = Arc::new(link);
        idle.iter().for_each(|idle| idle.add(&link));
        let given_up = idle.map(|_| Box::pin(link.given_up.clone().cancelled_owned()));
        Self { io: TokioIo::new(stream), link, frames, is_over: false, cut: None, given_up }
    }

    /// Whether it is closed from here. If something was sent after that was asked for, it is not: a
    /// request was quicker.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        let given_up = self.given_up.as_mut();
        given_up.is_some_and(|given_up| given_up.as_mut().poll(cx).is_ready())
    }

    /// Something is sent.
    fn sends(&mut self) {
        self.link.heard.store(false, Relaxed);
        if self.link.given_up.is_cancelled() {
            self.given_up = None;
        }
    }

    /// To an HTTP/1.1 connection that the other side has cut, nothing is written any more, and
    /// the error is left to the reader, for as long as it may still find something: an answer may
    /// have come before the cut, as from a server that refuses a body without reading it.
    fn sent<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let error = match sent {
            Poll::Ready(Err(error)) if is_reset(&error) => error,
            sent => return sent,
        };
        self.link.reset.store(true, Relaxed);
        self.link.ended.store(true, Relaxed);
        if !self.link.shared && !self.is_over {
            let cut = self.cut.get_or_insert_with(|| Box::pin(tokio::time::sleep(CUT_READ_MAX)));
            ready!(cut.as_mut().poll(cx));
        }
        Poll::Ready(Err(error))
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::BrokenPipe | K::ConnectionReset | K::ConnectionAborted)
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.link.closed.cancel();
        // It has the link.
        self.link.take_captured();
    }
}

impl Connection for Linked {
    fn connected(&self) -> Connected {
        self.io.inner().connected().extra(self.link.clone())
    }
}

impl AsyncRead for Linked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending if self.is_given_up(cx) => Poll::Ready(Ok(())),
            read => read,
        };
        let read = ready!(read);
        let came = read.is_ok() && buf.filled().len() > before;
        if came {
            self.link.came();
            let piece = buf.filled().get(before..).unwrap_or_default();
            let Self { frames, link, .. } = &mut *self;
            frames.iter_mut().for_each(|frames| frames.read(piece, |said| link.told(said)));
        } else if read.is_err() || room > 0 {
            self.is_over = true;
            self.link.ended.store(true, Relaxed);
            self.link.reset.fetch_or(read.as_ref().is_err_and(is_reset), Relaxed);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Linked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sends();
        let sent = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sends();
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.io).poll_flush(cx);
        self.sent(cx, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
