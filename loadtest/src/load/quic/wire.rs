//! A load's UDP socket.

use quinn::udp;
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use quinn_proto::{EcnCodepoint, Transmit};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waking, Poll, ready};

/// A socket's receive buffer, for each of its connections: bursts wait here instead of being lost.
const CONNECTION_BYTES: usize = 4 << 20;

/// The UDP socket, and what it had no room for.
pub(super) struct Wire {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    writable: Pin<Box<dyn UdpPoller>>,
    unsent: VecDeque<(Transmit, Vec<u8>)>,
    /// For the next transmit.
    pub(super) spare: Vec<u8>,
}

impl Wire {
    pub(super) fn open(peer: SocketAddr, connections: usize) -> std::io::Result<Self> {
        let own: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own)?;
        let bytes = connections * CONNECTION_BYTES;
        // Beyond the machine's limit only root may go.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(bytes);
        }
        let socket = quinn::TokioRuntime.wrap_udp_socket(socket)?;
        let writable = socket.clone().create_io_poller();
        Ok(Self { socket, writable, unsent: VecDeque::new(), spare: Vec::new() })
    }

    /// Sends it, now or when there is room.
    pub(super) fn send(&mut self, transmit: Transmit, buffer: Vec<u8>) -> std::io::Result<()> {
        if self.unsent.is_empty() && self.try_send(&transmit, &buffer)? {
            self.spare = buffer;
        } else {
            self.unsent.push_back((transmit, buffer));
        }
        Ok(())
    }

    /// `false` if there is no room.
    fn try_send(&self, transmit: &Transmit, buffer: &[u8]) -> std::io::Result<bool> {
        let sent = self.socket.try_send(&udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.map(|ecn| match ecn {
                EcnCodepoint::Ect0 => udp::EcnCodepoint::Ect0,
                EcnCodepoint::Ect1 => udp::EcnCodepoint::Ect1,
                EcnCodepoint::Ce => udp::EcnCodepoint::Ce,
            }),
            contents: &buffer[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        });
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends what waited.
    pub(super) fn poll_flush(&mut self, waking: &mut Waking<'_>) -> Poll<std::io::Result<()>> {
        while let Some((transmit, buffer)) = self.unsent.pop_front() {
            if !self.try_send(&transmit, &buffer)? {
                self.unsent.push_front((transmit, buffer));
                ready!(self.writable.as_mut().poll_writable(waking))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}
