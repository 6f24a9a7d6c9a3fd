//! Answers that are not what was asked for: one exhaustive match from reason to status.

use crate::apart::Apart;
use crate::error::Fault;
use crate::verdict::Verdict;
use caching::{CacheStatus, Forwarded, ProxyError};
use http::{HeaderValue, StatusCode};
use model::EdgeId;
use model::api::ApiError;
use model::route::RouteError;
use std::sync::Arc;
use token::Refusal;

/// Why a request gets an error, and which.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// Another method than GET, HEAD or OPTIONS.
    #[error("this method is not answered here: expected GET, HEAD or OPTIONS")]
    Method,
    /// The path is none of a title site's.
    #[error(transparent)]
    Path(#[from] RouteError),
    /// A query parameter that is not known.
    #[error("unknown query parameter: expected none, CMCD, or _HLS_* and _DASH_* for steering")]
    Parameter,
    /// The path would be good behind a token.
    #[error("a play token is missing: expected /~TOKEN/t/{{title}}/{{version}}/{{resource}}")]
    NoToken,
    /// The token does not allow it.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// The title has no such track or segment.
    #[error("the title has no such track or segment")]
    NoObject,
    /// No byte of the representation is in the range.
    #[error("the range is past the end of {bytes} bytes")]
    Range {
        /// Size of the representation.
        bytes: u64,
    },
    /// The bytes could not be had.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The bytes could not be had from upstream.
    #[error("{fault}")]
    Fetch {
        /// What was wrong.
        fault: Fault,
        /// Why they were asked for.
        forwarded: Forwarded,
        /// The status of the answer that should have brought them, where there was one.
        status: Option<StatusCode>,
    },
    /// Too many responses under way.
    #[error("too many responses are under way")]
    Busy,
    /// A proxy site's request that is ambiguous, hostile or too long.
    #[error(transparent)]
    Request(#[from] crate::hygiene::Refusal),
    /// The request has come through this edge before.
    #[error("this request has come through this edge before, or through too many CDNs")]
    Loop,
    /// The client wants no origin asked, and nothing is stored.
    #[error("nothing that may be used is stored, and the client wants the origin left alone")]
    OnlyIfCached,
    /// More ranges than are answered.
    #[error("too many ranges in one request: expected {most} at most")]
    Ranges {
        /// How many are answered.
        most: usize,
    },
    /// No key of the S3 origin can have this name.
    #[error("no object can have this name")]
    NoKey,
    /// No site is served under this host name.
    #[error("no site is served under this host name")]
    NoSite,
    /// The connection was opened for another host, and its certificate is not good for this one.
    #[error("this connection's certificate is not for this host: open one to it")]
    Misdirected,
    /// The control plane was never reached: no key to check tokens by.
    #[error("this edge has not heard of its fleet yet")]
    NoView,
}

impl Refused {
    /// The same, and why upstream was asked; not of what makes a request start over.
    #[must_use]
    pub fn forwarded(self, forwarded: Forwarded) -> Self {
        self.answered(forwarded, None)
    }

    /// The same of an answer with this status, which failed after its head.
    #[must_use]
    pub fn answered(self, forwarded: Forwarded, status: Option<StatusCode>) -> Self {
        match self {
            Self::Fault(fault) if !fault.starts_over() => {
                let status = fault.status().or(status);
                Self::Fetch { fault, forwarded, status }
            }
            other => other,
        }
    }

    /// The answer that is not kept, where there is one.
    pub(crate) fn apart(&self) -> Option<&Arc<Apart>> {
        match self {
            Self::Fault(Fault::Apart(apart)) | Self::Fetch { fault: Fault::Apart(apart), .. } => {
                Some(apart)
            }
            _ => None,
        }
    }

    /// Its `Cache-Status` at the node of this name (RFC 9211).
    #[must_use]
    pub fn cache_status(&self, edge: &EdgeId) -> HeaderValue {
        let (verdict, _, _) = self.parts();
        match self {
            Self::Fetch { forwarded, status, .. } if verdict == Verdict::Failed => {
                let told = CacheStatus {
                    forwarded: Some(*forwarded),
                    forwarded_status: *status,
                    detail: Some(verdict.name()),
                    ..CacheStatus::default()
                };
                told.value(edge.as_str())
            }
            _ => verdict.cache_status(edge),
        }
    }

    /// Its verdict, status and stable code.
    #[must_use]
    pub fn parts(&self) -> (Verdict, StatusCode, &'static str) {
        use StatusCode as S;
        use Verdict as V;
        match self {
            Self::Method => (V::Refused, S::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::Path(RouteError::TooLong) => (V::Refused, S::URI_TOO_LONG, "path-too-long"),
            Self::Path(RouteError::Unknown) => (V::Refused, S::BAD_REQUEST, "bad-path"),
            Self::Path(RouteError::Name(_)) => (V::Refused, S::BAD_REQUEST, "bad-name"),
            Self::Parameter => (V::Refused, S::BAD_REQUEST, "bad-parameter"),
            Self::NoToken => (V::Refused, S::UNAUTHORIZED, "token-missing"),
            Self::Token(refusal) => (V::Refused, token_status(refusal), refusal.code()),
            Self::NoObject => (V::Absent, S::NOT_FOUND, "no-such-object"),
            Self::Range { .. } => (V::Refused, S::RANGE_NOT_SATISFIABLE, "bad-range"),
            Self::Fault(Fault::NotFound) => (V::Absent, S::NOT_FOUND, "no-such-title"),
            Self::Fault(Fault::Unavailable(_)) => (V::Failed, S::BAD_GATEWAY, "origin-failed"),
            Self::Fault(Fault::Corrupt) => (V::Failed, S::BAD_GATEWAY, "origin-corrupt"),
            Self::Fault(Fault::Short) => (V::Failed, S::BAD_GATEWAY, "origin-short"),
            Self::Fault(Fault::Uncounted) => (V::Failed, S::BAD_GATEWAY, "origin-uncounted"),
            Self::Fault(Fault::Answered(_)) => (V::Failed, S::BAD_GATEWAY, "origin-failed"),
            Self::Fault(Fault::Apart(_)) => (V::Failed, S::BAD_GATEWAY, "origin-failed"),
            Self::Fault(Fault::Changed) => (V::Failed, S::BAD_GATEWAY, "origin-changes"),
            Self::Fault(Fault::Gone) => (V::Failed, S::BAD_GATEWAY, "origin-changes"),
            Self::Fault(Fault::Upstream(fault)) => upstream_parts(fault),
            Self::Fault(Fault::Lost | Fault::Behind) => (V::Failed, S::BAD_GATEWAY, "fetch-lost"),
            Self::Fault(Fault::Busy) => (V::Busy, S::SERVICE_UNAVAILABLE, "busy"),
            Self::Fetch { fault, .. } => Self::Fault(fault.clone()).parts(),
            Self::Busy => (V::Busy, S::SERVICE_UNAVAILABLE, "busy"),
            Self::Request(refusal) => {
                let (status, code) = refusal.parts();
                (V::Refused, status, code)
            }
            Self::Loop => (V::Refused, S::LOOP_DETECTED, "loop"),
            Self::OnlyIfCached => (V::Absent, S::GATEWAY_TIMEOUT, "only-if-cached"),
            Self::Ranges { .. } => (V::Refused, S::RANGE_NOT_SATISFIABLE, "too-many-ranges"),
            Self::NoKey => (V::Absent, S::NOT_FOUND, "no-such-key"),
            Self::NoSite => (V::Refused, S::MISDIRECTED_REQUEST, "no-site"),
            Self::Misdirected => (V::Refused, S::MISDIRECTED_REQUEST, "misdirected"),
            Self::NoView => (V::Busy, S::SERVICE_UNAVAILABLE, "no-view"),
        }
    }

    /// The `Proxy-Status` error (RFC 9209 section 2.3) of an answer that is made here since an
    /// upstream failed.
    #[must_use]
    pub fn proxy_error(&self) -> Option<ProxyError> {
        match self {
            Self::Fault(Fault::Upstream(fault)) => Some(fault.error_type()),
            Self::Fault(
                Fault::Unavailable(_)
                | Fault::Corrupt
                | Fault::Changed
                | Fault::Gone
                | Fault::Answered(_)
                | Fault::Apart(_),
            ) => Some(ProxyError::HttpProtocolError),
            Self::Fault(Fault::Short) => Some(ProxyError::HttpResponseIncomplete),
            Self::Fault(Fault::Uncounted) => Some(ProxyError::HttpResponseBodySize),
            Self::Fetch { fault, .. } => Self::Fault(fault.clone()).proxy_error(),
            Self::Fault(Fault::Lost | Fault::Behind) => Some(ProxyError::ProxyInternalError),
            Self::Loop => Some(ProxyError::ProxyLoopDetected),
            // Of this node, not of its next hop: so another node goes around this one.
            Self::Busy | Self::Fault(Fault::Busy) => Some(ProxyError::ProxyInternalResponse),
            _ => None,
        }
    }

    /// The body. What origins are called and said stays in the log.
    #[must_use]
    pub fn body(&self) -> ApiError {
        let message = match self {
            Self::Fetch { fault, .. } => return Self::Fault(fault.clone()).body(),
            Self::Fault(Fault::Unavailable(_)) => "the origin failed".to_owned(),
            Self::Fault(Fault::Upstream(fault)) => upstream_text(fault).to_owned(),
            other => other.to_string(),
        };
        ApiError { code: self.parts().2.to_owned(), message }
    }
}

fn upstream_parts(fault: &upstream::Fault) -> (Verdict, StatusCode, &'static str) {
    use upstream::Fault as F;
    if fault.error_type() == ProxyError::ConnectionReadTimeout {
        return (Verdict::Failed, StatusCode::GATEWAY_TIMEOUT, "origin-slow");
    }
    let (verdict, code) = match fault {
        F::Unavailable { .. } | F::Cut { .. } | F::Redirected { .. } | F::Wrong { .. } => {
            (Verdict::Failed, "origin-failed")
        }
        F::TimedOut { .. } => (Verdict::Failed, "origin-slow"),
        F::Busy { .. } => (Verdict::Busy, "busy"),
        F::Loop { .. } => (Verdict::Refused, "loop"),
        F::Refused { .. } => (Verdict::Refused, "bad-request"),
        F::NotFound { .. } => (Verdict::Absent, "no-such-key"),
        F::Aborted { .. } => (Verdict::Refused, "request-cut"),
        F::Slow { .. } => (Verdict::Refused, "request-slow"),
    };
    (verdict, fault.status(), code)
}

/// What a client is told; the log has the rest.
fn upstream_text(fault: &upstream::Fault) -> &'static str {
    use upstream::Fault as F;
    match fault {
        F::Unavailable { .. } => "the origin failed",
        F::Cut { .. } => "the origin cut its answer",
        F::Wrong { .. } => "the origin answered something else than was asked for",
        F::Redirected { .. } => "the origin redirects, which no title's origin does",
        F::TimedOut { .. } => "the origin was too slow",
        F::Busy { .. } => "too many requests wait for the origin",
        F::Loop { .. } => "this request goes in a circle",
        F::Refused { .. } => "no origin takes such a request",
        F::NotFound { .. } => "no object can have this name",
        F::Aborted { .. } => "the request's body ended early",
        F::Slow { .. } => "the request's body came too slowly",
    }
}

/// 401 for what is no good token at all, 403 for a good one that does not allow this.
fn token_status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Malformed(_) | Refusal::BadSignature | Refusal::UnknownKey => {
            StatusCode::UNAUTHORIZED
        }
        Refusal::Expired
        | Refusal::NotYet
        | Refusal::WrongPath
        | Refusal::Method
        | Refusal::UnknownClaim => StatusCode::FORBIDDEN,
    }
}
