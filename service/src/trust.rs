//! Whom a connection over TLS trusts, and why not, in words.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

/// Trusts what the named certificates sign, and these themselves: what `openssl req -x509` makes is
/// an authority's (CA:TRUE), which webpki takes for nobody else's.
#[derive(Debug)]
pub(crate) struct Named {
    signed: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Named {
    /// # Errors
    /// What rustls says of a certificate that it can't use, or of there being none.
    pub(crate) fn new(
        named: Vec<CertificateDer<'static>>,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &named {
            roots.add(certificate.clone())?;
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let signed = signed.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { signed, named })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.signed.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let is_named = || self.named.iter().any(|named| **named == **end_entity);
        match verdict {
            // That it is in force is looked at before what it is for; its name is not.
            Err(error) if is_authoritys(&error) && is_named() => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Whether a server shows an authority's certificate as its own.
fn is_authoritys(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// What an error of a connection says; of a certificate in words.
pub(crate) fn said(error: &(dyn StdError + 'static)) -> String {
    let Some(tls @ Error::InvalidCertificate(why)) = held(error) else { return error.to_string() };
    let why = match why {
        _ if is_authoritys(tls) => {
            "it is an authority's own (CA:TRUE), and not itself one of those in `ca`".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "it is not signed by one of the authorities that are trusted (those in `ca`, or else the \
             system's)"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "it bears the name of an authority that is trusted, and another's signature".to_owned()
        }
        CertificateError::Other(other) => other.to_string(),
        why => why.to_string(),
    };
    format!("invalid peer certificate: {why}")
}

/// The error of TLS that is in one of I/O, however deep.
fn held<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let inner = || error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| held(inner()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_in_words() {
        let error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::other(error));
        let said = said(&error);
        assert!(said.starts_with("invalid peer certificate: it is not signed by one"), "{said}");
        let other = io::Error::other("no route");
        assert_eq!(super::said(&other), "no route");
    }
}
