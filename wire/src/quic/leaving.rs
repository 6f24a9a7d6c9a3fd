//! An answer on its way out: its head and its body's DATA frames (RFC 9114 section 7.2.1), their
//! payload by reference; all at once as far as it is there and there is room.
//!
//! Invariant: a stream ends cleanly after a whole body alone.

use super::order::{Order, PACKET_BYTES_MIN, Place, Tally};
use super::taking::Lost;
use super::window::Window;
use super::{head, taking};
use crate::{Service, Shared};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use quinn::{VarInt, WriteError};
use std::fmt::Display;
use std::mem;
use std::pin::pin;
use std::time::Duration;

/// A body is handed to quinn in pieces of at most this.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// A body of at most this is one DATA frame.
pub const DATA_BYTES_MAX: u64 = PIECE_BYTES_MAX as u64;
/// `H3_INTERNAL_ERROR` (RFC 9114 section 8.1).
const INTERNAL_ERROR: VarInt = VarInt::from_u32(0x102);
/// The head of a DATA frame: its type, and a length of four bytes (RFC 9000 section 16).
const FRAME_HEAD_BYTES: usize = 5;

/// A stream that is reset unless it is finished: one that quinn sees dropped, by an error or by a
/// panic, would end cleanly, with a body that is not whole.
pub struct Unfinished(Option<quinn::SendStream>);

impl Unfinished {
    /// The sending half of a request's stream.
    pub fn of(stream: quinn::SendStream) -> Self {
        Self(Some(stream))
    }

    /// Lets what comes before leave before.
    fn set_priority(&self, priority: i32) {
        if let Some(stream) = &self.0 {
            // Closed already is as good.
            let _ = stream.set_priority(priority);
        }
    }

    /// The same of one that has none yet.
    fn begin(&self, order: &Order) {
        // That is what quinn has where nothing is set.
        if order.first() != 0 {
            self.set_priority(order.first());
        }
    }

    /// Gives the stream up to somebody else.
    pub fn released(mut self) -> Option<quinn::SendStream> {
        self.0.take()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // Closed already is as good.
            let _ = stream.reset(INTERNAL_ERROR);
        }
    }
}

/// What of an answer has not left yet.
pub struct Leaving<B> {
    stream: Unfinished,
    order: Order,
    /// Frames' heads, for the same write as what follows them.
    head: Vec<u8>,
    /// Handed to quinn as far as it had room.
    pieces: [Bytes; 2],
    /// What else of the body is there.
    rest: Bytes,
    body: B,
    /// The body has ended.
    over: bool,
}

/// Where an answer stands.
pub enum Step {
    /// It has left, or can't any more.
    Ended(Result<(), String>),
    /// What is there waits for room.
    Full,
    /// The body has not come that far.
    Starved,
}

impl<B> Leaving<B>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    /// An answer by this stream, in this order among others.
    pub fn new(stream: Unfinished, order: Order, answer: Response<B>) -> Self {
        stream.begin(&order);
        let (answer, body) = answer.into_parts();
        let head = head::frame(answer.status, &answer.headers);
        let (pieces, rest) = ([Bytes::new(), Bytes::new()], Bytes::new());
        Self { stream, order, head, pieces, rest, body, over: false }
    }

    /// The same of an answer that is there as a whole: what goes before its body, and all that the
    /// body had to send.
    pub fn whole(stream: Unfinished, order: Order, pieces: [Bytes; 2], body: B) -> Self {
        stream.begin(&order);
        Self { stream, order, head: Vec::new(), pieces, rest: Bytes::new(), body, over: true }
    }

    /// Hands over what can be handed over without waiting.
    pub fn step(&mut self, tally: &Tally) -> Step {
        let order = self.order;
        self.steps(|bytes| tally.add(&order, bytes))
    }

    fn steps(&mut self, add: impl Fn(usize)) -> Step {
        let mut begun = false;
        loop {
            let bytes = self.waiting();
            let written = self.write().now_or_never();
            let bytes = bytes - self.waiting();
            if bytes > PACKET_BYTES_MIN && !mem::replace(&mut begun, true) {
                self.stream.set_priority(self.order.rest());
            }
            add(bytes);
            match written {
                None => return Step::Full,
                Some(Err(error)) => return Step::Ended(Err(error.to_string())),
                Some(Ok(())) => {}
            }
            if self.over {
                return Step::Ended(self.end());
            }
            if self.cut() {
                continue;
            }
            match self.body.frame().now_or_never() {
                None => return Step::Starved,
                Some(frame) => {
                    if let Err(fault) = self.take(frame) {
                        return Step::Ended(Err(fault));
                    }
                }
            }
        }
    }

    /// Sends the rest, unless the peer takes next to nothing for too long.
    pub async fn finish<S: Service<Body = B>>(
        mut self,
        shared: &Shared<S>,
        tally: &Tally,
        window: &Window,
    ) -> Result<(), String> {
        let place = &tally.place(self.order);
        loop {
            match self.steps(|bytes| place.add(bytes)) {
                Step::Ended(ended) => return ended,
                Step::Full if window.fit() => {}
                Step::Full => self.wait(shared, place).await?,
                Step::Starved => {
                    self.pieces[0] = mem::take(&mut self.head).into();
                    self.wait(shared, place).await?;
                    let frame = self.body.frame().await;
                    self.take(frame)?;
                }
            }
        }
    }

    async fn wait<S: Service<Body = B>>(
        &mut self,
        shared: &Shared<S>,
        place: &Place<'_>,
    ) -> Result<(), String> {
        let Some(stream) = &mut self.stream.0 else { return Ok(()) };
        let written = taking::write(shared, place, stream, &mut self.pieces).await;
        written.map_err(|lost| {
            if matches!(lost, Lost::Untaken) {
                shared.service.untaken(&mut self.body);
            }
            lost.to_string()
        })
    }

    /// Bytes that quinn has had no room for.
    fn waiting(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    async fn write(&mut self) -> Result<(), WriteError> {
        let Some(stream) = &mut self.stream.0 else { return Ok(()) };
        match self.pieces.iter().all(Bytes::is_empty) {
            true => Ok(()),
            false => stream.write_all_chunks(&mut self.pieces).await,
        }
    }

    /// Makes a DATA frame of the next piece of what is there.
    fn cut(&mut self) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES_MAX));
        let frame = data_frame(piece.len());
        let head = if self.head.is_empty() {
            Bytes::copy_from_slice(&frame)
        } else {
            self.head.extend_from_slice(&frame);
            mem::take(&mut self.head).into()
        };
        self.pieces = [head, piece];
        true
    }

    /// Takes what the body brought.
    fn take<E: Display>(
        &mut self,
        frame: Option<Result<http_body::Frame<Bytes>, E>>,
    ) -> Result<(), String> {
        match frame {
            Some(frame) => {
                let frame = frame.map_err(|fault| fault.to_string())?;
                self.rest = frame.into_data().unwrap_or_default();
            }
            None => {
                self.pieces[0] = mem::take(&mut self.head).into();
                self.over = true;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        if let Some(stream) = &mut self.stream.0 {
            stream.finish().map_err(|error| error.to_string())?;
        }
        self.stream.0 = None;
        Ok(())
    }
}

/// What goes before a body of so many bytes, at most [`DATA_BYTES_MAX`].
pub fn head_and_data(status: StatusCode, fields: &HeaderMap, bytes: u64) -> Bytes {
    let mut frames = head::frame(status, fields);
    frames.extend_from_slice(&data_frame(usize::try_from(bytes).unwrap_or(usize::MAX)));
    frames.into()
}

/// The head of a DATA frame: its type, 0, and its length, which a piece's always fits.
fn data_frame(bytes: usize) -> [u8; FRAME_HEAD_BYTES] {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX) & 0x3fff_ffff | 0x8000_0000;
    let mut head = [0; FRAME_HEAD_BYTES];
    head[1..].copy_from_slice(&length.to_be_bytes());
    head
}

/// What a step comes to, unless it takes longer than this. Most are over at once, without a timer.
pub async fn soon<T>(limit: Duration, step: impl Future<Output = T>) -> Option<T> {
    let mut step = pin!(step);
    match step.as_mut().now_or_never() {
        Some(done) => Some(done),
        None => tokio::time::timeout(limit, step).await.ok(),
    }
}
