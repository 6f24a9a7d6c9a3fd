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
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt;

/// From the end of a connection from here to the client's own: as long as one far away takes to read
/// what it was answered last.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Bytes that are read, and discarded, meanwhile.
const LINGER_BYTES_MAX: usize = 256 << 10;
/// Of these, at a time.
const BITE_BYTES: usize = 4 << 10;
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
    if timeout(limits.drain_max, drained).await.is_err() {
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
    mut stream: TcpStream,
    client: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: Shutdown,
) {
    let service = service_fn(|mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(client));
        router.clone().oneshot(request.map(Body::new))
    });
    let ended = {
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.silence_max)
                .serve_connection(TokioIo::new(&mut stream), service)
        );
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let has_answered = match &ended {
        Ok(()) => true,
        // By 400 or 431.
        Err(error) => error.is_parse() || error.is_parse_too_large(),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    if has_answered {
        let _ = timeout(LINGER_MAX, ended_by_client(&stream)).await;
    }
}

/// Reads on until the client has read the end of its connection, and ends it, too: the kernel resets
/// one that is closed with bytes unread, as behind a body that was refused, and the client may lose
/// what it was answered by that (RFC 9112 section 9.6).
async fn ended_by_client(stream: &TcpStream) {
    let mut bytes_left = LINGER_BYTES_MAX;
    while bytes_left > 0 && stream.readable().await.is_ok() {
        // No part of what a connection keeps.
        match stream.try_read(&mut [0; BITE_BYTES]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes_left = bytes_left.saturating_sub(bytes),
        }
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
        let heard = timeout(WAIT, given_up.recv()).await;
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
        let heard = timeout(WAIT, given_up.recv()).await;
        assert_eq!(heard.expect("the answer must be cut"), Some(()));
        timeout(WAIT, taking).await.expect("the client must see it").unwrap();
    }

    /// It sends a body that nobody reads, and goes on with that after the answer.
    #[tokio::test]
    async fn a_client_whose_body_is_refused_hears_so() {
        let refuse = async || http::StatusCode::PAYLOAD_TOO_LARGE;
        let router = Router::new().route("/", axum::routing::post(refuse));
        let listener = crate::listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router, LIMITS, Shutdown::new()));
        for (request, answer) in [
            (&b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n"[..], "413"),
            (b"\x16\x03\x01 no request\r\n\r\n", "400"),
        ] {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let sent = [request, &[7; 100_000]].concat();
            client.write_all(&sent).await.unwrap();
            let mut first = [0; 12];
            client.read_exact(&mut first).await.unwrap();
            assert_eq!(first[9..], *answer.as_bytes());
            client.write_all(&[7; 50_000]).await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("an end, no reset");
            assert!(rest.ends_with(b"\r\n\r\n"), "{}", rest.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_silent_client_is_closed() {
        let (addr, _shutdown, _) = endless().await;
        let mut silent = TcpStream::connect(addr).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(WAIT, silent.read_to_end(&mut rest)).await;
        closed.expect("the connection must be closed").unwrap();
    }
}
