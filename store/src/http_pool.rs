//! HTTP connections to an S3 server: a pool with a deadline on every answer and on every
//! pause within one.

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The longest wait for an answer's head, and for the next bytes of its body.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);
/// Idle connections that are kept.
const IDLE_MAX: usize = 64;
/// How long an idle connection is kept: less than servers do.
const IDLE: Duration = Duration::from_secs(15);
/// The slowest upload that is waited for, in bytes a second.
const UPLOAD_RATE_MIN: u64 = 64 << 10;

type BoxError = Box<dyn StdError + Send + Sync>;

/// What failed, in words that tell whether the server can have seen the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection.
    Connect,
    /// The connection broke.
    Broken,
    /// No answer in time.
    TimedOut,
}

/// A request that got no (whole) answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) source: BoxError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut source = self.source.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for Failure {}

impl Failure {
    fn timed_out(limit: Duration) -> Self {
        Self { stage: Stage::TimedOut, source: format!("no answer within {limit:?}").into() }
    }
}

/// The pool.
pub(crate) struct Pool<B>(Client<HttpsConnector<HttpConnector>, B>);

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new() -> Result<Self, service::Error> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_MAX);
        builder.pool_idle_timeout(IDLE);
        Ok(Self(builder.build(service::client::connector(None)?)))
    }

    /// Sends a request with a body of `body_bytes`; the head of the answer, whatever its
    /// status.
    pub(crate) async fn send(
        &self,
        request: Request<B>,
        body_bytes: u64,
    ) -> Result<Response<Patient>, Failure> {
        let limit = WAIT_MAX + Duration::from_secs(body_bytes / UPLOAD_RATE_MIN);
        match tokio::time::timeout(limit, self.0.request(request)).await {
            Err(_) => Err(Failure::timed_out(limit)),
            Ok(Err(error)) => {
                let stage = if error.is_connect() { Stage::Connect } else { Stage::Broken };
                Err(Failure { stage, source: error.into() })
            }
            Ok(Ok(response)) => Ok(response.map(Patient::new)),
        }
    }
}

/// A body whose every pause is bounded.
pub(crate) struct Patient {
    body: Incoming,
    pause: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(body: Incoming) -> Self {
        Self { body, pause: Box::pin(tokio::time::sleep(WAIT_MAX)) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            // The clock runs from here, though a slow reader may come back late: it looks at
            // the body first.
            let next = Instant::now() + WAIT_MAX;
            self.pause.as_mut().reset(next);
            let broken =
                |error: hyper::Error| Failure { stage: Stage::Broken, source: error.into() };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        ready!(self.pause.as_mut().poll(cx));
        Poll::Ready(Some(Err(Failure::timed_out(WAIT_MAX))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
