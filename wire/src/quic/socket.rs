//! The UDP socket of an endpoint. What quinn hands over leaves in one send, of up to
//! [`SEGMENTS_MAX`] datagrams where the system segments.

use super::metrics::Metrics;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams of one send: about as many of 1,472 bytes as an IP packet of 64 KiB holds.
const SEGMENTS_MAX: usize = 40;
/// What an unpatched quinn-proto hands over at most. A socket that says it takes fewer is given
/// no more than that by the patched one, too.
const SEGMENTS_USUAL: usize = 10;

/// A socket whose sends are large.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// Sends that found no room: who has seen this many need not wait for room.
    blocked: AtomicU64,
    /// The last receive left nothing behind.
    drained: AtomicBool,
    merges: AtomicBool,
    metrics: Metrics,
}

impl Socket {
    /// Takes a bound socket; within a Tokio runtime. Without `merges` its sends stay small.
    ///
    /// # Errors
    /// When the system refuses what QUIC needs of it.
    pub fn new(socket: std::net::UdpSocket, merges: bool, metrics: Metrics) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        let merges = AtomicBool::new(merges && state.max_gso_segments() >= SEGMENTS_MAX);
        let (blocked, drained) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { io, state, blocked, drained, merges, metrics })
    }

    /// A turn of a connection has ended: what comes from now on may be told before the next receive.
    pub fn turned(&self) {
        self.drained.store(false, Relaxed);
    }

    /// Sends as quinn does, which goes without segmentation once the system refuses it.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send((&self.io).into(), transmit)?;
        let Some(segment) = transmit.segment_size else { return Ok(()) };
        let segments = transmit.contents.len().div_ceil(segment);
        if self.state.max_gso_segments() < SEGMENTS_MAX {
            if self.merges.swap(false, Relaxed) {
                self.metrics.unmerged.inc();
                tracing::warn!("the system takes no large UDP sends: they stay small");
            }
        } else if segments > SEGMENTS_USUAL {
            self.metrics.merged(segments);
        }
        Ok(())
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
        let most = self.state.max_gso_segments();
        if self.merges.load(Relaxed) { most } else { most.min(SEGMENTS_USUAL - 1) }
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
            socket.turned();
        }
    }
}
