//! Why there is no whole answer: for the caller what to do next, for the client's `Proxy-Status`
//! the error type of RFC 9209.

mod http2;

pub use caching::ProxyError as ErrorType;

use crate::ask::HopId;
use crate::watched::HeadSeen;
use http::StatusCode;
use hyper_util::client::legacy::Error as ClientError;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why an exchange has no (whole) answer. Cheap to clone: all waiters of a fetch get it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Nothing usable came: no connection, the breaker is open, or what answered is not HTTP.
    #[error("unavailable ({error}): {why}")]
    Unavailable {
        /// RFC 9209 error type.
        error: ErrorType,
        /// Which hop, and what happened.
        why: Arc<str>,
    },
    /// No connection or no head in time.
    #[error("timed out ({error}): {why}")]
    TimedOut {
        /// RFC 9209 error type.
        error: ErrorType,
        /// Which hop, and the limit.
        why: Arc<str>,
    },
    /// The body is not whole: reset, short, framed wrongly, stalled, or a drip.
    #[error("cut ({error}): {why}")]
    Cut {
        /// RFC 9209 error type.
        error: ErrorType,
        /// Which hop, and what happened.
        why: Arc<str>,
    },
    /// More requests are under way and waiting than the hop's limits allow.
    #[error("busy: {why}")]
    Busy {
        /// Which hop, and the limit.
        why: Arc<str>,
    },
    /// The request was here before (RFC 8586).
    #[error("loop: {why}")]
    Loop {
        /// The `CDN-Loop` that was seen.
        why: Arc<str>,
    },
    /// A redirect where none is allowed (title sites).
    #[error("redirected: {why}")]
    Redirected {
        /// Which hop, and where to.
        why: Arc<str>,
    },
    /// An answer that is none to what was asked: other bytes, or a 304 without a condition.
    #[error("wrong: {why}")]
    Wrong {
        /// Which hop, and what it answered to what.
        why: Arc<str>,
        /// How the range was taken, where that can be told, and by which hop.
        misread: Option<(Misread, HopId)>,
    },
    /// The request can't be sent as asked.
    #[error("refused: {why}")]
    Refused {
        /// What is wrong with it.
        why: Arc<str>,
    },
    /// No object can have this name.
    #[error("not found: {why}")]
    NotFound {
        /// The name.
        why: Arc<str>,
    },
    /// The request's own body failed: its sender went away.
    #[error("aborted: {why}")]
    Aborted {
        /// What it said.
        why: Arc<str>,
    },
    /// The request's own body did not come in time.
    #[error("too slow: {why}")]
    Slow {
        /// What was waited for.
        why: Arc<str>,
    },
}

/// How a hop has taken a range that it was asked for: that tells how else it may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misread {
    /// All digits of a range that has an end are the number of its first byte: one that has none may
    /// be taken as others do.
    Digits,
    /// It begins at the first byte wherever the range does: what has no range may be had whole.
    NoStart,
}

impl Fault {
    /// The error type for `Proxy-Status`.
    #[must_use]
    pub fn error_type(&self) -> ErrorType {
        match self {
            Self::Unavailable { error, .. }
            | Self::TimedOut { error, .. }
            | Self::Cut { error, .. } => *error,
            Self::Busy { .. } => ErrorType::ConnectionLimitReached,
            Self::Loop { .. } => ErrorType::ProxyLoopDetected,
            Self::Redirected { .. } | Self::Wrong { .. } => ErrorType::HttpProtocolError,
            Self::Refused { .. } | Self::NotFound { .. } => ErrorType::HttpRequestDenied,
            Self::Aborted { .. } | Self::Slow { .. } => ErrorType::HttpRequestError,
        }
    }

    /// What a client is answered when there is nothing better.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unavailable { error: ErrorType::DestinationUnavailable, .. }
            | Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unavailable { .. }
            | Self::Cut { .. }
            | Self::Redirected { .. }
            | Self::Wrong { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop { .. } => StatusCode::LOOP_DETECTED,
            Self::Refused { .. } | Self::Aborted { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Whether the same ask may do better at another time or hop.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::Cut { .. }
            | Self::Busy { .. }
            | Self::Redirected { .. }
            | Self::Wrong { .. } => true,
            Self::Loop { .. }
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Aborted { .. }
            | Self::Slow { .. } => false,
        }
    }

    /// A short name for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable { error: ErrorType::DestinationUnavailable, .. } => "open",
            Self::Unavailable { .. } => "unavailable",
            Self::TimedOut { .. } => "timed-out",
            Self::Cut { .. } => "cut",
            Self::Busy { .. } => "busy",
            Self::Loop { .. } => "loop",
            Self::Redirected { .. } => "redirected",
            Self::Wrong { .. } => "wrong",
            Self::Refused { .. } => "refused",
            Self::NotFound { .. } => "not-found",
            Self::Aborted { .. } => "aborted",
            Self::Slow { .. } => "slow",
        }
    }

    /// Whether a hop has the request, as far as is known, and no answer to it in all the time that
    /// there is.
    pub(crate) fn is_no_answer(&self) -> bool {
        matches!(self, Self::TimedOut { error: ErrorType::HttpResponseTimeout, .. })
    }

    pub(crate) fn unavailable(error: ErrorType, why: impl fmt::Display) -> Self {
        Self::Unavailable { error, why: why.to_string().into() }
    }

    pub(crate) fn timed_out(error: ErrorType, why: impl fmt::Display) -> Self {
        Self::TimedOut { error, why: why.to_string().into() }
    }

    pub(crate) fn cut(error: ErrorType, why: impl fmt::Display) -> Self {
        Self::Cut { error, why: why.to_string().into() }
    }

    pub(crate) fn busy(why: impl fmt::Display) -> Self {
        Self::Busy { why: why.to_string().into() }
    }

    pub(crate) fn refused(why: impl fmt::Display) -> Self {
        Self::Refused { why: why.to_string().into() }
    }
}

/// The time for a connection ran out.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(crate) struct ConnectTimedOut(pub std::time::Duration);

/// Why no connection came to be.
pub(crate) fn connect_error(hop: &impl fmt::Display, error: &(dyn StdError + 'static)) -> Fault {
    let why = format!("{hop}: {}", chain(error));
    if find::<ConnectTimedOut>(error).is_some() {
        return Fault::timed_out(ErrorType::ConnectionTimeout, why);
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let error = match tls {
            rustls::Error::InvalidCertificate(_) => ErrorType::TlsCertificateError,
            rustls::Error::AlertReceived(_) => ErrorType::TlsAlertReceived,
            _ => ErrorType::TlsProtocolError,
        };
        return Fault::unavailable(error, why);
    }
    // The connector's own error keeps its kind to itself.
    if why.contains("dns error") {
        return Fault::unavailable(ErrorType::DnsError, why);
    }
    let error = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => ErrorType::ConnectionRefused,
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            ErrorType::DestinationIpUnroutable
        }
        Some(io::ErrorKind::TimedOut) => {
            return Fault::timed_out(ErrorType::ConnectionTimeout, why);
        }
        _ => ErrorType::ConnectionTerminated,
    };
    Fault::unavailable(error, why)
}

/// Why no head came over a connection. hyper's "too large" may be the body that is announced.
pub(crate) fn head_error(hop: &impl fmt::Display, error: &ClientError) -> Fault {
    let mut known = http::Extensions::new();
    error.connect_info().inspect(|connected| connected.get_extras(&mut known));
    let is_whole = known.get().is_some_and(HeadSeen::is_whole);
    let error_type = match find::<hyper::Error>(error) {
        Some(error) if error.is_parse_too_large() && is_whole => {
            let why = format!("{hop}: a Content-Length of 2^64 - 2 or more");
            return Fault::unavailable(ErrorType::HttpResponseBodySize, why);
        }
        Some(error) if error.is_parse_too_large() => ErrorType::HttpResponseHeaderSectionSize,
        Some(error) if error.is_parse() => ErrorType::HttpProtocolError,
        _ => find(error).map_or(ErrorType::ConnectionTerminated, http2::head),
    };
    Fault::unavailable(error_type, format!("{hop}: {}", chain(error)))
}

/// Whether a server of HTTP/2 says that it has not looked at the request.
pub(crate) fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    find(error).is_some_and(http2::is_refused)
}

/// Whether hyper gave up a request of which nothing was sent.
pub(crate) fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled)
}

/// Whether hyper lost a request with the queue of its connection: it waited there for another
/// stream of HTTP/2 to end, and was perhaps just sent.
pub(crate) fn is_unqueued(error: &(dyn StdError + 'static)) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_user)
}

/// Why a body is not whole; `is_short`: it has a length, and some of it has not come.
pub(crate) fn body_error(
    hop: &impl fmt::Display,
    error: &(dyn StdError + 'static),
    is_short: bool,
) -> Fault {
    let error_type = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            ErrorType::HttpResponseTransferCoding
        }
        // Also of a connection that was reset, as part of the answer came (RFC 9209 section 2.3.9).
        Some(_) => ErrorType::HttpResponseIncomplete,
        None => find(error)
            .map_or(ErrorType::HttpResponseIncomplete, |error| http2::body(error, is_short)),
    };
    Fault::cut(error_type, format!("{hop}: {}", chain(error)))
}

/// The first cause of type `E`. An `io::Error` names only what its content was caused by, so
/// its content is looked at, too.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let content = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = content.and_then(|content| find(content)) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// An error with its causes, outermost first.
fn chain(error: &dyn StdError) -> String {
    service::client::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_found_inside_io_errors() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let error = io::Error::other(tls);
        let fault = connect_error(&"origin", &error);
        assert_eq!(fault.error_type(), ErrorType::TlsCertificateError);
        let error = io::Error::other(ConnectTimedOut(std::time::Duration::from_secs(1)));
        let fault = connect_error(&"origin", &error);
        assert_eq!(fault.status(), StatusCode::GATEWAY_TIMEOUT);
        assert!(fault.to_string().contains("no connection within 1s"), "{fault}");
    }
}
