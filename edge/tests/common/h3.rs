//! A connection of HTTP/3, for what asks several things of it, or opens little of its windows.

use super::client::tls;
use bytes::Bytes;
use h3::client::{RequestStream, SendRequest};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A request and its answer.
pub type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// A client's end, until it is dropped.
pub struct H3 {
    pub sender: SendRequest<h3_quinn::OpenStreams, Bytes>,
    driver: JoinHandle<()>,
}

impl H3 {
    /// One to `addr`, shaking hands with `name`, trusting `certificate` alone.
    pub async fn connect(
        (addr, name): (SocketAddr, &str),
        certificate: &Path,
        transport: quinn::TransportConfig,
    ) -> Self {
        let crypto = tls(certificate, "h3");
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let quic = endpoint.connect_with(config, addr, name).unwrap().await.unwrap();
        let (mut driver, sender) = h3::client::builder()
            .send_grease(false)
            .build::<_, _, Bytes>(h3_quinn::Connection::new(quic))
            .await
            .unwrap();
        Self { sender, driver: tokio::spawn(async move { drop(driver.wait_idle().await) }) }
    }

    /// One to the edge that has this URL and this folder.
    pub async fn to(https: &str, dir: &Path, transport: quinn::TransportConfig) -> Self {
        let addr: SocketAddr = https.strip_prefix("https://").unwrap().parse().unwrap();
        let name = addr.ip().to_string();
        Self::connect((addr, &name), &dir.join("tls/cert.pem"), transport).await
    }
}

impl Drop for H3 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
