//! What can go wrong for a client.

use std::time::Duration;

/// Why a request or a play failed. Where a URL is named, its play token is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL can't be fetched with this protocol.
    #[error("{url}: {reason}")]
    BadUrl {
        /// As given, without a token.
        url: String,
        /// What was expected.
        reason: String,
    },
    /// Certificates that are none, or a TLS setting refused.
    #[error("TLS: {0}")]
    Tls(String),
    /// No connection.
    #[error("{host} can't be reached: {reason}")]
    Unavailable {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// No byte within the limit: neither an answer, nor the next part of a body.
    #[error("{url}: no byte within {limit:?}")]
    TimedOut {
        /// Without a token.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke, or the body ended early.
    #[error("{url}: cut off: {reason}")]
    Cut {
        /// Without a token.
        url: String,
        /// How.
        reason: String,
        /// Whether the status line had arrived.
        answered: bool,
    },
    /// The body is longer than this client takes.
    #[error("{url}: the body is longer than {limit} bytes")]
    TooLarge {
        /// Without a token.
        url: String,
        /// [`crate::BODY_BYTES_MAX`].
        limit: usize,
    },
    /// An error status where an answer was needed.
    #[error("{url}: status {status}: {body}")]
    Status {
        /// Without a token.
        url: String,
        /// The status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// A load that can't be run as asked.
    #[error("{what}: {reason}")]
    BadLoad {
        /// Which option, file or process.
        what: String,
        /// What was expected.
        reason: String,
    },
    /// A manifest that can't be followed.
    #[error("{what} can't be played: {reason}")]
    BadManifest {
        /// Which, without a token.
        what: String,
        /// What did not fit.
        reason: String,
    },
    /// The playback answer names no edge that speaks the protocol.
    #[error("no edge of the playback answer has a URL with {scheme}://")]
    NoEdge {
        /// The scheme that was looked for.
        scheme: &'static str,
    },
}

/// A URL for people: without the play token, which is a secret.
pub(crate) fn shown(url: &str) -> String {
    let Some(start) = url.find("/~") else { return url.to_owned() };
    let end = url[start + 1..].find('/').map_or(url.len(), |slash| start + 1 + slash);
    format!("{}/~{}", &url[..start], &url[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(shown("http://a:1/~secret/t/film/x"), "http://a:1/~/t/film/x");
        assert_eq!(shown("http://a:1/~secret"), "http://a:1/~");
        assert_eq!(shown("http://a:1/healthz"), "http://a:1/healthz");
    }
}
