//! The certificate: the operator's own, or one generated for this edge's addresses and kept;
//! and the secret of session tickets. The files may change while it serves.
//!
//! Invariant: what is in use was read and checked whole; a file that can't be used changes
//! nothing.

mod watch;

use crate::Error;
use crate::settings::Certificate;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use service::pem;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use wire::quic::ResetKey;
use wire::tls::{Metrics, SECRET_BYTES_MIN, Tickets, Tls};

/// The certificate and tickets of this edge, and the files that they come from.
pub struct Identity {
    /// What listeners use.
    pub tls: Tls,
    /// What ends this node's HTTP/3 connections after it was started anew.
    pub reset: ResetKey,
    cert: PathBuf,
    key: PathBuf,
    secret: Option<PathBuf>,
    metrics: Metrics,
}

fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::Tls(format!("{what}: {error}"))
}

impl Identity {
    /// Reads the operator's certificate, or the generated one in `dir`, which is made (anew)
    /// when it is not there or not for `names` (addresses and host names); and the `secret` of
    /// tickets, without which this process has one of its own. `dir` also keeps the key of
    /// stateless resets, which is made at the first start.
    ///
    /// # Errors
    /// [`Error::Tls`] names the file and what is wrong with it.
    pub fn load(
        certificate: &Certificate,
        secret: Option<&Path>,
        (dir, names): (&Path, &[String]),
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let (cert, key) = match certificate {
            Certificate::Own { cert, key } => (cert.clone(), key.clone()),
            Certificate::Generated => {
                if !is_for(dir, names) {
                    generate(dir, names)?;
                }
                (dir.join("cert.pem"), dir.join("key.pem"))
            }
        };
        let tickets = Tickets::new(secret.map(read_secret).transpose()?.as_deref());
        let tls = Tls::new(read(&cert, &key)?, tickets, metrics.clone())
            .map_err(|error| failed(cert.display(), error))?;
        let reset = reset_key(dir)?;
        Ok(Self { tls, reset, cert, key, secret: secret.map(Path::to_owned), metrics })
    }

    /// Reads the certificate anew.
    fn reload_certificate(&self) -> Result<(), Error> {
        let certificate = read(&self.cert, &self.key)?;
        self.tls.replace(certificate).map_err(|error| failed(self.cert.display(), error))
    }

    /// Reads the secret of tickets anew.
    fn reload_secret(&self, path: &Path) -> Result<(), Error> {
        self.tls.tickets().replace(&read_secret(path)?);
        Ok(())
    }
}

/// A chain and its key; that they belong together is said now, not at the first connection.
pub(crate) fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| failed(cert.display(), pem::wrong(&error, "a certificate")))?;
    if chain.is_empty() {
        return Err(failed(cert.display(), "expected a certificate in PEM, found none"));
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| failed(key.display(), pem::wrong(&error, "a private key")))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| failed(cert.display(), error))
}

/// A secret that is long enough.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, Error> {
    let secret = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    let secret = secret.trim_ascii().to_vec();
    if secret.len() < SECRET_BYTES_MIN {
        let expected =
            format!("expected at least {SECRET_BYTES_MIN} bytes, found {}", secret.len());
        return Err(failed(path.display(), expected));
    }
    Ok(secret)
}

fn reset_key(dir: &Path) -> Result<ResetKey, Error> {
    let path = dir.join("quic-reset-key");
    match std::fs::read(&path) {
        Ok(kept) => <[u8; ResetKey::BYTES]>::try_from(kept).map(ResetKey::from).map_err(|kept| {
            let (expected, found) = (ResetKey::BYTES, kept.len());
            failed(path.display(), format!("expected {expected} bytes, found {found}: remove it"))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = ResetKey::random();
            std::fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
            crate::disk::replace(&path, key.bytes()).map_err(|error| Error::file(&path, error))?;
            Ok(key)
        }
        Err(error) => Err(Error::file(&path, error)),
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

    fn load(
        certificate: &Certificate,
        secret: Option<&Path>,
        dir: &Path,
        names: &[&str],
    ) -> Result<Identity, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Identity::load(certificate, secret, (dir, &names), metrics)
    }

    #[test]
    fn a_generated_certificate_is_kept_until_the_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let load = |names: &[&str]| {
            load(&Certificate::Generated, None, dir.path(), names).unwrap();
            std::fs::read(dir.path().join("cert.pem")).unwrap()
        };
        let first = load(&["127.0.0.1", "localhost"]);
        assert_eq!(load(&["127.0.0.1", "localhost"]), first);
        assert_ne!(load(&["127.0.0.2", "localhost"]), first);
    }

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let own = Certificate::Own { cert: cert.clone(), key };
        let error = || load(&own, None, dir.path(), &[]).err().unwrap().to_string();
        assert!(error().contains("c.pem"), "{}", error());
        std::fs::write(&cert, "").unwrap();
        assert!(error().contains("found none"), "{}", error());
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "short\n").unwrap();
        let error = load(&Certificate::Generated, Some(&secret), dir.path(), &["localhost"]);
        let error = error.err().unwrap().to_string();
        assert!(error.ends_with("secret: expected at least 32 bytes, found 5"), "{error}");
    }

    #[test]
    fn the_key_of_resets_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = |dir: &Path| reset_key(dir).map(|key| key.bytes().to_vec());
        let dir = dir.path().join("tls");
        let made = key(&dir).unwrap();
        assert_eq!(key(&dir).unwrap(), made);
        std::fs::write(dir.join("quic-reset-key"), "short").unwrap();
        let error = key(&dir).unwrap_err().to_string();
        assert!(error.contains("quic-reset-key: expected 32 bytes, found 5"), "{error}");
    }
}
