//! TLS over TCP, corked: while a connection is polled, what it writes becomes records and waits
//! here; when it has been polled, the records leave together, in one system call as a rule.
//!
//! Invariants: at most a batch of records waits, and none is made while older ones do, so a peer
//! that reads slowly holds one batch. A turn asks for another only if it wrote a full
//! batch and all of it left: a connection with nothing to send, or whose peer is gone, sleeps.

mod pieces;

use crate::Levers;
use crate::batch::{BATCH_RECORDS, Batch, LARGE_RECORDS, RECORD_BYTES};
use crate::pace::Pace;
use crate::tls::sealing::{self, HEAD_BYTES};
use crate::watched::Watched;
use pieces::{PIECES_MAX, clip, write_apart};
use rustls::ServerConnection;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Plaintext of a turn.
const TURN_BYTES: usize = BATCH_RECORDS * RECORD_BYTES;
/// Plaintext of a turn that has a large batch.
const LARGE_TURN_BYTES: usize = LARGE_RECORDS * RECORD_BYTES;
/// What rustls may hold at most: a batch, its records' heads and tags, and what it says itself.
const HELD_BYTES_MAX: usize = TURN_BYTES + RECORD_BYTES;

/// A socket and its TLS session.
struct Session {
    socket: Watched,
    tls: ServerConnection,
    /// Records wait for the end of a turn.
    corks: bool,
    /// Plaintext that may still be written in this turn.
    room: usize,
    /// A write of this turn found no room.
    is_blocked: bool,
    /// Records that wait, sealed where they lie. What rustls holds goes behind them.
    batch: Option<Batch>,
    /// Whether the suite seals into a batch; not known before the first write.
    seals: Option<bool>,
    /// What rustls said during a write.
    said: Said,
    /// Tells when bytes of bodies were written: over a slow line their records leave long after.
    pace: Option<Arc<Pace>>,
    /// What it told at the last push.
    taken: u64,
    /// Among what waits are bytes of bodies.
    has_bodies: bool,
    /// Of what the socket was given, where the last batch with bytes of bodies ends so far.
    bodies_end: u64,
}

/// Takes what rustls has to send.
#[derive(Default)]
struct Said(Vec<u8>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        bufs.iter().for_each(|buf| self.0.extend_from_slice(buf));
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stream of a connection. Clones are the same stream: one is read and written, the other
/// begins and ends its turns.
#[derive(Clone)]
pub struct TlsStream {
    session: Arc<Mutex<Session>>,
}

impl TlsStream {
    /// Over a session whose handshake is done. Without `cork` each write leaves at once.
    pub fn new(socket: Watched, mut tls: ServerConnection, levers: Levers) -> Self {
        tls.set_buffer_limit(Some(HELD_BYTES_MAX));
        let session = Session {
            socket,
            tls,
            corks: levers.cork,
            room: 0,
            is_blocked: false,
            batch: None,
            seals: if levers.seal { None } else { Some(false) },
            said: Said::default(),
            pace: None,
            taken: 0,
            has_bodies: false,
            bodies_end: 0,
        };
        Self { session: Arc::new(Mutex::new(session)) }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns by this pace in which batches bytes of bodies are.
    pub fn heed(&self, pace: &Arc<Pace>) {
        self.session().pace = Some(Arc::clone(pace));
    }

    /// How many bytes the peer has acknowledged, to the end of the last batch with bytes of
    /// bodies: it grows while such bytes leave, and by nothing else.
    pub fn left_bytes(&self) -> u64 {
        let session = self.session();
        session.socket.acknowledged_bytes().min(session.bodies_end)
    }

    /// Begins a turn: there is room for a batch, unless the last one has not left yet.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn begin(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut session = self.session();
        session.is_blocked = false;
        session.room = if session.push(cx)?.is_ready() { session.room_of_turn() } else { 0 };
        Ok(())
    }

    /// Ends a turn: sends what waits. Ready once nothing waits; then it tells whether there is
    /// more to write than the turn had room for.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut session = self.session();
        ready!(session.push(cx)?);
        Poll::Ready(Ok(session.is_blocked))
    }
}

/// A blocking view of the socket, as rustls wants it.
struct Blocking<'a, 'b> {
    socket: &'a mut Watched,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(outcome: Poll<io::Result<T>>) -> io::Result<T> {
    match outcome {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        or_would_block(Pin::new(&mut *self.socket).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Hands the socket what waits; ready once nothing does.
    fn push(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let pushed = self.push_batch(cx)?;
        // What was written since the last push is in what waited for this one.
        let taken = self.pace.as_ref().map_or(0, |pace| pace.taken());
        self.has_bodies |= taken != self.taken;
        self.taken = taken;
        if self.has_bodies {
            self.bodies_end = self.socket.sent_bytes();
        }
        self.has_bodies &= pushed.is_pending();
        Ok(pushed)
    }

    fn push_batch(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        while let Some(batch) = self.batch.as_mut().filter(|batch| !batch.waiting().is_empty()) {
            match Pin::new(&mut self.socket).poll_write(cx, batch.waiting())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => batch.advance(bytes),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.batch = None;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Blocking { socket: &mut self.socket, cx }) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Poll::Pending);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Plaintext that a turn takes, if its batch has the room.
    fn room_of_turn(&self) -> usize {
        // What rustls holds is no batch.
        if self.seals == Some(true) { LARGE_TURN_BYTES } else { TURN_BYTES }
    }

    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> io::Result<Poll<usize>> {
        if !self.corks {
            if self.push(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            self.room = self.room_of_turn();
        }
        let seals = self.seals != Some(false);
        let room = match seals && self.room > 0 {
            true => self.room.min(self.batch.get_or_insert_with(Batch::new).room()),
            false => self.room,
        };
        // What TLS itself has to say goes before what follows it: with the end of this turn.
        if room == 0 || (seals && self.tls.wants_write()) {
            self.is_blocked = true;
            return Ok(Poll::Pending);
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let count = clip(bufs, room, &mut pieces);
        let written = match seals {
            true => self.seal(&pieces[..count])?,
            false => self.tls.writer().write_vectored(&pieces[..count])?,
        };
        self.room -= written.min(self.room);
        if !self.corks {
            // What does not leave now, the next write or flush sends.
            let _ = self.push(cx)?;
        }
        Ok(Poll::Ready(written))
    }

    /// Writes records into the batch. What rustls said meanwhile comes where it was said.
    fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut at = self.batch.get_or_insert_with(Batch::new).end();
        let tls = &mut self.tls;
        let written = sealing::aside(&mut self.batch, || write_apart(tls, pieces));
        let batch = self.batch.get_or_insert_with(Batch::new);
        if batch.end() == at {
            // Another suite: rustls holds the records.
            self.seals = Some(false);
            return written;
        }
        self.seals = Some(true);
        self.said.0.clear();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.said)?;
        }
        let mut said = self.said.0.as_slice();
        while let Some(head) = said.first_chunk::<HEAD_BYTES>() {
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            let (record, rest) = said.split_at((HEAD_BYTES + length).min(said.len()));
            said = rest;
            if length == 0 {
                // It stands for the one in the batch.
                at = batch.after(at);
            } else if batch.insert(at, record) {
                at += record.len();
            } else {
                return Err(io::Error::other("no room for what TLS has to say"));
            }
        }
        written
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> io::Result<Poll<()>> {
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok(plain) => {
                    // No more of the buffer is touched than bytes came: an idle connection keeps
                    // it, and a page that nobody wrote to takes no memory.
                    let taken = plain.len().min(buf.remaining());
                    buf.put_slice(&plain[..taken]);
                    reader.consume(taken);
                    return Ok(Poll::Ready(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.tls.read_tls(&mut Blocking { socket: &mut self.socket, cx }) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Poll::Pending);
                }
                Err(error) => return Err(error),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The peer is told why, if the socket takes it at once.
                let _ = self.push(cx);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.session().read(cx, buf)?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
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
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(Ok(ready!(self.session().write(cx, bufs)?)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        if !session.corks {
            ready!(session.push(cx)?);
        }
        // Corked, the end of the turn sends it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        session.tls.send_close_notify();
        ready!(session.push(cx)?);
        match ready!(Pin::new(&mut session.socket).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}
