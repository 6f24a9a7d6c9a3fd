//! Answers that are not what was asked for: one exhaustive match from reason to status.

use crate::error::Fault;
use crate::verdict::Verdict;
use http::StatusCode;
use model::api::ApiError;
use model::route::RouteError;
use token::Refusal;

/// Why a request gets an error, and which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Too many responses under way.
    #[error("too many responses are under way")]
    Busy,
    /// The control plane was never reached: no key to check tokens by.
    #[error("this edge has not heard of its fleet yet")]
    NoView,
}

impl Refused {
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
            Self::Fault(Fault::TimedOut(_)) => (V::Failed, S::GATEWAY_TIMEOUT, "origin-slow"),
            Self::Fault(Fault::Corrupt) => (V::Failed, S::BAD_GATEWAY, "origin-corrupt"),
            Self::Fault(Fault::Lost) => (V::Failed, S::BAD_GATEWAY, "fetch-lost"),
            Self::Fault(Fault::Busy) => (V::Busy, S::SERVICE_UNAVAILABLE, "busy"),
            Self::Busy => (V::Busy, S::SERVICE_UNAVAILABLE, "busy"),
            Self::NoView => (V::Busy, S::SERVICE_UNAVAILABLE, "no-view"),
        }
    }

    /// The body. What origins are called and said stays in the log.
    #[must_use]
    pub fn body(&self) -> ApiError {
        let message = match self {
            Self::Fault(Fault::Unavailable(_)) => "the origin failed".to_owned(),
            Self::Fault(Fault::TimedOut(_)) => "the origin was too slow".to_owned(),
            other => other.to_string(),
        };
        ApiError { code: self.parts().2.to_owned(), message }
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
