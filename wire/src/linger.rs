//! What is left to do where this side ends a TCP connection: its end was told to the peer, which
//! may still be sending. A kernel answers bytes that come to a closed socket, or lie in it unread,
//! by a reset, and what the peer had not read of the answers may be lost by that. So what comes is
//! read on and discarded, within bounds, until the peer ends the connection, too (RFC 9112 section
//! 9.6).
//!
//! Invariants: all that the connection needed but its socket is freed before; and whoever sends
//! without an end, however little, costs no more than [`LINGER_BYTES_MAX`] and the limit in time.

use crate::LINGER_BYTES_MAX;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot::{self, Receiver, Sender};

/// Bytes that are discarded at a time.
const BITE_BYTES: usize = 16 << 10;

/// A connection's socket. When that is dropped, it is closed, if it was not left.
pub struct Socket {
    stream: Option<TcpStream>,
    left: Option<Sender<TcpStream>>,
}

/// Where a connection leaves its socket.
pub struct Left(Receiver<TcpStream>);

/// This stream, and where it is left.
pub fn socket(stream: TcpStream) -> (Socket, Left) {
    let (leaves, left) = oneshot::channel();
    (Socket { stream: Some(stream), left: Some(leaves) }, Left(left))
}

impl Socket {
    /// Leaves the stream: the connection has ended. Nothing else is to be done with it then.
    pub fn leave(&mut self) {
        if let (Some(stream), Some(left)) = (self.stream.take(), self.left.take()) {
            // It is closed where nobody waits for it.
            drop(left.send(stream));
        }
    }
}

const HERE: &str = "nothing is asked of a stream that was left";

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.stream.as_ref().expect(HERE)
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut TcpStream {
        self.stream.as_mut().expect(HERE)
    }
}

impl Left {
    /// Waits until the peer ends what was left, at most so long, and closes it. False if the peer
    /// did not.
    pub async fn linger(mut self, limit: Duration) -> bool {
        let Ok(stream) = self.0.try_recv() else { return true };
        tokio::time::timeout(limit, ended(&stream)).await.is_ok()
    }
}

/// Ends when the peer's end was read, or the connection is broken.
async fn ended(stream: &TcpStream) {
    let mut bytes_left = LINGER_BYTES_MAX;
    while bytes_left > 0 {
        if stream.readable().await.is_err() {
            return;
        }
        match discard(stream) {
            Ok(0) => return,
            Ok(bytes) => bytes_left = bytes_left.saturating_sub(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    // No more is read: the peer's window shuts, and what it was sent goes on to it. Only that it
    // is gone can be seen.
    let _ = stream.ready(Interest::ERROR).await;
}

/// Reads a bite. A function of its own: the room for it is no part of a connection.
fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; BITE_BYTES])
}

#[cfg(test)]
mod tests;
