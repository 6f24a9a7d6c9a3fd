//! Files that settings name: read when those are checked, by what reads them at the start, so
//! that both say the same.

use super::Certificate;
use crate::tls;
use service::config::ConfigError;
use std::path::{Path, PathBuf};

/// The operator's certificate and key, which are there, or neither.
pub(super) fn certificate(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Certificate, ConfigError> {
    match (cert, key) {
        (Some(cert), Some(key)) => {
            for (name, path) in [("edge.cert", &cert), ("edge.key", &key)] {
                std::fs::File::open(path).map_err(|error| {
                    let expected = format!("a file that can be read: {error}");
                    ConfigError::value(name, path.display(), expected)
                })?;
            }
            Ok(Certificate::Own { cert, key })
        }
        (None, None) => Ok(Certificate::Generated),
        (Some(_), None) => Err(ConfigError::missing("edge.key", "the key of edge.cert")),
        (None, Some(_)) => Err(ConfigError::missing("edge.cert", "the certificate of edge.key")),
    }
}

/// A chain with its own key, and a secret that is long enough.
pub(super) fn check_tls(
    certificate: &Certificate,
    secret: Option<&Path>,
) -> Result<(), ConfigError> {
    if let Certificate::Own { cert, key } = certificate {
        tls::read(cert, key).map_err(|error| {
            let expected = format!("a certificate chain in PEM, of the key in edge.key ({error})");
            ConfigError::value("edge.cert", cert.display(), expected)
        })?;
    }
    let Some(secret) = secret else { return Ok(()) };
    tls::read_secret(secret).map(|_| ()).map_err(|error| {
        let expected = format!("a file with a secret of tickets ({error})");
        ConfigError::value("edge.ticket-secret", secret.display(), expected)
    })
}

/// Certificates of authorities.
pub(super) fn check_ca(path: Option<&Path>) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    let bad = |error: &dyn std::fmt::Display| {
        let expected = format!("a file with certificates in PEM ({error})");
        ConfigError::value("edge.ca", path.display(), expected)
    };
    let pem = std::fs::read(path).map_err(|error| bad(&error))?;
    service::client::connector(Some(&pem)).map(|_| ()).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    #[test]
    fn files_that_the_start_would_refuse_are_refused_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
            let cert = written(&format!("{name}.cert"), &made.cert.pem());
            (cert, written(&format!("{name}.key"), &made.signing_key.serialize_pem()))
        };
        let ((cert, key), (_, other)) = (pair("one"), pair("other"));
        let (short, good) = (written("short", "31 bytes are too few for it ..."), &"s".repeat(32));
        let good = written("good", good);
        let whole = std::fs::read_to_string(&key).unwrap();
        let cut = written("cut", &whole[..whole.len() / 2]);
        let garbled = written("garbled", &whole.replacen("MIG", "M\u{e4}G", 1));
        let check = |change: &dyn Fn(&mut Settings)| {
            let mut settings =
                Settings { origin: vec!["http://127.0.0.1:1".into()], ..Settings::default() };
            change(&mut settings);
            crate::settings::Config::check(settings).map(|_| ()).map_err(|error| {
                error.to_string().replace(&dir.path().display().to_string(), "DIR")
            })
        };
        let own = |cert: &PathBuf, key: &PathBuf| (Some(cert.clone()), Some(key.clone()));
        let refused = [
            check(&|s| (s.cert, s.key) = own(&cert, &other)),
            check(&|s| (s.cert, s.key) = own(&key, &key)),
            check(&|s| (s.cert, s.key) = own(&cert, &cert)),
            check(&|s| (s.cert, s.key) = own(&cert, &cut)),
            check(&|s| (s.cert, s.key) = own(&cut, &key)),
            check(&|s| (s.cert, s.key) = own(&cert, &garbled)),
            check(&|s| s.ca = Some(cut.clone())),
            check(&|s| s.ticket_secret = Some(short.clone())),
            check(&|s| s.ca = Some(short.clone())),
        ];
        insta::assert_snapshot!(refused.map(Result::unwrap_err).join("\n"));
        assert_eq!(check(&|s| (s.cert, s.key) = own(&cert, &key)), Ok(()));
        assert_eq!(check(&|s| s.ticket_secret = Some(good.clone())), Ok(()));
        assert_eq!(check(&|s| s.ca = Some(cert.clone())), Ok(()));
        // Nothing reads it where nothing speaks TLS.
        let plain = |s: &mut Settings| s.listen = vec!["http://127.0.0.1:8080".into()];
        let unread = |s: &mut Settings| {
            plain(s);
            s.ticket_secret = Some(short.clone());
        };
        assert_eq!(check(&unread), Ok(()));
    }
}
