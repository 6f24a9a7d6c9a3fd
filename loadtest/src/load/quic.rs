//! QUIC connections over quinn-proto: all that share a socket are driven in one task, so that a
//! request costs the client no task, lock or wake of its own.

mod open;
mod wire;

use super::Context;
use super::slow::Trickle;
use crate::Error;
use bytes::BytesMut;
use futures::future::LocalBoxFuture;
use open::Open;
use quinn::udp::{self, BATCH_SIZE, RecvMeta};
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Waking, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use wire::Wire;

/// Connections that share a socket.
pub(super) const SHARED_BY: usize = 16;
/// Sockets of a load, at most; beyond, more connections share each.
pub(super) const SOCKETS_MAX: usize = 16;
/// Handshakes under way on a socket: the first flights of many more would be lost in the server's
/// receive buffer, and come again a second later.
const HANDSHAKES_MAX: usize = 4;
/// What one datagram, or a row of those that the kernel joined, may take.
const DATAGRAMS_BYTES: usize = 64 << 10;
/// Reads of a socket before other tasks have their turn.
const READS_MAX: usize = 4;
/// Datagrams in a row of as many bytes are acknowledged before what is behind them is looked at:
/// the server goes on meanwhile.
const ACKNOWLEDGED_BYTES: usize = 16 << 10;
/// Between the tries of a connection that could not be made.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const IDLE_MAX: Duration = Duration::from_secs(60);

pub(super) fn config(
    tls: rustls::ClientConfig,
    stream_window: u32,
    window: u32,
) -> Result<ClientConfig, Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)
        .map_err(|error| Error::Tls(error.to_string()))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(stream_window.into())
        .receive_window(window.into())
        .congestion_controller_factory(Arc::new(quinn::congestion::CubicConfig::default()))
        .max_idle_timeout(quinn::IdleTimeout::try_from(IDLE_MAX).ok());
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What the sockets of a load receive into, one after the other: so it stays in the processor's
/// cache.
#[derive(Clone)]
pub(super) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; BATCH_SIZE * DATAGRAMS_BYTES])))
    }
}

/// A socket's connections.
pub(super) struct Socket {
    context: Rc<Context>,
    config: ClientConfig,
    endpoint: Endpoint,
    wire: Wire,
    scratch: Scratch,
    connections: Vec<Connection>,
    places: HashMap<ConnectionHandle, usize>,
    alarm: Pin<Box<Sleep>>,
    news: Option<LocalBoxFuture<'static, ()>>,
}

impl Socket {
    /// For connections that read as fast as they can, or slowly.
    pub(super) fn open(
        context: &Rc<Context>,
        config: ClientConfig,
        scratch: Scratch,
        connections: usize,
        slow: Option<Trickle>,
    ) -> std::io::Result<Self> {
        let wire = Wire::open(context.peer.address, connections)?;
        let may_probe = !wire.socket.may_fragment();
        Ok(Self {
            context: context.clone(),
            config,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, may_probe, None),
            wire,
            scratch,
            connections: (0..connections).map(|_| Connection::new(slow)).collect(),
            places: HashMap::new(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            news: None,
        })
    }

    /// Until the load is over; for ever, if its readers are slow.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|waking| self.poll(waking)).await;
    }

    fn poll(&mut self, waking: &mut Waking<'_>) -> Poll<()> {
        let flushed = self.wire.poll_flush(waking);
        match if let Poll::Ready(Err(_)) = flushed { flushed } else { self.poll_receive(waking) } {
            // There may be more.
            Poll::Ready(Ok(())) => waking.waker().wake_by_ref(),
            Poll::Ready(Err(error)) => {
                self.context.tally.failed(format!("the UDP socket: {error}"));
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        loop {
            let now = Instant::now();
            self.turns(now);
            if !self.connect(now) && !self.poll_news(waking) && !self.poll_alarm(waking, now) {
                break;
            }
        }
        if self.connections.iter().all(|one| matches!(one.state, State::Over)) {
            return Poll::Ready(());
        }
        // Who finds no room is woken when there is some.
        let _ = self.wire.poll_flush(waking);
        Poll::Pending
    }

    /// Reads what has come; ready if there may be more.
    fn poll_receive(&mut self, waking: &mut Waking<'_>) -> Poll<std::io::Result<()>> {
        let scratch = self.scratch.clone();
        let mut scratch = scratch.0.borrow_mut();
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut parts = scratch.chunks_mut(DATAGRAMS_BYTES).map(IoSliceMut::new);
        let mut parts: [_; BATCH_SIZE] =
            std::array::from_fn(|_| parts.next().expect("there is room for a batch"));
        for _ in 0..READS_MAX {
            let count = match ready!(self.wire.socket.poll_recv(waking, &mut parts, &mut metas)) {
                Ok(count) => count,
                // Nobody listens there (yet): the handshake's timer decides.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let now = Instant::now();
            for (meta, part) in metas.iter().zip(&parts).take(count) {
                self.take(meta, &part[..meta.len], now);
            }
            self.turns(now);
        }
        Poll::Ready(Ok(()))
    }

    /// Datagrams that came in a row.
    fn take(&mut self, meta: &RecvMeta, bytes: &[u8], now: Instant) {
        let mut bytes = BytesMut::from(bytes);
        let ecn = meta.ecn.map(|ecn| match ecn {
            udp::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
            udp::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
            udp::EcnCodepoint::Ce => EcnCodepoint::Ce,
        });
        let is_long = bytes.len() >= ACKNOWLEDGED_BYTES;
        let (mut response, mut last) = (Vec::new(), None);
        while !bytes.is_empty() {
            let datagram = bytes.split_to(meta.stride.min(bytes.len()));
            let event =
                self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response);
            // What asks for a response of the endpoint's own belongs to no connection of ours.
            let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { continue };
            let Some(place) = self.places.get(&handle) else { continue };
            let one = &mut self.connections[*place];
            if let State::Open(open) = &mut one.state {
                open.quic.handle_event(event);
                one.is_stirred = true;
                last = Some(*place);
            }
        }
        let Some(one) = last.filter(|_| is_long).map(|place| &mut self.connections[place]) else {
            return;
        };
        if let State::Open(open) = &mut one.state {
            // A socket that fails is found when it is read or written next.
            let _ = open.transmit(&mut self.wire, now);
        }
    }

    /// Begins handshakes, as many as may be under way. `false` if there was none to begin.
    fn connect(&mut self, now: Instant) -> bool {
        let under_way = |one: &&Connection| match &one.state {
            State::Open(open) => open.quic.is_handshaking(),
            _ => false,
        };
        let under_way = self.connections.iter().filter(under_way).count();
        let most = HANDSHAKES_MAX.saturating_sub(under_way);
        let mut left = most;
        for (place, one) in self.connections.iter_mut().enumerate() {
            let State::Unmade(at) = one.state else { continue };
            if left == 0 {
                break;
            }
            if at > now {
                continue;
            }
            if one.slow.is_none() && self.context.queue.is_over() {
                one.state = State::Over;
                continue;
            }
            let peer = &self.context.peer;
            let name = peer.name.to_str();
            match self.endpoint.connect(now, self.config.clone(), peer.address, &name) {
                Ok((handle, quic)) => {
                    self.places.insert(handle, place);
                    one.state = State::Open(Box::new(Open::new(handle, quic)));
                    one.is_stirred = true;
                    left -= 1;
                }
                Err(error) => {
                    let host = peer.address.to_string();
                    let error = Error::Unavailable { host, reason: error.to_string() };
                    self.context.tally.failed(error.to_string());
                    one.state = State::Unmade(now + RETRY_PAUSE);
                }
            }
        }
        left < most
    }

    fn turns(&mut self, now: Instant) {
        for place in 0..self.connections.len() {
            if self.connections[place].is_due(now) {
                self.turn(place, now);
            }
        }
    }

    fn turn(&mut self, place: usize, now: Instant) {
        let one = &mut self.connections[place];
        one.is_stirred = false;
        let State::Open(open) = &mut one.state else { return };
        let done = open.turn(&self.context, &mut self.endpoint, &mut self.wire, one.slow, now);
        let next = match done {
            Ok(false) => return,
            Ok(true) => State::Over,
            Err(error) => {
                self.context.tally.failed(error.to_string());
                State::Unmade(now + RETRY_PAUSE)
            }
        };
        self.places.remove(&open.handle);
        open.close(&mut self.wire, now);
        one.state = next;
    }

    /// Whether requests have become due that a connection has room for.
    fn poll_news(&mut self, waking: &mut Waking<'_>) -> bool {
        let room = |one: &Connection| match &one.state {
            State::Open(open) => open.waits,
            _ => false,
        };
        if !self.connections.iter().any(room) {
            // Who is told and has no room would keep it from others.
            self.news = None;
            return false;
        }
        let context = self.context.clone();
        let news =
            self.news.get_or_insert_with(|| Box::pin(async move { context.queue.changed().await }));
        if news.as_mut().poll(waking).is_pending() {
            return false;
        }
        self.news = None;
        for one in self.connections.iter_mut().filter(|one| room(one)) {
            one.is_stirred = true;
        }
        true
    }

    /// Sets the alarm for what is due first. `true` if that is now.
    fn poll_alarm(&mut self, waking: &mut Waking<'_>, now: Instant) -> bool {
        let due = |one: &Connection| match one.state {
            // What could have been made and was not waits for a handshake to end.
            State::Unmade(at) => Some(at).filter(|at| *at > now),
            _ => one.due(),
        };
        let Some(first) = self.connections.iter().filter_map(due).min() else {
            return false;
        };
        let first = tokio::time::Instant::from_std(first);
        if self.alarm.deadline() != first {
            self.alarm.as_mut().reset(first);
        }
        self.alarm.as_mut().poll(waking).is_ready()
    }
}

impl Drop for Socket {
    /// Tells the server, which need not wait for its idle timeout.
    fn drop(&mut self) {
        let now = Instant::now();
        for one in &mut self.connections {
            if let State::Open(open) = &mut one.state {
                open.close(&mut self.wire, now);
            }
        }
    }
}

enum State {
    /// To be made, not before then.
    Unmade(Instant),
    Open(Box<Open>),
    /// Nothing will be due again.
    Over,
}

/// A connection, or its place while there is none.
struct Connection {
    slow: Option<Trickle>,
    state: State,
    /// Something came, or is to be sent.
    is_stirred: bool,
}

impl Connection {
    fn new(slow: Option<Trickle>) -> Self {
        Self { slow, state: State::Unmade(Instant::now()), is_stirred: false }
    }

    fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Open(open) => [open.timer, open.read_at].into_iter().flatten().min(),
            State::Unmade(_) | State::Over => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_stirred || self.due().is_some_and(|due| due <= now)
    }
}
