//! TCP listeners: HTTP/1.1 and 2, plain or over TLS, each connection within its limits.

use crate::pace::Pace;
use crate::shards::Executor;
use crate::unframed::Unframed;
use crate::watched::Watched;
use crate::{HANDSHAKE_MAX, HEADER_BYTES_MAX, Request, STREAMS_MAX, Service, Shared, Via};
use http::Version;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// From the first byte of a request, or from an idle connection's last answer, to the end of
/// the request's head. A player with a full buffer is silent for most of a minute.
const HEADER_READ_MAX: Duration = Duration::from_secs(60);
/// HTTP/1.1: hyper's buffer, which holds the head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// HTTP/2: bytes buffered for sending, a stream.
const STREAM_SEND_BYTES_MAX: usize = 256 << 10;
/// HTTP/2: a silent peer is asked whether it is there, and given up.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left), wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the drain begins.
pub async fn accept<S: Service>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    via: Via,
    shared: Shared<S>,
) {
    let (via, shared) = (Arc::new(via), Arc::new(shared));
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
        // From this runtime's reactor to the shard's.
        let Ok(stream) = stream.into_std() else { continue };
        let (tls, via, own) = (tls.clone(), Arc::clone(&via), Arc::clone(&shared));
        shared.serve(place, async move {
            if let Err(error) = connection(stream, tls, via, &own).await {
                tracing::debug!(error, "connection ended");
            }
        });
    }
}

async fn connection<S: Service>(
    stream: std::net::TcpStream,
    tls: Option<TlsAcceptor>,
    via: Arc<Via>,
    shared: &Arc<Shared<S>>,
) -> Result<(), String> {
    let stream = TcpStream::from_std(stream).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let unframed = Unframed::default();
    let stream = Watched::new(stream, unframed.clone());
    match tls {
        None => http(stream, via, unframed, shared).await,
        Some(tls) => {
            let shaken = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await;
            let kind = shaken.as_ref().ok().and_then(|shaken| shaken.as_ref().ok());
            shared.metrics.tls.shaken(kind.and_then(|stream| stream.get_ref().1.handshake_kind()));
            let stream = shaken
                .map_err(|_| format!("no TLS handshake within {HANDSHAKE_MAX:?}"))?
                .map_err(|error| error.to_string())?;
            http(stream, via, unframed, shared).await
        }
    }
}

fn protocol(executor: Executor) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(executor);
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

async fn http<T, S>(
    stream: T,
    via: Arc<Via>,
    unframed: Unframed,
    shared: &Arc<Shared<S>>,
) -> Result<(), String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let answering = Arc::clone(shared);
    let pace = Pace::new();
    let watched = Arc::clone(&pace);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (answering, via, pace) =
            (Arc::clone(&answering), Arc::clone(&via), Arc::clone(&watched));
        let unframed = unframed.clone();
        async move {
            let (head, body) = request.into_parts();
            let version = head.version;
            let protocol = if head.version == Version::HTTP_2 { "h2" } else { "http/1.1" };
            let body = body.map_err(Into::into).boxed_unsync();
            let response = answering.answer(Request { head, body, protocol, via }).await;
            Ok::<_, Infallible>(response.map(|body| pace.watch(unframed.watch(version, body))))
        }
    });
    let builder = protocol(shared.executor());
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
