//! The UDP socket of an endpoint. quinn hands over ten segments at a time; what it hands over
//! for one peer in one turn of a connection leaves here as one send of up to
//! [`SEGMENTS_MAX`] segments, which the kernel collects without another copy (`MSG_MORE` with
//! `UDP_SEGMENT`).
//!
//! Invariant: between two turns of connections nothing is held back, and one send has datagrams
//! for one peer alone.

use super::metrics::Metrics;
use nix::errno::Errno;
use nix::libc::{MSG_MORE, in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::SockRef;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The kernel holds what it is given until a send without this.
const MORE: MsgFlags = MsgFlags::from_bits_retain(MSG_MORE);
/// Segments of one send: as many of 1,472 bytes as an IP packet of 64 KiB holds, in tens.
const SEGMENTS_MAX: usize = 40;
/// Bytes of one send, which IPv4, IPv6 and their heads allow.
const SEND_BYTES_MAX: usize = 65_487;
/// Segments of a full transmit of quinn's. One with fewer is the last of a turn.
const SEGMENTS_MORE: usize = 10;

/// A socket that sends more at a time than quinn hands over.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    lane: Mutex<Lane>,
    /// Sends that found no room: who has seen this many need not wait for room.
    blocked: AtomicU64,
    /// The last receive left nothing behind.
    drained: AtomicBool,
    merges: AtomicBool,
    metrics: Metrics,
}

/// The way out of the socket, which one send at a time takes.
#[derive(Default)]
struct Lane {
    held: Option<Held>,
    /// The bits that the system sets on IPv4 and on IPv6, where no message says otherwise.
    ecn: [Option<u8>; 2],
}

/// What the kernel holds back of a send under way.
struct Held {
    key: Key,
    segments: usize,
    bytes: usize,
}

/// What the datagrams of one send have in common.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Key {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: u8,
    segment: usize,
}

impl Key {
    fn of(transmit: &Transmit<'_>) -> Option<Self> {
        Some(Self {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
            segment: transmit.segment_size?,
        })
    }
}

impl Held {
    fn takes(&self, key: &Key, segments: usize, bytes: usize) -> bool {
        self.key == *key
            && self.segments + segments <= SEGMENTS_MAX
            && self.bytes + bytes <= SEND_BYTES_MAX
    }
}

impl Socket {
    /// Takes a bound socket; within a Tokio runtime. Without `merges` it sends what quinn hands
    /// over, each at once.
    ///
    /// # Errors
    /// When the system refuses what QUIC needs of it.
    pub fn new(socket: std::net::UdpSocket, merges: bool, metrics: Metrics) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        let merges = AtomicBool::new(merges && state.max_gso_segments() >= SEGMENTS_MAX);
        let (blocked, drained) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { io, state, lane: Mutex::default(), blocked, drained, merges, metrics })
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go what the kernel holds back.
    pub fn flush(&self) {
        // At the end of a turn: what comes from now on may be told before the next receive.
        self.drained.store(false, Relaxed);
        self.push(&mut self.lane());
    }

    fn push(&self, lane: &mut Lane) {
        let Some(held) = lane.held.take() else { return };
        let fd = self.io.as_raw_fd();
        let pushed = sendmsg::<SockaddrStorage>(fd, &[], &[], MsgFlags::empty(), None);
        self.ended(&held, pushed.map(drop));
    }

    /// Counts a send that has left, or is lost: QUIC sends again what does not arrive.
    fn ended(&self, held: &Held, pushed: Result<(), Errno>) {
        let Err(error) = pushed else { return self.metrics.merged(held.segments) };
        self.metrics.failed.inc();
        // No segmentation on the way out: from now on as quinn would, which finds out too.
        if matches!(error, Errno::EIO | Errno::EINVAL) {
            self.unmerge();
        }
    }

    fn unmerge(&self) {
        if self.merges.swap(false, Relaxed) {
            self.metrics.unmerged.inc();
            tracing::warn!("the system takes no large UDP sends: they stay small");
        }
    }

    /// Sends as quinn does, which goes without segmentation once the system refuses it.
    fn whole(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&self.io).into(), transmit);
        if transmit.segment_size.is_some() && self.state.max_gso_segments() < SEGMENTS_MAX {
            self.unmerge();
        }
        sent
    }

    /// Sends; or begins, or goes on with, a send of several transmits.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let lane = &mut *self.lane();
        let Some(key) = Key::of(transmit).filter(|_| self.merges.load(Relaxed)) else {
            self.push(lane);
            return self.whole(transmit);
        };
        let bytes = transmit.contents.len();
        let segments = bytes.div_ceil(key.segment);
        // quinn had more than fits one transmit: the next one is likely to be like it.
        let more = bytes == SEGMENTS_MORE * key.segment;
        if let Some(held) = lane.held.as_mut().filter(|held| held.takes(&key, segments, bytes)) {
            held.segments += segments;
            held.bytes += bytes;
            let more = more && held.takes(&key, segments, bytes);
            self.go_on(lane, transmit.contents, more);
            return Ok(());
        }
        self.push(lane);
        if more { self.begin(lane, key, transmit) } else { self.whole(transmit) }
    }

    fn begin(&self, lane: &mut Lane, key: Key, transmit: &Transmit<'_>) -> io::Result<()> {
        self.mark(lane, &key)?;
        let segment = u16::try_from(key.segment).map_err(|_| ErrorKind::InvalidInput)?;
        let source = key.source.map(Source::of);
        let mut control = vec![ControlMessage::UdpGsoSegments(&segment)];
        control.extend(source.as_ref().map(Source::message));
        let to = SockaddrStorage::from(key.destination);
        let parts = [IoSlice::new(transmit.contents)];
        let fd = self.io.as_raw_fd();
        let held = Held { key, segments: SEGMENTS_MORE, bytes: transmit.contents.len() };
        match sendmsg(fd, &parts, &control, MORE, Some(&to)) {
            Ok(_) => lane.held = Some(held),
            Err(Errno::EAGAIN) => return Err(ErrorKind::WouldBlock.into()),
            // As quinn has it: what can't be sent is as good as lost on the way.
            Err(error) => self.ended(&held, Err(error)),
        }
        Ok(())
    }

    fn go_on(&self, lane: &mut Lane, contents: &[u8], more: bool) {
        let flags = if more { MORE } else { MsgFlags::empty() };
        let parts = [IoSlice::new(contents)];
        let fd = self.io.as_raw_fd();
        let sent = sendmsg::<SockaddrStorage>(fd, &parts, &[], flags, None).map(drop);
        // The kernel drops all that it holds back when it can't add to it.
        if (sent.is_err() || !more)
            && let Some(held) = lane.held.take()
        {
            self.ended(&held, sent);
        }
    }

    /// Sets the ECN bits of what begins now: no message of `sendmsg` that nix knows carries them.
    fn mark(&self, lane: &mut Lane, key: &Key) -> io::Result<()> {
        let v4 = key.destination.ip().to_canonical().is_ipv4();
        let now = &mut lane.ecn[usize::from(!v4)];
        if *now == Some(key.ecn) {
            return Ok(());
        }
        let (socket, ecn) = (SockRef::from(&self.io), u32::from(key.ecn));
        if v4 {
            socket.set_tos_v4(ecn)?
        } else {
            socket.set_tclass_v6(ecn)?
        }
        *now = Some(key.ecn);
        Ok(())
    }
}

/// The address that a send leaves from.
enum Source {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            }),
            IpAddr::V6(ip) => Self::V6(in6_pktinfo {
                ipi6_ifindex: 0,
                ipi6_addr: in6_addr { s6_addr: ip.octets() },
            }),
        }
    }

    fn message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None, seen: 0 })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || self.send(transmit));
        if sent.is_err() {
            self.blocked.fetch_add(1, Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            // What has come since was told since: this does not clear it.
            let empty = self.drained.swap(false, Relaxed);
            let receive = || match empty {
                true => Err(ErrorKind::WouldBlock.into()),
                false => self.state.recv((&self.io).into(), bufs, meta),
            };
            match self.io.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => {
                    let some = |count: &usize| *count < meta.len();
                    self.drained.store(received.as_ref().is_ok_and(some), Relaxed);
                    return Poll::Ready(received);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One task's wait for room in the socket.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
    /// Of the socket's blocked sends, those after which this task has waited.
    seen: u64,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let blocked = this.socket.blocked.load(Relaxed);
        if this.seen == blocked {
            return Poll::Ready(Ok(()));
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(&this.socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let found = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        this.seen = blocked;
        Poll::Ready(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::task::yield_now;

    /// One datagram; there is room for two.
    async fn received(socket: &Socket) -> Vec<u8> {
        let (mut one, mut other) = ([0; 100], [0; 100]);
        let mut meta = [RecvMeta::default(); 2];
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut meta)).await.unwrap();
        assert_eq!(count, 1);
        one[..meta[0].len].to_vec()
    }

    /// The reactor may tell of it before anyone asks: that is not what the last receive has seen.
    #[tokio::test]
    async fn what_comes_after_a_turn_is_received() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (own, peer) = (bind(), bind());
        own.set_nonblocking(true).unwrap();
        let addr = own.local_addr().unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let socket = Socket::new(own, true, metrics).unwrap();
        for text in ["first", "second", "third"] {
            peer.send_to(text.as_bytes(), addr).unwrap();
            for _ in 0..500 {
                yield_now().await;
            }
            let received = tokio::time::timeout(Duration::from_secs(60), received(&socket));
            assert_eq!(received.await.expect("it is not lost"), text.as_bytes());
            assert!(socket.drained.load(Relaxed), "nothing is left behind");
            socket.flush();
        }
    }
}
