//! Trust: exactly the certificates given. One of them may be a server's own (nearcast generates
//! such), which then is accepted as it stands.

use super::Protocol;
use crate::Error;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;

/// A TLS configuration that offers this protocol alone.
pub(super) fn config(
    protocol: Protocol,
    ca_pem: &[Vec<u8>],
) -> Result<Arc<rustls::ClientConfig>, Error> {
    config_of(protocol, ca_pem, rustls::crypto::aws_lc_rs::default_provider()).map(Arc::new)
}

/// The same with a provider, which may have fewer ciphers.
pub(crate) fn config_of(
    protocol: Protocol,
    ca_pem: &[Vec<u8>],
    provider: CryptoProvider,
) -> Result<rustls::ClientConfig, Error> {
    let failed = |error: rustls::Error| Error::Tls(error.to_string());
    let provider = Arc::new(provider);
    let verifier = Trust::new(ca_pem, &provider)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match protocol {
        Protocol::H3 => &[&rustls::version::TLS13],
        _ => rustls::ALL_VERSIONS,
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.alpn().as_bytes().to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Trust {
    given: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
}

impl Trust {
    fn new(ca_pem: &[Vec<u8>], provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut given = Vec::new();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in ca_pem.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate.map_err(|error| Error::Tls(error.to_string()))?;
            roots.add(certificate.clone()).map_err(|error| Error::Tls(error.to_string()))?;
            given.push(certificate);
        }
        if given.is_empty() {
            return Err(Error::Tls("no certificate was given to trust".to_owned()));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| Error::Tls(error.to_string()))?;
        Ok(Self { given, chain })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.given.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
