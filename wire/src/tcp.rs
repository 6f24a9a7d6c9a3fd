//! TCP listeners: HTTP/1.1 and 2, plain or over TLS, each connection within its limits.

use crate::connection::{self, Spoken};
use crate::corked::TlsStream;
use crate::linger::{self, Socket};
use crate::patience::Wait;
use crate::plain::PlainStream;
use crate::unframed::Unframed;
use crate::watched::Watched;
use crate::{Service, Shared, Via};
use socket2::SockRef;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Bytes a socket takes that are not on their way yet: enough for the time until the connection
/// is polled again, little enough for a thousand peers that read slowly.
pub const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// After a failed accept (no descriptors left), wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the drain begins.
pub async fn accept<S: Service>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    via: Via,
    shared: Shared<S>,
) {
    let (via, shared) = (Arc::new(via), Arc::new(shared));
    loop {
        let accepted = tokio::select! {
            () = shared.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = shared.place() else { continue };
        // From this runtime's reactor to the shard's.
        let Ok(stream) = stream.into_std() else { continue };
        let (tls, via, own) = (tls.clone(), via.of_client(peer.ip()), Arc::clone(&shared));
        shared.serve(place, async move {
            if let Err(error) = serve(stream, tls, via, &own).await {
                tracing::debug!(%peer, error, "connection ended");
            }
        });
    }
}

/// Serves a connection until it ends, on both sides where that can be had.
///
/// # Errors
/// How it ended, when not as it should.
pub(crate) async fn serve<S: Service>(
    stream: std::net::TcpStream,
    tls: Option<TlsAcceptor>,
    via: Arc<Via>,
    shared: &Arc<Shared<S>>,
) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let stream = TcpStream::from_std(stream).map_err(told)?;
    stream.set_nodelay(true).map_err(told)?;
    SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX).map_err(told)?;
    let (socket, left) = linger::socket(stream);
    let ended = serve_on(socket, tls, via, shared).await;
    if !left.linger(shared.patience.linger).await {
        shared.metrics.given_up.count(Wait::End);
    }
    ended
}

/// Serves a connection until this side ends it. A future of its own: of what it needs nothing is
/// left then but the socket.
async fn serve_on<S: Service>(
    socket: Socket,
    tls: Option<TlsAcceptor>,
    via: Arc<Via>,
    shared: &Arc<Shared<S>>,
) -> Result<(), String> {
    let unframed = Unframed::default();
    let first = if tls.is_some() { Wait::Handshake } else { Wait::Head };
    let first = (first, shared.metrics.given_up.clone());
    let stream = Watched::new(socket, unframed.clone(), shared.patience, first);
    let Some(tls) = tls else {
        let arena = shared.arena.clone().filter(|_| shared.levers.sendfile);
        let stream = PlainStream::new(stream, arena);
        return connection::serve(stream, None, Spoken::Any, via, unframed, shared).await;
    };
    let (stream, spoken, via) = shake(stream, tls, via, shared).await?;
    let corked = shared.levers.cork.then(|| stream.clone());
    connection::serve(stream, corked, spoken, via, unframed, shared).await
}

/// Shakes hands. A future of its own: what it needs does not stay with the connection.
async fn shake<S: Service>(
    stream: Watched,
    tls: TlsAcceptor,
    via: Arc<Via>,
    shared: &Arc<Shared<S>>,
) -> Result<(TlsStream, Spoken, Arc<Via>), String> {
    let limit = shared.patience.handshake;
    let shaken = tokio::time::timeout(limit, tls.accept(stream)).await;
    let kind = shaken.as_ref().ok().and_then(|shaken| shaken.as_ref().ok());
    shared.metrics.tls.shaken(kind.and_then(|stream| stream.get_ref().1.handshake_kind()));
    let shaken = shaken.map_err(|_| {
        shared.metrics.given_up.count(Wait::Handshake);
        format!("no TLS handshake within {limit:?}")
    })?;
    let (socket, session) = shaken.map_err(|error| error.to_string())?.into_inner();
    let spoken = Spoken::of_alpn(session.alpn_protocol());
    let via = via.named(session.server_name());
    Ok((TlsStream::new(socket, session, shared.levers), spoken, via))
}
