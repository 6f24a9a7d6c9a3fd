//! TCP listeners: HTTP/1.1 and 2, plain or over TLS, each connection within its limits.

use crate::pace::Pace;
use crate::serve::{Asked, Edge, Via, serve};
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections open at a time, over all listeners and protocols; more are closed at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// From accepting to the end of the TLS handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a request, or from an idle connection's last answer, to the end of
/// the request's head. A player with a full buffer is silent for most of a minute.
const HEADER_READ_MAX: Duration = Duration::from_secs(60);
/// A connection that takes no byte for this long is closed.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// The head of a request: a path (4 KiB, with a token of 2 KiB) and a browser's fields.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// HTTP/1.1: hyper's buffer, which holds the head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// HTTP/2 and 3: requests of one connection at a time.
pub const STREAMS_MAX: u32 = 64;
/// HTTP/2: bytes buffered for sending, a stream.
const STREAM_SEND_BYTES_MAX: usize = 256 << 10;
/// HTTP/2: a silent peer is asked whether it is there, and given up.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left), wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the shortest sensible request, by which it is clear which protocol is spoken.
const FIRST_BYTES: usize = 24;

/// What listeners share.
#[derive(Clone)]
pub struct Shared {
    /// The edge.
    pub edge: Arc<Edge>,
    /// Room for connections.
    pub places: Arc<Semaphore>,
    /// Their tasks.
    pub tasks: TaskTracker,
    /// A connection whose peer takes nothing of what it asked for is closed after this long.
    pub send_stall: Duration,
    /// Stop accepting; let each connection end after the requests it has.
    pub drain: CancellationToken,
}

/// An open connection's place, counted.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    open: prometheus::IntGauge,
}

impl Shared {
    /// A place for a connection, if there is room.
    pub fn place(&self) -> Option<Place> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.edge.metrics.connection_refused("connections-max");
            return None;
        };
        let open = self.edge.metrics.connections.clone();
        open.inc();
        Some(Place { _permit: permit, open })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Accepts until the drain begins.
pub async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, via: Via, shared: Shared) {
    let via = Arc::new(via);
    loop {
        let accepted = tokio::select! {
            () = shared.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = shared.place() else { continue };
        let (tls, via, own) = (tls.clone(), Arc::clone(&via), shared.clone());
        shared.tasks.spawn(async move {
            if let Err(error) = connection(stream, tls, via, &own).await {
                tracing::debug!(error, "connection ended");
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    via: Arc<Via>,
    shared: &Shared,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = Watched::new(stream);
    match tls {
        None => http(stream, via, shared).await,
        Some(tls) => {
            let shaken = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await;
            let stream = shaken
                .map_err(|_| format!("no TLS handshake within {HANDSHAKE_MAX:?}"))?
                .map_err(|error| error.to_string())?;
            http(stream, via, shared).await
        }
    }
}

fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .pipeline_flush(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_MAX);
    builder
}

async fn http<S>(stream: S, via: Arc<Via>, shared: &Shared) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let edge = Arc::clone(&shared.edge);
    let pace = Pace::new();
    let watched = Arc::clone(&pace);
    let service = service_fn(move |request: Request<Incoming>| {
        let (edge, via, pace) = (Arc::clone(&edge), Arc::clone(&via), Arc::clone(&watched));
        async move {
            let (head, body) = request.into_parts();
            let protocol = if head.version == Version::HTTP_2 { "h2" } else { "http/1.1" };
            let asked = Asked { head: &head, protocol, via: &via };
            let body = body.map_err(Into::into).boxed_unsync();
            let response = serve(&edge, asked, body).await;
            Ok::<_, Infallible>(response.map(|body| pace.watch(body)))
        }
    });
    let builder = protocol();
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = pace.stalled(shared.send_stall) => return Err("the peer takes no bytes".to_owned()),
        () = shared.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // What the peer does not take then, the drain's limit ends.
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}

/// A TCP stream that ends a peer which sends too little at first, or takes nothing for long.
struct Watched {
    stream: TcpStream,
    first_bytes: usize,
    first_by: Pin<Box<Sleep>>,
    stalled: Pin<Box<Sleep>>,
    is_stalled: bool,
}

impl Watched {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            first_bytes: 0,
            first_by: Box::pin(tokio::time::sleep(HANDSHAKE_MAX)),
            stalled: Box::pin(tokio::time::sleep(SEND_STALL_MAX)),
            is_stalled: false,
        }
    }

    /// Passes a write's outcome on, unless writes have stalled for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_stalled = false;
            return outcome;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.stalled.as_mut().reset(Instant::now() + SEND_STALL_MAX);
        }
        ready!(self.stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.first_bytes >= FIRST_BYTES {
            return outcome;
        }
        if outcome.is_ready() {
            this.first_bytes += buf.filled().len() - before;
            return outcome;
        }
        ready!(this.first_by.as_mut().poll(cx));
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
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
