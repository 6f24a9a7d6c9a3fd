//! The body of an answer: it ends cleanly only when its framing says that it is whole.
//!
//! The clock runs while somebody waits for bytes, so a slow reader is not held against the
//! server. Two rules: no silence longer than the stall limit, and no drip.

use crate::ask::{HopId, HopKind};
use crate::circle::AtNode;
use crate::fault::{ErrorType, Fault, body_error};
use crate::flight::Flight;
use crate::hop::Held;
use crate::place::Place;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A server that sends fewer bytes than this while it is waited for during two stall limits
/// drips.
const PROGRESS_BYTES_MIN: usize = 256;
const PROGRESS_STALLS: u32 = 2;

/// A body. Drop it to give up the exchange.
pub struct UpstreamBody {
    source: Source,
    flight: Option<Flight>,
    patience: Option<Patience>,
    /// How many more bytes are wanted, where more of them come.
    left: Option<u64>,
    delimited: bool,
    /// No other body shares its connection, as over HTTP/1.1.
    alone: bool,
    /// It was let wait for its readers.
    held: OnceLock<Held>,
    /// It makes way for another request.
    way: OnceLock<Held>,
    own: Option<OwnLoad>,
    /// Ends when the hop is found silent, if it is to be left then.
    silence: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Counts a request that this node answers as the owner among its siblings.
pub(crate) struct OwnLoad(Arc<AtomicUsize>);

impl OwnLoad {
    pub(crate) fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Relaxed);
        Self(load.clone())
    }
}

impl Drop for OwnLoad {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

enum Source {
    Live(Incoming),
    Held(Option<Bytes>),
}

struct Patience {
    limit: Duration,
    /// Whether a drip is a failure.
    progress: bool,
    pause: Pin<Box<Sleep>>,
    waiting: Option<Instant>,
    waited: Duration,
    bytes: usize,
}

impl UpstreamBody {
    pub(crate) fn live(
        body: Incoming,
        flight: Flight,
        (limit, progress): (Duration, bool),
        (delimited, alone): (bool, bool),
    ) -> Self {
        let patience = Some(Patience {
            limit,
            progress,
            pause: Box::pin(tokio::time::sleep(limit)),
            waiting: None,
            waited: Duration::ZERO,
            bytes: 0,
        });
        let source = Source::Live(body);
        let flight = Some(flight);
        let (own, silence) = (None, None);
        let (held, way, left) = (OnceLock::new(), OnceLock::new(), None);
        let mut body =
            Self { source, flight, patience, left, delimited, alone, held, way, own, silence };
        if body.is_end_stream() {
            body.whole();
        }
        body
    }

    /// A body that was read already.
    pub(crate) fn held(bytes: Bytes) -> Self {
        let source = Source::Held(Some(bytes).filter(|bytes| !bytes.is_empty()));
        let (flight, patience, own, silence) = (None, None, None, None);
        let (held, way, left) = (OnceLock::new(), OnceLock::new(), None);
        let (delimited, alone) = (true, true);
        Self { source, flight, patience, left, delimited, alone, held, way, own, silence }
    }

    /// It is over after so many bytes, of more. The exchange is given up then: over HTTP/1.1 its
    /// connection is closed, over HTTP/2 its stream reset.
    pub(crate) fn leave_after(&mut self, bytes: u64) {
        self.left = Some(bytes);
    }

    /// Whether it harms nobody when no more of it is taken for a while: an eighth of the places at
    /// its hop is free, no request waits for one, and fewer than half are let wait. (Others that
    /// share its connection have that one's window, in which those of all its streams have room.)
    /// From then on, a cut says nothing of the hop: it may have waited long enough for us.
    pub fn may_wait(&self) -> bool {
        let Some(flight) = &self.flight else { return true };
        if !flight.hop().is_at_ease() {
            return false;
        }
        if let (None, Some(held)) = (self.held.get(), flight.hop().hold()) {
            // Set by nobody in between: only the body's owner asks.
            let _ = self.held.set(held);
        }
        self.held.get().is_some()
    }

    /// Whether it is to be closed, since a request waits for a place at its hop, or for one on the
    /// connections there, and what is left of it can be had again: so that slow readers do not have all places for as long as they read.
    /// As many answers are told so as there are such requests.
    pub fn yields(&self) -> bool {
        let Some(flight) = &self.flight else { return false };
        if let (None, Some(way)) = (self.way.get(), flight.hop().make_way()) {
            // Set by nobody in between: only the body's owner asks.
            let _ = self.way.set(way);
        }
        self.way.get().is_some()
    }

    /// Its place at its hop, for [`crate::Ask::place`]; none once it has ended.
    pub fn place(&self) -> Option<Place> {
        self.flight.as_ref().map(|flight| flight.place().clone())
    }

    /// It is noted which node it comes from, until it ends.
    pub(crate) fn note(&mut self, noted: AtNode) {
        if let Some(flight) = &mut self.flight {
            flight.note(noted);
        }
    }

    /// Counts as this node's own work until it is dropped.
    pub(crate) fn keep(&mut self, own: Option<OwnLoad>) {
        self.own = own;
    }

    /// What is left of it can be had elsewhere: a node that gives no sign of life is waited for no
    /// longer than the time that shows that, rather than for the stall limit.
    pub fn leave_if_silent(&mut self) {
        let peer = |flight: &&Flight| flight.hop().kind != HopKind::Origin;
        if let Some(flight) = self.flight.as_ref().filter(peer) {
            self.silence = Some(Box::pin(flight.alive().clone().cancelled_owned()));
        }
    }

    /// The next bytes; `None` at the end of a whole body.
    ///
    /// # Errors
    /// Any [`Fault`]; the body is then over.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        loop {
            match self.frame().await? {
                Err(fault) => return Some(Err(fault)),
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
            }
        }
    }

    /// Bytes still to come, where the framing tells.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Whether the framing tells where the body ends. Otherwise it ends with its connection,
    /// and a server that broke down looks like one that was done (RFC 9112, 8).
    #[must_use]
    pub fn is_delimited(&self) -> bool {
        self.delimited
    }

    fn whole(&mut self) {
        if let Some(mut flight) = self.flight.take() {
            flight.whole();
        }
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        if let Some(mut flight) = self.flight.take() {
            match self.held.take() {
                Some(_) => flight.unjudged(&fault),
                None => flight.failed(&fault, true),
            }
        }
        self.source = Source::Held(None);
        fault
    }

    /// What came of waiting.
    fn polled(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    ) -> Option<Result<Frame<Bytes>, Fault>> {
        match frame {
            None if !self.has_ended() => {
                let why = format!("{}: its stream ended before the body did", self.hop());
                Some(Err(self.fail(Fault::cut(ErrorType::HttpResponseIncomplete, why))))
            }
            None => {
                self.whole();
                None
            }
            Some(Err(error)) => {
                let is_short = self.length().is_some_and(|left| left > 0);
                let fault = body_error(&self.hop(), &error, is_short);
                Some(Err(self.fail(fault)))
            }
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(flight) = &self.flight {
                    flight.received(bytes);
                }
                if let Some(slow) = self.patience.as_mut().and_then(|patience| patience.came(bytes))
                {
                    return Some(Err(self.slow(&slow)));
                }
                Some(Ok(self.wanted(frame)))
            }
        }
    }

    /// What is wanted of a frame.
    fn wanted(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(left) = self.left else { return frame };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return trailers,
        };
        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - data.len() as u64;
        self.left = Some(left);
        if left == 0 {
            self.whole();
            (self.source, self.silence) = (Source::Held(None), None);
        }
        Frame::data(data)
    }

    /// Whether an end that was told is one: of HTTP/2, hyper takes a reset or a GOAWAY without an
    /// error for an end, which is so of a request (RFC 9113 section 8.1), but an answer ends with
    /// END_STREAM alone.
    fn has_ended(&self) -> bool {
        self.alone || self.is_end_stream()
    }

    /// Who sends it.
    fn hop(&self) -> HopId {
        self.flight.as_ref().map_or_else(|| HopId("".into()), |flight| flight.hop().id.clone())
    }

    fn silent(&mut self) -> Fault {
        let why = format!("{}: no sign of life in mid-body", self.hop());
        let fault = Fault::cut(ErrorType::ConnectionReadTimeout, why);
        let flight = self.flight.take();
        flight.into_iter().for_each(|mut flight| flight.silent(&fault));
        (self.source, self.silence) = (Source::Held(None), None);
        fault
    }

    fn slow(&mut self, what: &str) -> Fault {
        let why = format!("{}: {what}", self.hop());
        let fault = Fault::cut(ErrorType::ConnectionReadTimeout, why);
        self.fail(fault)
    }
}

impl Patience {
    /// Bytes came: whether they were too few for the time.
    fn came(&mut self, bytes: usize) -> Option<String> {
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        let window = self.limit * PROGRESS_STALLS;
        if self.waited < window {
            return None;
        }
        let slow = (self.progress && self.bytes < PROGRESS_BYTES_MIN)
            .then(|| format!("a drip: {} bytes within {window:?}", self.bytes));
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        slow
    }

    /// Nothing came: whether that is too long now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            self.pause.as_mut().reset(now + self.limit);
        }
        self.pause.as_mut().poll(cx)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = match &mut self.source {
            Source::Held(held) => return Poll::Ready(held.take().map(|b| Ok(Frame::data(b)))),
            Source::Live(body) => Pin::new(body).poll_frame(cx),
        };
        if let Poll::Ready(frame) = polled {
            return Poll::Ready(self.polled(frame));
        }
        let silence = self.silence.as_mut();
        if silence.is_some_and(|silence| silence.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(self.silent())));
        }
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        std::task::ready!(patience.poll(cx));
        let limit = patience.limit;
        Poll::Ready(Some(Err(self.slow(&format!("silent for {limit:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Live(body) => body.is_end_stream(),
            Source::Held(held) => held.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Live(body) => match (self.left, body.size_hint().exact()) {
                (Some(left), Some(bytes)) => SizeHint::with_exact(left.min(bytes)),
                _ => body.size_hint(),
            },
            Source::Held(held) => {
                SizeHint::with_exact(held.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("length", &self.length()).finish_non_exhaustive()
    }
}
