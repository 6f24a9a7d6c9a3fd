//! QUIC as h3 sees it, by quinn. Of requests h3 sees those that it is handed ([`Inlet`]); their
//! heads go through it. The sending half of a request's stream is then taken out, so that bodies
//! are handed to quinn by reference and by priority, neither of which h3's own sending allows.

use super::faults::{connection_error, lost, read_error, write_error};
use super::inlet::Inlet;
use super::outlets::{Outlet, Outlets, locked};
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt};
use std::pin::Pin;
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
    accepting_recv: Option<Accepting<quinn::RecvStream>>,
    opening_bidi: Option<Accepting<Both>>,
    opening_send: Option<Accepting<quinn::SendStream>>,
    outlets: Outlets,
}

impl Connection {
    /// h3's view of a connection.
    pub fn new(quic: quinn::Connection) -> Self {
        Self {
            quic,
            inlet: Inlet::default(),
            accepting_bidi: None,
            accepting_recv: None,
            opening_bidi: None,
            opening_send: None,
            outlets: Outlets::default(),
        }
    }

    /// Where it takes requests' streams from.
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
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
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let start = || {
            let quic = quic.clone();
            async move { quic.accept_uni().await }.boxed()
        };
        next(&mut self.accepting_recv, start, cx)
            .map(|recv| recv.map(RecvStream::new).map_err(connection_error))
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
        let send = &mut stream.send;
        // One that stands for another's must not put that one's out.
        if locked(&send.stream).is_some() {
            self.outlets.insert(send.id, &send.stream);
            send.outlets = Some(self.outlets.clone());
        }
        Poll::Ready(Ok(stream))
    }

    fn opener(&self) -> Self {
        Self::new(self.quic.clone())
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
        next(&mut self.opening_send, start, cx).map(|send| send.map(SendStream::new).map_err(lost))
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
        Self { send: SendStream::new(send), recv: RecvStream::new(recv), by: None }
    }

    /// One of which a first piece was read already, and whose head is to be here by then. `task`
    /// is kept until it is answered.
    pub fn begun(
        both: Both,
        piece: Option<Bytes>,
        by: Option<Instant>,
        task: TaskTrackerToken,
    ) -> Self {
        let mut stream = Self { by, ..Self::new(both) };
        stream.recv.first = piece;
        stream.send.task = Some(task);
        stream
    }

    /// Stands for one that is another's to answer: h3 learns that there was one with this number.
    /// For h3 it does not end.
    pub fn elsewhere(id: u64) -> Self {
        let id = StreamId::try_from(id).expect("it is that of a stream, of 62 bits");
        let stream = Outlet::default();
        Self {
            send: SendStream { stream, id, writing: None, outlets: None, task: None },
            recv: RecvStream { id, first: None, stream: None, reading: None, stops: None },
            by: None,
        }
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

/// A sending half, until it is taken.
pub struct SendStream {
    stream: Outlet,
    id: StreamId,
    writing: Option<WriteBuf<Bytes>>,
    outlets: Option<Outlets>,
    /// The connection is kept while h3 has it.
    task: Option<TaskTrackerToken>,
}

impl SendStream {
    fn new(stream: quinn::SendStream) -> Self {
        let id = stream_id(stream.id());
        let stream = Arc::new(Mutex::new(Some(stream)));
        Self { stream, id, writing: None, outlets: None, task: None }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Some(outlets) = &self.outlets {
            outlets.forget(self.id);
            // Of a request that was never answered: dropped as it is, it would end cleanly.
            quic::SendStream::<Bytes>::reset(self, Code::H3_INTERNAL_ERROR.value());
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Some(data) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let mut stream = locked(&self.stream);
        let Some(stream) = &mut *stream else { return Poll::Ready(Err(taken())) };
        while data.has_remaining() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, data.chunk()));
            data.advance(written.map_err(write_error)?);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let why = "data was sent before the stream was ready".to_owned();
            let connection_error = ConnectionErrorIncoming::InternalError(why);
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = match &mut *locked(&self.stream) {
            Some(stream) => {
                stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error)))
            }
            None => Err(taken()),
        };
        Poll::Ready(finished)
    }

    fn reset(&mut self, code: u64) {
        if let Some(stream) = &mut *locked(&self.stream) {
            // Closed already is as good.
            let _ = stream.reset(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
        }
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

type Reading = BoxFuture<'static, (quinn::RecvStream, Result<Option<quinn::Chunk>, ReadError>)>;

/// A receiving half.
pub struct RecvStream {
    id: StreamId,
    /// Read before h3 asked for it.
    first: Option<Bytes>,
    stream: Option<quinn::RecvStream>,
    reading: Option<Reading>,
    /// Asked for while a read was under way.
    stops: Option<VarInt>,
}

impl RecvStream {
    fn new(stream: quinn::RecvStream) -> Self {
        let id = stream_id(stream.id());
        Self { id, first: None, stream: Some(stream), reading: None, stops: None }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(first)));
        }
        if let Some(mut stream) = self.stream.take() {
            let read = async move {
                let chunk = stream.read_chunk(usize::MAX, true).await;
                (stream, chunk)
            };
            self.reading = Some(read.boxed());
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(Ok(None)) };
        let (mut stream, chunk) = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        if let Some(code) = self.stops.take() {
            let _ = stream.stop(code);
        }
        self.stream = Some(stream);
        Poll::Ready(chunk.map(|chunk| chunk.map(|chunk| chunk.bytes)).map_err(read_error))
    }

    fn stop_sending(&mut self, code: u64) {
        let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
        match &mut self.stream {
            // Closed already is as good.
            Some(stream) => drop(stream.stop(code)),
            None => self.stops = Some(code),
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both are QUIC stream ids of 62 bits")
}

fn taken() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("the sending half was taken".into())
}
