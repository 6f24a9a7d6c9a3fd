//! HTTP/3 over QUIC. The only folder that names quinn and h3.

mod head;
mod metrics;
mod receiving;
mod reset;
mod socket;
mod steer;
mod transport;
mod turn;

use crate::patience::Wait;
use crate::shards::guarded;
use crate::{Error, HEADER_BYTES_MAX, Request, STREAMS_MAX, Service, Shard, Shared, Via};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use h3::server::RequestResolver;
use http::Response;
use http_body_util::BodyExt;
pub use metrics::Metrics;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use receiving::Receiving;
pub use reset::ResetKey;
use socket::Socket;
use std::fmt::Display;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use steer::Ids;
pub use steer::{SOCKETS_MAX, bind};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use transport::Outlets;
use turn::Turning;

/// A silent connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Handshakes under way of one endpoint; from then on clients prove their address first, by a
/// Retry (RFC 9000 section 8.1.2).
pub const HANDSHAKES_MAX: usize = 128;
/// From the start of a stream to the end of its request's head.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Bytes sent and not yet acknowledged, a connection: twice what 100 Mbit/s have under way in
/// 80 ms. What is sent is referred to, not copied: this is what a slow reader pins of memory.
const SEND_WINDOW_BYTES: u64 = 2 << 20;
/// A connection that drains is quiet when nothing was sent for this long, and four round trips.
const QUIET_MIN: Duration = Duration::from_millis(100);
/// The urgency of RFC 9218 section 4.1 that a request without one has.
const URGENCY_DEFAULT: u8 = 3;
/// `H3_INTERNAL_ERROR` (RFC 9114 section 8.1).
const INTERNAL_ERROR: VarInt = VarInt::from_u32(0x102);
/// Requests have no bodies worth a window.
const RECEIVE_WINDOW_BYTES: u32 = 256 << 10;
/// A body is handed to h3 in pieces of at most this, so that a stall is seen in time.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// What Ethernet takes with IPv4; with IPv6 discovery finds 20 bytes less.
const DATAGRAM_BYTES_MAX: u16 = 1472;

type Connection = h3::server::Connection<transport::Connection, Bytes>;

/// An HTTP/3 listener: one endpoint a socket, each on a shard of its own.
pub struct Listener(Vec<End>);

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
            own.cid_generator(move || Box::new(ids));
            let config = Some(config.clone());
            let endpoint = Endpoint::new_with_abstract_socket(own, config, socket, runtime)?;
            Ok(End { endpoint, shard: Arc::clone(shard), shaking: Arc::default() })
        };
        let shards = shared.shards.all().iter().cycle();
        let ends = sockets.into_iter().zip(shards).enumerate().map(end);
        let ends = ends.collect::<Result<_, std::io::Error>>();
        ends.map(Self).map_err(|error| failed(&error))
    }

    /// Accepts until the drain begins; connections then end after the requests they have.
    /// The caller closes the listener when these have ended.
    pub async fn accept<S: Service>(&self, via: Via, shared: Shared<S>) {
        let via = Arc::new(via);
        let mut accepting = JoinSet::new();
        for end in &self.0 {
            let shard = Arc::clone(&end.shard);
            let task = accept(end.clone(), Arc::clone(&via), shared.clone());
            accepting.spawn_on(task, shard.handle());
        }
        while accepting.join_next().await.is_some() {}
    }

    /// Closes what is still open, and waits until peers were told.
    pub async fn close(&self, limit: Duration) {
        for end in &self.0 {
            end.endpoint.close(VarInt::from_u32(0x100), b"ending");
        }
        let idle = async {
            for end in &self.0 {
                end.endpoint.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(limit, idle).await;
    }
}

async fn accept<S: Service>(end: End, via: Arc<Via>, shared: Shared<S>) {
    loop {
        let incoming = tokio::select! {
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
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX)?));
    Ok(transport)
}

async fn connection<S: Service>(
    incoming: quinn::Incoming,
    shaking: Shaking,
    via: Arc<Via>,
    shared: Shared<S>,
) -> Result<(), String> {
    let shaken = tokio::time::timeout(shared.patience.handshake, incoming).await;
    shared.metrics.tls.shaken_quic(matches!(shaken, Ok(Ok(_))));
    let quic = shaken
        .map_err(|_| {
            shared.metrics.given_up.count(Wait::Handshake);
            format!("no QUIC handshake within {:?}", shared.patience.handshake)
        })?
        .map_err(|error| error.to_string())?;
    drop(shaking);
    let via = via.named(named(&quic).as_deref());
    let transport = quic.clone();
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEADER_BYTES_MAX.into()).send_grease(false);
    let quic = transport::Connection::new(quic);
    let outlets = quic.outlets();
    let mut connection: Connection =
        builder.build(quic).await.map_err(|error| error.to_string())?;
    // At most STREAMS_MAX at a time: the transport sees to that.
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shared.drain.cancelled() => break,
            accepted = connection.accept() => accepted,
        };
        match accepted.map_err(|error| error.to_string())? {
            None => return Ok(()),
            Some(resolver) => {
                let (via, shared, outlets) = (Arc::clone(&via), shared.clone(), outlets.clone());
                let panics = shared.metrics.panics.clone();
                let request = async move {
                    if let Err(error) = request(resolver, via, &shared, &outlets).await {
                        tracing::debug!(error, "HTTP/3 request ended");
                    }
                };
                // It is large, and would be moved several times on its way.
                requests.spawn(guarded(Box::pin(request), panics));
            }
        }
    }
    let _ = connection.shutdown(0).await;
    requests.close();
    // The connection must be driven while the last requests end, and until what they sent
    // has left: dropping it would cut them.
    tokio::select! {
        () = async { requests.wait().await; quiet(&transport).await } => {}
        () = async { while let Ok(Some(_)) = connection.accept().await {} } => {}
    }
    Ok(())
}

/// The name that the client asked the handshake for.
fn named(quic: &quinn::Connection) -> Option<String> {
    let data = quic.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.server_name
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

async fn request<S: Service>(
    resolver: RequestResolver<transport::Connection, Bytes>,
    via: Arc<Via>,
    shared: &Shared<S>,
    outlets: &Outlets,
) -> Result<(), String> {
    let resolved = tokio::time::timeout(REQUEST_MAX, resolver.resolve_request()).await;
    let (request, stream) = resolved
        .map_err(|_| {
            shared.metrics.given_up.count(Wait::Head);
            format!("no request within {REQUEST_MAX:?}")
        })?
        .map_err(|error| {
            if let Some(why) = receiving::unread(&error) {
                shared.metrics.unread.count("h3", why);
            }
            error.to_string()
        })?;
    let (head, ()) = request.into_parts();
    let (mut stream, receiving) = stream.split();
    let id = receiving.id();
    let urgency = caching::Priority::of_request(&head.headers).urgency;
    let body = Receiving::of(&head, receiving);
    let response = shared.answer(Request { head, body, protocol: "h3", via }).await;
    let (answer, body) = response.into_parts();
    let head = head::frame(answer.status, &answer.headers);
    let answered = match head {
        Some(_) => Ok(()),
        None => within(shared, stream.send_response(Response::from_parts(answer, ()))).await,
    };
    let Some(outlet) = outlets.take(id) else { return answered };
    // quinn sends what has the higher number first; equals take turns.
    let priority = i32::from(URGENCY_DEFAULT) - i32::from(urgency);
    if priority != 0 {
        let _ = outlet.set_priority(priority);
    }
    let outlet = Unfinished(Some(outlet));
    answered?;
    send(shared, outlet, head.unwrap_or_default(), body).await
}

/// A stream that is reset unless it is finished: one that quinn sees dropped, by an error or by a
/// panic, would end cleanly, with a body that is not whole.
struct Unfinished(Option<quinn::SendStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // Closed already is as good.
            let _ = stream.reset(INTERNAL_ERROR);
        }
    }
}

/// Sends what `head` holds, and a body as DATA frames (RFC 9114 section 7.2.1), their payload by
/// reference; all at once as far as it is there.
async fn send<S, B>(
    shared: &Shared<S>,
    mut outlet: Unfinished,
    mut head: BytesMut,
    mut body: B,
) -> Result<(), String>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let Some(stream) = &mut outlet.0 else { return Ok(()) };
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                if !head.is_empty() {
                    within(shared, stream.write_chunk(head.split().freeze())).await?;
                }
                body.frame().await
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|fault| fault.to_string())?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            head.extend_from_slice(&data_frame(piece.len()));
            let mut pieces = [head.split().freeze(), piece];
            within(shared, stream.write_all_chunks(&mut pieces)).await?;
        }
    }
    if !head.is_empty() {
        within(shared, stream.write_chunk(head.freeze())).await?;
    }
    stream.finish().map_err(|error| error.to_string())?;
    outlet.0 = None;
    Ok(())
}

/// The head of a DATA frame: its type, 0, and its length as a QUIC integer of four bytes (RFC
/// 9000 section 16), which a piece's always fits.
fn data_frame(bytes: usize) -> [u8; 5] {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX) & 0x3fff_ffff | 0x8000_0000;
    let mut head = [0; 5];
    head[1..].copy_from_slice(&length.to_be_bytes());
    head
}

/// A step of sending, unless the peer takes nothing for too long.
async fn within<S, E: Display>(
    shared: &Shared<S>,
    step: impl Future<Output = Result<(), E>>,
) -> Result<(), String> {
    tokio::time::timeout(shared.patience.send, step)
        .await
        .map_err(|_| {
            shared.metrics.given_up.count(Wait::Send);
            "the peer takes no bytes".to_owned()
        })?
        .map_err(|error| error.to_string())
}
