//! Connections of the API: accepted up to a bound, given up when they say nothing, drained at
//! the end. HTTP/1.1: apps, edges and browsers speak it, and TLS ends before this machine.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Shutdown;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Connections open at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// A connection that does not say its next request within this time is closed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long requests may take to end once shutdown was requested.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors, say): time for some to become free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until shutdown is requested; returns once every connection is closed.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &permits) => accepted,
            () = shutdown.requested() => break,
        };
        while open.try_join_next().is_some() {}
        match accepted {
            Ok((permit, stream, client)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                open.spawn(async move {
                    connection(stream, client, router, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!(connections = open.len(), "cut after {DRAIN_MAX:?} of draining");
    }
}

async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(tokio::sync::OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((permit, stream, client))
}

async fn connection(stream: TcpStream, client: SocketAddr, router: Router, shutdown: Shutdown) {
    let service = service_fn(|mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(client));
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
