//! Credentials in a file of AWS' format.

use super::credentials::Keys;
use super::source::{ANSWER_BYTES_MAX, Given, unavailable};
use crate::fault::Fault;
use jiff::Timestamp;
use std::path::Path;
use std::time::SystemTime;

/// Reads a profile's keys off the threads that serve.
pub(super) async fn ask(path: &Path, profile: &str) -> Result<Given, Fault> {
    let (path, profile) = (path.to_owned(), profile.to_owned());
    let read = tokio::task::spawn_blocking(move || read_now(&path, &profile)).await;
    read.map_err(unavailable)?.map_err(unavailable)
}

/// Reads a profile's keys; the error names the file.
pub(super) fn read_now(path: &Path, profile: &str) -> Result<Given, String> {
    let shown = path.display();
    let text = text(path).map_err(|error| format!("{shown}: {error}"))?;
    parse(&text, profile).ok_or_else(|| format!("{shown}: no keys for profile {profile:?}"))
}

/// A small text file.
pub(super) fn text(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > ANSWER_BYTES_MAX as u64 {
        return Err(std::io::Error::other("too large for credentials"));
    }
    std::fs::read_to_string(path)
}

/// A profile of a credentials file.
fn parse(text: &str, profile: &str) -> Option<Given> {
    let mut here = false;
    let mut keys = Keys { id: String::new(), secret: String::new(), token: None };
    let mut expires = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = name.trim() == profile;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| here) else { continue };
        let value = value.trim().to_owned();
        match name.trim() {
            "aws_access_key_id" => keys.id = value,
            "aws_secret_access_key" => keys.secret = value,
            "aws_session_token" => keys.token = Some(value),
            "expiration" | "aws_expiration" | "x_security_token_expires" => {
                expires = Some(SystemTime::from(value.parse::<Timestamp>().ok()?));
            }
            _ => {}
        }
    }
    (!keys.id.is_empty() && !keys.secret.is_empty()).then_some((keys, expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_profiles_and_an_expiry() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[other]\n\
                    aws_access_key_id=C\naws_secret_access_key=D=\naws_session_token = E\n\
                    expiration = 2026-01-02T03:04:05Z\n";
        let (first, never) = parse(text, "default").unwrap();
        assert_eq!((first.id.as_str(), first.secret.as_str(), never), ("A", "B", None));
        let (other, expires) = parse(text, "other").unwrap();
        assert_eq!((other.secret.as_str(), other.token.as_deref()), ("D=", Some("E")));
        assert!(expires.is_some());
        assert!(parse(text, "third").is_none());
    }
}
