//! What connections serve, and what they share.

use crate::crumbs;
use crate::patience::{GivenUp, Patience};
use crate::shards::{Executor, Seat, Shard, Shards, guarded};
use crate::tls::{self, Tls};
use crate::unread::Unread;
use crate::{Known, Levers};
use arena::Arena;
use bytes::Bytes;
use counting::{counter, counters, from_zero, gauge, gauges};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::combinators::UnsyncBoxBody;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use std::fmt::Display;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a connection is refused: there are as many as there may be.
const CONNECTIONS: &str = "connections-max";

/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Answers requests, whatever they came by.
pub trait Service: Send + Sync + 'static {
    /// The body of its answers. Its end is a clean end; after an error the connection, or the
    /// stream, is cut, so that no peer takes what it has for the whole.
    type Body: http_body::Body<
            Data = Bytes,
            Error: Display + Send + Unpin + Into<Box<dyn std::error::Error + Send + Sync>>,
        > + Send
        + Unpin
        + 'static;

    /// Answers one request. Must not block.
    fn answer(self: &Arc<Self>, request: Request) -> Reply<Self::Body>;

    /// Takes all that a body, of which nothing was taken yet, has to send, if that is at hand in
    /// one piece. Else it is left as it is.
    fn whole(body: &mut Self::Body) -> Option<Bytes>;

    /// Fields of the answers to requests that no service sees, since they can't be read: 400, 414 and
    /// 431, without a body.
    fn of_unread(&self) -> HeaderMap {
        HeaderMap::new()
    }

    /// What is left of this body does not leave, since its client took too little of it for
    /// [`Patience::send`](crate::Patience): its stream alone is reset (HTTP/3).
    fn untaken(&self, _: &mut Self::Body) {}
}

/// An answer. Most are hits, which need no future: to make, move and free one costs more than
/// to find them.
pub enum Reply<B> {
    /// It is here.
    Now(Response<B>),
    /// It is here, and its head was made ready before.
    Known(Arc<Known>, B),
    /// It must be waited for.
    Later(Pin<Box<dyn Future<Output = Response<B>> + Send>>),
}

impl<B> Reply<B> {
    /// One that must be waited for.
    pub fn later(answer: impl Future<Output = Response<B>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

/// A [`Reply`] as a future, within the context of the runtime that is no shard's. What it needs
/// is freed with the answer: an idle connection holds none of it.
pub enum Answering<B> {
    /// It is here. Taken once.
    Now(Option<Response<B>>),
    /// It is waited for.
    Later(TokioContext<Pin<Box<dyn Future<Output = Response<B>> + Send>>>),
}

impl<B: Unpin> Future for Answering<B> {
    type Output = Response<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<B>> {
        let this = self.get_mut();
        let answer = match this {
            Self::Now(answer) => answer.take().expect("it is polled until it is ready, not again"),
            Self::Later(answer) => ready!(Pin::new(answer).poll(cx)),
        };
        *this = Self::Now(None);
        Poll::Ready(answer)
    }
}

/// A request and how it came.
pub struct Request {
    /// Its head.
    pub head: http::request::Parts,
    /// Its body.
    pub body: RequestBody,
    /// `http/1.1`, `h2` or `h3`.
    pub protocol: &'static str,
    /// What its connection tells.
    pub via: Arc<Via>,
}

/// What a connection tells of each of its requests.
#[derive(Debug, Clone)]
pub struct Via {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The `Alt-Svc` field, where there is an HTTP/3 listener beside this one.
    pub alt_svc: Option<HeaderValue>,
    /// It is another node of this network, not a client.
    pub peer: bool,
    /// What the listener shows to clients, over TLS.
    pub tls: Option<Tls>,
    /// The name that the client asked the handshake for (RFC 6066 section 3); a listener knows none.
    pub named: Option<Box<str>>,
    /// Who is at its other end, or was when it began (QUIC); a listener knows none.
    pub client: Option<IpAddr>,
}

impl Via {
    /// What connections of a listener tell: its scheme, and what it shows over TLS.
    #[must_use]
    pub fn new(scheme: &'static str, tls: Option<Tls>) -> Self {
        Self { scheme, alt_svc: None, peer: false, tls, named: None, client: None }
    }

    /// The same, of a connection from this address.
    pub(crate) fn of_client(&self, client: IpAddr) -> Arc<Self> {
        // An IPv4 client of a listener for both is one of IPv4.
        Arc::new(Self { client: Some(client.to_canonical()), ..self.clone() })
    }

    /// The same, of a connection whose client asked for this name.
    pub(crate) fn named(mut self: Arc<Self>, name: Option<&str>) -> Arc<Self> {
        if let Some(name) = name {
            Arc::make_mut(&mut self).named = Some(name.into());
        }
        self
    }

    /// Whether requests for any host may come by the connection, as far as is known.
    #[must_use]
    pub fn is_for_any(&self) -> bool {
        self.named.is_none() || self.tls.is_none()
    }

    /// Whether requests for this host, given without a port, may come by the connection (RFC
    /// 9110 section 7.4): it was opened for it, or its certificate is good for it, too. Where
    /// the client named none, and without TLS, nothing is known that speaks against it.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let (Some(named), Some(tls)) = (&self.named, &self.tls) else { return true };
        named.eq_ignore_ascii_case(host) || tls.is_for(host)
    }
}

/// Counters of connections.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connections open now.
    pub open: IntGauge,
    pub(crate) shard_open: IntGaugeVec,
    pub(crate) panics: IntCounter,
    pub(crate) given_up: GivenUp,
    pub(crate) unread: Unread,
    pub(crate) quic: crate::quic::Metrics,
    /// Counters of TLS.
    pub tls: tls::Metrics,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let r = registry;
        let open = gauge(r, "connections", "Connections open now")?;
        let help = "Connections closed at once";
        let refused = counters(r, "connections_refused_total", help, &["reason"])?;
        let refused = from_zero(refused, &[CONNECTIONS]);
        let help = "Connections open now on a thread";
        let shard_open = gauges(r, "shard_connections", help, &["shard"])?;
        let panics = counter(r, "connection_panics_total", "Tasks of connections that panicked")?;
        let (quic, tls) = (crate::quic::Metrics::new(registry)?, tls::Metrics::new(registry)?);
        let (given_up, unread) = (GivenUp::new(registry)?, Unread::new(registry)?);
        crate::batch::register(registry)?;
        Ok(Self { open, shard_open, panics, given_up, unread, quic, tls, refused })
    }
}

/// What listeners share.
pub struct Shared<S> {
    /// Answers.
    pub service: Arc<S>,
    /// Where connections run.
    pub shards: Shards,
    /// Where everything else runs: answers are made within this runtime's context, so that
    /// what they spawn, the timers they set and the sockets they open are not a shard's.
    pub work: Handle,
    /// Room for connections.
    pub places: Arc<Semaphore>,
    /// Their tasks.
    pub tasks: TaskTracker,
    /// How long peers are waited for.
    pub patience: Patience,
    /// Where bodies lie that may be sent uncopied.
    pub arena: Option<Arena>,
    /// Parts of the write path that are on.
    pub levers: Levers,
    /// Stop accepting; let each connection end after the requests it has.
    pub drain: CancellationToken,
    /// Counters.
    pub metrics: Metrics,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            shards: self.shards.clone(),
            work: self.work.clone(),
            places: Arc::clone(&self.places),
            tasks: self.tasks.clone(),
            patience: self.patience,
            arena: self.arena.clone(),
            levers: self.levers,
            drain: self.drain.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// An open connection's place, counted: among all connections, and on a shard.
pub struct Place {
    seat: Seat,
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl<S: Service> Shared<S> {
    /// A place on the least loaded shard, if there is room for a connection.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.permit().map(|permit| self.taken(permit, self.shards.seat()))
    }

    /// A place on this shard, if there is room for a connection.
    #[must_use]
    pub fn place_on(&self, shard: &Arc<Shard>) -> Option<Place> {
        self.permit().map(|permit| self.taken(permit, shard.seat()))
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok();
        if permit.is_none() {
            self.metrics.refused.with_label_values(&[CONNECTIONS]).inc();
        }
        permit
    }

    fn taken(&self, permit: OwnedSemaphorePermit, seat: Seat) -> Place {
        let open = self.metrics.open.clone();
        open.inc();
        Place { seat, _permit: permit, open }
    }

    /// Serves a connection on the shard of its place, which is given back at its end. The drain
    /// waits for it; if it panics, that is counted, and no other one ends.
    pub fn serve<F>(&self, place: Place, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shard = Arc::clone(place.seat.shard());
        // Boxed here: each future around it would hold it twice.
        let connection = Box::pin(connection);
        let task = async move {
            connection.await;
            drop(place);
        };
        self.tasks.spawn_on(guarded(task, self.metrics.panics.clone()), shard.handle());
    }

    /// Answers a request, within the context of the runtime that is no shard's.
    pub fn answer(&self, request: Request) -> Answering<S::Body> {
        self.awaited(self.reply(request))
    }

    /// What the service says to a request, within that context.
    pub(crate) fn reply(&self, mut request: Request) -> Reply<S::Body> {
        crumbs::join(request.head.version, &mut request.head.headers);
        let _context = self.work.enter();
        self.service.answer(request)
    }

    /// The same as a future.
    pub(crate) fn awaited(&self, reply: Reply<S::Body>) -> Answering<S::Body> {
        match reply {
            Reply::Now(answer) => Answering::Now(Some(answer)),
            Reply::Known(known, body) => Answering::Now(Some(known.response(body))),
            Reply::Later(answer) => Answering::Later(TokioContext::new(answer, self.work.clone())),
        }
    }

    /// For what hyper spawns.
    pub(crate) fn executor(&self, is_corked: bool) -> Executor {
        Executor { panics: self.metrics.panics.clone(), at_once: is_corked }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}
