//! A request by one of the three protocols, over a connection of its own.

use super::HOST;
use super::process::Place;
use crate::common::tls;
use bytes::{Buf, Bytes};
use h3::error::StreamError;
use http::{HeaderMap, Method, Request, response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::ServerName;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// What the kernel holds for a slow client, and what it lets a server send ahead of it.
const SMALL_BUFFER_BYTES: u32 = 8 << 10;
const SMALL_WINDOW_BYTES: u32 = 16 << 10;

/// By which protocol is asked: HTTP/1.1 without TLS, the others with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];
}

/// Trusts the certificate that an edge made for itself.
pub struct Trust {
    h2: Arc<rustls::ClientConfig>,
    h3: Arc<QuicClientConfig>,
}

impl Trust {
    pub fn new(certificate: &Path) -> Self {
        let h3 = QuicClientConfig::try_from(tls(certificate, "h3")).unwrap();
        Self { h2: Arc::new(tls(certificate, "h2")), h3: Arc::new(h3) }
    }
}

/// The head of an answer, and its body to come.
pub type Opened = (response::Parts, Body);
/// Why there is no head.
pub enum Lost {
    /// A reset of the stream: the head may have been sent, QUIC need not deliver what was sent
    /// before it (RFC 9000 section 3.3).
    Cut(StreamError),
    /// No answer, whatever was sent.
    Unanswered(Box<dyn Error + Send + Sync>),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cut(error) => error.fmt(f),
            Self::Unanswered(error) => error.fmt(f),
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Lost {
    fn from(error: E) -> Self {
        Self::Unanswered(error.into())
    }
}

/// A body as it comes. Dropped, its connection is closed.
pub enum Body {
    Hyper { body: Incoming, _driven: Driven },
    H3(Box<H3>),
}

/// Ends a connection's task.
pub struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct H3 {
    stream: h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>,
    _sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    connection: quinn::Connection,
    _driven: Driven,
}

impl Drop for H3 {
    fn drop(&mut self) {
        self.connection.close(0x100u32.into(), b"");
    }
}

impl Body {
    /// More of it; an error if it was cut. Cancel safe.
    pub async fn more(&mut self) -> Option<Result<Bytes, String>> {
        match self {
            Self::Hyper { body, .. } => {
                let frame = body.frame().await?;
                Some(frame.map(|it| it.into_data().unwrap_or_default()).map_err(|e| e.to_string()))
            }
            Self::H3(h3) => match h3.stream.recv_data().await {
                Ok(piece) => piece.map(|mut piece| Ok(piece.copy_to_bytes(piece.remaining()))),
                Err(error) => Some(Err(error.to_string())),
            },
        }
    }
}

/// Asks for `/NUMBER`, up to the head of the answer. A slow client's kernel and windows hold
/// little.
pub async fn open(
    place: &Place,
    protocol: Protocol,
    (method, number, fields): (Method, usize, HeaderMap),
    is_slow: bool,
) -> Result<Opened, Lost> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.headers_mut() = fields;
    if protocol == Protocol::H1 {
        *request.uri_mut() = format!("/{number}").parse()?;
        request.headers_mut().insert("host", HOST.parse()?);
    } else {
        *request.uri_mut() = format!("https://{HOST}/{number}").parse()?;
    }
    match protocol {
        Protocol::H1 => over_h1(place, request, is_slow).await,
        Protocol::H2 => over_h2(place, request, is_slow).await,
        Protocol::H3 => over_h3(place, request, is_slow).await,
    }
}

async fn connect(addr: std::net::SocketAddr, is_slow: bool) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if is_slow {
        socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
    }
    socket.connect(addr).await
}

async fn over_h1(
    place: &Place,
    request: Request<Empty<Bytes>>,
    is_slow: bool,
) -> Result<Opened, Lost> {
    let stream = connect(place.http, is_slow).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driven = Driven(tokio::spawn(async move { connection.await.unwrap_or_default() }));
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok((head, Body::Hyper { body, _driven: driven }))
}

async fn over_h2(
    place: &Place,
    request: Request<Empty<Bytes>>,
    is_slow: bool,
) -> Result<Opened, Lost> {
    let stream = connect(place.https, is_slow).await?;
    let name = ServerName::from(place.https.ip());
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&place.trust.h2));
    let stream = connector.connect(name, stream).await?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if is_slow {
        builder.initial_stream_window_size(SMALL_WINDOW_BYTES);
    }
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let driven = Driven(tokio::spawn(async move { connection.await.unwrap_or_default() }));
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok((head, Body::Hyper { body, _driven: driven }))
}

async fn over_h3(
    place: &Place,
    request: Request<Empty<Bytes>>,
    is_slow: bool,
) -> Result<Opened, Lost> {
    let mut config = quinn::ClientConfig::new(Arc::clone(&place.trust.h3) as _);
    if is_slow {
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(SMALL_WINDOW_BYTES.into());
        config.transport_config(Arc::new(transport));
    }
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    let name = place.https.ip().to_string();
    let connection = endpoint.connect_with(config, place.https, &name)?.await?;
    let (mut driver, mut sender) = h3::client::builder()
        .send_grease(false)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await?;
    let driven = Driven(tokio::spawn(async move {
        driver.wait_idle().await;
    }));
    let (head, _) = request.into_parts();
    let mut stream = sender.send_request(Request::from_parts(head, ())).await?;
    stream.finish().await?;
    let (head, ()) = match stream.recv_response().await {
        Ok(response) => response.into_parts(),
        Err(error @ StreamError::RemoteTerminate { .. }) => return Err(Lost::Cut(error)),
        Err(error) => return Err(error.into()),
    };
    let h3 = H3 { stream, _sender: sender, connection, _driven: driven };
    Ok((head, Body::H3(Box::new(h3))))
}
