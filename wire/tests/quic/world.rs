//! A server with bodies of known bytes, and a client that speaks HTTP/3 by hand, so that it can
//! pause, stop, move and leave when it likes.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;
use nearcast_wire::quic::{Listener, ResetKey, bind};
use nearcast_wire::{
    Known, Levers, Metrics, Patience, Reply, Request, Service, Shards, Shared, Threads, Via,
};
use prometheus::Registry;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, ReadError, RecvStream, SendStream, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What no test waits longer for.
pub const DEADLINE: Duration = Duration::from_secs(60);
const PIECE: usize = 100_000;
/// A body of more bytes is several DATA frames.
pub const FRAME_BYTES: usize = 256 << 10;

/// The bytes of every body, from its start.
pub fn byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Answers `/<bytes>` with so many bytes, `/<bytes>/cut` with an error after as many, and
/// `/<bytes>/panic` with a panic after as many; `/panic` panics at once. `/head/..`: see [`fields`].
/// `/<bytes>/later` is answered when it may be. `/known/<bytes>` has a head that was made ready; a
/// body of one DATA frame may only be taken as a whole. `/now/<bytes>` is the same without.
pub struct Bodies {
    /// Answers say what was asked, whatever it was.
    pub echoes: AtomicBool,
    /// Requests that wait, or have waited.
    pub asked: AtomicUsize,
    /// How many of these may be answered.
    pub answers: Semaphore,
    /// Bodies of which the client took too little.
    pub untaken: AtomicUsize,
    /// Bytes that bodies which are not of one piece gave.
    pub given: Arc<AtomicUsize>,
}

#[derive(Default)]
pub struct Body {
    first: Bytes,
    at: usize,
    end: usize,
    cut: bool,
    panics: bool,
    given: Arc<AtomicUsize>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(http_body::Frame::data(first))));
        }
        let to = self.end.min(self.at + PIECE);
        if self.at == to {
            assert!(!self.panics, "asked for");
            let cut = self.cut.then(|| Err(io::ErrorKind::ConnectionReset.into()));
            self.cut = false;
            return Poll::Ready(cut);
        }
        let piece = (self.at..to).map(byte).collect();
        self.given.fetch_add(to - self.at, SeqCst);
        self.at = to;
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact((self.first.len() + self.end - self.at) as u64)
    }
}

/// The fields of `/head/<status>/<bytes>`, whose answer has a field of so many bytes.
pub fn fields(bytes: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let long = "~".repeat(bytes);
    for (name, value) in [
        ("content-type", "video/mp4"),
        ("age", "0"),
        ("cache-control", "public, max-age=31536000"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=\u{e9}"),
        ("x-empty", ""),
        ("x-name-that-is-longer-than-what-three-bits-of-a-length-hold", "1"),
        ("x-long", &long),
    ] {
        fields.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    fields
}

impl Service for Bodies {
    type Body = Body;

    fn whole(body: &mut Body) -> Option<Bytes> {
        (body.at == body.end).then(|| std::mem::take(&mut body.first))
    }

    fn of_unread(&self) -> HeaderMap {
        let said = HeaderValue::from_static("by nobody");
        HeaderMap::from_iter([(HeaderName::from_static("x-read"), said)])
    }

    fn untaken(&self, _: &mut Body) {
        self.untaken.fetch_add(1, SeqCst);
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Body> {
        if self.echoes.load(SeqCst) {
            let head = &request.head;
            let said = (&head.method, &head.uri, head.uri.scheme(), head.version, &head.headers);
            let first = format!("{said:?}").into();
            return Reply::Now(Response::new(Body { first, ..Body::default() }));
        }
        let mut parts = request.head.uri.path().split('/').skip(1);
        let first = parts.next();
        assert_ne!(first, Some("panic"), "asked for");
        let then = parts.next();
        if first == Some("head") {
            let mut response = Response::new(Body { end: 10, ..Body::default() });
            *response.status_mut() = then.unwrap().parse().unwrap();
            *response.headers_mut() = fields(parts.next().unwrap().parse().unwrap());
            return Reply::Now(response);
        }
        if let Some(kind @ ("known" | "now")) = first {
            let bytes: usize = then.unwrap().parse().unwrap();
            let (mut fields, first) = (fields(1), (0..bytes).map(byte).collect());
            fields.insert(http::header::CONTENT_LENGTH, bytes.into());
            if kind == "known" {
                let known = Known::new(http::StatusCode::OK, fields, bytes as u64);
                let body = Body { first, panics: bytes <= FRAME_BYTES, ..Body::default() };
                return Reply::Known(Arc::new(known), body);
            }
            let mut response = Response::new(Body { first, ..Body::default() });
            *response.headers_mut() = fields;
            return Reply::Now(response);
        }
        if first == Some("read") {
            return Reply::later(async {
                let read = request.body.collect().await.map(|body| body.to_bytes().len());
                let cut = read.is_err();
                Response::new(Body { end: read.unwrap_or(1), cut, ..Body::default() })
            });
        }
        let end = first.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let (cut, panics) = (then == Some("cut"), then == Some("panic"));
        let response = Response::new(Body {
            end,
            cut,
            panics,
            given: Arc::clone(&self.given),
            ..Body::default()
        });
        if then != Some("later") {
            return Reply::Now(response);
        }
        let own = Arc::clone(self);
        Reply::later(async move {
            own.asked.fetch_add(1, SeqCst);
            own.answers.acquire().await.unwrap().forget();
            response
        })
    }
}

/// A server under test.
pub struct World {
    pub addr: SocketAddr,
    pub shared: Shared<Bodies>,
    pub registry: Registry,
    listener: Arc<Listener>,
    accepting: JoinHandle<()>,
    certificate: CertificateDer<'static>,
    threads: Threads,
}

impl World {
    pub fn start(shards: usize, levers: Levers) -> Self {
        let sockets = bind(([127, 0, 0, 1], 0).into(), shards).unwrap();
        Self::on(sockets, levers, &ResetKey::random())
    }

    /// One on these sockets, a shard each.
    pub fn on(sockets: Vec<UdpSocket>, levers: Levers, reset: &ResetKey) -> Self {
        Self::patient(sockets, levers, reset, Patience::default())
    }

    /// The same, with other limits for clients.
    pub fn patient(
        sockets: Vec<UdpSocket>,
        levers: Levers,
        reset: &ResetKey,
        patience: Patience,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (shards, threads) = Shards::start(sockets.len().try_into().unwrap(), &metrics).unwrap();
        let shared = Shared {
            service: Arc::new(Bodies {
                echoes: AtomicBool::new(false),
                asked: AtomicUsize::new(0),
                answers: Semaphore::new(0),
                untaken: AtomicUsize::new(0),
                given: Arc::default(),
            }),
            shards,
            work: Handle::current(),
            places: Arc::new(Semaphore::new(10_000)),
            tasks: TaskTracker::new(),
            patience,
            arena: None,
            levers,
            drain: CancellationToken::new(),
            metrics,
        };
        let addr = sockets[0].local_addr().unwrap();
        let listener = Arc::new(Listener::new(sockets, tls, reset, &shared).unwrap());
        let via = Via::new("https", None);
        let (own, serving) = (Arc::clone(&listener), shared.clone());
        let accepting = tokio::spawn(async move { own.accept(via, serving).await });
        Self { addr, shared, registry, listener, accepting, certificate, threads }
    }

    /// A client at an address of its own.
    pub fn client(&self) -> Endpoint {
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(DEADLINE.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        endpoint
    }

    pub async fn connect(&self) -> Connection {
        let endpoint = self.client();
        let quic = endpoint.connect(self.addr, "localhost").unwrap().await.unwrap();
        Connection::new(endpoint, quic).await
    }

    /// Ends it as an edge does, and shows that no task was left.
    pub async fn end(self) {
        self.shared.drain.cancel();
        self.accepting.await.unwrap();
        self.shared.tasks.close();
        within(self.shared.tasks.wait()).await;
        self.listener.close(DEADLINE).await;
        assert_eq!(self.shared.metrics.open.get(), 0);
    }

    /// Ends it as a crash does: nobody is told.
    pub async fn crash(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
        drop((self.listener, self.shared));
        tokio::task::spawn_blocking(move || drop(self.threads)).await.unwrap();
    }

    /// The value of a counter.
    pub fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_counter().get_value()
    }

    /// Waits until the service has been asked for so many answers that wait.
    pub async fn until_asked(&self, requests: usize) {
        let asked = async {
            while self.shared.service.asked.load(SeqCst) < requests {
                tokio::task::yield_now().await;
            }
        };
        within(asked).await;
    }

    /// Waits until the server has only so many connections.
    pub async fn until_open(&self, connections: i64) {
        let started = Instant::now();
        while self.shared.metrics.open.get() > connections {
            assert!(started.elapsed() < DEADLINE, "connections are left");
            tokio::task::yield_now().await;
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("it ends in time")
}

/// A client's connection, its settings sent.
pub struct Connection {
    pub endpoint: Endpoint,
    pub quic: quinn::Connection,
    pub control: SendStream,
    /// The server's own streams, which may not be stopped.
    kept: Mutex<Vec<RecvStream>>,
}

impl Connection {
    pub async fn new(endpoint: Endpoint, quic: quinn::Connection) -> Self {
        let mut control = quic.open_uni().await.unwrap();
        control.write_all(&[0, 4, 0]).await.unwrap();
        Self { endpoint, quic, control, kept: Mutex::default() }
    }

    /// Asks for a path, and returns what answers.
    pub async fn get(&self, path: &str) -> RecvStream {
        self.ask(&message(path, &[])).await
    }

    /// Sends a message, and returns what answers.
    pub async fn ask(&self, message: &[u8]) -> RecvStream {
        let (mut send, receive) = self.quic.open_bi().await.unwrap();
        send.write_all(message).await.unwrap();
        send.finish().unwrap();
        receive
    }

    /// Waits for the server's GOAWAY; the first stream that it does not answer (RFC 9114 section
    /// 5.2).
    pub async fn goaway(&self) -> u64 {
        loop {
            let mut stream = within(self.quic.accept_uni()).await.unwrap();
            let goaway = match read_varint(&mut stream).await {
                0 => Some(read_goaway(&mut stream).await),
                _ => None,
            };
            self.kept.lock().unwrap().push(stream);
            if let Some(goaway) = goaway {
                return goaway;
            }
        }
    }

    /// Moves to another address.
    pub fn moves(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.endpoint.rebind(socket).unwrap();
    }

    /// Asks, and reads the whole body.
    pub async fn body(&self, path: &str) -> Result<BytesMut, ReadError> {
        whole(self.get(path).await).await
    }
}

/// A message: GET, https, a host and a path, and behind them what `more` has, in QPACK's static
/// table (RFC 9204 appendix A).
pub fn message(path: &str, more: &[u8]) -> Vec<u8> {
    let mut head = vec![0, 0, 0xd1, 0xd7, 0x50, 9];
    head.extend(b"localhost");
    head.extend([0x51, u8::try_from(path.len()).unwrap()]);
    head.extend(path.as_bytes());
    head.extend(more);
    let mut message = vec![1, u8::try_from(head.len()).unwrap()];
    message.extend(head);
    message
}

/// `host: localhost`: h3 reads the heads that have it.
pub const HOST: [u8; 15] = *b"\x24host\x09localhost";

/// The body that a stream brings.
pub async fn whole(mut stream: RecvStream) -> Result<BytesMut, ReadError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = within(stream.read_chunk(usize::MAX, true)).await? {
        all.extend_from_slice(&chunk.bytes);
    }
    Ok(payload(all))
}

/// What GOAWAY of a control stream says.
async fn read_goaway(stream: &mut RecvStream) -> u64 {
    loop {
        let kind = read_varint(stream).await;
        let length = read_varint(stream).await;
        if kind == 7 {
            return read_varint(stream).await;
        }
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        within(stream.read_exact(&mut frame)).await.unwrap();
    }
}

async fn read_varint(stream: &mut RecvStream) -> u64 {
    let mut number = [0; 8];
    within(stream.read_exact(&mut number[..1])).await.unwrap();
    let length = 1 << (number[0] >> 6);
    within(stream.read_exact(&mut number[1..length])).await.unwrap();
    varint(&mut BytesMut::from(&number[..length]))
}

/// The DATA of a message's frames.
pub fn payload(mut frames: BytesMut) -> BytesMut {
    let mut data = BytesMut::new();
    while !frames.is_empty() {
        let kind = varint(&mut frames);
        let length = usize::try_from(varint(&mut frames)).unwrap().min(frames.len());
        let frame = frames.split_to(length);
        if kind == 0 {
            data.extend_from_slice(&frame);
        }
    }
    data
}

fn varint(bytes: &mut BytesMut) -> u64 {
    let length = 1 << (bytes[0] >> 6);
    let number = bytes.split_to(length);
    let rest = number[1..].iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    u64::from(number[0] & 0x3f) << (8 * (length - 1)) | rest
}

/// Asserts that these are the first bytes of a body.
pub fn assert_first(got: &[u8]) {
    let wrong = got.iter().enumerate().find(|&(at, &got)| got != byte(at));
    assert_eq!(wrong, None);
}
