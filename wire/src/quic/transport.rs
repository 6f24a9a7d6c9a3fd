//! QUIC as h3 sees it, by quinn. Of requests h3 sees those that it is handed ([`Inlet`]); their
//! heads go through it. The sending half of a request's stream is then taken out, so that bodies
//! are handed to quinn by reference and by priority, neither of which h3's own sending allows.

use super::faults::{connection_error, lost};
use super::halves::{RecvStream, SendStream, stream_id};
use super::inlet::Inlet;
use super::outlets::{Outlet, Outlets, TooLong, locked};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, StoppedError, VarInt};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// `H3_REQUEST_REJECTED` (RFC 9114 section 8.1).
const REQUEST_REJECTED: VarInt = VarInt::from_u32(0x10b);

type Accepting<T> = BoxFuture<'static, Result<T, ConnectionError>>;
/// A stream of a peer's, both ways.
pub type Both = (quinn::SendStream, quinn::RecvStream);

/// A connection.
pub struct Connection {
    quic: quinn::Connection,
    inlet: Inlet,
    accepting_bidi: Option<Accepting<Both>>,
    opening_bidi: Option<Accepting<Both>>,
    opening_send: Option<Accepting<quinn::SendStream>>,
    outlets: Outlets,
    own: Own,
}

/// Ends once the peer stops a stream of ours, or their connection is lost.
pub type Stopped = BoxFuture<'static, Result<Option<VarInt>, StoppedError>>;
/// Those that were opened to send alone.
type Own = Arc<Mutex<Vec<Stopped>>>;

impl Connection {
    /// h3's view of a connection.
    pub fn new(quic: quinn::Connection, too_long: TooLong) -> Self {
        Self {
            quic,
            inlet: Inlet::default(),
            accepting_bidi: None,
            opening_bidi: None,
            opening_send: None,
            outlets: Outlets::new(too_long),
            own: Own::default(),
        }
    }

    /// Where it takes requests' streams from.
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// What tells of streams that h3 opened to send alone.
    pub fn own(&self) -> impl FnOnce() -> Vec<Stopped> + use<> {
        let own = Arc::clone(&self.own);
        move || std::mem::take(&mut *locked(&own))
    }

    /// The sending halves of its requests' streams.
    pub fn outlets(&self) -> Outlets {
        self.outlets.clone()
    }
}

/// Polls what `slot` waits for, which is begun by `start` if it is not begun yet.
fn next<T>(
    slot: &mut Option<Accepting<T>>,
    start: impl FnOnce() -> Accepting<T>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, ConnectionError>> {
    let found = ready!(slot.get_or_insert_with(start).as_mut().poll(cx));
    *slot = None;
    Poll::Ready(found)
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Self;

    fn poll_accept_recv(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        // What a client opens to send alone is `listening`'s.
        Poll::Pending
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let handed = self.inlet.poll(cx);
        let mut stream = match handed {
            Poll::Ready(Some(stream)) => stream,
            Poll::Pending => return Poll::Pending,
            // GOAWAY has said that none of what comes now is answered: a client may have asked
            // elsewhere already. (h3 would answer the first of them.)
            Poll::Ready(None) => loop {
                let quic = &self.quic;
                let start = || {
                    let quic = quic.clone();
                    async move { quic.accept_bi().await }.boxed()
                };
                let both = ready!(next(&mut self.accepting_bidi, start, cx));
                let (mut send, mut receive) = both.map_err(connection_error)?;
                // Closed already is as good.
                let _ = (send.reset(REQUEST_REJECTED), receive.stop(REQUEST_REJECTED));
            },
        };
        stream.send.keep_in(&self.outlets);
        Poll::Ready(Ok(stream))
    }

    fn opener(&self) -> Self {
        Self::new(self.quic.clone(), self.outlets.of_too_long())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let start = || {
            let quic = quic.clone();
            async move { quic.open_bi().await }.boxed()
        };
        next(&mut self.opening_bidi, start, cx).map(|both| both.map(BidiStream::new).map_err(lost))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let start = || {
            let quic = quic.clone();
            async move { quic.open_uni().await }.boxed()
        };
        let opened = ready!(next(&mut self.opening_send, start, cx)).map_err(lost)?;
        locked(&self.own).push(opened.stopped().boxed());
        Poll::Ready(Ok(SendStream::new(opened)))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX), reason);
    }
}

/// A stream both ways.
pub struct BidiStream {
    send: SendStream,
    recv: RecvStream,
    by: Option<Instant>,
}

impl BidiStream {
    fn new((send, recv): Both) -> Self {
        let (send, recv) = (SendStream::new(send), RecvStream::new(recv));
        Self { send, recv, by: None }
    }

    /// One of which a first piece was read already, and whose head is to be here by then. `task`
    /// is kept until it is answered.
    pub fn begun(
        both: Both,
        quic: &quinn::Connection,
        piece: Option<Bytes>,
        by: Option<Instant>,
        task: TaskTrackerToken,
    ) -> Self {
        let id = stream_id(both.0.id());
        let outlet = Outlet::of(both.0);
        let recv = RecvStream::of_request(both.1, quic, piece, &outlet);
        Self { send: SendStream::of_request(outlet, id, task), recv, by }
    }

    /// Stands for one that is another's to answer: h3 learns that there was one with this number.
    /// For h3 it does not end.
    pub fn elsewhere(id: u64) -> Self {
        let id = StreamId::try_from(id).expect("it is that of a stream, of 62 bits");
        Self { send: SendStream::elsewhere(id), recv: RecvStream::elsewhere(id), by: None }
    }

    /// By when its head is to be here, if it was waited for before.
    pub fn by(&self) -> Option<Instant> {
        self.by
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        quic::SendStream::<Bytes>::poll_finish(&mut self.send, cx)
    }

    fn reset(&mut self, code: u64) {
        quic::SendStream::<Bytes>::reset(&mut self.send, code);
    }

    fn send_id(&self) -> StreamId {
        quic::SendStream::<Bytes>::send_id(&self.send)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}
