//! HTTP/3 by quinn and h3. No GREASE frames: nginx resets requests that end with one.

use super::Target;
use crate::Error;
use bytes::{Buf, Bytes};
use h3_quinn::OpenStreams;
use http::Request;
use http::response::Parts;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that may be under way to us: for a stream, and for a connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const WINDOW_BYTES: u32 = 16 << 20;

pub(super) fn config(
    tls: &Arc<rustls::ClientConfig>,
    idle_max: Duration,
) -> Result<quinn::ClientConfig, Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls.clone())
        .map_err(|error| Error::Tls(error.to_string()))?;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(STREAM_WINDOW_BYTES.into()).receive_window(WINDOW_BYTES.into());
    // Longer than any wait for a byte, which ends first and has the better words.
    let idle = quinn::IdleTimeout::try_from(idle_max * 2 + Duration::from_secs(10));
    transport.max_idle_timeout(idle.ok());
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// A connection; the task that drives it ends with its last handle.
#[derive(Clone)]
pub(super) struct Connection {
    sender: h3::client::SendRequest<OpenStreams, Bytes>,
    quic: Arc<Closing>,
    driver: Arc<AbortOnDropHandle<()>>,
}

/// Tells the server at the end: it need not wait for its idle timeout.
struct Closing(quinn::Connection);

impl Drop for Closing {
    fn drop(&mut self) {
        // H3_NO_ERROR, RFC 9114 section 8.1.
        self.0.close(quinn::VarInt::from_u32(0x100), b"");
    }
}

pub(super) async fn connect(
    config: quinn::ClientConfig,
    target: &Target,
) -> Result<Connection, Error> {
    let failed = |reason: String| Error::Unavailable { host: target.authority.clone(), reason };
    let address = tokio::net::lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| failed(error.to_string()))?
        .next()
        .ok_or_else(|| failed("no address".to_owned()))?;
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = quinn::Endpoint::client(own).map_err(|error| failed(error.to_string()))?;
    let quic = endpoint
        .connect_with(config, address, &target.host)
        .map_err(|error| failed(error.to_string()))?
        .await
        .map_err(|error| failed(error.to_string()))?;
    let (mut connection, sender) = h3::client::builder()
        .send_grease(false)
        .build(h3_quinn::Connection::new(quic.clone()))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let driver = tokio::spawn(async move {
        std::future::poll_fn(|context| connection.poll_close(context)).await;
    });
    let driver = Arc::new(AbortOnDropHandle::new(driver));
    Ok(Connection { sender, quic: Arc::new(Closing(quic)), driver })
}

/// An answer's body, and the connection for as long as it lasts.
pub(super) struct Body {
    stream: h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>,
    _connection: Connection,
}

impl Connection {
    pub(super) async fn send(&mut self, request: Request<()>) -> Result<(Parts, Body), String> {
        let mut stream =
            self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        stream.finish().await.map_err(|error| error.to_string())?;
        let response = stream.recv_response().await.map_err(|error| error.to_string())?;
        let (head, ()) = response.into_parts();
        Ok((head, Body { stream, _connection: self.clone() }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.quic.0.close_reason().is_some() || self.driver.is_finished()
    }
}

impl Body {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let part = self.stream.recv_data().await.map_err(|error| error.to_string())?;
        Ok(part.map(|mut part| part.copy_to_bytes(part.remaining())))
    }
}
