//! What connections serve, and what they share.

use crate::Levers;
use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::combinators::UnsyncBoxBody;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Answers requests, whatever they came by.
pub trait Service: Send + Sync + 'static {
    /// The body of its answers. Its end is a clean end; after an error the connection, or the
    /// stream, is cut, so that no peer takes what it has for the whole.
    type Body: http_body::Body<
            Data = Bytes,
            Error: Display + Send + Into<Box<dyn std::error::Error + Send + Sync>>,
        > + Send
        + Unpin
        + 'static;

    /// Answers one request.
    fn answer(
        self: &Arc<Self>,
        request: Request,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A request and how it came.
pub struct Request {
    /// Its head.
    pub head: http::request::Parts,
    /// Its body.
    pub body: RequestBody,
    /// `http/1.1`, `h2` or `h3`.
    pub protocol: &'static str,
    /// What its connection tells.
    pub via: Arc<Via>,
}

/// What a connection tells of each of its requests.
#[derive(Debug, Clone)]
pub struct Via {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The `Alt-Svc` field, where there is an HTTP/3 listener beside this one.
    pub alt_svc: Option<HeaderValue>,
    /// It is another node of this network, not a client.
    pub peer: bool,
}

/// Counters of connections.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connections open now.
    pub open: IntGauge,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let open = IntGauge::new("nearcast_edge_connections", "Connections open now")?;
        let opts =
            Opts::new("nearcast_edge_connections_refused_total", "Connections closed at once");
        let refused = IntCounterVec::new(opts, &["reason"])?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { open, refused })
    }
}

/// What listeners share.
pub struct Shared<S> {
    /// Answers.
    pub service: Arc<S>,
    /// Room for connections.
    pub places: Arc<Semaphore>,
    /// Their tasks.
    pub tasks: TaskTracker,
    /// A connection whose peer takes nothing of what it asked for is closed after this long.
    pub send_stall: Duration,
    /// Parts of the write path that are on.
    pub levers: Levers,
    /// Stop accepting; let each connection end after the requests it has.
    pub drain: CancellationToken,
    /// Counters.
    pub metrics: Metrics,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            places: Arc::clone(&self.places),
            tasks: self.tasks.clone(),
            send_stall: self.send_stall,
            levers: self.levers,
            drain: self.drain.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// An open connection's place, counted.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl<S> Shared<S> {
    /// A place for a connection, if there is room.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused.with_label_values(&["connections-max"]).inc();
            return None;
        };
        let open = self.metrics.open.clone();
        open.inc();
        Some(Place { _permit: permit, open })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}
