//! Peers that take little, or nothing, of what they asked for over TCP: on a clock that the tests
//! advance, beside what the peers do. However slow the machine is, it is the same for them.

use crate::patience::GivenUp;
use crate::{
    LARGE_BATCH_BYTES, Levers, Metrics, Patience, Reply, Request, Service, Shards, Shared, Threads,
    Via, tcp,
};
use arena::unacknowledged;
use bytes::Bytes;
use futures::FutureExt;
use http::Response;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use socket2::SockRef;
use std::cell::Cell;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BODY_BYTES: usize = 4 << 20;
/// What a client's kernel takes for it; it doubles that.
pub const KERNEL_BYTES: u32 = 16 << 10;
/// More than a client's kernel takes: who reads as much has made room at the server's.
const BITE_BYTES: usize = 64 << 10;
/// Turns for all others, in which timers are looked at and sockets are asked.
const TURNS: usize = 200;
const LIMIT: Duration = Duration::from_secs(2);
/// Nothing takes so long of what is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps the clock from being advanced by anything but a test: it never finds nothing to do.
pub fn holds_the_clock() {
    tokio::spawn(async {
        loop {
            yield_now().await;
        }
    });
}

/// What a step comes to, on the machine's own clock.
pub async fn soon<T>(step: impl Future<Output = T>) -> T {
    let (mut step, started) = (pin!(step), std::time::Instant::now());
    loop {
        if let Poll::Ready(done) = futures::poll!(&mut step) {
            return done;
        }
        assert!(started.elapsed() < DEADLINE, "it never came");
        yield_now().await;
    }
}

thread_local! {
    static POLLS: Cell<usize> = const { Cell::new(0) };
    static WHOLE: Cell<usize> = const { Cell::new(0) };
}

/// How often connections of this test were polled.
pub fn polls() -> usize {
    POLLS.get()
}

/// How many bodies of this test's answers were taken whole, by who needs no hyper.
pub fn whole() -> usize {
    WHOLE.get()
}

/// Answers everything with one body, or, where the path is a number, with so much of it, under a
/// head that says all that it has to; `/never` it does not answer.
pub struct Same(Bytes);

impl Service for Same {
    type Body = Full<Bytes>;

    fn whole(body: &mut Full<Bytes>) -> Option<Bytes> {
        WHOLE.set(WHOLE.get() + 1);
        body.frame().now_or_never()??.ok()?.into_data().ok()
    }

    fn answer(self: &Arc<Self>, request: Request) -> Reply<Full<Bytes>> {
        if request.head.uri.path() == "/never" {
            return Reply::later(std::future::pending());
        }
        let Ok(bytes) = request.head.uri.path()[1..].parse::<usize>() else {
            return Reply::Now(Response::new(Full::new(self.0.clone())));
        };
        let response = Response::builder()
            .header("content-length", bytes)
            .header("date", "Sat, 21 Nov 2026 22:47:00 GMT");
        Reply::Now(response.body(Full::new(self.0.slice(..bytes))).unwrap())
    }
}

/// What connections are served with.
pub struct Stage {
    pub shared: Arc<Shared<Same>>,
    given_up: GivenUp,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    _threads: Threads,
}

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    H1,
    H1Tls,
    H2Tls,
    /// Without a word on what it speaks.
    Tls,
}

pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}
pub type Stream = Box<dyn Both>;
pub type Serving = JoinHandle<Result<(), String>>;

impl Stage {
    /// One where a peer that takes nothing is given up after so long.
    pub fn new(send: Duration) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let given_up = metrics.given_up.clone();
        let (shards, threads) = Shards::start(NonZeroUsize::MIN, &metrics).unwrap();
        let shared = Shared {
            service: Arc::new(Same(vec![7; BODY_BYTES].into())),
            shards,
            work: Handle::current(),
            places: Arc::new(Semaphore::new(10)),
            tasks: TaskTracker::new(),
            patience: Patience { send, ..Patience::default() },
            arena: None,
            levers: Levers::default(),
            drain: CancellationToken::new(),
            metrics,
        };
        Self {
            shared: Arc::new(shared),
            given_up,
            certificate: made.cert.der().clone(),
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
            _threads: threads,
        }
    }

    /// What both sides of TLS are set up with.
    pub fn tls(&self, protocols: &[&[u8]]) -> (ServerConfig, ClientConfig) {
        let provider = Arc::new(crate::tls::provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, client)
    }

    /// So much later.
    pub async fn later(&self, time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    pub fn given_up(&self, wait: &str) -> u64 {
        self.given_up.of(wait)
    }

    pub async fn connect(&self, by: By, kernel_bytes: u32) -> (Stream, Serving) {
        let (tcp, accepted) = pair(kernel_bytes).await;
        self.serve(by, tcp, accepted).await
    }

    /// Over a connection for which no kernel takes much, on either side.
    pub async fn connect_narrow(&self, by: By) -> (Stream, Serving) {
        let (socket, listener) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        socket.set_recv_buffer_size(KERNEL_BYTES).unwrap();
        listener.set_send_buffer_size(KERNEL_BYTES).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let tcp = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        self.serve(by, tcp, accepted).await
    }

    async fn serve(&self, by: By, tcp: TcpStream, accepted: TcpStream) -> (Stream, Serving) {
        let accepted = accepted.into_std().unwrap();
        let (server, mut client) = self.tls(&[b"h2", b"http/1.1"]);
        let acceptor = (by != By::H1).then(|| TlsAcceptor::from(Arc::new(server)));
        let shared = Arc::clone(&self.shared);
        let serving = tokio::spawn(async move {
            let via = Arc::new(Via::new("http", None));
            let mut serving = pin!(tcp::serve(accepted, acceptor, via, &shared));
            poll_fn(|cx| {
                POLLS.set(POLLS.get() + 1);
                serving.as_mut().poll(cx)
            })
            .await
        });
        if by == By::H1 {
            return (Box::new(tcp), serving);
        }
        let protocol: Option<&[u8]> = match by {
            By::H1 | By::Tls => None,
            By::H1Tls => Some(b"http/1.1"),
            By::H2Tls => Some(b"h2"),
        };
        client.alpn_protocols = protocol.map(Vec::from).into_iter().collect();
        let name = ServerName::try_from("localhost").unwrap();
        let shaken = TlsConnector::from(Arc::new(client)).connect(name, tcp).await;
        (Box::new(shaken.unwrap()), serving)
    }

    async fn ask(&self, by: By, kernel_bytes: u32) -> (Stream, Serving) {
        let (mut stream, serving) = self.connect(by, kernel_bytes).await;
        request(&mut stream, by).await;
        (stream, serving)
    }
}

/// A client whose kernel takes so much for it, and the server's side.
async fn pair(kernel_bytes: u32) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(kernel_bytes).unwrap();
    let tcp = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    (tcp, listener.accept().await.unwrap().0)
}

async fn request(stream: &mut Stream, by: By) {
    let request: &[u8] = match by {
        By::H2Tls => &h2_ask(),
        _ => b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    };
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
}

/// Opens all windows, and asks (RFC 9113; fields by RFC 7541 appendix A).
fn h2_ask() -> Vec<u8> {
    let mut said = h2_begin();
    said.extend(b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost");
    said
}

pub fn h2_begin() -> Vec<u8> {
    let window = (1_u32 << 30).to_be_bytes();
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04".to_vec();
    said.extend(window);
    said.extend(b"\0\0\x04\x08\0\0\0\0\0");
    said.extend(window);
    said
}

/// A batch that takes several limits to leave: bytes leave all the time.
#[tokio::test(start_paused = true)]
async fn who_reads_slowly_but_steadily_is_not_given_up() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls, By::H2Tls] {
        let stage = Stage::new(LIMIT);
        let (mut stream, serving) = stage.ask(by, KERNEL_BYTES).await;
        let mut bite = vec![0; BITE_BYTES];
        for _ in 0..4 * LARGE_BATCH_BYTES / BITE_BYTES {
            soon(stream.read_exact(&mut bite)).await.unwrap();
            stage.later(LIMIT * 9 / 10).await;
        }
        assert!(!serving.is_finished(), "{by:?}: {:?}", serving.await);
        assert_eq!(stage.given_up("send"), 0);
        // And then it stops.
        stage.later(LIMIT * 3 / 2).await;
        stage.later(LIMIT).await;
        assert!(serving.is_finished(), "{by:?}");
        assert_eq!(stage.given_up("send"), 1);
    }
}

/// Whenever it stops: what it took just before counts once. A kernel acknowledges by the machine's
/// clock, some of it long after the peer stopped (delayed acknowledgements, probes of a window that
/// is next to closed): the limit is one from the last of these.
#[tokio::test(start_paused = true)]
async fn who_stops_is_given_up_within_the_limit_and_a_quarter() {
    const STEPS: u32 = 20;
    holds_the_clock();
    for by in [By::H1, By::H1Tls, By::H2Tls] {
        for phase in [1, 5, 9, 13, 17] {
            let stage = Stage::new(LIMIT);
            let (tcp, accepted) = pair(KERNEL_BYTES).await;
            let kernel = accepted.as_fd().try_clone_to_owned().unwrap();
            let (mut stream, serving) = stage.serve(by, tcp, accepted).await;
            request(&mut stream, by).await;
            let mut bite = vec![0; BITE_BYTES];
            for _ in 0..4 {
                soon(stream.read_exact(&mut bite)).await.unwrap();
                for _ in 0..phase {
                    stage.later(LIMIT / STEPS).await;
                }
            }
            soon(stream.read_exact(&mut bite)).await.unwrap();
            // It takes no more from the server: what it holds can only become less, and does so by
            // acknowledgements alone.
            SockRef::from(&kernel).set_send_buffer_size(1).unwrap();
            let (mut steps, mut quiet) = (0, 0);
            let mut held = unacknowledged(kernel.as_fd());
            while !serving.is_finished() {
                stage.later(LIMIT / STEPS).await;
                (steps, quiet) = (steps + 1, quiet + 1);
                let now = unacknowledged(kernel.as_fd());
                if now < held {
                    (held, quiet) = (now, 0);
                }
                assert!(quiet <= STEPS * 5 / 4 + 1, "{by:?} {phase}");
            }
            assert!(steps >= STEPS, "{by:?} {phase}: after {steps}");
            assert_eq!(stage.given_up("send"), 1);
        }
    }
}

/// A few bytes in each limit: less than what counts.
#[tokio::test(start_paused = true)]
async fn who_takes_next_to_nothing_is_given_up() {
    holds_the_clock();
    for by in [By::H1, By::H1Tls] {
        let stage = Stage::new(LIMIT);
        let (mut stream, serving) = stage.ask(by, 1).await;
        let mut read = 0;
        while !serving.is_finished() {
            read += soon(stream.read(&mut [0; 500])).await.unwrap();
            assert!(read < 20_000, "{by:?}: they keep it");
            stage.later(LIMIT / 4).await;
        }
        assert_eq!(stage.given_up("send"), 1);
    }
}

/// A client of HTTP/2 that opens one window and then none, and answers pings; it asks `pings`
/// apart whether the server is there.
async fn held(stage: &Stage, window: u32, pings: Duration) -> (Serving, impl Sized) {
    let (stream, serving) = stage.connect(By::H2Tls, KERNEL_BYTES).await;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(1 << 30)
        .keep_alive_interval(pings)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/").body(Empty::new()).unwrap();
    let held = sender.send_request(request).await.unwrap();
    (serving, (sender, held))
}

#[tokio::test(start_paused = true)]
async fn pings_keep_no_peer_that_opens_no_window() {
    holds_the_clock();
    let never = Duration::from_secs(3600);
    // By the client's pings, and by the server's own.
    for (limit, pings, window) in
        [(LIMIT, LIMIT / 7, 1_000), (LIMIT, LIMIT / 7, 0), (Duration::from_secs(30), never, 1_000)]
    {
        let stage = Stage::new(limit);
        let (serving, _held) = held(&stage, window, pings).await;
        for _ in 0..40 {
            stage.later(limit / 13).await;
        }
        assert!(serving.is_finished(), "{limit:?}");
        assert_eq!((stage.given_up("send"), stage.given_up("ping")), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_given_up() {
    holds_the_clock();
    let stage = Stage::new(Duration::from_secs(30));
    let (mut stream, serving) = stage.connect(By::H2Tls, KERNEL_BYTES).await;
    let asks = [h2_begin(), crate::silent::ask(5, b"/never")].concat();
    stream.write_all(&asks).await.unwrap();
    stream.flush().await.unwrap();
    let mut seconds = 0;
    while !serving.is_finished() {
        stage.later(Duration::from_secs(1)).await;
        seconds += 1;
        assert!(seconds < 90, "nobody is there");
    }
    assert!(seconds > 75, "given up after {seconds} s");
    assert_eq!(stage.given_up("ping"), 1);
}

/// Reads so many bytes, and answers the pings among them (RFC 9113 section 6.7).
async fn taken(stream: &mut Stream, bytes: usize) {
    let mut taken = 0;
    while taken < bytes {
        let mut head = [0; 9];
        soon(stream.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        soon(stream.read_exact(&mut payload)).await.unwrap();
        taken += head.len() + length;
        if head[3] == 6 && head[4] == 0 {
            let answer = [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &payload].concat();
            stream.write_all(&answer).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

/// What waits before a ping is a batch and what the socket has.
#[tokio::test(start_paused = true)]
async fn over_10_kilobytes_a_second_pings_are_answered_in_time() {
    holds_the_clock();
    let stage = Stage::new(Duration::from_secs(30));
    let (mut stream, serving) = stage.ask(By::H2Tls, KERNEL_BYTES).await;
    for _ in 0..40 {
        taken(&mut stream, 64_000).await;
        stage.later(Duration::from_millis(6_400)).await;
    }
    assert!(!serving.is_finished(), "{:?}", serving.await);
    assert_eq!(stage.given_up("ping"), 0);
}
