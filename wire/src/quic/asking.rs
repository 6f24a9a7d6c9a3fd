//! The requests of a connection, from their streams to their answers. One that is plain, and
//! whose answer is there and fits what may be under way, is answered where its stream was
//! accepted: no task, future or timer is made for it.
//!
//! Invariant: each request is answered once, here or by what h3 makes of it.

use super::inlet::Inlet;
use super::leaving::{Leaving, Step, Unfinished, soon};
use super::order::{Order, Tally};
use super::outlets::Outlets;
use super::plain::Plain;
use super::receiving::{Receiving, unread};
use super::transport::{self, BidiStream};
use super::window::Window;
use super::{NO_ERROR, REQUEST_MAX};
use crate::idle::idle;
use crate::patience::Wait;
use crate::shards::guarded;
use crate::unread::Why;
use crate::{Reply, Request, RequestBody, Service, Shared, Via};
use bytes::Bytes;
use futures::FutureExt;
use h3::quic::StreamId;
use h3::server::RequestResolver;
use http::Method;
use http::request::Parts;
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use quinn::{Chunk, ReadError, RecvStream, VarInt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// From a client's stream to its next one (RFC 9000 section 2.1).
const STREAM_STEP: u64 = 4;

/// `H3_EXCESSIVE_LOAD` (RFC 9114 section 8.1).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// `H3_REQUEST_INCOMPLETE` (RFC 9114 section 8.1).
const REQUEST_INCOMPLETE: VarInt = VarInt::from_u32(0x10d);
/// `H3_MESSAGE_ERROR` (RFC 9114 section 8.1).
const MESSAGE_ERROR: VarInt = VarInt::from_u32(0x10e);
/// Streams of a connection that brought no request; with the next one it is closed. h3 keeps the
/// numbers of those that it was handed for as long as the connection lasts.
pub const FUTILE_MAX: usize = 1000;

/// What the requests of a connection have in common.
pub struct Asked<S> {
    /// What listeners share.
    pub shared: Shared<S>,
    /// What the connection tells of each of them.
    pub via: Arc<Via>,
    /// Those that are not answered at once. At most `STREAMS_MAX` at a time: the transport sees
    /// to that.
    pub tasks: TaskTracker,
    /// The way to h3 of those that are not plain.
    pub inlet: Inlet,
    /// The sending halves of these.
    pub outlets: Outlets,
    /// The first stream that was not accepted.
    pub next: AtomicU64,
    /// No more are accepted: the server drains, or the client goes.
    pub ending: CancellationToken,
    /// What answers have handed over.
    pub tally: Tally,
    /// What they may have handed over and not yet acknowledged.
    pub window: Window,
    /// Streams that brought no request.
    pub futile: AtomicUsize,
    /// The connection.
    pub quic: quinn::Connection,
}

/// A request that h3 is to read.
pub type Resolver = RequestResolver<transport::Connection, Bytes>;

impl<S: Service> Asked<S> {
    /// Accepts requests until the connection ends, or is to.
    pub async fn accept(self: Arc<Self>) {
        // However it ends: nobody else accepts.
        let _ending = self.ending.clone().drop_guard();
        let mut ending = pin!(self.ending.cancelled());
        let mut plain = Plain::default();
        while !self.ending.is_cancelled() {
            let accepted = tokio::select! {
                biased;
                accepted = self.quic.accept_bi() => accepted,
                () = &mut ending => break,
            };
            let Ok((send, receive)) = accepted else { break };
            self.next.store(u64::from(send.id()) + STREAM_STEP, Relaxed);
            let send = Unfinished::of(send);
            let begin = AssertUnwindSafe(|| self.begin(&mut plain, send, receive));
            if catch_unwind(begin).is_err() {
                self.shared.metrics.panics.inc();
                tracing::error!("a request's answer panicked");
            }
        }
    }

    /// Ends once nothing was asked for `limit`, and a part of it at most.
    pub async fn idle(&self, limit: Duration) {
        // Beside `accept`, until that ends.
        let is_asked = || self.tasks.len() > usize::from(!self.ending.is_cancelled());
        // A request's task ends before its answer has left. Pings are no STREAM frames.
        let seen = || (self.next.load(Relaxed), self.quic.stats().frame_tx.stream);
        idle(limit, is_asked, seen).await;
    }

    /// Answers a request as far as that needs no waiting, and leaves the rest to a task.
    fn begin(self: &Arc<Self>, plain: &mut Plain, send: Unfinished, mut receive: RecvStream) {
        // Its head nearly always comes with the first packet of its stream.
        if let Some(read) = receive.read_chunk(usize::MAX, true).now_or_never() {
            return self.go_on(plain, send, receive, read, None);
        }
        let asked = Arc::clone(self);
        self.spawn(async move {
            let by = Instant::now() + REQUEST_MAX;
            let read = timeout_at(by, receive.read_chunk(usize::MAX, true)).await;
            let read = read.map_err(|_| asked.given_up())?;
            asked.go_on(&mut Plain::default(), send, receive, read, Some(by));
            Ok(())
        });
    }

    /// The same from the first piece of its stream, which was waited for or not.
    fn go_on(
        self: &Arc<Self>,
        plain: &mut Plain,
        send: Unfinished,
        mut receive: RecvStream,
        read: Result<Option<Chunk>, ReadError>,
        by: Option<Instant>,
    ) {
        // No request at all. h3 would keep its number as long as the connection lasts.
        if matches!(read, Ok(None) | Err(ReadError::Reset(_))) {
            if let Some(mut send) = send.released() {
                let _ = send.reset(REQUEST_INCOMPLETE);
            }
            return self.futile();
        }
        // What else was read is read again by h3.
        let piece = read.ok().flatten().map(|chunk| chunk.bytes);
        let Some(head) = piece.as_ref().and_then(|piece| plain.read(piece)) else {
            if let Some(send) = send.released() {
                let (both, task) = ((send, receive), self.tasks.token());
                self.inlet.hand(BidiStream::begun(both, &self.quic, piece, by, task));
            }
            return;
        };
        // These methods have no body.
        let _ = receive.stop(NO_ERROR);
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let order = order(&head, receive.id().into());
        let mut reply = self.shared.reply(self.request(head, body));
        let asked = Arc::clone(self);
        let mut leaving = match (whole::<S>(&mut reply), reply) {
            (Some(pieces), Reply::Known(_, body)) => Leaving::whole(send, order, pieces, body),
            (_, reply) => {
                let mut answering = self.shared.awaited(reply);
                let Some(answer) = (&mut answering).now_or_never() else {
                    return self.spawn(async move {
                        let answer = answering.await;
                        let leaving = Leaving::new(send, order, answer);
                        leaving.finish(&asked.shared, &asked.tally, &asked.window).await
                    });
                };
                Leaving::new(send, order, answer)
            }
        };
        match leaving.step(&self.tally) {
            Step::Ended(Ok(())) => {}
            Step::Ended(Err(error)) => tracing::debug!(error, "HTTP/3 request ended"),
            Step::Full | Step::Starved => {
                self.spawn(async move {
                    leaving.finish(&asked.shared, &asked.tally, &asked.window).await
                });
            }
        }
    }

    fn request(&self, head: Parts, body: RequestBody) -> Request {
        Request { head, body, protocol: "h3", via: Arc::clone(&self.via) }
    }

    /// Answers a request that h3 reads, and has just accepted.
    pub fn resolve(self: &Arc<Self>, resolver: Resolver) {
        let asked = Arc::clone(self);
        let left = self.inlet.by().map(|by| by.saturating_duration_since(Instant::now()));
        self.spawn(async move {
            let by = Instant::now() + left.unwrap_or(REQUEST_MAX);
            let left = || by.saturating_duration_since(Instant::now());
            let resolved = soon(left(), resolver.resolve_request()).await;
            let resolved = resolved.ok_or_else(|| {
                asked.futile();
                asked.given_up()
            })?;
            let (request, stream) = resolved.map_err(|error| {
                asked.futile();
                if let Some(why) = unread(&error) {
                    asked.shared.metrics.unread.count("h3", why);
                }
                error.to_string()
            })?;
            let (head, ()) = request.into_parts();
            let (_send, receive) = stream.split();
            let id = receive.id();
            let Some(outlet) = asked.outlets.read(id) else { return Ok(()) };
            let order = order(&head, id.into_inner());
            let mut body = Receiving::of(&head, receive, outlet);
            // Nobody reads what a GET brings.
            if head.method == Method::GET || head.method == Method::HEAD {
                let begun = soon(left(), body.begun()).await.ok_or_else(|| asked.given_up())?;
                if let Err((error, why)) = begun {
                    asked.malformed(id, why);
                    return Err(error);
                }
            }
            let request = asked.request(head, body.boxed_unsync());
            let answer = asked.shared.answer(request).await;
            let Some(send) = asked.outlets.take(id) else { return Ok(()) };
            let leaving = Leaving::new(Unfinished::of(send), order, answer);
            leaving.finish(&asked.shared, &asked.tally, &asked.window).await
        });
    }

    /// A request is none by its body.
    fn malformed(&self, id: StreamId, why: Option<Why>) {
        self.futile();
        if let Some(why) = why {
            self.shared.metrics.unread.count("h3", why);
        }
        if let Some(mut send) = self.outlets.take(id) {
            let _ = send.reset(MESSAGE_ERROR);
        }
    }

    /// A stream has brought no request. A few do, by accident.
    fn futile(&self) {
        if self.futile.fetch_add(1, Relaxed) == FUTILE_MAX {
            self.shared.metrics.quic.futile.inc();
            self.quic.close(EXCESSIVE_LOAD, b"streams without requests");
        }
    }

    /// What is waited for in vain is counted.
    fn given_up(&self) -> String {
        self.shared.metrics.given_up.count(Wait::Head);
        format!("no request within {REQUEST_MAX:?}")
    }

    /// Runs the rest of a request.
    fn spawn(&self, rest: impl Future<Output = Result<(), String>> + Send + 'static) {
        let rest = async move {
            if let Err(error) = rest.await {
                tracing::debug!(error, "HTTP/3 request ended");
            }
        };
        // It is large, and would be moved several times on its way.
        self.tasks.spawn(guarded(Box::pin(rest), self.shared.metrics.panics.clone()));
    }
}

/// What leaves of an answer whose head was made ready, if its body is at hand in one piece.
fn whole<S: Service>(reply: &mut Reply<S::Body>) -> Option<[Bytes; 2]> {
    let Reply::Known(known, body) = reply else { return None };
    let frames = known.frames(body.size_hint().exact()?)?;
    Some([frames, S::whole(body)?])
}

fn order(head: &Parts, stream: u64) -> Order {
    Order::new(caching::Priority::of_request(&head.headers), stream)
}

#[cfg(test)]
mod tests;
