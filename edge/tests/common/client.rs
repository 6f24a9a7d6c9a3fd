//! Small clients for HTTP/1.1, 2 and 3: one connection a request.

use super::h3::H3;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

/// An answer. A body that was cut is an error.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Result<Bytes, String>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    pub fn bytes(&self) -> &Bytes {
        self.body.as_ref().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The verdict in `Cache-Status`.
    pub fn verdict(&self) -> &str {
        let detail = self.header("cache-status").split("detail=").nth(1).unwrap_or("");
        detail.trim_matches('"')
    }

    /// The error code of the body.
    pub fn code(&self) -> String {
        let error: model::api::ApiError = serde_json::from_slice(self.bytes()).unwrap();
        error.code
    }
}

fn request(method: Method, url: &str, fields: &[(&str, &str)], h1: bool) -> Request<Empty<Bytes>> {
    let uri: Uri = url.parse().unwrap();
    let authority = uri.authority().unwrap().to_string();
    let mut request = Request::builder().method(method);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = if h1 {
        let named = fields.iter().any(|(name, _)| *name == "host");
        let request = request.uri(uri.path_and_query().unwrap().as_str());
        if named { request } else { request.header("host", authority) }
    } else {
        request.uri(uri)
    };
    request.body(Empty::new()).unwrap()
}

fn addr(url: &str) -> SocketAddr {
    let uri: Uri = url.parse().unwrap();
    uri.authority().unwrap().as_str().parse().unwrap()
}

async fn answer(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).map_err(|e| e.to_string());
    Answer { status: head.status, headers: head.headers, body }
}

/// `GET` over HTTP/1.1 without TLS.
pub async fn get(url: &str, fields: &[(&str, &str)]) -> Answer {
    plain(Method::GET, url, fields).await
}

/// `HEAD`, or any other method, over HTTP/1.1 without TLS.
pub async fn head(method: Method, url: &str) -> Answer {
    plain(method, url, &[]).await
}

/// Any method with any fields, over HTTP/1.1 without TLS.
pub async fn ask(method: Method, url: &str, fields: &[(&str, &str)]) -> Answer {
    plain(method, url, fields).await
}

/// An answer whose body is read piece by piece. Dropped, its connection is closed.
pub struct Opened {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: hyper::body::Incoming,
    ahead: BytesMut,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Opened {
    /// So many more bytes, waiting for them; fewer at the end.
    pub async fn take(&mut self, bytes: usize) -> Result<Bytes, String> {
        while self.ahead.len() < bytes {
            match self.body.frame().await {
                None => break,
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => self.ahead.extend_from_slice(&frame.into_data().unwrap()),
            }
        }
        let bytes = bytes.min(self.ahead.len());
        Ok(self.ahead.split_to(bytes).freeze())
    }

    /// All the rest.
    pub async fn rest(&mut self) -> Result<Bytes, String> {
        self.take(usize::MAX).await
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// `GET` over HTTP/1.1 without TLS, up to the head of the answer.
pub async fn open(url: &str, fields: &[(&str, &str)]) -> Opened {
    let stream = TcpStream::connect(addr(url)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request(Method::GET, url, fields, true)).await.unwrap();
    let (head, body) = response.into_parts();
    let (status, headers) = (head.status, head.headers);
    Opened { status, headers, body, ahead: BytesMut::new(), connection }
}

/// The same with a body.
pub async fn ask_with_body(
    method: Method,
    url: &str,
    fields: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    let stream = TcpStream::connect(addr(url)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let request = request(method, url, fields, true).map(|_| Full::new(body));
    let answer = answer(sender.send_request(request).await.unwrap()).await;
    task.abort();
    answer
}

async fn plain(method: Method, url: &str, fields: &[(&str, &str)]) -> Answer {
    let stream = TcpStream::connect(addr(url)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let response = sender.send_request(request(method, url, fields, true)).await.unwrap();
    let answer = answer(response).await;
    task.abort();
    answer
}

/// For a client of this protocol that trusts `certificate` alone.
pub fn tls(certificate: &Path, protocol: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

/// HTTP/1.1 to come over TLS on this connection, trusting `certificate` alone.
pub async fn over_tls(
    stream: TcpStream,
    certificate: &Path,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(certificate, "http/1.1")));
    let name = ServerName::from(stream.peer_addr().unwrap().ip());
    connector.connect(name, stream).await.unwrap()
}

/// `GET` over TLS, by `http/1.1`, `h2` or `h3`, trusting `certificate` alone.
pub async fn get_over(protocol: &str, url: &str, certificate: &Path) -> Answer {
    let ip = addr(url).ip().to_string();
    get_as(protocol, url, certificate, &ip, addr(url)).await
}

/// The same from the server at `addr`, shaking hands with `name`, whatever host `url` names.
pub async fn get_as(
    protocol: &str,
    url: &str,
    certificate: &Path,
    name: &str,
    addr: SocketAddr,
) -> Answer {
    let request = request(Method::GET, url, &[], protocol == "http/1.1");
    send_as(protocol, request, certificate, name, addr).await
}

/// Any request without a body over TLS, to the server at `url`, trusting `certificate` alone.
pub async fn send_over(
    protocol: &str,
    request: Request<Empty<Bytes>>,
    certificate: &Path,
    url: &str,
) -> Answer {
    send_as(protocol, request, certificate, &addr(url).ip().to_string(), addr(url)).await
}

async fn send_as(
    protocol: &str,
    request: Request<Empty<Bytes>>,
    certificate: &Path,
    name: &str,
    addr: SocketAddr,
) -> Answer {
    if protocol == "h3" {
        return send_h3(request, certificate, name, addr).await;
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(certificate, protocol)));
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    let io = TokioIo::new(stream);
    if protocol == "h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        return answer(sender.send_request(request).await.unwrap()).await;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    answer(sender.send_request(request).await.unwrap()).await
}

async fn send_h3(
    request: Request<Empty<Bytes>>,
    certificate: &Path,
    name: &str,
    addr: SocketAddr,
) -> Answer {
    let mut h3 = H3::connect((addr, name), certificate, quinn::TransportConfig::default()).await;
    let (head, _) = request.into_parts();
    let mut stream = h3.sender.send_request(Request::from_parts(head, ())).await.unwrap();
    stream.finish().await.unwrap();
    let (head, ()) = stream.recv_response().await.unwrap().into_parts();
    let mut body = BytesMut::new();
    let body = loop {
        match stream.recv_data().await {
            Ok(Some(mut piece)) => body.extend_from_slice(&piece.copy_to_bytes(piece.remaining())),
            Ok(None) => break Ok(body.freeze()),
            Err(error) => break Err(error.to_string()),
        }
    };
    Answer { status: head.status, headers: head.headers, body }
}
