//! The certificate: the operator's own, or one generated for this edge's addresses and kept.

use crate::Error;
use crate::settings::Certificate;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// A certificate and its key, ready for listeners.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::Tls(format!("{what}: {error}"))
}

impl Identity {
    /// Reads the operator's certificate, or the generated one in `dir`, which is made (anew)
    /// when it is not there or not for `names` (addresses and host names).
    ///
    /// # Errors
    /// [`Error::Tls`] names the file and what is wrong with it.
    pub fn load(certificate: &Certificate, dir: &Path, names: &[String]) -> Result<Self, Error> {
        match certificate {
            Certificate::Own { cert, key } => Self::read(cert, key),
            Certificate::Generated => {
                let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
                if !is_for(dir, names) {
                    generate(dir, names)?;
                }
                Self::read(&cert, &key)
            }
        }
    }

    fn read(cert: &Path, key: &Path) -> Result<Self, Error> {
        let shown = cert.display();
        let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|error| failed(shown, error))?;
        if chain.is_empty() {
            return Err(failed(cert.display(), "expected a certificate in PEM, found none"));
        }
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key.display(), error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let identity = Self { chain, key, provider };
        // Says now, not at the first connection, that the key is another one's.
        identity.config(&[]).map_err(|error| failed(cert.display(), error))?;
        Ok(identity)
    }

    fn config(&self, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
        let tls = |error: rustls::Error| failed("certificate", error);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(tls)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(tls)?;
        Ok(config)
    }

    /// For TCP: HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn tcp(&self) -> Result<ServerConfig, Error> {
        self.config(&[b"h2", b"http/1.1"])
    }

    /// For QUIC: HTTP/3, without early data.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn quic(&self) -> Result<ServerConfig, Error> {
        self.config(&[b"h3"])
    }
}

/// Whether the generated certificate in `dir` was made for these names.
fn is_for(dir: &Path, names: &[String]) -> bool {
    let kept = std::fs::read_to_string(dir.join("names"));
    let files = ["cert.pem", "key.pem"].iter().all(|file| dir.join(file).is_file());
    files && kept.is_ok_and(|kept| kept.lines().eq(names))
}

fn generate(dir: &Path, names: &[String]) -> Result<(), Error> {
    let tls = |error: rcgen::Error| failed("generating a certificate", error);
    let mut params = CertificateParams::new(names.to_vec()).map_err(tls)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "nearcast edge");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let key = KeyPair::generate().map_err(tls)?;
    let certificate = params.self_signed(&key).map_err(tls)?;
    std::fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
    // Temporary files are made for their owner alone, and so stays the key. The names come
    // last: without them a half-written pair is made again.
    let files = [
        ("key.pem", key.serialize_pem()),
        ("cert.pem", certificate.pem()),
        ("names", names.join("\n")),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        crate::disk::replace(&path, text.as_bytes()).map_err(|error| Error::file(&path, error))?;
    }
    tracing::info!(dir = %dir.display(), ?names, "certificate generated");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_certificate_is_kept_until_the_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let load = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Identity::load(&Certificate::Generated, dir.path(), &names).unwrap().chain
        };
        let first = load(&["127.0.0.1", "localhost"]);
        assert_eq!(load(&["127.0.0.1", "localhost"]), first);
        assert_ne!(load(&["127.0.0.2", "localhost"]), first);
    }

    #[test]
    fn a_missing_or_empty_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let own = Certificate::Own { cert: cert.clone(), key };
        let load = || Identity::load(&own, dir.path(), &[]).err().unwrap().to_string();
        assert!(load().contains("c.pem"), "{}", load());
        std::fs::write(&cert, "").unwrap();
        assert!(load().contains("found none"), "{}", load());
    }
}
