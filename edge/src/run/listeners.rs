//! The edge's listeners: bound before anything else is opened, served by tasks, and drained.

use super::{DRAIN_MAX, Shared};
use crate::Error;
use crate::settings::Listen;
use crate::tls::Identity;
use http::HeaderValue;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use wire::Via;

/// How long a last heartbeat, and QUIC's farewell, may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// With port 0: how often a port is sought that is free for TCP and UDP.
const PORT_TRIES: usize = 16;

/// A bound listener.
pub(super) struct Bound {
    pub(super) listen: Listen,
    /// For other nodes, not for players.
    pub(super) peer: bool,
    tcp: TcpListener,
    /// One a shard.
    udp: Vec<UdpSocket>,
}

/// The listeners' tasks.
pub(super) struct Listeners {
    accepting: JoinSet<()>,
    quic: Vec<Arc<wire::quic::Listener>>,
}

impl Listeners {
    pub(super) fn start(
        bound: Vec<Bound>,
        identity: Option<&Identity>,
        shared: &Shared,
    ) -> Result<Self, Error> {
        let mut listeners = Self { accepting: JoinSet::new(), quic: Vec::new() };
        for bound in bound {
            let Some(identity) = identity.filter(|_| bound.listen.tls) else {
                let via = Via { peer: bound.peer, ..Via::new("http", None) };
                listeners.accepting.spawn(wire::tcp::accept(bound.tcp, None, via, shared.clone()));
                continue;
            };
            let tls = TlsAcceptor::from(Arc::new(identity.tls.tcp()?));
            let port = bound.listen.addr.port();
            let alt_svc = HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok();
            let via =
                Via { alt_svc, peer: bound.peer, ..Via::new("https", Some(identity.tls.clone())) };
            if !bound.udp.is_empty() {
                let (udp, tls) = (bound.udp, identity.tls.quic()?);
                let quic = wire::quic::Listener::new(udp, tls, &identity.reset, shared)?;
                let quic = Arc::new(quic);
                listeners.quic.push(Arc::clone(&quic));
                let (via, shared) = (via.clone(), shared.clone());
                listeners.accepting.spawn(async move { quic.accept(via, shared).await });
            }
            listeners.accepting.spawn(wire::tcp::accept(bound.tcp, Some(tls), via, shared.clone()));
        }
        Ok(listeners)
    }

    /// Waits for the requests under way, up to [`DRAIN_MAX`].
    pub(super) async fn drain(mut self, shared: &Shared) {
        while self.accepting.join_next().await.is_some() {}
        shared.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, shared.tasks.wait()).await.is_err() {
            tracing::warn!(connections = shared.tasks.len(), "closed in mid-request");
        }
        for quic in &self.quic {
            quic.close(FAREWELL_MAX).await;
        }
    }
}

/// Binds TCP, and for TLS the same port of UDP, with a socket for each shard. TCP comes first: it
/// shares its port with no other process, whose UDP sockets could join these.
pub(super) fn bind(listen: &Listen, peer: bool, shards: NonZeroUsize) -> Result<Bound, Error> {
    let tries = if listen.addr.port() == 0 { PORT_TRIES } else { 1 };
    let mut failed = None;
    for _ in 0..tries {
        let tcp = service::listen::bind(listen.addr, "edge listen")?;
        let addr = tcp.local_addr().map_err(|error| in_use(listen.addr, error))?;
        let listen = Listen { addr, ..*listen };
        if !listen.tls {
            return Ok(Bound { listen, peer, tcp, udp: Vec::new() });
        }
        match wire::quic::bind(addr, shards.get()) {
            Ok(udp) => return Ok(Bound { listen, peer, tcp, udp }),
            Err(error) => failed = Some(in_use(addr, error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::Tls("no port is free for TCP and UDP".into())))
}

fn in_use(addr: SocketAddr, error: std::io::Error) -> Error {
    Error::Service(service::listen::failed(addr, "edge listen (UDP)", error))
}

/// An address that stands for all is reachable by loopback, at least.
pub(super) fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

/// The URLs of the listeners for players, or of those for other nodes.
pub(super) fn own_urls(bound: &[Bound], peer: bool) -> Vec<String> {
    let url = |bound: &Bound| {
        let scheme = if bound.listen.tls { "https" } else { "http" };
        let addr = bound.listen.addr;
        format!("{scheme}://{}", SocketAddr::new(reachable(addr.ip()), addr.port()))
    };
    bound.iter().filter(|bound| bound.peer == peer).map(url).collect()
}
