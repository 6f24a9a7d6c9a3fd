//! Sessions go on at any edge of a cluster, and certificates change without a connection lost.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Edge, Item, Web, proxy_settings, until};
use nearcast_edge::Settings;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const NAME: &str = "edges.test";
const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nhost: edges.test\r\n\r\n";
const SECRET: &str = "a secret that three edges share, more or less\n";
const BYTES: u64 = 5000;

/// A certificate in two files; it ends with the last day of this year.
fn certificate(dir: &Path, year: i32) {
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
}

fn der(path: &Path) -> rustls_pki_types::CertificateDer<'static> {
    rustls_pki_types::CertificateDer::from_pem_file(path).unwrap()
}

fn client(
    trusted: &[rustls_pki_types::CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn connect(edge: &Edge, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(edge.https.strip_prefix("https://").unwrap()).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    connector.connect(ServerName::try_from(NAME).unwrap(), stream).await
}

/// One request on a connection that stays open; by its answer the tickets have come as well.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")
            && answer.len() as u64 == end as u64 + 4 + BYTES
        {
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            return Ok(());
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn kind(edge: &Edge, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut stream = connect(edge, config).await.unwrap();
    ask(&mut stream).await.unwrap();
    stream.get_ref().1.handshake_kind().unwrap()
}

fn own(settings: Settings, dir: &Path, secret: Option<PathBuf>) -> Settings {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    Settings { cert: Some(cert), key: Some(key), ticket_secret: secret, ..settings }
}

/// An edge with the certificate of `dir`, and this secret.
async fn edge(web: &Web, dir: &Path, secret: Option<&str>) -> (TempDir, Edge) {
    let data = tempfile::tempdir().unwrap();
    let file = secret.map(|secret| {
        let file = data.path().join("secret");
        std::fs::write(&file, secret).unwrap();
        file
    });
    let settings = proxy_settings(data.path(), &web.url, &serde_json::json!({}));
    let edge = Edge::start(own(settings, dir, file)).await;
    (data, edge)
}

async fn handshakes(edge: &Edge, end: &str) -> f64 {
    let line = format!("nearcast_edge_tls_handshakes_total{{end=\"{end}\",transport=\"tcp\"}}");
    edge.metric(&line).await
}

async fn tickets(edge: &Edge, transport: &str, end: &str) -> f64 {
    let labels = format!("{{end=\"{end}\",transport=\"{transport}\"}}");
    edge.metric(&format!("nearcast_edge_tls_tickets_total{labels}")).await
}

async fn web() -> Web {
    let web = Web::start().await;
    web.put("/page", Item::of(BYTES));
    web
}

#[tokio::test]
async fn a_session_goes_on_at_an_edge_with_the_same_secret_and_at_no_other() {
    let (dir, web) = (tempfile::tempdir().unwrap(), web().await);
    certificate(dir.path(), 2040);
    let (_a, a) = edge(&web, dir.path(), Some(SECRET)).await;
    let (_b, b) = edge(&web, dir.path(), Some(SECRET.trim_end())).await;
    let (_c, c) = edge(&web, dir.path(), Some("the secret of some other cluster of edges")).await;
    let (_d, d) = edge(&web, dir.path(), None).await;
    let trusted = [der(&dir.path().join("cert.pem"))];
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for (other, expected) in [
            (&a, HandshakeKind::Resumed),
            (&b, HandshakeKind::Resumed),
            (&c, HandshakeKind::Full),
            (&d, HandshakeKind::Full),
        ] {
            let config = Arc::new(client(&trusted, &[version]));
            assert_eq!(kind(&a, &config).await, HandshakeKind::Full);
            assert_eq!(kind(other, &config).await, expected, "{version:?}");
        }
    }
    assert_eq!((handshakes(&b, "resumed").await, handshakes(&b, "full").await), (2.0, 0.0));
    assert_eq!((handshakes(&c, "resumed").await, handshakes(&c, "full").await), (0.0, 2.0));
    assert_eq!(
        (tickets(&b, "tcp", "accepted").await, tickets(&c, "tcp", "unknown").await),
        (2.0, 2.0)
    );
}

#[tokio::test]
async fn a_session_by_quic_goes_on_at_another_edge() {
    let (dir, web) = (tempfile::tempdir().unwrap(), web().await);
    certificate(dir.path(), 2040);
    let (_a, a) = edge(&web, dir.path(), Some(SECRET)).await;
    let (_b, b) = edge(&web, dir.path(), Some(SECRET)).await;
    let mut config = client(&[der(&dir.path().join("cert.pem"))], &[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let to = |edge: &Edge| edge.https.strip_prefix("https://").unwrap().parse().unwrap();
    let first = endpoint.connect(to(&a), NAME).unwrap().await.unwrap();
    // The tickets come before anything that the server sends after its handshake.
    first.accept_uni().await.unwrap();
    endpoint.connect(to(&b), NAME).unwrap().await.unwrap();
    until("the ticket's end", || async {
        (tickets(&b, "quic", "accepted").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(tickets(&a, "quic", "accepted").await, 0.0);
}

/// Connects and asks, again and again, until told to stop; what failed is counted.
async fn load(edge: &Edge, config: &Arc<ClientConfig>, stop: &AtomicBool, failed: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let outcome = async { ask(&mut connect(edge, config).await?).await }.await;
        failed.fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
    }
}

async fn shows(
    edge: &Edge,
    config: &Arc<ClientConfig>,
) -> rustls_pki_types::CertificateDer<'static> {
    let stream = connect(edge, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_certificate_is_replaced_under_load_and_a_broken_one_is_not_taken() {
    let (dir, new, web) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), web().await);
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    certificate(dir.path(), 2040);
    certificate(new.path(), 2041);
    let second = der(&new.path().join("cert.pem"));
    let (_data, edge) = edge(&web, dir.path(), None).await;
    let mut config = client(&[der(&cert), second.clone()], &[&rustls::version::TLS13]);
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let mut open = connect(&edge, &config).await.unwrap();
    ask(&mut open).await.unwrap();
    let (stop, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let change = async {
        for (from, to) in [("key.pem", &key), ("cert.pem", &cert)] {
            std::fs::copy(new.path().join(from), to).unwrap();
        }
        until("the new certificate", || async {
            (shows(&edge, &config).await == second).then_some(())
        })
        .await;
        std::fs::write(&cert, "no certificate").unwrap();
        until("the refusal", || async {
            let line = "nearcast_edge_tls_reloads_total{end=\"failed\",file=\"certificate\"}";
            (edge.metric(line).await == 1.0).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(change, load(&edge, &config, &stop, &failed));
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert_eq!(shows(&edge, &config).await, second);
    ask(&mut open).await.unwrap();
    let expiry = edge.metric("nearcast_edge_certificate_expiry_timestamp_seconds").await;
    assert_eq!(expiry, 2_272_060_800.0, "the start of 2041-12-31");
}
