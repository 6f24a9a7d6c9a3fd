//! One UDP port, one socket a shard: which of them gets a packet is in its connection id, so that
//! a connection stays with its shard when its peer's address changes.
//!
//! Invariant: an id that shard `n` of `count` mints is, in its first byte, `n` modulo `count`;
//! the kernel's filter reads nothing else. A client's first packets carry an id that it chose:
//! they go where that id says until it has one of ours.

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::{Rng, RngCore};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Sockets of one port: more don't fit the byte that tells them apart.
pub const SOCKETS_MAX: usize = 64;
/// Shard (1), the process's generation (2), and what nobody guesses.
const ID_BYTES: usize = 12;
/// A browser's requests, and one shard's packets while it is busy for a while. The system's own
/// limits (`net.core.rmem_max`, `wmem_max`) may make less of it.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Binds `count` sockets, at most [`SOCKETS_MAX`], to one address. With port 0, to one free port.
///
/// # Errors
/// When the address is taken, or the system can't tell packets apart by connection id.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let count = count.clamp(1, SOCKETS_MAX);
    let first = one(addr, count > 1)?;
    let addr = first.local_addr()?;
    if count > 1 {
        steer(&first, count)?;
    }
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(one(addr, true)?);
    }
    Ok(sockets)
}

fn one(addr: SocketAddr, shares: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if shares {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // Less than this is served as well, with more losses.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Has the kernel choose among the sockets of this one's port, in the order of their binding, by
/// the first byte of the connection id (RFC 9000 section 17.2, 17.3).
fn steer(socket: &UdpSocket, count: usize) -> io::Result<()> {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut program = [
        op(LOAD_BYTE, 0, 0, 0),
        op(JUMP_IF_ANY, 0, 2, 0x80),
        // A long header: flags, version, the id's length, the id.
        op(LOAD_BYTE, 0, 0, 6),
        op(JUMP, 0, 0, 1),
        op(LOAD_BYTE, 0, 0, 1),
        op(MODULO, 0, 0, count),
        op(RETURN, 0, 0, 0),
    ];
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = sock_fprog { len, filter: program.as_mut_ptr() };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &filter).map_err(io::Error::from)
}

/// `BPF_LD | BPF_B | BPF_ABS`. A byte that is not there ends the program: the first socket.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JSET | BPF_K`.
const JUMP_IF_ANY: u16 = 0x45;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_ALU | BPF_MOD | BPF_K`.
const MODULO: u16 = 0x94;
/// `BPF_RET | BPF_A`.
const RETURN: u16 = 0x16;

/// Mints the connection ids of one shard.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// Which shard, from 0.
    pub shard: usize,
    /// Of how many; at most [`SOCKETS_MAX`].
    pub count: usize,
    /// This process, among those that served the port one after the other: none of them takes
    /// another one's ids for its own.
    pub generation: u16,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        let mut rng = rand::rng();
        rng.fill_bytes(&mut id);
        // Any byte that means this shard, so that ids show no more of it than they must.
        let count = self.count.clamp(1, SOCKETS_MAX);
        let turns = 256 / count;
        let byte = self.shard % count + count * rng.random_range(0..turns);
        id[0] = u8::try_from(byte).expect("count * turns is at most 256");
        id[1..3].copy_from_slice(&self.generation.to_be_bytes());
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_name_their_shard_and_process() {
        for count in [1, 2, 3, 7, SOCKETS_MAX] {
            for shard in 0..count {
                let mut ids = Ids { shard, count, generation: 0x0102 };
                let minted: HashSet<_> = (0..50).map(|_| ids.generate_cid()).collect();
                assert_eq!(minted.len(), 50);
                for id in minted {
                    assert_eq!(usize::from(id[0]) % count, shard);
                    assert_eq!(id[1..3], [1, 2]);
                    assert_eq!(id.len(), ids.cid_len());
                }
            }
        }
    }

    /// Packets as clients send them, of both forms, from one address to each of the sockets.
    #[test]
    fn the_kernel_goes_by_the_connection_id() {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        let to = sockets[0].local_addr().unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for byte in 0..=255_u8 {
            let short = [0x40, byte, 1, 1];
            let long = [0xc0, 0, 0, 0, 1, 8, byte, 1, 1];
            for packet in [&short[..], &long[..]] {
                from.send_to(packet, to).unwrap();
                let socket = &sockets[usize::from(byte) % 3];
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut got = [0; 16];
                let len = socket.recv(&mut got).unwrap();
                assert_eq!(&got[..len], packet);
            }
        }
        from.send_to(&[0x40], to).unwrap();
        sockets[0].recv(&mut [0; 16]).unwrap();
    }
}
