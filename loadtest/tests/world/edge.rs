//! An edge that serves a synthetic title by every protocol, until it is told to fail.

use super::title::Title;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::api::{Playback, RankedEdge};
use nearcast_loadtest::Protocol;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// How an edge behaves from some request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It takes the request and never answers.
    Silent,
    /// It sends half of the body and then nothing.
    Frozen,
    /// It sends half of the body and closes.
    Cut,
    /// It answers 503.
    Busy,
}

type Body = BoxBody<Bytes, std::io::Error>;

struct State {
    title: Arc<Title>,
    id: String,
    fault: Mutex<Option<(u64, Fault)>>,
    requests: AtomicU64,
}

/// A running edge; it ends when dropped.
pub struct Edge {
    state: Arc<State>,
    pub address: SocketAddr,
    protocol: Protocol,
    pub pem: Vec<u8>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Edge {
    /// Starts an edge on this loopback address and a free port.
    pub async fn start(id: &str, host: &str, protocol: Protocol, title: &Arc<Title>) -> Self {
        let state = Arc::new(State {
            title: title.clone(),
            id: id.to_owned(),
            fault: Mutex::new(None),
            requests: AtomicU64::new(0),
        });
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let pem = made.cert.pem().into_bytes();
        let (task, address) = if protocol == Protocol::H3 {
            quic(&format!("{host}:0"), made.cert.der().clone(), key, state.clone())
        } else {
            let tls = (protocol != Protocol::H1)
                .then(|| tls(&[protocol.alpn()], made.cert.der().clone(), key));
            tcp(&format!("{host}:0"), tls, state.clone()).await
        };
        Self { state, address, protocol, pem, tasks: vec![task] }
    }

    /// Returns once nobody listens: a task that is only aborted may still hold its socket, and
    /// then a connection is taken, and reset, where it should be refused.
    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// From the request with this number on (counted from now), it fails.
    pub fn fail(&self, after: u64, fault: Fault) {
        let now = self.state.requests.load(Ordering::SeqCst);
        *self.state.fault.lock().unwrap() = Some((now + after, fault));
    }

    pub fn recover(&self) {
        *self.state.fault.lock().unwrap() = None;
    }

    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.protocol.scheme(), self.address)
    }
}

/// What a control plane would answer, with these edges in this order.
pub fn playback(title: &Title, edges: &[&Edge], steering: &str) -> Playback {
    let path = format!("/~secret{}", model::route::title_path(&title_id(), &title.version));
    let urls = |file: &str| edges.iter().map(|e| format!("{}{path}{file}", e.url())).collect();
    Playback {
        play: "00".repeat(16),
        title: title_id(),
        version: title.version,
        name: "Film".into(),
        duration_ms: title.index.duration_ms(),
        token: "secret".into(),
        expires: 0,
        edges: edges
            .iter()
            .map(|edge| RankedEdge {
                id: edge.state.id.parse().unwrap(),
                urls: vec!["ftp://nowhere".into(), edge.url()],
                holds: false,
            })
            .collect(),
        hls: urls("hls.m3u8"),
        dash: urls("dash.mpd"),
        steering: steering.to_owned(),
    }
}

pub fn title_id() -> model::TitleId {
    "film".parse().unwrap()
}

fn answer(state: &State, path: &str) -> (Response<()>, Bytes, Option<Fault>) {
    let number = state.requests.fetch_add(1, Ordering::SeqCst);
    let fault = state.fault.lock().unwrap().filter(|(from, _)| number >= *from);
    let fault = fault.map(|(_, fault)| fault);
    let below = path.strip_prefix("/~secret").unwrap_or("");
    let (status, body) = match state.title.body(below) {
        _ if fault == Some(Fault::Busy) => (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
        Some(body) => (StatusCode::OK, body),
        None => (StatusCode::NOT_FOUND, Bytes::from_static(b"no such path")),
    };
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, body.len())
        .header("cache-status", format!("{};hit;detail=\"hit-memory\"", state.id))
        .body(())
        .unwrap();
    (response, body, fault)
}

async fn serve(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body, fault) = answer(&state, request.uri().path());
    let half = Ok(Frame::data(body.slice(..body.len() / 2)));
    let parts = match fault {
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Frozen) => {
            futures::stream::iter([half]).chain(futures::stream::pending()).boxed()
        }
        Some(Fault::Cut) => {
            // The pause lets the half reach the socket first.
            let broken = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            futures::stream::iter([half]).chain(broken).boxed()
        }
        _ => futures::stream::iter([Ok(Frame::data(body))]).boxed(),
    };
    // BoxBody must be Sync, a boxed stream is not.
    Ok(head.map(|()| BodyExt::boxed(SyncBody(Mutex::new(StreamBody::new(parts))))))
}

type Parts = futures::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>;

struct SyncBody(Mutex<StreamBody<Parts>>);

impl hyper::body::Body for SyncBody {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        std::pin::Pin::new(self.get_mut().0.get_mut().unwrap()).poll_frame(cx)
    }
}

fn tls(
    alpn: &[&str],
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn tcp(
    address: &str,
    tls: Option<rustls::ServerConfig>,
    state: Arc<State>,
) -> (AbortOnDropHandle<()>, SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let (state, acceptor) = (state.clone(), acceptor.clone());
            connections.spawn(async move {
                let service =
                    hyper::service::service_fn(move |request| serve(state.clone(), request));
                let server = auto::Builder::new(TokioExecutor::new());
                match acceptor {
                    None => drop(server.serve_connection(TokioIo::new(socket), service).await),
                    Some(acceptor) => {
                        let Ok(socket) = acceptor.accept(socket).await else { return };
                        drop(server.serve_connection(TokioIo::new(socket), service).await);
                    }
                }
            });
        }
    });
    (AbortOnDropHandle::new(task), address)
}

fn quic(
    address: &str,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    state: Arc<State>,
) -> (AbortOnDropHandle<()>, SocketAddr) {
    let crypto =
        quinn::crypto::rustls::QuicServerConfig::try_from(tls(&["h3"], certificate, key)).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, address.parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            let state = state.clone();
            connections.spawn(async move {
                let Ok(connection) = incoming.await else { return };
                let connection = h3_quinn::Connection::new(connection);
                let Ok(mut connection) = h3::server::Connection::new(connection).await else {
                    return;
                };
                let mut requests = tokio::task::JoinSet::new();
                while let Ok(Some(resolver)) = connection.accept().await {
                    requests.spawn(serve_quic(state.clone(), resolver));
                }
            });
        }
    });
    (AbortOnDropHandle::new(task), address)
}

async fn serve_quic(
    state: Arc<State>,
    resolver: h3::server::RequestResolver<h3_quinn::Connection, Bytes>,
) {
    let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
    let (head, body, fault) = answer(&state, request.uri().path());
    if fault == Some(Fault::Silent) {
        std::future::pending::<()>().await;
    }
    let _ = stream.send_response(head).await;
    match fault {
        Some(Fault::Frozen) => {
            let _ = stream.send_data(body.slice(..body.len() / 2)).await;
            std::future::pending::<()>().await;
        }
        Some(Fault::Cut) => {
            // A clean end of a short body: only its length tells.
            let _ = stream.send_data(body.slice(..body.len() / 2)).await;
        }
        _ => drop(stream.send_data(body).await),
    }
    let _ = stream.finish().await;
}
