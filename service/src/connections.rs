//! Connections of an HTTP/1.1 server inside the operator's network: accepted up to a bound,
//! given up when the other side says nothing or takes nothing, drained at the end.

use crate::Shutdown;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// After a failed accept (no file descriptors, say): time for some to become free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Bounds of a server's connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at a time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// A connection that does not say its next request within this time is closed.
    pub silence_max: Duration,
    /// A connection that takes no byte of its answer for this long is closed, too: a frozen
    /// client must not hold what its request holds.
    pub stall_max: Duration,
    /// How long requests may take to end once shutdown was requested.
    pub drain_max: Duration,
}

/// Serves until shutdown is requested; returns once every connection is closed. Handlers may
/// extract `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &permits, limits.stall_max) => accepted,
            () = shutdown.requested() => break,
        };
        while open.try_join_next().is_some() {}
        match accepted {
            Ok((permit, stream, client)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                open.spawn(async move {
                    connection(stream, client, router, limits, shutdown).await;
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
    if tokio::time::timeout(limits.drain_max, drained).await.is_err() {
        tracing::warn!(connections = open.len(), limit = ?limits.drain_max, "cut while draining");
    }
}

async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    stall_max: Duration,
) -> std::io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // The kernel counts from the last byte that was taken, also while the window is closed.
    SockRef::from(&stream).set_tcp_user_timeout(Some(stall_max))?;
    Ok((permit, stream, client))
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: Shutdown,
) {
    let service = service_fn(|mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(client));
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.silence_max)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMITS: Limits = Limits {
        connections_max: 4,
        silence_max: Duration::from_millis(300),
        stall_max: Duration::from_millis(300),
        drain_max: Duration::from_millis(300),
    };
    const WAIT: Duration = Duration::from_secs(10);

    /// Says when it is dropped.
    struct Held(tokio::sync::mpsc::Sender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    /// A server whose one answer never ends; the receiver hears when the answer is given up.
    async fn endless() -> (SocketAddr, Shutdown, tokio::sync::mpsc::Receiver<()>) {
        let (held, given_up) = tokio::sync::mpsc::channel(1);
        let answer = async move || {
            Body::from_stream(futures::stream::unfold(Held(held.clone()), async |held| {
                Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[7; 65536])), held))
            }))
        };
        let router = Router::new().route("/", axum::routing::get(answer));
        let listener = crate::listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let (addr, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        tokio::spawn(serve(listener, router, LIMITS, shutdown.clone()));
        (addr, shutdown, given_up)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (addr, _shutdown, mut given_up) = endless().await;
        let mut frozen = TcpStream::connect(addr).await.unwrap();
        frozen.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let heard = tokio::time::timeout(WAIT, given_up.recv()).await;
        assert_eq!(heard.expect("the answer must be given up"), Some(()));
        drop(frozen);
    }

    #[tokio::test]
    async fn a_drain_ends_in_time_though_an_answer_does_not() {
        let (addr, shutdown, mut given_up) = endless().await;
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut piece = vec![0; 65536];
        client.read_exact(&mut piece).await.unwrap();
        let taking = tokio::spawn(async move {
            while client.read(&mut piece).await.is_ok_and(|read| read > 0) {}
        });
        shutdown.trigger();
        let heard = tokio::time::timeout(WAIT, given_up.recv()).await;
        assert_eq!(heard.expect("the answer must be cut"), Some(()));
        tokio::time::timeout(WAIT, taking).await.expect("the client must see it").unwrap();
    }

    #[tokio::test]
    async fn a_silent_client_is_closed() {
        let (addr, _shutdown, _) = endless().await;
        let mut silent = TcpStream::connect(addr).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(WAIT, silent.read_to_end(&mut rest)).await;
        closed.expect("the connection must be closed").unwrap();
    }
}
