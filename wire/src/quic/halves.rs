//! The halves of streams as h3 has them, by quinn.
//!
//! Invariant: a request's stream ends cleanly only after what h3 answers by itself (431), never
//! because it was dropped; and h3 collects no more of it than [`HEAD_STREAM_BYTES_MAX`] before its
//! head is read.

use super::control::Broken;
use super::faults::{read_error, write_error};
use super::frames::{Fault, Frames};
use super::heading::Heading;
use super::outlets::{HEAD_STREAM_BYTES_MAX, Outlet, Outlets};
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ReadError, VarInt};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// More came than a head has, or a frame.
#[derive(Debug, thiserror::Error)]
#[error("no head, or no whole frame, within {HEAD_STREAM_BYTES_MAX} bytes of its stream")]
pub struct TooLong;

/// A sending half, until it is taken.
pub struct SendStream {
    outlet: Arc<Outlet>,
    id: StreamId,
    writing: Option<Writing>,
    /// h3 has sent something, whole: it has no other answer than 431.
    written: bool,
    outlets: Option<Outlets>,
    /// The connection is kept while h3 has it.
    _task: Option<TaskTrackerToken>,
}

/// What h3 sends, and what is sent in its place where that is its answer to a request.
enum Writing {
    AsItIs(WriteBuf<Bytes>),
    TooLong(Bytes),
}

impl Writing {
    fn buf(&mut self) -> &mut dyn Buf {
        match self {
            Self::AsItIs(data) => data,
            Self::TooLong(answer) => answer,
        }
    }
}

impl SendStream {
    /// One of our own.
    pub fn new(stream: quinn::SendStream) -> Self {
        let id = stream_id(stream.id());
        Self::with(Outlet::of(stream), id, None)
    }

    /// That of a request; `task` is kept as long.
    pub fn of_request(outlet: Arc<Outlet>, id: StreamId, task: TaskTrackerToken) -> Self {
        Self::with(outlet, id, Some(task))
    }

    /// That of a stream whose sending half is another's.
    pub fn elsewhere(id: StreamId) -> Self {
        Self::with(Arc::default(), id, None)
    }

    fn with(outlet: Arc<Outlet>, id: StreamId, task: Option<TaskTrackerToken>) -> Self {
        Self { outlet, id, writing: None, written: false, outlets: None, _task: task }
    }

    /// Has its answer take it from there. One that stands for another's must not put that one's
    /// out.
    pub fn keep_in(&mut self, outlets: &Outlets) {
        if self.outlet.send().is_some() {
            outlets.insert(self.id, &self.outlet);
            self.outlets = Some(outlets.clone());
        }
    }

    /// Ends a request's stream that nobody took.
    fn end(&mut self, outlets: &Outlets) {
        if let Some(stream) = &mut *self.outlet.send() {
            if self.outlet.is_full() {
                let answer = outlets.too_long();
                // It is the first that is written, and fits any window that is one.
                self.written =
                    stream.write_all(&answer).now_or_never().is_some_and(|it| it.is_ok());
            }
            // h3's own answer is whole. Else it was never answered, and would end cleanly.
            // Closed already is as good.
            match self.written && self.writing.is_none() {
                true => drop(stream.finish()),
                false if self.outlet.is_refused() => {
                    drop(stream.reset(code(Code::H3_MESSAGE_ERROR.value())));
                }
                false => drop(stream.reset(code(Code::H3_INTERNAL_ERROR.value()))),
            }
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Some(outlets) = self.outlets.take() {
            outlets.forget(self.id);
            self.end(&outlets);
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Some(data) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let mut stream = self.outlet.send();
        let Some(stream) = &mut *stream else { return Poll::Ready(Err(taken())) };
        let data = data.buf();
        while data.has_remaining() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, data.chunk()));
            data.advance(written.map_err(write_error)?);
        }
        self.writing = None;
        self.written = true;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let why = "data was sent before the stream was ready".to_owned();
            let connection_error = ConnectionErrorIncoming::InternalError(why);
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(match &self.outlets {
            Some(outlets) => Writing::TooLong(outlets.too_long().into()),
            None => Writing::AsItIs(data.into()),
        });
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = match &mut *self.outlet.send() {
            Some(stream) => {
                stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error)))
            }
            None => Err(taken()),
        };
        Poll::Ready(finished)
    }

    fn reset(&mut self, code: u64) {
        if let Some(stream) = &mut *self.outlet.send() {
            // Closed already is as good.
            let _ = stream.reset(self::code(code));
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
    /// The sending half of a request's.
    outlet: Option<Arc<Outlet>>,
    /// The start of a request's, until its head is whole.
    heading: Option<Heading>,
    frames: Frames,
    /// Of a request: what may end by it.
    quic: Option<quinn::Connection>,
}

impl RecvStream {
    /// One of a stream of our own.
    pub fn new(stream: quinn::RecvStream) -> Self {
        let id = stream_id(stream.id());
        Self { stream: Some(stream), ..Self::elsewhere(id) }
    }

    /// That of a request, of which this was read already.
    pub fn of_request(
        stream: quinn::RecvStream,
        quic: &quinn::Connection,
        first: Option<Bytes>,
        outlet: &Arc<Outlet>,
    ) -> Self {
        let (outlet, heading) = (Some(Arc::clone(outlet)), Some(Heading::default()));
        Self { first, outlet, heading, quic: Some(quic.clone()), ..Self::new(stream) }
    }

    /// That of a stream that is another's: nothing comes, and it does not end.
    pub fn elsewhere(id: StreamId) -> Self {
        let (first, stream, reading, stops) = (None, None, None, None);
        let (frames, quic) = (Frames::default(), None);
        Self { id, first, stream, reading, stops, outlet: None, heading: None, frames, quic }
    }

    /// What h3 is given of what has come; none: nothing so far.
    fn given(&mut self, piece: Bytes) -> Result<Option<Bytes>, StreamErrorIncoming> {
        let passes = self.frames.takes(&piece);
        if passes == Err(Fault::Unexpected) {
            let broken = Broken::Unexpected;
            if let Some(quic) = &self.quic {
                quic.close(broken.code().into(), broken.to_string().as_bytes());
            }
            return Err(self.refused(broken));
        }
        let whole = passes.is_ok();
        let taken = match &self.outlet {
            Some(outlet) => outlet.takes(piece.len(), whole),
            None => whole,
        };
        if !taken {
            return Err(StreamErrorIncoming::Unknown(Box::new(TooLong)));
        }
        let Some(heading) = &mut self.heading else { return Ok(Some(piece)) };
        let given = heading.took(piece).map_err(|malformed| self.refused(malformed))?;
        if given.is_some() {
            self.heading = None;
        }
        Ok(given)
    }

    /// What h3 is given when nothing more comes.
    fn rest(&mut self) -> Result<Option<Bytes>, StreamErrorIncoming> {
        // What there is of a head is h3's to judge.
        if let Some(heading) = &mut self.heading {
            return Ok(heading.rest());
        }
        // h3 takes it for the end of a body.
        if self.outlet.is_some() && self.frames.is_body_cut() {
            return Err(self.refused(Fault::Cut));
        }
        // Other frames that are cut are h3's to judge, once it gets there.
        if let Some(outlet) = self.outlet.as_ref().filter(|_| !self.frames.is_cut()) {
            outlet.end(self.frames.body());
        }
        Ok(None)
    }

    /// Tells a request's sending half, too.
    fn refused(&self, why: impl Error + Send + Sync + 'static) -> StreamErrorIncoming {
        if let Some(outlet) = &self.outlet {
            outlet.refuse();
        }
        StreamErrorIncoming::Unknown(Box::new(why))
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(first) = self.first.take() {
                match self.given(first)? {
                    Some(given) => return Poll::Ready(Ok(Some(given))),
                    None => continue,
                }
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
            match chunk.map_err(read_error)? {
                Some(chunk) => self.first = Some(chunk.bytes),
                None => return Poll::Ready(self.rest()),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        let code = self::code(code);
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

fn code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn taken() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("the sending half was taken".into())
}

/// The id of a stream, as h3 has it.
pub fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both are QUIC stream ids of 62 bits")
}
