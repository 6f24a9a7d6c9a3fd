//! HTTP/1.1 and HTTP/2 over TCP, by hyper.

use super::{Protocol, Target};
use crate::Error;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// HTTP/2 flow-control windows, in bytes: a segment or two may be under way.
const WINDOW_BYTES: u32 = 4 << 20;

/// A connection; the task that drives it ends with its last handle.
pub(super) struct Connection {
    sender: Sender,
    driver: Arc<AbortOnDropHandle<()>>,
}

enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

pub(super) async fn connect(
    protocol: Protocol,
    tls: Option<Arc<rustls::ClientConfig>>,
    target: &Target,
) -> Result<Connection, Error> {
    let failed = |reason: String| Error::Unavailable { host: target.authority.clone(), reason };
    let tcp = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    tcp.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let Some(tls) = tls else {
        return handshake(protocol, TokioIo::new(tcp)).await.map_err(failed);
    };
    let name =
        ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
    let tls = tokio_rustls::TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if tls.get_ref().1.alpn_protocol() != Some(protocol.alpn().as_bytes()) {
        return Err(failed(format!("it does not speak {} (ALPN)", protocol.alpn())));
    }
    handshake(protocol, TokioIo::new(tls)).await.map_err(failed)
}

async fn handshake<T>(protocol: Protocol, io: T) -> Result<Connection, String>
where
    T: Read + Write + Unpin + Send + 'static,
{
    if protocol == Protocol::H2 {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(io)
            .await
            .map_err(said)?;
        let driver = tokio::spawn(async { drop(driver.await) });
        return Ok(Connection { sender: Sender::H2(sender), driver: shared(driver) });
    }
    let (sender, driver) = http1::handshake(io).await.map_err(said)?;
    let driver = tokio::spawn(async { drop(driver.await) });
    Ok(Connection { sender: Sender::H1(sender), driver: shared(driver) })
}

fn shared(driver: tokio::task::JoinHandle<()>) -> Arc<AbortOnDropHandle<()>> {
    Arc::new(AbortOnDropHandle::new(driver))
}

impl Connection {
    pub(super) async fn send(
        &mut self,
        request: Request<()>,
    ) -> Result<Response<Incoming>, String> {
        let request = request.map(|()| Empty::new());
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(said)?;
                sender.send_request(request).await.map_err(said)
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(said)?;
                sender.send_request(request).await.map_err(said)
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }

    pub(super) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => {
                Some(Self { sender: Sender::H2(sender.clone()), driver: self.driver.clone() })
            }
        }
    }
}

pub(super) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(said)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// hyper names the cause only in the error's source.
fn said(error: hyper::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
