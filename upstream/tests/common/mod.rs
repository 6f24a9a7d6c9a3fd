//! A test origin on a real socket that answers as it is told, byte by byte, well or badly.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod http2;

use bytes::Bytes;
use nearcast_upstream::{
    Answer, Ask, Config, Fault, Node, Settings, SiteKind, Upstream, hierarchy,
};
use prometheus::Registry;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What an origin does for one request, in order.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// Sends one byte, and again after each pause, for ever.
    Drip(Duration),
    /// Waits until the test lets it go on.
    Until(Arc<tokio::sync::Notify>),
    /// Takes its time.
    Pause(Duration),
    /// Says nothing until the other side goes.
    Hang,
    Close,
    Reset,
}

#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    /// In lower case.
    pub head: String,
    pub body: Vec<u8>,
    pub connection: usize,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(given, _)| *given == name).map(|(_, value)| value)
    }
}

pub type Steps = Arc<dyn Fn(usize, &Seen) -> Vec<Step> + Send + Sync>;

pub struct Origin {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Answers the n-th request (from 0) with what `steps` says.
    pub async fn new(steps: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), steps).await
    }

    pub async fn at(
        addr: SocketAddr,
        steps: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let steps: Steps = Arc::new(steps);
        let all = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, number, steps.clone(), all.clone()));
            }
        });
        Self { addr, seen, task: task.abort_handle() }
    }

    /// One that answers 200 with `body`.
    pub async fn saying(body: &str) -> Self {
        let answer = ok(body);
        Self::new(move |_, _| answer.clone()).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve(mut stream: TcpStream, connection: usize, steps: Steps, all: Arc<Mutex<Vec<Seen>>>) {
    let mut buffer = Vec::new();
    while let Some(mut seen) = request(&mut stream, &mut buffer).await {
        seen.connection = connection;
        let todo = {
            let mut all = all.lock().unwrap();
            all.push(seen.clone());
            let number = all.len() - 1;
            drop(all);
            steps(number, &seen)
        };
        for step in todo {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Drip(pause) => loop {
                    if stream.write_all(b"x").await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                },
                Step::Until(go) => go.notified().await,
                Step::Pause(pause) => tokio::time::sleep(pause).await,
                Step::Hang => {
                    let mut rest = [0; 64];
                    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
                    return;
                }
                Step::Close => return,
                Step::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") {
            let text = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let (line, head) = text.split_once("\r\n").unwrap_or((&text, ""));
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
            });
            let whole = end + 4 + length.unwrap_or(0);
            while buffer.len() < whole {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            let mut lines = String::new();
            for field in head.lines() {
                let (name, value) = field.split_once(": ").unwrap_or((field, ""));
                lines += &format!("{}: {value}\n", name.to_ascii_lowercase());
            }
            let body = buffer[end + 4..whole].to_vec();
            let seen = Seen { line: line.to_owned(), head: lines, body, connection: 0 };
            buffer.drain(..whole);
            return Some(seen);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

pub fn ok(body: &str) -> Vec<Step> {
    vec![send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))]
}

pub fn status(status: u16) -> Vec<Step> {
    status_with(status, "")
}

/// `fields` end in CRLF each.
pub fn status_with(status: u16, fields: &str) -> Vec<Step> {
    vec![send(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: 0\r\n\r\n"))]
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub struct Site {
    pub upstream: Upstream,
    pub registry: Registry,
}

pub fn settings(text: &str) -> Settings {
    service::config::parse(std::path::Path::new("test.toml"), text).unwrap()
}

/// A site with settings in TOML.
pub fn site(kind: SiteKind, text: &str) -> Site {
    site_of(hierarchy::Config::alone("edge-1").unwrap(), kind, text)
}

pub fn site_of(hierarchy: hierarchy::Config, kind: SiteKind, text: &str) -> Site {
    site_at(hierarchy, None, kind, text)
}

/// A proxy site that trusts nobody but `ca`, in PEM.
pub fn site_that_trusts(ca: Option<&str>, text: &str) -> Site {
    site_at(hierarchy::Config::alone("edge-1").unwrap(), ca, SiteKind::Proxy, text)
}

fn site_at(hierarchy: hierarchy::Config, ca: Option<&str>, kind: SiteKind, text: &str) -> Site {
    let registry = Registry::new();
    let node = Node::new(hierarchy, ca.map(str::as_bytes), u64::MAX, &registry).unwrap();
    let config = Config::check("edge.sites.test", "test", kind, &settings(text)).unwrap();
    Site { upstream: Upstream::new(config, &node).unwrap(), registry }
}

/// The TLS of a server with these names, and what to trust it by, in PEM.
pub fn acceptor(protocols: &[&str], names: &[&str]) -> (TlsAcceptor, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (acceptor_of(protocols, made.cert.der(), &made.signing_key), made.cert.pem())
}

/// The TLS of a server with this certificate.
pub fn acceptor_of(
    protocols: &[&str],
    certificate: &CertificateDer<'static>,
    key: &rcgen::KeyPair,
) -> TlsAcceptor {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

pub fn ask(path: &str) -> Ask {
    Ask::get("films.example", path, [0; 16])
}

pub fn ask_for(path: &str, object: u64) -> Ask {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&object.to_le_bytes());
    Ask::get("films.example", path, key)
}

impl Site {
    pub async fn get(&self, path: &str) -> Result<(u16, Bytes), Fault> {
        whole(self.upstream.send(ask(path)).await?).await
    }

    /// The sum of a metric over those of its labels that `labels` names.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let name = format!("nearcast_edge_upstream_{name}");
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.iter().flat_map(|family| family.get_metric());
        let fits = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                let mut given = metric.get_label().iter();
                given.any(|label| label.name() == *name && label.value() == *value)
            })
        };
        metrics
            .filter(fits)
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

pub async fn whole(answer: Answer) -> Result<(u16, Bytes), Fault> {
    let (status, mut body) = (answer.head.status.as_u16(), answer.body);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok((status, bytes.into()))
}

/// Waits for a condition, with a deadline that only a failure reaches.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
