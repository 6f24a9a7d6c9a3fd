//! A container's credentials server: ECS, EKS Pod Identity, and what answers as they do.

use super::keyfile;
use super::source::{ANSWER_MAX, Given, Source, answer, parse, unavailable};
use crate::fault::Fault;
use bytes::Bytes;
use http_body_util::Full;
use service::client::Client;
use service::config::ConfigError;
use std::fmt;
use std::path::PathBuf;

const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";

/// What proves to that server who asks.
#[derive(Clone)]
pub(crate) enum Token {
    /// The token itself.
    Given(String),
    /// A file with it, read each time: it is replaced before it expires.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The server that the environment names.
///
/// # Errors
/// [`ConfigError::Value`] for one that is asked without TLS and is not near.
pub(super) fn find(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Source>, ConfigError> {
    let relative = env(RELATIVE).map(|path| format!("http://169.254.170.2{path}"));
    let Some(url) = env(FULL).or(relative) else { return Ok(None) };
    if !is_near(&url) {
        let expected = "https://, or http:// of this machine or its credentials server";
        return Err(ConfigError::value(FULL, url, expected));
    }
    let file = env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Token::File(path.into()));
    let token = file.or_else(|| env("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Token::Given));
    Ok(Some(Source::Container { url, token }))
}

/// A credentials server that may be asked without TLS: AWS' own rule.
fn is_near(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let near = |host: url::Host<&str>| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => {
            ip.is_loopback() || [[169, 254, 170, 2], [169, 254, 170, 23]].contains(&ip.octets())
        }
        url::Host::Ipv6(ip) => {
            ip.is_loopback() || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]
        }
    };
    url.scheme() == "https" || (url.scheme() == "http" && url.host().is_some_and(near))
}

/// Asks the server.
pub(super) async fn ask(url: &str, token: Option<&Token>) -> Result<Given, Fault> {
    let token = match token {
        None => None,
        Some(Token::Given(token)) => Some(token.clone()),
        Some(Token::File(path)) => {
            let (path, shown) = (path.clone(), path.display());
            let read = tokio::task::spawn_blocking(move || keyfile::text(&path)).await;
            let read = read.map_err(|error| unavailable(format!("{shown}: {error}")))?;
            let text = read.map_err(|error| unavailable(format!("{shown}: {error}")))?;
            Some(text.trim().to_owned())
        }
    };
    let mut request = http::Request::get(url);
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, token);
    }
    let bad = |why: &dyn fmt::Display| unavailable(format!("{url}: {why}"));
    let request = request.body(Full::<Bytes>::default()).map_err(|e| bad(&e))?;
    let client = Client::new(ANSWER_MAX, None, None).map_err(|e| bad(&e))?;
    let (status, body) = answer(&client, request).await?;
    if status.is_success() { parse(url, &body) } else { Err(bad(&status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_credentials_server_is_near() {
        for good in [
            "http://127.0.0.1:9/x",
            "http://[::1]/",
            "http://169.254.170.23/v1",
            "https://a.example/",
        ] {
            assert!(is_near(good), "{good}");
        }
        for bad in ["http://a.example/", "http://10.0.0.1/", "ftp://127.0.0.1/", "x"] {
            assert!(!is_near(bad), "{bad}");
        }
    }
}
