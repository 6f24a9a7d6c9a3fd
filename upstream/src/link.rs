//! One connection as its requests see it: whether it was there before them, whether it ended, and
//! whether a byte of an answer came first.
//!
//! Invariant: what an HTTP/1.1 server said before it cut the connection is read, even if it cut
//! it while it was sent to.

use crate::connect::H2_STREAMS_MAX;
use crate::frames::{Said, Scan};
use http::Extensions;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How long the reader has for what came before a cut.
const CUT_READ_MAX: Duration = Duration::from_secs(10);

/// What is known of a connection. Its times are of tokio's clock, as those of hyper-util's pool.
#[derive(Debug)]
pub(crate) struct Link {
    opened: Instant,
    /// It takes requests until then.
    until: Instant,
    /// And until this long after the last one (HTTP/2).
    idle_max: Duration,
    /// When one was last sent its way, in microseconds since it was opened.
    asked_us: AtomicU64,
    /// Several requests at a time go over it (HTTP/2).
    shared: bool,
    /// Something came, ever.
    spoke: AtomicBool,
    /// Something came since something was last sent.
    heard: AtomicBool,
    /// When something came last, in microseconds since it was opened.
    heard_us: AtomicU64,
    /// The other side ended it, well or badly.
    ended: AtomicBool,
    /// The other side did not take what was sent.
    reset: AtomicBool,
    /// The other side ended it in order, after it had taken a request at least (HTTP/2).
    in_order: AtomicBool,
    /// It takes no more requests.
    left: AtomicBool,
    /// Requests under way (HTTP/2).
    streams: AtomicUsize,
    /// How many of them the other side takes at a time, and this one asks for.
    streams_max: AtomicUsize,
    /// Cancelled when that has come.
    settled: CancellationToken,
    /// Cancelled when nobody has its bytes any more.
    closed: CancellationToken,
    pub(crate) listed: AtomicBool,
}

impl Link {
    /// Whether it was opened before then, and nothing came over it since.
    pub(crate) fn is_unheard_since(&self, then: Instant) -> bool {
        self.opened < then
            && self.opened + Duration::from_micros(self.heard_us.load(Relaxed)) < then
    }

    /// Whether a request that began then was not the first one, or need not have been.
    pub(crate) fn is_before(&self, began: Instant) -> bool {
        self.shared || self.opened < began
    }

    fn age_us(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn came(&self) {
        self.heard_us.store(self.age_us(), Relaxed);
        self.spoke.store(true, Relaxed);
        self.heard.store(true, Relaxed);
    }

    /// Whether it is to take no more requests.
    pub(crate) fn is_old(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Whether several requests at a time go over it.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until it is.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn told(&self, said: Said) {
        match said {
            Said::StreamsMax(most) => {
                self.streams_max.store(most.min(H2_STREAMS_MAX) as usize, Relaxed);
            }
            Said::Settled => self.settled.cancel(),
            Said::Goaway { last, error } => {
                self.in_order.store(last > 0 && error == 0, Relaxed);
                self.leave();
            }
        }
    }

    /// No more requests are to go over it.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    pub(crate) fn takes_requests(&self) -> bool {
        let is_over = self.left.load(Relaxed) || self.ended.load(Relaxed) || self.is_closed();
        !is_over && !self.is_old() && !self.is_idle()
    }

    /// A request is about to go over it.
    pub(crate) fn asked(&self) {
        self.asked_us.store(self.age_us(), Relaxed);
    }

    fn is_idle(&self) -> bool {
        let asked = self.opened + Duration::from_micros(self.asked_us.load(Relaxed));
        asked.elapsed() >= self.idle_max
    }

    /// Waits until it is known how many requests at a time it takes.
    pub(crate) async fn settled(&self) {
        if self.shared {
            self.settled.cancelled().await;
        }
    }

    /// Requests under way (HTTP/2).
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Whether another one may be sent at once.
    pub(crate) fn has_room(&self) -> bool {
        self.streams() < self.streams_max.load(Relaxed)
    }

    /// Whether the other side, which takes requests, takes no more over this connection.
    pub(crate) fn has_ended_in_order(&self) -> bool {
        self.in_order.load(Relaxed)
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

/// The connection that a request goes over, once it has one.
pub(crate) fn link(captured: &CaptureConnection) -> Option<Arc<Link>> {
    let mut extras = Extensions::new();
    captured.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove()
}

/// No request goes any more over that connection.
pub(crate) fn poison(captured: &CaptureConnection) {
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.poison();
    }
    link(captured).iter().for_each(|link| link.leave());
}

/// A request under way over a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Stream {
    link: Arc<Link>,
    /// Told when it ends.
    room: Arc<Notify>,
}

impl Stream {
    pub(crate) fn new(link: Arc<Link>, room: Arc<Notify>) -> Self {
        link.streams.fetch_add(1, Relaxed);
        Self { link, room }
    }

    pub(crate) fn is_over(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.link, link)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.streams.fetch_sub(1, Relaxed);
        self.room.notify_one();
    }
}

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
}

impl Linked {
    /// One that takes requests for `age`, and, of HTTP/2, for `idle_max` after the last one.
    pub(crate) fn new(stream: Io, age: Duration, idle_max: Duration) -> Self {
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
            streams_max: AtomicUsize::new(H2_STREAMS_MAX as usize),
            settled: CancellationToken::new(),
            reset: no(),
            closed: CancellationToken::new(),
            listed: no(),
        };
        let frames = link.shared.then(Scan::default);
        Self { io: TokioIo::new(stream), link: Arc::new(link), frames, is_over: false, cut: None }
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
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
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
        self.link.heard.store(false, Relaxed);
        let sent = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.heard.store(false, Relaxed);
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
