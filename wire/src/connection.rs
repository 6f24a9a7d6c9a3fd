//! HTTP/1.1 and 2 on a stream: requests to the service, within the limits, until the
//! connection ends.

use crate::aside::Aside;
use crate::corked::TlsStream;
use crate::direct::Direct;
use crate::half::HalfOpen;
use crate::lengths::Lengths;
use crate::pace::Pace;
use crate::patience::Wait;
use crate::responding::{Requests, Serving};
use crate::shards::Executor;
use crate::timer::HeadTimer;
use crate::turns::Turns;
use crate::unframed::Unframed;
use crate::{HEADER_BYTES_MAX, STREAMS_MAX, Service, Shared, Via};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// HTTP/1.1: hyper's buffer, which holds the head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// HTTP/2: bytes buffered for sending, a stream.
const STREAM_SEND_BYTES_MAX: usize = 256 << 10;
/// HTTP/2: a silent peer is asked whether it is there, and given up.
const PING_EVERY: Duration = Duration::from_secs(20);
/// By then the answer is here over 10 kB/s, too: before a PING leave a batch and what the socket
/// has. Who takes nothing at all is found sooner, by its socket or its pace, whatever it answers.
const PING_ANSWER_MAX: Duration = Duration::from_secs(60);

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

fn protocol(
    executor: Executor,
    spoken: Spoken,
    (timer, head): (HeadTimer, Duration),
) -> auto::Builder<Executor> {
    let builder = auto::Builder::new(executor);
    let mut builder = match spoken {
        Spoken::Http1 => builder.http1_only(),
        Spoken::Http2 => builder.http2_only(),
        Spoken::Any => builder,
    };
    // At most 100 fields: that is hyper's own limit, and to name it would have hyper fill room for
    // as many for each request.
    builder
        .http1()
        .timer(timer)
        .header_read_timeout(head)
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

/// What a connection is told beside its bytes.
enum Seldom {
    Stalled,
    Idle(Wait),
    Drains,
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
    let pace = Pace::new();
    if let Some(corked) = &corked {
        corked.heed(&pace);
    }
    let (stream, answers) = HalfOpen::new(stream, shared.patience.quiet);
    let (shared_own, pace_own) = (Arc::clone(shared), Arc::clone(&pace));
    let requests = Requests::new(shared_own, via, pace_own, unframed, answers.clone());
    let requests = Arc::new(requests);
    let head = (HeadTimer::default(), shared.patience.head);
    let is_http1 = spoken != Spoken::Http2;
    let (lengths, is_direct) = (Lengths::new(is_http1), is_http1 && shared.levers.direct);
    let stream = Direct::new(stream, Arc::clone(&requests), head.clone(), lengths, is_direct);
    let builder = protocol(shared.executor(corked.is_some()), spoken, head);
    let asked = Arc::clone(&requests);
    let begin = || builder.serve_connection(TokioIo::new(stream), Serving(requests)).into_owned();
    // Where HTTP/2 is known before its first byte, which is over TLS.
    let connection = match spoken == Spoken::Http2 && shared.levers.direct {
        true => crate::at_hand::begin(asked, begin),
        false => begin(),
    };
    let connection = std::pin::pin!(connection);
    let left = {
        let corked = corked.clone();
        &move || corked.as_ref().map_or(0, TlsStream::left_bytes)
    };
    let mut turns = Turns::new(connection, corked);
    let stalled = || {
        shared.metrics.given_up.count(Wait::Send);
        "the peer takes no bytes".to_owned()
    };
    let seldom = std::pin::pin!(async {
        tokio::select! {
            () = pace.stalled(shared.patience.send, left) => Seldom::Stalled,
            wait = pace.idle(shared.patience.head, left), if spoken != Spoken::Http1 =>
                Seldom::Idle(wait),
            () = shared.drain.cancelled() => Seldom::Drains,
        }
    });
    let ended = tokio::select! {
        biased;
        ended = &mut turns => ended,
        seldom = Aside::new(seldom) => match seldom {
            Seldom::Stalled => return Err(stalled()),
            Seldom::Idle(wait) => {
                shared.metrics.given_up.count(wait);
                // A request that is on its way here is answered, or its peer told that it was not
                // (RFC 9113 section 6.8). Who does not even answer that is not waited for.
                turns.connection().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = &mut turns => ended,
                    () = pace.stalled(shared.patience.send, left) => return Err(stalled()),
                    _ = pace.idle(shared.patience.linger, left) => {
                        return Err("the peer asks for nothing".to_owned());
                    }
                }
            }
            Seldom::Drains => {
                turns.connection().graceful_shutdown();
                // What the peer does not take then, the drain's limit ends.
                turns.await
            }
        }
    };
    ended.map_err(|error| {
        shared.metrics.given_up.count_ended(&*error, answers.awaited());
        shared.metrics.unread.count_ended(&*error);
        error.to_string()
    })
}
