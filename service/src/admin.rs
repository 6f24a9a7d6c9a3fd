//! The admin port of every server: `/metrics`, `/healthz`, `/readyz`.
//!
//! It listens apart from the traffic port, on loopback by default, and says nothing secret.

use crate::connections::{self, Limits};
use crate::{Error, Shutdown, listen};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Some operators, their tools, and what reads the metrics.
const LIMITS: Limits = Limits {
    connections_max: 256,
    // Metrics are read each minute, or more often, over one connection.
    silence_max: Duration::from_secs(120),
    stall_max: Duration::from_secs(30),
    drain_max: Duration::from_secs(10),
};

/// Whether a server can do its work now: what `/readyz` answers.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Not ready yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// The last that was said.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A bound admin port.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    ready: Ready,
}

impl Admin {
    /// Listens on `addr` (port 0: a free one).
    ///
    /// # Errors
    /// [`Error::InUse`] or [`Error::Listen`].
    pub async fn bind(addr: SocketAddr) -> Result<Self, Error> {
        let listener = listen::bind(addr, "admin")?;
        let addr = listener.local_addr().map_err(|error| listen::failed(addr, "admin", error))?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until shutdown is requested. `/healthz` is 200 while the process runs,
    /// `/readyz` 200 or 503, `/metrics` the registry in Prometheus' text format.
    pub async fn serve(self, registry: Registry, ready: Ready, extra: Router, shutdown: Shutdown) {
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { registry, ready })
            .merge(extra);
        connections::serve(self.listener, router, LIMITS, shutdown).await;
    }
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.ready.is_set() {
        return (StatusCode::OK, "ready\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&shared.registry.gather(), &mut text) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the metrics can't be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
