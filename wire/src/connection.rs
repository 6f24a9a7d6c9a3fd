//! HTTP/1.1 and 2 on a stream: requests to the service, within the limits, until the
//! connection ends.

use crate::corked::TlsStream;
use crate::frames::{Cut, FRAME_BYTES};
use crate::half::{Counted, HalfOpen};
use crate::pace::Pace;
use crate::patience::Wait;
use crate::shards::Executor;
use crate::turns::Turns;
use crate::unframed::Unframed;
use crate::{HEADER_BYTES_MAX, Request, STREAMS_MAX, Service, Shared, Via};
use http::Version;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// HTTP/1.1: hyper's buffer, which holds the head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// HTTP/2: bytes buffered for sending, a stream.
const STREAM_SEND_BYTES_MAX: usize = 256 << 10;
/// HTTP/2: a silent peer is asked whether it is there, and given up.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a connection speaks. Where that is known before its first byte, nobody looks for HTTP/2's
/// preface, which would double the buffer that an idle HTTP/1.1 connection keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
    /// Its first bytes tell.
    Any,
}

impl Spoken {
    /// By what the handshake agreed on (RFC 7301).
    pub fn of_alpn(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(b"http/1.1") => Self::Http1,
            Some(b"h2") => Self::Http2,
            _ => Self::Any,
        }
    }
}

fn protocol(executor: Executor, spoken: Spoken, head: Duration) -> auto::Builder<Executor> {
    let builder = auto::Builder::new(executor);
    let mut builder = match spoken {
        Spoken::Http1 => builder.http1_only(),
        Spoken::Http2 => builder.http2_only(),
        Spoken::Any => builder,
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
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

/// Serves a stream until its connection ends. Over TLS, `corked` is the same stream.
///
/// # Errors
/// How it ended, when not as it should.
pub async fn serve<T, S>(
    stream: T,
    corked: Option<TlsStream>,
    spoken: Spoken,
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
    let (stream, answers) = HalfOpen::new(stream, shared.patience.quiet);
    let watched = Arc::clone(&pace);
    let cuts = !shared.levers.frames;
    let counted = answers.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (answering, via, pace) =
            (Arc::clone(&answering), Arc::clone(&via), Arc::clone(&watched));
        let unframed = unframed.clone();
        let version = request.version();
        let is_h2 = version == Version::HTTP_2;
        let asked = (!is_h2).then(|| counted.asked(request.body().is_end_stream()));
        async move {
            let (head, body) = request.into_parts();
            let protocol = if is_h2 { "h2" } else { "http/1.1" };
            let bytes_max = if is_h2 && cuts { FRAME_BYTES } else { usize::MAX };
            let body = body.map_err(Into::into).boxed_unsync();
            let response = answering.answer(Request { head, body, protocol, via }).await;
            // An HTTP/1.1 peer that takes nothing is found by its socket.
            let response = response.map(|body| {
                let body = Counted::new(unframed.watch(version, body), asked);
                pace.watch(Cut::new(body, bytes_max), is_h2)
            });
            Ok::<_, Infallible>(response)
        }
    });
    let connection = protocol(shared.executor(), spoken, shared.patience.head)
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    let connection = std::pin::pin!(connection);
    let mut turns = Turns::new(connection, corked);
    let ended = tokio::select! {
        ended = &mut turns => ended,
        () = pace.stalled(shared.patience.send) => {
            shared.metrics.given_up.count(Wait::Send);
            return Err("the peer takes no bytes".to_owned());
        }
        () = shared.drain.cancelled() => {
            turns.connection().graceful_shutdown();
            // What the peer does not take then, the drain's limit ends.
            turns.await
        }
    };
    ended.map_err(|error| {
        shared.metrics.given_up.count_ended(&*error, answers.has_part());
        shared.metrics.unread.count_ended(&*error);
        error.to_string()
    })
}
