//! One connection as its requests see it: whether it was there before them, whether it ended, and
//! whether a byte of an answer came first.
//!
//! Invariant: what an HTTP/1.1 server said before it cut the connection is read, even if it cut
//! it while it was sent to.

use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    opened: Instant,
    /// Several requests at a time go over it (HTTP/2).
    shared: bool,
    /// Something came, ever.
    spoke: AtomicBool,
    /// Something came since something was last sent.
    heard: AtomicBool,
    /// The other side ended it, well or badly.
    ended: AtomicBool,
    /// The other side did not take what was sent.
    reset: AtomicBool,
    /// Nobody has its stream any more.
    closed: AtomicBool,
    pub(crate) listed: AtomicBool,
}

impl Link {
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Whether the other side dropped it with something unread.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// Whether it was there before a request that began then and has no answer, and ended without
    /// a byte of one: it was given up, most likely before the request was seen (RFC 9112 section
    /// 9.3.1), which says nothing of the server.
    pub(crate) fn is_stale(&self, began: Instant) -> bool {
        let unheard = self.shared || !self.heard.load(Relaxed);
        let reused = self.opened < began || (!self.shared && self.spoke.load(Relaxed));
        self.ended.load(Relaxed) && unheard && reused
    }
}

/// A connection's stream.
#[derive(Debug)]
pub(crate) struct Linked {
    io: TokioIo<Stream>,
    link: Arc<Link>,
}

impl Linked {
    pub(crate) fn new(stream: Stream) -> Self {
        let no = || AtomicBool::new(false);
        let link = Link {
            opened: Instant::now(),
            shared: stream.connected().is_negotiated_h2(),
            spoke: no(),
            heard: no(),
            ended: no(),
            reset: no(),
            closed: no(),
            listed: no(),
        };
        Self { io: TokioIo::new(stream), link: Arc::new(link) }
    }

    /// To an HTTP/1.1 connection that the other side has cut, nothing is written any more, and
    /// the error is left to the reader: an answer may have come before the cut, as from a server
    /// that refuses a body without reading it. The end of what came wakes the reader.
    fn sent<T>(&self, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match sent {
            Poll::Ready(Err(error)) if is_reset(&error) => {
                self.link.reset.store(true, Relaxed);
                self.link.ended.store(true, Relaxed);
                if self.link.shared { Poll::Ready(Err(error)) } else { Poll::Pending }
            }
            sent => sent,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::BrokenPipe | K::ConnectionReset | K::ConnectionAborted)
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.link.closed.store(true, Relaxed);
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
        let read = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let link = &self.link;
        match &read {
            Ok(()) if buf.filled().len() > before => {
                link.spoke.store(true, Relaxed);
                link.heard.store(true, Relaxed);
            }
            Ok(()) => _ = link.ended.fetch_or(room > 0, Relaxed),
            Err(error) => {
                link.ended.store(true, Relaxed);
                link.reset.fetch_or(is_reset(error), Relaxed);
            }
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
        self.link.heard.store(false, Relaxed);
        let sent = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.heard.store(false, Relaxed);
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.io).poll_flush(cx);
        self.sent(sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
