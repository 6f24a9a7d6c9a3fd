//! TCP without TLS: large pieces of the memory tier's arena leave by `sendfile(2)`, uncopied;
//! everything else by `writev(2)`. A head that goes before such a piece shares its segment.
//!
//! Invariant: the bytes and their order are the same either way. What keeps lent pages from
//! being filled anew while the kernel holds them is the arena's business.

use crate::tcp::UNSENT_BYTES_MAX;
use crate::watched::Watched;
use arena::{Arena, Pages, Queued};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Smaller pieces are cheaper to copy than to look up page by page.
const LENT_BYTES_MIN: usize = 64 << 10;
/// Bytes that a socket takes of huge pages, which stay the cache's own until the peer has them,
/// before they are on their way: as much as its buffer (`tcp_wmem`) may grow to. The fewer turns
/// a body takes, the less it costs.
const HUGE_UNSENT_BYTES_MAX: u32 = 4 << 20;
/// How often a socket whose connection is idle is asked what its peer has acknowledged.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// A socket, and the arena that it may send from.
pub struct PlainStream {
    socket: Watched,
    arena: Option<Arena>,
    /// What the socket may queue of the arena.
    queued: Queued,
    settling: Option<Pin<Box<Sleep>>>,
    /// The socket takes what it takes of huge pages.
    takes_much: bool,
    /// What was written last were lent pages, whose rest may be too little to lend.
    lent_last: bool,
}

impl PlainStream {
    /// Without an arena everything is copied.
    pub fn new(socket: Watched, arena: Option<Arena>) -> Self {
        let queued = Queued::default();
        Self { socket, arena, queued, settling: None, takes_much: false, lent_last: false }
    }

    /// The arena, if a piece lies in it and is large enough to be lent.
    fn arena_of(&self, piece: &[u8]) -> Option<&Arena> {
        let arena = self.arena.as_ref().filter(|_| piece.len() >= LENT_BYTES_MIN)?;
        arena.contains(piece).then_some(arena)
    }

    /// Suits what the socket takes to what comes: huge pages, or what is held for it alone.
    fn suit(&mut self, takes_much: bool) -> io::Result<()> {
        if self.takes_much != takes_much {
            let most = if takes_much { HUGE_UNSENT_BYTES_MAX } else { UNSENT_BYTES_MAX };
            SockRef::from(self.socket.socket()).set_tcp_notsent_lowat(most)?;
            self.takes_much = takes_much;
        }
        Ok(())
    }

    /// Sends a piece of the arena: lent, or copied.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(arena) = self.arena.clone() else { return self.poll_copies(cx, bufs) };
        if self.queued.pages() > 1 {
            self.queued.settle(self.socket.socket().as_fd());
        }
        let Some(at) = arena.lend(&bufs[0], &mut self.queued) else {
            return self.poll_copies(cx, bufs);
        };
        self.suit(arena.pages() == Pages::Huge)?;
        let send = |socket: &TcpStream| send_lent(socket, &arena, at, bufs[0].len());
        let sent = self.socket.poll_send(cx, send);
        if let Poll::Ready(Ok(bytes)) = sent {
            self.queued.lent(bytes);
            self.lent_last = true;
        }
        sent
    }

    /// Sends copies of all pieces. What was sent of the arena may be lent the next time.
    fn poll_copies(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_rest = |arena: &Arena| bufs.first().is_some_and(|buf| arena.contains(buf));
        if !self.lent_last || !self.arena.as_ref().is_some_and(is_rest) {
            self.suit(false)?;
        }
        let sent = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(bytes)) = sent {
            self.copied(bytes);
            if let Some(arena) = bufs.first().and_then(|buf| self.arena_of(buf)) {
                arena.sent(&bufs[0]);
            }
        }
        sent
    }

    fn copied(&mut self, bytes: usize) {
        self.queued.copied(bytes);
        self.lent_last = false;
    }

    /// Releases what the peer has acknowledged, now and then, while there is something.
    fn settle(&mut self, cx: &mut Context<'_>) {
        while self.queued.pages() > 0 {
            let settling = || Box::pin(tokio::time::sleep(SETTLE_EVERY));
            let settling = self.settling.get_or_insert_with(settling);
            if settling.as_mut().poll(cx).is_pending() {
                return;
            }
            self.queued.settle(self.socket.socket().as_fd());
            settling.as_mut().reset(Instant::now() + SETTLE_EVERY);
        }
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
        let this = self.get_mut();
        this.settle(cx);
        Pin::new(&mut this.socket).poll_read(cx, buf)
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
            Some(0) => this.poll_piece(cx, bufs),
            Some(before) => {
                let sent = this.socket.poll_send(cx, |socket| send_more(socket, &bufs[..before]));
                if let Poll::Ready(Ok(bytes)) = sent {
                    this.copied(bytes);
                }
                sent
            }
            None => this.poll_copies(cx, bufs),
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
