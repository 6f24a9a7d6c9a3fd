//! What the tests have in common: a service of bytes that tell where they belong, listeners
//! that serve it, and clients that read it at their own pace.

#![allow(dead_code, missing_docs, reason = "each test uses its part")]

use arena::Arena;
use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::{Frame, SizeHint};
use nearcast_wire::{
    Levers, Metrics, Patience, Reply, Request, Service, Shards, Shared, Threads, Via,
};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing in a test takes this long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    H1,
    H1Tls,
    H2Tls,
}

pub const ALL: [By; 3] = [By::H1, By::H1Tls, By::H2Tls];

/// Numbers that look random and are the same each time.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}

/// The byte of a body at a place.
pub fn byte(seed: usize, at: usize) -> u8 {
    (seed.wrapping_mul(97) ^ at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 16)) as u8
}

/// `GET /SEED/BYTES`: so many bytes, in pieces of all sizes, of the arena while it has room. Where
/// the seed is odd, the head of the answer says all that it has to.
pub struct Patterns {
    pub arena: Arena,
    /// Bodies that were taken whole, by who answers without hyper or h3.
    pub whole: Arc<AtomicUsize>,
}

pub struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
    whole: Arc<AtomicUsize>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = this.pieces.pop_front();
        this.left -= piece.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Patterns {
    pub fn of(arena: &Arena) -> Self {
        Self { arena: arena.clone(), whole: Arc::default() }
    }

    fn piece(&self, seed: usize, range: std::ops::Range<usize>) -> Bytes {
        let bytes: Vec<u8> = range.map(|at| byte(seed, at)).collect();
        let Some(mut slot) = self.arena.slot(bytes.len()) else { return bytes.into() };
        slot.write(&bytes);
        slot.freeze()
    }
}

impl Service for Patterns {
    type Body = Pieces;

    fn whole(body: &mut Pieces) -> Option<Bytes> {
        let is_whole = body.pieces.front().is_some_and(|piece| piece.len() as u64 == body.left);
        let whole = if is_whole { body.pieces.pop_front() } else { None };
        body.left -= whole.as_ref().map_or(0, |whole| whole.len() as u64);
        body.whole.fetch_add(usize::from(whole.is_some()), Ordering::Relaxed);
        whole
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Pieces> {
        let mut numbers = request.head.uri.path()[1..].split('/').map(|part| part.parse().unwrap());
        let (seed, bytes): (usize, usize) = (numbers.next().unwrap(), numbers.next().unwrap());
        let (mut random, mut pieces, mut at) = (Random(seed as u64), VecDeque::new(), 0);
        while at < bytes {
            let most = [1 << 20, 200_000, 5000][random.below(3)];
            let end = bytes.min(at + 1 + random.below(most));
            pieces.push_back(self.piece(seed, at..end));
            at = end;
        }
        let whole = Arc::clone(&self.whole);
        let mut response = Response::new(Pieces { pieces, left: bytes as u64, whole });
        if seed % 2 == 1 {
            let fields = response.headers_mut();
            fields.insert("content-length", bytes.into());
            fields.insert("date", HeaderValue::from_static("Sat, 21 Nov 2026 22:47:00 GMT"));
        }
        Reply::Now(response)
    }
}

/// Listeners, plain and TLS.
pub struct Served<S = Patterns> {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub shared: Shared<S>,
    pub arena: Arena,
    registry: prometheus::Registry,
    _threads: Mutex<Threads>,
}

fn identity() -> &'static (CertificateDer<'static>, Vec<u8>) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.der().clone(), made.signing_key.serialize_der())
    })
}

impl Served {
    pub async fn start(levers: Levers, arena_bytes: u64) -> Self {
        let arena = Arena::new(arena_bytes).unwrap();
        Self::of(Arc::new(Patterns::of(&arena)), levers, arena).await
    }

    /// How many answers were made without hyper.
    pub fn whole(&self) -> usize {
        self.shared.service.whole.load(Ordering::Relaxed)
    }
}

impl<S: Service> Served<S> {
    pub async fn of(service: Arc<S>, levers: Levers, arena: Arena) -> Self {
        Self::patient(service, levers, arena, Patience::default()).await
    }

    pub async fn patient(
        service: Arc<S>,
        levers: Levers,
        arena: Arena,
        patience: Patience,
    ) -> Self {
        let provider = Arc::new(nearcast_wire::tls::provider());
        let (chain, key) = identity();
        let key = PrivateKeyDer::try_from(key.clone()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (shards, threads) = Shards::start(NonZeroUsize::new(2).unwrap(), &metrics).unwrap();
        let shared = Shared {
            service,
            shards,
            work: Handle::current(),
            places: Arc::new(Semaphore::new(nearcast_wire::CONNECTIONS_MAX)),
            tasks: TaskTracker::new(),
            patience,
            arena: Some(arena.clone()),
            levers,
            drain: CancellationToken::new(),
            metrics,
        };
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (plain, tls) = (listen().await, listen().await);
        let (plain_addr, tls_addr) = (plain.local_addr().unwrap(), tls.local_addr().unwrap());
        let via = |scheme| Via::new(scheme, None);
        tokio::spawn(nearcast_wire::tcp::accept(plain, None, via("http"), shared.clone()));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(nearcast_wire::tcp::accept(tls, Some(acceptor), via("https"), shared.clone()));
        let _threads = Mutex::new(threads);
        Self { plain: plain_addr, tls: tls_addr, shared, arena, registry, _threads }
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_gauge().get_value()
    }

    /// A counter with these labels' values, in the order of the labels' names.
    pub fn counted(&self, name: &str, values: &[&str]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.unwrap().get_metric().iter();
        let mut of = metrics
            .filter(|it| it.get_label().iter().map(|it| it.value()).eq(values.iter().copied()));
        of.next().unwrap().get_counter().get_value()
    }

    /// A counter without labels.
    pub fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_counter().get_value()
    }

    /// Waits until no connection is left and every piece of every body is given back.
    pub async fn empty(&self) {
        until("no connection is left", || self.shared.tasks.is_empty()).await;
        until("the arena is free", || self.arena.bytes_used() == 0).await;
        assert_eq!(self.shared.metrics.open.get(), 0);
        assert_eq!(self.shared.places.available_permits(), nearcast_wire::CONNECTIONS_MAX);
    }

    pub async fn connect(&self, by: By) -> Stream {
        let tcp = async |addr| TcpStream::connect(addr).await.unwrap();
        match by {
            By::H1 => Box::new(tcp(self.plain).await),
            By::H1Tls => shake(tcp(self.tls).await, b"http/1.1").await,
            By::H2Tls => shake(tcp(self.tls).await, b"h2").await,
        }
    }
}

pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}
pub type Stream = Box<dyn Both>;

pub async fn shake(tcp: TcpStream, protocol: &[u8]) -> Stream {
    let mut roots = RootCertStore::empty();
    roots.add(identity().0.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
}

/// Polls until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "never came: {what}");
        tokio::task::yield_now().await;
    }
}

/// Asks over HTTP/1.1.
pub async fn ask(stream: &mut Stream, seed: usize, bytes: usize) {
    let request = format!("GET /{seed}/{bytes} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads a head of HTTP/1.1: the length of its body.
pub async fn head(stream: &mut Stream) -> usize {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    length.parse().unwrap()
}

/// Checks a body's bytes as they come.
pub struct Check {
    pub seed: usize,
    pub at: usize,
}

impl Check {
    pub fn bytes(&mut self, bytes: &[u8]) {
        for (place, got) in bytes.iter().enumerate() {
            let at = self.at + place;
            assert_eq!(*got, byte(self.seed, at), "body {} at byte {at}", self.seed);
        }
        self.at += bytes.len();
    }
}

/// Lets others run for a while, or not.
pub async fn pause(random: &mut Random) {
    if random.below(4) == 0 {
        for _ in 0..random.below(200) {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads a whole body over HTTP/1.1, in bites of all sizes, with pauses.
pub async fn read(stream: &mut Stream, seed: usize, bytes: usize, random: &mut Random) {
    assert_eq!(head(stream).await, bytes);
    let mut check = Check { seed, at: 0 };
    let mut buf = vec![0; 300_000];
    while check.at < bytes {
        let bite = (1 + random.below(buf.len())).min(bytes - check.at);
        let got = stream.read(&mut buf[..bite]).await.unwrap();
        assert!(got > 0, "cut at byte {} of {bytes}", check.at);
        check.bytes(&buf[..got]);
        pause(random).await;
    }
}

/// An HTTP/2 connection; its driver ends with it.
pub type H2 = hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>>;

pub async fn h2(stream: Stream) -> H2 {
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn open_h2(h2: &mut H2, seed: usize, bytes: usize) -> hyper::body::Incoming {
    let uri = format!("https://localhost/{seed}/{bytes}");
    let request = http::Request::get(uri).body(http_body_util::Empty::new()).unwrap();
    h2.send_request(request).await.unwrap().into_body()
}

/// Asks and reads a whole body over HTTP/2, with pauses.
pub async fn read_h2(h2: &mut H2, seed: usize, bytes: usize, random: &mut Random) {
    use http_body_util::BodyExt;
    let mut body = open_h2(h2, seed, bytes).await;
    let mut check = Check { seed, at: 0 };
    while let Some(frame) = body.frame().await {
        check.bytes(frame.unwrap().data_ref().unwrap());
        pause(random).await;
    }
    assert_eq!(check.at, bytes);
}

/// What an HTTP/2 client says first: so much window for each stream and for the connection.
pub fn h2_begin(stream_window: u32, window: u32) -> Vec<u8> {
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend_from_slice(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
    said.extend_from_slice(&stream_window.to_be_bytes());
    said.extend(h2_window(0, window - 65_535));
    said
}

/// Gives more of a stream's window, or with 0 of the connection's.
pub fn h2_window(stream: u32, more: u32) -> Vec<u8> {
    [&[0, 0, 4, 8, 0][..], &stream.to_be_bytes(), &more.to_be_bytes()].concat()
}

/// Asks on a stream of HTTP/2.
pub fn h2_ask(stream: u32, path: &str) -> Vec<u8> {
    // RFC 7541 appendix A: GET, https, an authority, a path.
    let host = "localhost";
    let mut fields = vec![0x82, 0x87, 0x41, host.len() as u8];
    fields.extend_from_slice(host.as_bytes());
    fields.extend_from_slice(&[0x44, path.len() as u8]);
    fields.extend_from_slice(path.as_bytes());
    let head = [0, 0, fields.len() as u8, 1, 5];
    [&head[..], &stream.to_be_bytes(), &fields].concat()
}

/// One body over a connection of its own.
pub async fn once(served: &Served, by: By, seed: usize, bytes: usize) {
    let mut random = Random(seed as u64);
    let mut stream = served.connect(by).await;
    if by == By::H2Tls {
        return read_h2(&mut h2(stream).await, seed, bytes, &mut random).await;
    }
    ask(&mut stream, seed, bytes).await;
    read(&mut stream, seed, bytes, &mut random).await;
}
