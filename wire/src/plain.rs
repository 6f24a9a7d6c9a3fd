//! TCP without TLS: large pieces of the memory tier's arena leave by `sendfile(2)`, uncopied;
//! everything else by `writev(2)`. A head that goes before such a piece shares its segment.
//!
//! Invariant: the bytes and their order are the same either way. What keeps lent pages from
//! being filled anew while the kernel holds them is the arena's business.

use crate::tcp::UNSENT_BYTES_MAX;
use crate::watched::Watched;
use arena::Arena;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Smaller pieces are cheaper to copy than to look up page by page.
const LENT_BYTES_MIN: usize = 64 << 10;
/// Bytes that a socket takes of lent pages, which are the cache's own, before they are on their
/// way: as much as its buffer (`tcp_wmem`) may grow to. The fewer turns a body takes, the less it
/// costs.
const LENT_UNSENT_BYTES_MAX: u32 = 4 << 20;

/// A socket, and the arena that it may send from.
pub struct PlainStream {
    socket: Watched,
    arena: Option<Arena>,
    /// What was sent last were lent pages.
    lends: bool,
}

impl PlainStream {
    /// Without an arena everything is copied.
    pub fn new(socket: Watched, arena: Option<Arena>) -> Self {
        Self { socket, arena, lends: false }
    }

    /// The arena, if a piece lies in it and is large enough to be lent.
    fn arena_of(&self, piece: &[u8]) -> Option<&Arena> {
        let arena = self.arena.as_ref().filter(|_| piece.len() >= LENT_BYTES_MIN)?;
        arena.contains(piece).then_some(arena)
    }

    /// Suits what the socket takes to what comes: lent pages, or copies.
    fn suit(&mut self, lends: bool) -> io::Result<()> {
        if self.lends != lends {
            let most = if lends { LENT_UNSENT_BYTES_MAX } else { UNSENT_BYTES_MAX };
            SockRef::from(self.socket.socket()).set_tcp_notsent_lowat(most)?;
            self.lends = lends;
        }
        Ok(())
    }
}

/// Sends these pieces, and says that more follows at once.
fn send_more(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags)?)
}

fn send_lent(socket: &TcpStream, arena: &Arena, mut at: u64, bytes: usize) -> io::Result<usize> {
    loop {
        match sendfile(socket, arena.file(), Some(&mut at), bytes) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let large = bufs.iter().position(|buf| this.arena_of(buf).is_some());
        match large {
            Some(0) => {
                let piece = &bufs[0];
                let at = this.arena.as_ref().and_then(|arena| arena.lend(piece));
                this.suit(at.is_some())?;
                match this.arena.as_ref().zip(at) {
                    Some((arena, at)) => {
                        let send = |socket: &TcpStream| send_lent(socket, arena, at, piece.len());
                        this.socket.poll_send(cx, send)
                    }
                    None => Pin::new(&mut this.socket).poll_write_vectored(cx, bufs),
                }
            }
            Some(before) => this.socket.poll_send(cx, |socket| send_more(socket, &bufs[..before])),
            None => Pin::new(&mut this.socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
