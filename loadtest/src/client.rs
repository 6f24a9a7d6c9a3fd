//! A client for one protocol. Connections are kept and used again, per host; one that failed,
//! stalled or was cut is dropped.

mod quic;
mod tcp;
pub(crate) mod tls;

use crate::Error;
use crate::error::shown;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;

/// A body longer than this is refused.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Idle HTTP/1.1 connections kept for a host.
const IDLE_PER_HOST_MAX: usize = 8;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    H1,
    /// HTTP/1.1 over TLS.
    H1Tls,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3.
    H3,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::H1, Self::H1Tls, Self::H2, Self::H3];

    /// The scheme of its URLs.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        if self == Self::H1 { "http" } else { "https" }
    }

    /// As in ALPN: `http/1.1`, `h2`, `h3`.
    #[must_use]
    pub fn alpn(self) -> &'static str {
        match self {
            Self::H1 | Self::H1Tls => "http/1.1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "h1",
            Self::H1Tls => "h1-tls",
            Self::H2 => "h2",
            Self::H3 => "h3",
        })
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body; as long as `Content-Length` says, where it says.
    pub body: Bytes,
    /// What the answer came by: `http/1.1`, `h2` or `h3`.
    pub protocol: String,
    /// From the call to the first byte of the body (of an empty one: to its end), connecting
    /// included.
    pub first_byte: Duration,
    /// From the call to the last byte.
    pub total: Duration,
}

impl Fetched {
    /// A header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The edge's verdict: `detail` of the nearest cache in `Cache-Status` (RFC 9211).
    #[must_use]
    pub fn verdict(&self) -> Option<&str> {
        let member = self.header("cache-status")?.rsplit(',').next()?;
        let detail = member.split(';').find_map(|param| param.trim().strip_prefix("detail="));
        detail.map(|detail| detail.trim_matches('"'))
    }
}

/// An HTTP client; `&self` may be used by many tasks at once.
pub struct Client {
    protocol: Protocol,
    first_byte_max: Duration,
    tls: Option<Arc<rustls::ClientConfig>>,
    quic: Option<quinn::ClientConfig>,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

enum Connection {
    Tcp(tcp::Connection),
    Quic(quic::Connection),
}

enum Body {
    Tcp(hyper::body::Incoming),
    Quic(Box<quic::Body>),
}

/// Where a URL leads.
struct Target {
    url: Url,
    host: String,
    port: u16,
    /// Host and port, as in `Host`: the key of the pool.
    authority: String,
}

impl Client {
    /// A client that trusts exactly the certificates of `ca_pem` (authorities, or servers' own)
    /// and gives up on a server that sends no byte for `first_byte_max`.
    ///
    /// # Errors
    /// [`Error::Tls`] when a PEM holds no certificate.
    pub fn new(
        protocol: Protocol,
        ca_pem: &[Vec<u8>],
        first_byte_max: Duration,
    ) -> Result<Self, Error> {
        let tls = (protocol != Protocol::H1).then(|| tls::config(protocol, ca_pem)).transpose()?;
        let quic = match (&tls, protocol) {
            (Some(tls), Protocol::H3) => Some(quic::config(tls, first_byte_max)?),
            _ => None,
        };
        Ok(Self { protocol, first_byte_max, tls, quic, idle: Mutex::default() })
    }

    /// Fetches a URL whole, with these header fields.
    ///
    /// # Errors
    /// [`Error`]; a status of 400 and up is an answer, not an error.
    pub async fn get(&self, url: &str, fields: &[(&str, &str)]) -> Result<Fetched, Error> {
        let started = Instant::now();
        let target = self.target(url)?;
        let request = self.request(&target, fields)?;
        let done = self.fetch(&target, request, started).await;
        if done.is_err() {
            self.forget(&target.authority);
        }
        done
    }

    async fn fetch(
        &self,
        target: &Target,
        request: Request<()>,
        started: Instant,
    ) -> Result<Fetched, Error> {
        if let Some(connection) = self.take(&target.authority) {
            match self.exchange(connection, target, request.clone(), started).await {
                // The server had closed the idle connection: not a fault of the server.
                Err(Error::Cut { answered: false, .. }) => {}
                done => return done,
            }
        }
        let connection = timeout_at(started + self.first_byte_max, self.connect(target))
            .await
            .map_err(|_| self.timed_out(target))??;
        self.exchange(connection, target, request, started).await
    }

    fn target(&self, url: &str) -> Result<Target, Error> {
        let bad = |reason: String| Error::BadUrl { url: shown(url), reason };
        let parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        let scheme = self.protocol.scheme();
        if parsed.scheme() != scheme {
            return Err(bad(format!("expected {scheme}:// for {}", self.protocol)));
        }
        let host = parsed.host_str().ok_or_else(|| bad("no host".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = parsed.port_or_known_default().ok_or_else(|| bad("no port".to_owned()))?;
        let authority = parsed[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        Ok(Target { host, port, authority, url: parsed })
    }

    fn request(&self, target: &Target, fields: &[(&str, &str)]) -> Result<Request<()>, Error> {
        let bad = |reason: &str| Error::BadUrl {
            url: shown(target.url.as_str()),
            reason: reason.to_owned(),
        };
        let path = &target.url[url::Position::BeforePath..url::Position::AfterQuery];
        let whole = &target.url[..url::Position::AfterQuery];
        let plain = matches!(self.protocol, Protocol::H1 | Protocol::H1Tls);
        let mut request = Request::get(if plain { path } else { whole })
            .body(())
            .map_err(|_| bad("not a URI that HTTP can carry"))?;
        let headers = request.headers_mut();
        if plain {
            let host = HeaderValue::from_str(&target.authority).map_err(|_| bad("bad host"))?;
            headers.insert(header::HOST, host);
        }
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).map_err(|_| bad("bad header name"))?;
            headers.append(name, HeaderValue::try_from(*value).map_err(|_| bad("bad header"))?);
        }
        Ok(request)
    }

    async fn connect(&self, target: &Target) -> Result<Connection, Error> {
        if let Some(quic) = &self.quic {
            return Ok(Connection::Quic(quic::connect(quic.clone(), target).await?));
        }
        let tls = self.tls.clone();
        Ok(Connection::Tcp(tcp::connect(self.protocol, tls, target).await?))
    }

    /// One request and its whole answer. The connection goes back to the pool only after a
    /// clean end.
    async fn exchange(
        &self,
        mut connection: Connection,
        target: &Target,
        request: Request<()>,
        started: Instant,
    ) -> Result<Fetched, Error> {
        let cut = |answered| {
            move |reason: String| Error::Cut { url: shown(target.url.as_str()), reason, answered }
        };
        let mut deadline = started + self.first_byte_max;
        let late = |_| self.timed_out(target);
        let (head, mut body) = timeout_at(deadline, connection.send(request))
            .await
            .map_err(late)?
            .map_err(cut(false))?;
        let mut bytes = BytesMut::new();
        let mut first_byte = None;
        while let Some(part) =
            timeout_at(deadline, body.next()).await.map_err(late)?.map_err(cut(true))?
        {
            if bytes.len() + part.len() > BODY_BYTES_MAX {
                return Err(Error::TooLarge {
                    url: shown(target.url.as_str()),
                    limit: BODY_BYTES_MAX,
                });
            }
            first_byte.get_or_insert_with(|| started.elapsed());
            bytes.extend_from_slice(&part);
            deadline = Instant::now() + self.first_byte_max;
        }
        let told = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if told.is_some_and(|told| told.parse() != Ok(bytes.len())) {
            return Err(cut(true)(format!("{} bytes of {}", bytes.len(), told.unwrap_or("?"))));
        }
        drop(body);
        self.keep(&target.authority, connection);
        let total = started.elapsed();
        Ok(Fetched {
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes.freeze(),
            protocol: self.protocol.alpn().to_owned(),
            first_byte: first_byte.unwrap_or(total),
            total,
        })
    }

    fn timed_out(&self, target: &Target) -> Error {
        Error::TimedOut { url: shown(target.url.as_str()), limit: self.first_byte_max }
    }

    /// After a failure no connection to that host is used again.
    fn forget(&self, authority: &str) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(authority);
    }

    fn take(&self, authority: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(authority)?;
        while let Some(connection) = connections.pop() {
            if !connection.is_closed() {
                // A connection with streams stays for others, too.
                connections.extend(connection.share());
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, authority: &str, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(authority.to_owned()).or_default();
        let room = if connection.share().is_some() { 1 } else { IDLE_PER_HOST_MAX };
        if connections.len() < room {
            connections.push(connection);
        }
    }
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<()>,
    ) -> Result<(http::response::Parts, Body), String> {
        match self {
            Self::Tcp(connection) => {
                let (head, body) = connection.send(request).await?.into_parts();
                Ok((head, Body::Tcp(body)))
            }
            Self::Quic(connection) => {
                let (head, body) = connection.send(request).await?;
                Ok((head, Body::Quic(Box::new(body))))
            }
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Tcp(connection) => connection.is_closed(),
            Self::Quic(connection) => connection.is_closed(),
        }
    }

    /// Another handle, where requests can share the connection.
    fn share(&self) -> Option<Self> {
        match self {
            Self::Tcp(connection) => connection.share().map(Self::Tcp),
            Self::Quic(connection) => Some(Self::Quic(connection.clone())),
        }
    }
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Tcp(body) => tcp::next(body).await,
            Self::Quic(body) => body.next().await,
        }
    }
}
