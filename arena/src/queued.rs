//! Which huge pages a socket's queue may hold: those of what it was lent, until the peer has
//! acknowledged it.
//!
//! Invariant: a huge page is released only when the socket's count of bytes that are not
//! acknowledged says that the last byte lent of it is, or when the socket is closed.

use crate::Shared;
use crate::extents::start;
use rustix::ioctl::{Getter, Opcode, ioctl};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Of a TCP socket, `SIOCOUTQ`: bytes that are not acknowledged, see tcp(7).
const TIOCOUTQ: Opcode = 0x5411;

/// What one TCP socket may queue of an arena. Every byte that is written to the socket has to be
/// told, in order: [`Queued::lent`] or [`Queued::copied`].
#[derive(Debug, Default)]
pub struct Queued {
    /// Bytes written to the socket in its life.
    written: u64,
    /// The one lent last comes last.
    holds: VecDeque<Hold>,
}

/// A huge page that may be queued.
#[derive(Debug)]
struct Hold {
    shared: Arc<Shared>,
    /// The first unit of the extent.
    unit: u32,
    /// The socket's bytes up to the last one lent of it.
    until: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.release(self.unit);
    }
}

impl Queued {
    /// Holds the huge page of this unit, which is about to be lent; false if it may not. Small
    /// pages need no holding: each is renewed by itself.
    pub(crate) fn hold(&mut self, shared: &Arc<Shared>, unit: u32) -> bool {
        if shared.pages == crate::Pages::Small {
            return true;
        }
        let unit = start(unit);
        let is_here = |hold: &Hold| hold.unit == unit && Arc::ptr_eq(&hold.shared, shared);
        let hold = match self.holds.iter().position(is_here) {
            Some(at) => self.holds.remove(at),
            None => shared.change(|blocks| blocks.hold(unit)).then(|| {
                let until = self.written;
                Hold { shared: Arc::clone(shared), unit, until }
            }),
        };
        let may = hold.is_some();
        self.holds.extend(hold);
        may
    }

    /// So many bytes of what was lent last were written to the socket.
    pub fn lent(&mut self, bytes: usize) {
        self.written += bytes as u64;
        if let Some(hold) = self.holds.back_mut() {
            hold.until = self.written;
        }
    }

    /// So many other bytes were.
    pub fn copied(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// How many huge pages it may hold.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.holds.len()
    }

    /// Releases what the peer has acknowledged since, as the socket tells.
    pub fn settle(&mut self, socket: BorrowedFd<'_>) {
        let acknowledged = self.written.saturating_sub(unacknowledged(socket));
        self.holds.retain(|hold| hold.until > acknowledged);
    }
}

/// Bytes written to a TCP socket that its peer has not acknowledged; none of a broken one.
#[must_use]
pub fn unacknowledged(socket: BorrowedFd<'_>) -> u64 {
    // SAFETY: of whatever file, the kernel answers TIOCOUTQ with one int, or with an error.
    let bytes = unsafe { ioctl(socket, Getter::<TIOCOUTQ, c_int>::new()) };
    bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, Pages};
    use bytes::Bytes;
    use rustix::fs::sendfile;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    const MIB: usize = 1 << 20;

    struct Connection {
        socket: TcpStream,
        peer: TcpStream,
        queued: Queued,
    }

    impl Connection {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = listener.accept().unwrap().0;
            socket.set_nonblocking(true).unwrap();
            Self { socket, peer, queued: Queued::default() }
        }

        /// Lends the chunk again and again, until the socket takes no more; false if it may not.
        fn fill(&mut self, arena: &Arena, chunk: &Bytes) -> bool {
            let Some(at) = arena.lend(chunk, &mut self.queued) else { return false };
            while let Ok(bytes) = sendfile(&self.socket, arena.file(), Some(&mut { at }), MIB) {
                self.queued.lent(bytes);
            }
            self.queued.settle(self.socket.as_fd());
            true
        }
    }

    #[test]
    fn a_huge_page_is_renewed_when_no_socket_queues_any_of_it() {
        let arena = Arena::of(Pages::Huge, 16 << 20).unwrap();
        let chunk = |byte: u8| {
            let mut slot = arena.slot(MIB).unwrap();
            slot.write(&vec![byte; MIB]);
            let bytes = slot.freeze();
            arena.sent(&bytes);
            Some(bytes)
        };
        // Two to a page.
        let mut chunks: Vec<_> = (0..16).map(chunk).collect();
        let (mut first, mut second, mut third) =
            (Connection::new(), Connection::new(), Connection::new());
        assert!(first.fill(&arena, chunks[0].as_ref().unwrap()));
        assert!(second.fill(&arena, chunks[2].as_ref().unwrap()));
        // A quarter of the pages is held: no other may be, those may be by more sockets.
        assert_eq!(arena.bytes_held(), 4 << 20);
        assert!(!third.fill(&arena, chunks[4].as_ref().unwrap()));
        assert!(third.fill(&arena, chunks[3].as_ref().unwrap()));
        assert_eq!((third.queued.pages(), arena.bytes_held()), (1, 4 << 20));
        // Nobody uses the first page, but its bytes are on their way.
        chunks[0] = None;
        chunks[1] = None;
        assert_eq!((arena.bytes_spent(), arena.bytes_used()), (1 << 20, 15 << 20));
        let mut body = vec![0; usize::try_from(first.queued.written).unwrap()];
        first.peer.read_exact(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == 0));
        // The acknowledgement comes by the kernel, in its time.
        let deadline = Instant::now() + Duration::from_secs(20);
        while first.queued.pages() > 0 {
            assert!(Instant::now() < deadline, "still queued");
            first.queued.settle(first.socket.as_fd());
            std::thread::yield_now();
        }
        assert_eq!((arena.bytes_spent(), arena.bytes_used()), (0, 14 << 20));
        assert_eq!(arena.bytes_held(), 2 << 20);
        assert!(first.fill(&arena, chunks[4].as_ref().unwrap()));
        // Two sockets hold the second page; what is closed holds nothing.
        drop((chunks, second));
        assert_eq!((arena.bytes_spent(), arena.bytes_held()), (3 << 20, 4 << 20));
        drop((first, third));
        assert_eq!((arena.bytes_used(), arena.bytes_held()), (0, 0));
    }
}
