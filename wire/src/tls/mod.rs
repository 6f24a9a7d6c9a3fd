//! TLS for listeners: a certificate that can be replaced while connections are served, tickets
//! that other nodes accept, and what is counted of both. Early data stays off: it can be
//! replayed.

pub(crate) mod sealing;
mod tickets;

pub use sealing::provider;
pub use tickets::{PERIOD, SECRET_BYTES_MIN, Tickets};

use crate::Error;
use arc_swap::ArcSwap;
use counting::{counters, gauge};
use prometheus::{IntCounterVec, IntGauge, Registry};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use std::fmt;
use std::sync::Arc;
use tickets::Counted;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is counted of TLS.
#[derive(Debug, Clone)]
pub struct Metrics {
    handshakes: IntCounterVec,
    tickets: IntCounterVec,
    expiry: IntGauge,
    reloads: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let r = registry;
        let expiry = gauge(
            r,
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in seconds since 1970",
        )?;
        let reloads = counters(
            r,
            "tls_reloads_total",
            "Changed files of the certificate and the tickets' secret: done or failed",
            &["file", "end"],
        )?;
        // An alarm sees the first one as a rise from 0.
        for file in ["certificate", "ticket-secret"] {
            for end in ["done", "failed"] {
                reloads.with_label_values(&[file, end]);
            }
        }
        Ok(Self {
            handshakes: counters(
                r,
                "tls_handshakes_total",
                "TLS handshakes: full, resumed or failed; by QUIC done or failed",
                &["transport", "end"],
            )?,
            tickets: counters(
                r,
                "tls_tickets_total",
                "Session tickets: issued, accepted, of no known key, or broken",
                &["transport", "end"],
            )?,
            expiry,
            reloads,
        })
    }

    fn ticket(&self, transport: &str, end: &str) {
        self.tickets.with_label_values(&[transport, end]).inc();
    }

    /// A handshake over TCP ended; `None` if it failed.
    pub fn shaken(&self, kind: Option<HandshakeKind>) {
        let end = match kind {
            Some(HandshakeKind::Resumed) => "resumed",
            Some(_) => "full",
            None => "failed",
        };
        self.handshakes.with_label_values(&["tcp", end]).inc();
    }

    /// A handshake by QUIC ended. Whether it resumed a session only its tickets tell.
    pub fn shaken_quic(&self, done: bool) {
        let end = if done { "done" } else { "failed" };
        self.handshakes.with_label_values(&["quic", end]).inc();
    }

    /// A changed file, `certificate` or `ticket-secret`, was taken or not.
    pub fn reloaded(&self, file: &str, done: bool) {
        let end = if done { "done" } else { "failed" };
        self.reloads.with_label_values(&[file, end]).inc();
    }
}

/// What listeners show and accept. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    certificate: Arc<Current>,
    tickets: Arc<Tickets>,
    metrics: Metrics,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Shows this certificate, and issues tickets under this secret.
    ///
    /// # Errors
    /// As [`Tls::replace`].
    pub fn new(
        certificate: CertifiedKey,
        tickets: Tickets,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        metrics.expiry.set(expiry(&certificate)?);
        Ok(Self {
            provider: Arc::new(provider()),
            certificate: Arc::new(Current(ArcSwap::from_pointee(certificate))),
            tickets: Arc::new(tickets),
            metrics,
        })
    }

    /// Shows another certificate from the next handshake on. Open connections keep theirs.
    ///
    /// # Errors
    /// [`Error::Certificate`] when it is none.
    pub fn replace(&self, certificate: CertifiedKey) -> Result<(), Error> {
        let expiry = expiry(&certificate)?;
        self.certificate.0.store(Arc::new(certificate));
        self.metrics.expiry.set(expiry);
        Ok(())
    }

    /// Whether the certificate is good for this host: a name, or an address.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let shown = self.certificate.0.load();
        let Some(leaf) = shown.cert.first() else { return false };
        let (Ok(leaf), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(host))
        else {
            return false;
        };
        verify_server_name(&leaf, &name).is_ok()
    }

    /// The tickets.
    #[must_use]
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// For TCP: HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn tcp(&self) -> Result<ServerConfig, Error> {
        self.config("tcp", &[b"h2", b"http/1.1"])
    }

    /// For QUIC: HTTP/3.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn quic(&self) -> Result<ServerConfig, Error> {
        self.config("quic", &[b"h3"])
    }

    fn config(&self, transport: &'static str, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
        let certificate: Arc<Current> = Arc::clone(&self.certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let tickets = Arc::clone(&self.tickets);
        config.ticketer = Arc::new(Counted { tickets, transport, metrics: self.metrics.clone() });
        Ok(config)
    }
}

/// When a certificate ends, in seconds since 1970.
fn expiry(certificate: &CertifiedKey) -> Result<i64, Error> {
    let leaf = certificate.cert.first().ok_or_else(|| Error::Certificate("is empty".into()))?;
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| Error::Certificate(error.to_string()))?;
    Ok(leaf.validity().not_after.timestamp())
}
