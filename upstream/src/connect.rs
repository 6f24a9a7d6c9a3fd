//! Connections to one hop: clients with limits on what a head may hold, and a deadline for each
//! connection.
//!
//! They connect to their hop alone, whatever the URL of a request says: over TLS, where HTTP/2 may
//! be spoken, the URL carries the host that the request is for, which may be the site's.

use crate::fault::ConnectTimedOut;
use crate::idle::Idle;
use crate::link::Linked;
use crate::upload::SendBody;
use crate::watched::Watched;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// Idle connections kept to a hop.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept. Some servers keep it for a few seconds only: what they
/// close while it is idle is seen, and what they close in use is sent anew.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Of HTTP/2 it takes no request from then on: a little earlier than the pool drops it, with answers
/// under way or not, and tells nobody.
const H2_IDLE_MAX: Duration = Duration::from_secs(19);
/// A connection takes requests for a time between half of this and the whole: the name may have
/// another address since, or the address other servers behind it, which get none otherwise.
const AGE_MAX: Duration = Duration::from_secs(300);
/// The longest head of an answer; a read of a body takes as much at once.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most fields of a head.
pub(crate) const FIELDS_MAX: usize = 200;
/// A body of HTTP/2 that nobody reads holds this much at most, less than the kernel would of
/// HTTP/1.1: 20 MiB/s, 100 ms from the origin.
const H2_STREAM_BYTES_MAX: u32 = 2 << 20;
/// However little memory there is, as much as goes out in one round trip of 25 ms at 10 MiB/s.
const H2_STREAM_BYTES_MIN: u32 = 256 << 10;
/// So many such bodies, half the default of `in-flight-max`, hold no more than the node's memory.
const H2_BODIES: u64 = 256;
/// Requests at a time over one connection, whatever the server takes: the default of `in-flight-max`.
pub(crate) const H2_STREAMS_MAX: u32 = 512;
/// All of a connection: as much as all of its bodies, so that those which slow clients don't read
/// take nothing from the others.
const fn h2_connection_bytes(stream_bytes: u32) -> u32 {
    H2_STREAMS_MAX * stream_bytes
}
/// An HTTP/2 connection without a sign of life is given up after both.
const H2_PING: Duration = Duration::from_secs(10);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Tls = HttpsConnector<HttpConnector>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to one place.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tls: Tls,
    target: Uri,
    limit: Duration,
    age_max: Duration,
    /// Those to all hosts, where these have connections of their own.
    idle: Option<Arc<Idle>>,
    h2_stream_bytes: u32,
}

/// How much of a body over HTTP/2 may come that nobody has read, where the node has so much memory.
pub(crate) fn h2_stream_bytes(memory_bytes: u64) -> u32 {
    let share = u32::try_from(memory_bytes / H2_BODIES).unwrap_or(u32::MAX);
    share.clamp(H2_STREAM_BYTES_MIN, H2_STREAM_BYTES_MAX)
}

impl Connector {
    /// To `target`; each connection is there within `limit` or not at all. Of HTTP/2, so many bytes
    /// of a body may come that nobody has read.
    pub(crate) fn new(tls: &Tls, target: Uri, limit: Duration, h2_stream_bytes: u32) -> Self {
        let idle = is_tls(&target).then(|| Arc::new(Idle::new(limit)));
        Self { tls: tls.clone(), target, limit, age_max: AGE_MAX, idle, h2_stream_bytes }
    }

    /// How long it may take until a connection is there.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether a connection may turn out to be of HTTP/2.
    pub(crate) fn may_be_shared(&self) -> bool {
        is_tls(&self.target)
    }

    /// A client that knows no connections yet.
    pub(crate) fn client(&self) -> Client<Self, SendBody> {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Who sends them anew is to choose the connection.
            .retry_canceled_requests(false)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(FIELDS_MAX)
            // RFC 9112 section 5.1: a proxy removes them.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http2_max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .http2_initial_stream_window_size(self.h2_stream_bytes)
            .http2_initial_connection_window_size(h2_connection_bytes(self.h2_stream_bytes))
            .http2_keep_alive_interval(H2_PING)
            .http2_keep_alive_timeout(H2_PING_TIMEOUT)
            .build(self.clone())
    }
}

fn is_tls(target: &Uri) -> bool {
    target.scheme() == Some(&Scheme::HTTPS)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched<Linked>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(cx)
    }

    fn call(&mut self, _asked: Uri) -> Self::Future {
        let connecting = self.tls.call(self.target.clone());
        let (limit, idle) = (self.limit, self.idle.clone());
        let age = self.age_max.mul_f64(rand::random_range(0.5..1.0));
        Box::pin(async move {
            let stream = tokio::time::timeout(limit, connecting)
                .await
                .map_err(|_| ConnectTimedOut(limit))??;
            // Requests are small and complete: none waits for the next one.
            match &stream {
                MaybeHttpsStream::Http(tcp) => tcp.inner().set_nodelay(true),
                MaybeHttpsStream::Https(tls) => {
                    tls.inner().get_ref().0.inner().inner().set_nodelay(true)
                }
            }?;
            Ok(TokioIo::new(Watched::new(Linked::new(stream, age, H2_IDLE_MAX, idle.as_ref()))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use http::Request;
    use prometheus::IntCounter;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn bodies_that_nobody_reads_hold_no_more_than_there_is_memory() {
        let of = |mib: u64| u64::from(h2_stream_bytes(mib << 20)) >> 10;
        assert_eq!([16, 64, 128, 512, 1 << 20].map(of), [256, 256, 512, 2048, 2048]);
        // What a connection may be told (RFC 9113 section 6.9.1).
        assert!(h2_connection_bytes(H2_STREAM_BYTES_MAX) < 1 << 31);
    }

    /// Answers without a body, and counts connections.
    async fn server() -> (Uri, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let counted = came.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    // Requests of this test come in one piece.
                    while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                        _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await;
                    }
                });
            }
        });
        (uri, came)
    }

    #[tokio::test]
    async fn a_connection_that_is_old_takes_no_more_requests() {
        for (age_max, connections) in [(AGE_MAX, 1), (Duration::ZERO, 3)] {
            let (target, came) = server().await;
            let tls = service::client::connector(None).unwrap();
            let limit = Duration::from_secs(10);
            let of = Connector::new(&tls, target.clone(), limit, H2_STREAM_BYTES_MAX);
            let connector = Connector { age_max, ..of };
            let pool = Pool::new(connector, IntCounter::new("anew", "none").unwrap());
            for _ in 0..3 {
                let mut request = Request::new(SendBody::new(None));
                *request.uri_mut() = target.clone();
                assert!(pool.request(request).await.is_ok());
            }
            assert_eq!(came.load(Relaxed), connections);
        }
    }
}
