//! What is wrong with a PEM file, in words: the parser's own show bytes as numbers. Pure.

use rustls::pki_types::pem::Error;

/// What is wrong, where `expected` (`a private key`) was.
#[must_use]
pub fn wrong(error: &Error, expected: &str) -> String {
    match error {
        Error::MissingSectionEnd { end_marker } => {
            let of = String::from_utf8_lossy(end_marker);
            format!("expected {expected} in PEM, found one that is cut: no -----END {of}-----")
        }
        Error::IllegalSectionStart { .. } => {
            format!(
                "expected {expected} in PEM, found a line that begins like -----BEGIN, and is not"
            )
        }
        Error::Base64Decode(_) => {
            format!("expected {expected} in PEM, found one that is no base64")
        }
        Error::NoItemsFound => format!("expected {expected} in PEM, found none"),
        other => other.to_string(),
    }
}
