//! HTTP/3 over QUIC. The only folder that names quinn and h3.

mod alarm;
mod asking;
mod control;
mod faults;
mod fields;
mod frames;
mod halves;
mod head;
mod heading;
mod huffman;
mod inlet;
mod leaving;
mod listening;
mod metrics;
mod order;
mod outlets;
mod plain;
mod receiving;
mod reset;
mod socket;
mod start;
mod steer;
mod taking;
mod transport;
mod turn;
mod window;

use crate::patience::Wait;
use crate::shards::guarded;
use crate::{Error, HEADER_BYTES_MAX, STREAMS_MAX, Service, Shard, Shared, Via};
use asking::Asked;
pub use asking::FUTILE_MAX;
use bytes::Bytes;
use futures::FutureExt;
use http::StatusCode;
pub(crate) use leaving::{DATA_BYTES_MAX, head_and_data};
use listening::listen;
pub use metrics::Metrics;
use order::Tally;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
pub use reset::ResetKey;
use socket::Socket;
use start::Starts;
use std::fmt::Display;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use steer::Ids;
pub use steer::{SOCKETS_MAX, bind};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use transport::BidiStream;
use turn::Turning;
use window::{SEND_WINDOW_BYTES, Window};

/// A silent connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Handshakes under way of one endpoint; from then on clients prove their address first, by a
/// Retry (RFC 9000 section 8.1.2).
pub const HANDSHAKES_MAX: usize = 128;
/// From the start of a stream to the end of its request's head.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// From one stateless reset of an endpoint to its next one at least (RFC 9000 section 10.3.3 has
/// nothing sent without a bound; a reset is shorter than what it answers, so two ends do not keep it
/// up). All clients of a node that was started anew ask at once: with quinn's 20 ms the last of 50
/// on one endpoint learned of it after seconds.
const RESETS_APART: Duration = Duration::from_micros(100);
/// A connection that drains is quiet when nothing was sent for this long, and four round trips.
const QUIET_MIN: Duration = Duration::from_millis(100);
/// `H3_NO_ERROR` (RFC 9114 section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// Requests have no bodies worth a window.
const RECEIVE_WINDOW_BYTES: u32 = 256 << 10;

/// What Ethernet takes with IPv4; with IPv6 discovery finds 20 bytes less.
const DATAGRAM_BYTES_MAX: u16 = 1472;

type Connection = h3::server::Connection<transport::Connection, Bytes>;

/// An HTTP/3 listener: one endpoint a socket, each on a shard of its own.
pub struct Listener {
    ends: Vec<End>,
    /// Refuses new connections from the beginning of the drain until it is closed.
    refusing: TaskTracker,
}

#[derive(Clone)]
struct End {
    endpoint: Endpoint,
    shard: Arc<Shard>,
    /// Handshakes under way.
    shaking: Arc<AtomicUsize>,
}

impl Listener {
    /// Serves on what [`bind`] gave, with this TLS configuration: one socket a shard, in order.
    /// With the `reset` key of the process before, clients of its connections learn at once that
    /// these are gone.
    ///
    /// # Errors
    /// [`Error::Quic`] when QUIC can't use it, or a socket fails.
    pub fn new(
        sockets: Vec<UdpSocket>,
        tls: rustls::ServerConfig,
        reset: &ResetKey,
        shared: &Shared<impl Service>,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn Display| Error::Quic(error.to_string());
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| failed(&error))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport().map_err(|error| failed(&error))?));
        let (count, generation) = (sockets.len(), rand::random());
        let end = |(number, (socket, shard)): (usize, (UdpSocket, &Arc<Shard>))| {
            let _context = shard.handle().enter();
            let metrics = shared.metrics.quic.clone();
            let socket = Arc::new(Socket::new(socket, shared.levers.merge, metrics)?);
            let panics = shared.metrics.panics.clone();
            let runtime = Arc::new(Turning { socket: Arc::clone(&socket), panics });
            let ids = Ids { shard: number, count, generation };
            let mut own = EndpointConfig::new(Arc::new(reset.hmac()));
            own.cid_generator(move || Box::new(ids)).min_reset_interval(RESETS_APART);
            let config = Some(config.clone());
            let endpoint = Endpoint::new_with_abstract_socket(own, config, socket, runtime)?;
            Ok(End { endpoint, shard: Arc::clone(shard), shaking: Arc::default() })
        };
        let shards = shared.shards.all().iter().cycle();
        let ends = sockets.into_iter().zip(shards).enumerate().map(end);
        let ends = ends.collect::<Result<_, std::io::Error>>();
        let ends = ends.map_err(|error| failed(&error))?;
        Ok(Self { ends, refusing: TaskTracker::new() })
    }

    /// Accepts until the drain begins; connections then end after the requests they have, and new
    /// ones are refused (`CONNECTION_REFUSED`, RFC 9000 section 20.1) until the caller closes the
    /// listener, when these have ended.
    pub async fn accept<S: Service>(&self, via: Via, shared: Shared<S>) {
        let via = Arc::new(via);
        let mut accepting = JoinSet::new();
        for end in &self.ends {
            let shard = Arc::clone(&end.shard);
            let task = accept(end.clone(), Arc::clone(&via), shared.clone());
            accepting.spawn_on(task, shard.handle());
        }
        while accepting.join_next().await.is_some() {}
        for end in &self.ends {
            self.refusing.spawn_on(refuse(end.endpoint.clone()), end.shard.handle());
        }
    }

    /// Closes what is still open, and waits until peers were told.
    pub async fn close(&self, limit: Duration) {
        for end in &self.ends {
            end.endpoint.close(NO_ERROR, b"ending");
        }
        self.refusing.close();
        let idle = async {
            self.refusing.wait().await;
            for end in &self.ends {
                end.endpoint.wait_idle().await;
            }
        };
        let _ = timeout(limit, idle).await;
    }
}

async fn accept<S: Service>(end: End, via: Arc<Via>, shared: Shared<S>) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = shared.drain.cancelled() => return,
            incoming = end.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        // Who sends from an address that is not its own gets no more out of us than it sends.
        let pressed = end.shaking.load(Relaxed) >= HANDSHAKES_MAX;
        if pressed && !incoming.remote_address_validated() {
            shared.metrics.quic.retried.inc();
            // It has come with a token that this forbids; then it is left without an answer.
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = shared.place_on(&end.shard) else {
            incoming.refuse();
            continue;
        };
        let (via, own, shaking) = (Arc::clone(&via), shared.clone(), Shaking::of(&end.shaking));
        shared.serve(place, async move {
            if let Err(error) = connection(incoming, shaking, via, own).await {
                tracing::debug!(error, "QUIC connection ended");
            }
        });
    }
}

/// Tells who comes that nobody is served any more, rather than let them wait: they go elsewhere.
async fn refuse(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        incoming.refuse();
    }
}

/// A handshake under way, counted until it is dropped.
struct Shaking(Arc<AtomicUsize>);

impl Shaking {
    fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn transport() -> Result<TransportConfig, quinn::VarIntBoundsExceeded> {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(4 * RECEIVE_WINDOW_BYTES))
        .send_window(*SEND_WINDOW_BYTES.start())
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(Starts::default()))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX)?));
    Ok(transport)
}

async fn connection<S: Service>(
    incoming: quinn::Incoming,
    shaking: Shaking,
    via: Arc<Via>,
    shared: Shared<S>,
) -> Result<(), String> {
    let shaken = timeout(shared.patience.handshake, incoming).await;
    shared.metrics.tls.shaken_quic(matches!(shaken, Ok(Ok(_))));
    let quic = shaken
        .map_err(|_| {
            shared.metrics.given_up.count(Wait::Handshake);
            format!("no QUIC handshake within {:?}", shared.patience.handshake)
        })?
        .map_err(|error| error.to_string())?;
    drop(shaking);
    let via = via.of_client(quic.remote_address().ip()).named(named(&quic).as_deref());
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEADER_BYTES_MAX.into()).send_grease(false);
    let service = Arc::clone(&shared.service);
    let too_long =
        move || head::frame(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &service.of_unread());
    let transport = transport::Connection::new(quic.clone(), Arc::new(too_long));
    let (inlet, outlets, own) = (transport.inlet(), transport.outlets(), transport.own());
    let mut connection: Connection =
        match timeout(shared.patience.handshake, builder.build(transport)).await {
            Ok(built) => built.map_err(|error| error.to_string())?,
            Err(_) => {
                // It lets no stream be opened.
                shared.metrics.given_up.count(Wait::Handshake);
                return Err("the peer takes no settings".to_owned());
            }
        };
    let tasks = TaskTracker::new();
    let (next, ending) = (AtomicU64::new(0), shared.drain.child_token());
    let (tally, futile) = (Tally::default(), AtomicUsize::new(0));
    let asked = Asked {
        shared,
        via,
        tasks,
        inlet,
        outlets,
        next,
        ending,
        tally,
        window: Window::of(quic.clone()),
        futile,
        quic: quic.clone(),
    };
    let asked = Arc::new(asked);
    let accept = guarded(Arc::clone(&asked).accept(), asked.shared.metrics.panics.clone());
    let accepting = asked.tasks.spawn(accept);
    let served = async {
        loop {
            let accepted = tokio::select! {
                () = asked.ending.cancelled() => break,
                accepted = connection.accept() => accepted.map_err(|error| error.to_string())?,
            };
            let Some(resolver) = accepted else { break };
            asked.resolve(resolver);
        }
        asked.ending.cancel();
        // Its panic is counted; nothing else can go wrong with it.
        let _ = accepting.await;
        drain(&mut connection, &asked, &quic).await;
        Ok(())
    };
    tokio::select! {
        served = served => served,
        Err(broken) = listen(&quic, own(), &asked.ending) => {
            let why = broken.to_string();
            quic.close(broken.code().into(), why.as_bytes());
            Err(why)
        }
        () = idle(&asked) => {
            quic.close(NO_ERROR, b"idle");
            Err("the peer asks for nothing".to_owned())
        }
    }
}

/// Lets a connection end in order once its peer has asked for nothing for long, whatever else it
/// sends. Ends when that does not.
async fn idle<S: Service>(asked: &Asked<S>) {
    let patience = asked.shared.patience;
    asked.idle(patience.head).await;
    let is_first = asked.next.load(Relaxed) == 0;
    asked.shared.metrics.given_up.count(if is_first { Wait::Head } else { Wait::Idle });
    asked.ending.cancel();
    asked.idle(patience.linger).await;
}

/// The name that the client asked the handshake for.
fn named(quic: &quinn::Connection) -> Option<String> {
    let data = quic.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.server_name
}

/// Lets the last requests of a connection end.
async fn drain<S: Service>(
    connection: &mut Connection,
    asked: &Arc<Asked<S>>,
    quic: &quinn::Connection,
) {
    // h3's GOAWAY names the last stream that it was handed: that is the first one of those that
    // are not answered (RFC 9114 section 5.2).
    asked.inlet.hand(BidiStream::elsewhere(asked.next.load(Relaxed)));
    while let Some(Ok(Some(resolver))) = connection.accept().now_or_never() {
        asked.resolve(resolver);
    }
    // Who takes nothing at all does not hold up what else is to end.
    let _ = timeout(asked.shared.patience.send, connection.shutdown(0)).await;
    // From now on what comes is refused.
    asked.inlet.open();
    asked.tasks.close();
    // The connection must be driven while they end, and until what they sent has left: dropping
    // it would cut them.
    tokio::select! {
        () = async { asked.tasks.wait().await; quiet(quic).await } => {}
        () = async {
            while let Ok(Some(resolver)) = connection.accept().await {
                asked.resolve(resolver);
            }
        } => {}
    }
}

/// Waits until nothing has been sent for a few round trips. Who does not read has nothing sent
/// either; the drain's limit is not waited for on its account.
async fn quiet(transport: &quinn::Connection) {
    loop {
        let before = transport.stats().udp_tx.bytes;
        tokio::time::sleep(QUIET_MIN.max(4 * transport.rtt())).await;
        if transport.stats().udp_tx.bytes == before || transport.close_reason().is_some() {
            return;
        }
    }
}
