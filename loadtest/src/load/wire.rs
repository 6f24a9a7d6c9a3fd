//! A TCP connection, with TLS or without, that hands what it reads straight to a parser. All
//! connections read into one buffer, which so stays in the processor's cache.

use super::records::Records;
use crate::Error;
use rustix::net::RecvFlags;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};

/// What one read may bring.
const READ_BYTES: usize = 256 << 10;
/// The start of a record that waits for its rest.
const CARRY_BYTES_MAX: usize = 17 << 10;
/// A receive buffer that a slow reader allows itself: the rest stays with the server.
const SLOW_BUFFER_BYTES: u32 = 64 << 10;
/// A server's first flight: certificates.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// The buffer that all connections read into.
#[derive(Clone)]
pub(super) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; CARRY_BYTES_MAX + READ_BYTES])))
    }
}

/// Takes plaintext as it comes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Where connections lead.
#[derive(Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// One connection.
pub(super) struct Wire {
    tcp: TcpStream,
    records: Option<Records>,
    scratch: Scratch,
    carry: Vec<u8>,
    /// What the server said along with its handshake.
    early: Vec<u8>,
    sealed: Vec<u8>,
}

impl Wire {
    pub(super) async fn connect(peer: &Peer, scratch: &Scratch, slow: bool) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Unavailable {
            host: peer.address.to_string(),
            reason: error.to_string(),
        };
        let tcp = open(peer.address, slow).await.map_err(failed)?;
        let mut wire = Self {
            tcp,
            records: None,
            scratch: scratch.clone(),
            carry: Vec::new(),
            early: Vec::new(),
            sealed: Vec::new(),
        };
        if let Some(config) = &peer.tls {
            let session = UnbufferedClientConnection::new(config.clone(), peer.name.clone());
            wire.handshake(session.map_err(tls)?, &config.alpn_protocols[0]).await?;
        }
        Ok(wire)
    }

    /// Until the session stands and all input was looked at; then its keys are ours.
    async fn handshake(
        &mut self,
        mut session: UnbufferedClientConnection,
        alpn: &[u8],
    ) -> Result<(), Error> {
        let mut incoming = vec![0; HANDSHAKE_BYTES_MAX];
        let (mut filled, mut outgoing) = (0, Vec::new());
        loop {
            let UnbufferedStatus { discard, state } =
                session.process_tls_records(&mut incoming[..filled]);
            let (mut blocked, mut done) = (false, false);
            match state.map_err(tls)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut part = vec![0; 18 << 10];
                    let length = data.encode(&mut part).map_err(|error| tls_said(&error))?;
                    outgoing.extend_from_slice(&part[..length]);
                }
                ConnectionState::TransmitTlsData(data) => {
                    self.tcp.write_all(&outgoing).await.map_err(cut)?;
                    outgoing.clear();
                    data.done();
                }
                ConnectionState::BlockedHandshake => blocked = true,
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        self.early.extend_from_slice(record.map_err(tls)?.payload);
                    }
                }
                ConnectionState::WriteTraffic(_) => done = true,
                other => return Err(Error::Tls(format!("the handshake ended: {other:?}"))),
            }
            incoming.copy_within(discard..filled, 0);
            filled -= discard;
            if done {
                break;
            }
            if blocked {
                let read = self.tcp.read(&mut incoming[filled..]).await.map_err(cut)?;
                if read == 0 {
                    return Err(Error::Tls("the server closed during the handshake".to_owned()));
                }
                filled += read;
            }
        }
        if session.alpn_protocol() != Some(alpn) {
            let wanted = String::from_utf8_lossy(alpn);
            return Err(Error::Tls(format!("the server does not speak {wanted} (ALPN)")));
        }
        self.carry.extend_from_slice(&incoming[..filled]);
        let (secrets, _) = session.dangerous_into_kernel_connection().map_err(tls)?;
        self.records = Some(Records::new(secrets)?);
        Ok(())
    }

    /// Sends all of it.
    pub(super) async fn send(&mut self, plain: &[u8]) -> Result<(), Error> {
        let Some(records) = &mut self.records else {
            return self.tcp.write_all(plain).await.map_err(cut);
        };
        self.sealed.clear();
        records.seal(plain, &mut self.sealed)?;
        self.tcp.write_all(&self.sealed).await.map_err(cut)
    }

    /// Waits for bytes and forgets them, at most `limit`; returns how many there were, 0 at the end
    /// of the stream. `None` over TLS, whose records have to be opened. Cancel-safe.
    pub(super) async fn skip(&mut self, limit: usize) -> Result<Option<usize>, Error> {
        if self.records.is_some() {
            return Ok(None);
        }
        loop {
            self.tcp.readable().await.map_err(cut)?;
            match discard(&self.tcp, &mut self.scratch.0.borrow_mut(), limit) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(cut(error)),
            }
        }
    }

    /// Waits for bytes, reads once, at most `limit` bytes, and hands on what is whole. `false`
    /// at the end of the stream. Cancel-safe.
    pub(super) async fn receive(&mut self, limit: usize, sink: Sink<'_>) -> Result<bool, Error> {
        if !self.early.is_empty() {
            sink(&std::mem::take(&mut self.early))?;
            return Ok(true);
        }
        loop {
            self.tcp.readable().await.map_err(cut)?;
            let scratch = self.scratch.clone();
            let mut buffer = scratch.0.borrow_mut();
            let from = self.carry.len();
            buffer[..from].copy_from_slice(&self.carry);
            let to = buffer.len().min(from + limit);
            let read = match self.tcp.try_read(&mut buffer[from..to]) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(cut(error)),
            };
            if read == 0 {
                return Ok(false);
            }
            let Some(records) = &mut self.records else {
                sink(&buffer[..read])?;
                return Ok(true);
            };
            let filled = from + read;
            let opened = records.open(&mut buffer[..filled], sink)?;
            self.carry.clear();
            self.carry.extend_from_slice(&buffer[opened.used..filled]);
            return Ok(!opened.closed);
        }
    }
}

/// Takes at most `limit` bytes out of a socket's buffer without a copy (`MSG_TRUNC`, tcp(7)).
fn discard(tcp: &TcpStream, buffer: &mut [u8], limit: usize) -> std::io::Result<usize> {
    let most = buffer.len().min(limit);
    let read = || {
        let (_, read) = rustix::net::recv(tcp, &mut buffer[..most], RecvFlags::TRUNC)?;
        Ok(read)
    };
    tcp.try_io(Interest::READABLE, read)
}

async fn open(address: SocketAddr, slow: bool) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Both ends the same, whatever the machine's default; it is the server's side that counts.
    let _ = socket2::SockRef::from(&socket).set_tcp_congestion(b"cubic");
    if slow {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn tls(error: rustls::Error) -> Error {
    Error::Tls(error.to_string())
}

fn tls_said(error: &dyn std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn cut(error: std::io::Error) -> Error {
    broken(&error.to_string())
}

/// The connection broke, or what came on it is not the protocol.
pub(super) fn broken(reason: &str) -> Error {
    Error::Cut { url: "connection".to_owned(), reason: reason.to_owned(), answered: false }
}
