//! Connections to one hop: a pool with limits on what a head may hold, a deadline for each
//! connection, and a fresh one for a request whose own was given up by the other side, or that
//! the other side did not take.
//!
//! A pool connects to its hop alone, whatever the URL of a request says: the URL carries the
//! host that the request is for, which may be the site's.

use crate::fault::{self, ConnectTimedOut};
use crate::link::{Link, Linked};
use crate::upload::SendBody;
use crate::watched::Watched;
use http::{Extensions, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntCounter;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::Service;

/// Idle connections kept to a hop for each host that is asked for.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept. Some servers keep it for a few seconds only: what they
/// close while it is idle is seen, and what they close in use is sent anew.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// A connection takes requests for a time between half of this and the whole: the name may have
/// another address since, or the address other servers behind it, which get none otherwise.
const AGE_MAX: Duration = Duration::from_secs(300);
/// The longest head of an answer; a read of a body takes as much at once.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most fields of a head.
pub(crate) const FIELDS_MAX: usize = 200;
/// A body of HTTP/2 that nobody reads holds this much, less than the kernel would of HTTP/1.1.
const H2_STREAM_BYTES_MAX: u32 = 2 << 20;
/// All of a connection: as much as 512 bodies, the default of `in-flight-max`, so that those which
/// slow clients don't read take nothing from the others.
const H2_CONNECTION_BYTES_MAX: u32 = 1 << 30;
/// An HTTP/2 connection without a sign of life is given up after both.
const H2_PING: Duration = Duration::from_secs(10);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is sent anew this often, should each of its connections turn out to be given up, or
/// each server refuse it.
const ANEW_MAX: u32 = 3;

pub(crate) type Tls = HttpsConnector<HttpConnector>;

/// Connections to one place.
pub(crate) struct Pool {
    client: Client<Connector, SendBody>,
    /// Those that requests went over, as long as they are there.
    known: Mutex<Vec<(Arc<Link>, CaptureConnection)>>,
    /// Requests sent anew.
    anew: IntCounter,
}

/// Why a request has no answer.
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    pub(crate) fate: Fate,
    /// The other side dropped the connection with something unread.
    pub(crate) is_reset: bool,
}

/// What has become of a request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server has not looked at it: it said so (RFC 9113 sections 6.8 and 8.7), or none of it
    /// was sent. Any request may be sent anew.
    Unprocessed,
    /// Its connection was there before it, and given up by the other side without a byte of an
    /// answer: that says nothing of the server.
    GivenUp,
    /// The server may have done anything with it.
    Unknown,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to one place.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tls: Tls,
    target: Uri,
    limit: Duration,
    age_max: Duration,
}

/// A pool of connections to `target`, each of which is there within `limit` or not at all.
pub(crate) fn pool(tls: &Tls, target: Uri, limit: Duration, anew: IntCounter) -> Pool {
    of(Connector { tls: tls.clone(), target, limit, age_max: AGE_MAX }, anew)
}

fn of(connector: Connector, anew: IntCounter) -> Pool {
    let client = Client::builder(TokioExecutor::new())
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
        .build(connector);
    Pool { client, known: Mutex::default(), anew }
}

impl Pool {
    /// Sends a request; anew where all of its body is there still, and it was not processed, or may
    /// be sent twice (RFC 9110 section 9.2.2) and its connection was given up.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn request(
        &self,
        request: Request<SendBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut times = 0;
        loop {
            let outcome = self.once(request.clone()).await;
            let may_again = match outcome.as_ref().map_err(|unanswered| unanswered.fate) {
                Err(Fate::Unprocessed) => true,
                Err(Fate::GivenUp) => request.method().is_idempotent(),
                Ok(_) | Err(Fate::Unknown) => false,
            };
            if !may_again || !request.body().is_here() || times == ANEW_MAX {
                return outcome;
            }
            times += 1;
            self.anew.inc();
        }
    }

    async fn once(&self, mut request: Request<SendBody>) -> Result<Response<Incoming>, Unanswered> {
        let captured = capture_connection(&mut request);
        let began = Instant::now();
        match self.client.request(request).await {
            Ok(mut response) => {
                if let Some(link) = response.extensions_mut().remove::<Arc<Link>>() {
                    if link.is_old() {
                        poison(&captured);
                    }
                    self.know(link, captured);
                }
                Ok(response)
            }
            Err(error) => {
                let link = link(&captured);
                let fate = fate(&error, link.as_deref(), began);
                match fate {
                    // That connection takes no more, or no more at a time.
                    Fate::Unprocessed => poison(&captured),
                    Fate::GivenUp => self.retire(began),
                    Fate::Unknown => {}
                }
                let is_reset = link.is_some_and(|link| link.is_reset());
                Err(Unanswered { error, fate, is_reset })
            }
        }
    }

    fn know(&self, link: Arc<Link>, captured: CaptureConnection) {
        if !link.listed.swap(true, Relaxed) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|(link, _)| !link.is_closed());
            known.push((link, captured));
        }
    }

    /// No request goes any more over connections opened before then that have not been heard of
    /// since: what became of one may have become of all, as when another server has taken over
    /// the address.
    fn retire(&self, before: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(link, captured)| {
            let is_old = link.is_unheard_since(before);
            if is_old {
                poison(captured);
            }
            !is_old
        });
    }
}

/// What became of a request that began then.
fn fate(error: &Error, link: Option<&Link>, began: Instant) -> Fate {
    let is_shared = link.is_some_and(Link::is_shared);
    let is_gone = is_shared && fault::is_unqueued(error);
    if fault::is_refused(error) || (is_shared && fault::is_unsent(error)) {
        Fate::Unprocessed
    } else if is_gone || link.is_some_and(|link| link.is_stale(began)) {
        Fate::GivenUp
    } else {
        Fate::Unknown
    }
}

/// No request goes over it any more.
fn poison(captured: &CaptureConnection) {
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.poison();
    }
}

fn link(captured: &CaptureConnection) -> Option<Arc<Link>> {
    let mut extras = Extensions::new();
    captured.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove()
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
        let limit = self.limit;
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
            Ok(TokioIo::new(Watched::new(Linked::new(stream, age))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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
            let connector = Connector { tls, target: target.clone(), limit, age_max };
            let pool = of(connector, IntCounter::new("anew", "none").unwrap());
            for _ in 0..3 {
                let mut request = Request::new(SendBody::new(None));
                *request.uri_mut() = target.clone();
                assert!(pool.request(request).await.is_ok());
            }
            assert_eq!(came.load(Relaxed), connections);
        }
    }
}
