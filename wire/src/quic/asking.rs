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
mod tests {
    use super::*;
    use crate::quic::{Shaking, connection};
    use crate::stalls::{Stage, holds_the_clock, soon};
    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use quinn::{ClientConfig, Endpoint, ServerConfig};
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;
    use tokio::net::UdpSocket;
    use tokio::task::JoinHandle;

    /// Waits, while the clock goes on as packets that are sent apart need it to.
    async fn apart<T>(step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        soon(async {
            loop {
                if let std::task::Poll::Ready(done) = futures::poll!(&mut step) {
                    return done;
                }
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// A client that asks now and then whether the server is there, and the server's side.
    async fn connect(stage: &Stage) -> (Endpoint, quinn::Connection, JoinHandle<()>) {
        let (client, quic, serving, _) = connect_by_way(stage).await;
        (client, quic, serving)
    }

    /// The same, and what shuts its way back.
    async fn connect_by_way(
        stage: &Stage,
    ) -> (Endpoint, quinn::Connection, JoinHandle<()>, Arc<AtomicBool>) {
        let (tls, mut client) = stage.tls(&[b"h3"]);
        client.alpn_protocols = vec![b"h3".to_vec()];
        let any = ([127, 0, 0, 1], 0).into();
        // Only what is looked at here ends it.
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(5))).max_idle_timeout(None);
        let transport = Arc::new(transport);
        let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
        let mut config = ServerConfig::with_crypto(crypto);
        let mut lasting = quinn::TransportConfig::default();
        lasting.max_idle_timeout(None);
        config.transport_config(Arc::new(lasting));
        let server = Endpoint::server(config, any).unwrap();
        let (at, is_shut) = way(server.local_addr().unwrap()).await;
        let shared = Shared::clone(&stage.shared);
        let serving = tokio::spawn(async move {
            let incoming = server.accept().await.unwrap();
            let via = Arc::new(Via::new("https", None));
            // How it ended is counted.
            let _ = connection(incoming, Shaking::of(&Arc::default()), via, shared).await;
        });
        let crypto = Arc::new(QuicClientConfig::try_from(client).unwrap());
        let client = Endpoint::client(any).unwrap();
        let mut config = ClientConfig::new(crypto);
        config.transport_config(transport);
        let connecting = client.connect_with(config, at, "localhost").unwrap();
        let quic = apart(connecting).await.unwrap();
        (client, quic, serving, is_shut)
    }

    /// Asks, and reads how the answer begins.
    async fn ask(quic: &quinn::Connection) {
        let (mut send, mut answer) = quic.open_bi().await.unwrap();
        send.write_all(&[1, 8, 0, 0, 0xd1, 0xd7, 0x50, 1, b'a', 0xc1]).await.unwrap();
        answer.read_chunk(1, true).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_more_is_given_up_though_it_answers_pings() {
        holds_the_clock();
        for asks in [false, true] {
            let stage = Stage::new(REQUEST_MAX);
            let (_client, quic, serving) = connect(&stage).await;
            if asks {
                apart(ask(&quic)).await;
            }
            let limit = stage.shared.patience.head;
            let mut seconds = 0;
            while !serving.is_finished() && seconds < 2 * limit.as_secs() {
                stage.later(Duration::from_secs(1)).await;
                seconds += 1;
            }
            assert!(serving.is_finished(), "after {seconds} s");
            let given_up = ["head", "idle"].map(|wait| stage.given_up(wait));
            assert_eq!(given_up, [u64::from(!asks), u64::from(asks)]);
        }
    }

    /// A way to a server on which nothing comes back while it is shut.
    async fn way(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (here, is_shut) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let shut = Arc::clone(&is_shut);
        tokio::spawn(async move {
            let (mut client, mut packet) = (None, [0; 2048]);
            while let Ok((bytes, from)) = socket.recv_from(&mut packet).await {
                let is_back = from == server;
                client = if is_back { client } else { Some(from) };
                let to =
                    if is_back { client.filter(|_| !shut.load(Relaxed)) } else { Some(server) };
                if let Some(to) = to {
                    socket.send_to(&packet[..bytes], to).await.unwrap();
                }
            }
        });
        (here, is_shut)
    }

    /// Nothing is left to do for its answer once that is handed over, and it has not left by then.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_that_is_leaving_is_not_given_up_as_idle() {
        holds_the_clock();
        let stage = Stage::new(REQUEST_MAX);
        let (client, quic, serving, is_shut) = connect_by_way(&stage).await;
        let (mut send, _answer) = quic.open_bi().await.unwrap();
        is_shut.store(true, Relaxed);
        let head = b"\x01\x0f\0\0\xd1\xd7\x50\x01a\x51\x06/60000";
        send.write_all(head).await.unwrap();
        send.finish().unwrap();
        let limit = stage.shared.patience.head;
        for _ in 0..limit.as_secs() * 5 / 4 + 1 {
            stage.later(Duration::from_secs(1)).await;
        }
        assert!(!serving.is_finished());
        assert_eq!(["head", "idle", "send"].map(|wait| stage.given_up(wait)), [0; 3]);
        drop(client);
    }

    /// A head whose first byte comes late has no more time for the rest than one that comes in time.
    #[tokio::test(start_paused = true)]
    async fn a_head_has_one_limit_from_its_first_byte_to_its_last() {
        holds_the_clock();
        let stage = Stage::new(REQUEST_MAX);
        let (_client, quic, _serving) = connect(&stage).await;
        let (mut send, _answer) = quic.open_bi().await.unwrap();
        // By its answer the stream before it is known.
        apart(ask(&quic)).await;
        stage.later(REQUEST_MAX * 3 / 4).await;
        send.write_all(&[1]).await.unwrap();
        apart(ask(&quic)).await;
        assert_eq!(stage.given_up("head"), 0);
        stage.later(REQUEST_MAX / 4).await;
        assert_eq!(stage.given_up("head"), 1);
    }
}
