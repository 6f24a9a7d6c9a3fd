//! Connections to one hop: a pool with limits on what a head may hold, and a deadline for
//! each connection.
//!
//! A pool connects to its hop alone, whatever the URL of a request says: the URL carries the
//! host that the request is for, which may be the site's.

use crate::fault::ConnectTimedOut;
use crate::upload::SendBody;
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::Service;

/// Idle connections kept to a hop for each host that is asked for.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept: less than servers keep it, so that few are lost in use.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// The longest head of an answer; a read of a body takes as much at once.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most fields of a head.
pub(crate) const FIELDS_MAX: usize = 200;
/// A body of HTTP/2 that nobody reads holds this much.
const H2_STREAM_BYTES_MAX: u32 = 2 << 20;
const H2_CONNECTION_BYTES_MAX: u32 = 16 << 20;
/// An HTTP/2 connection without a sign of life is given up after both.
const H2_PING: Duration = Duration::from_secs(10);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Tls = HttpsConnector<HttpConnector>;
pub(crate) type Pool = Client<Connector, SendBody>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to one place.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tls: Tls,
    target: Uri,
    limit: Duration,
}

/// A pool of connections to `target`, each of which is there within `limit` or not at all.
pub(crate) fn pool(tls: &Tls, target: Uri, limit: Duration) -> Pool {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .http1_max_headers(FIELDS_MAX)
        .http2_max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .http2_initial_stream_window_size(H2_STREAM_BYTES_MAX)
        .http2_initial_connection_window_size(H2_CONNECTION_BYTES_MAX)
        .http2_keep_alive_interval(H2_PING)
        .http2_keep_alive_timeout(H2_PING_TIMEOUT)
        .build(Connector { tls: tls.clone(), target, limit })
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(cx)
    }

    fn call(&mut self, _asked: Uri) -> Self::Future {
        let connecting = self.tls.call(self.target.clone());
        let limit = self.limit;
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
            Ok(stream)
        })
    }
}
