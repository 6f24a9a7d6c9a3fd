//! How errors are told: one status, one body, in one place.

use crate::Error;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::api::ApiError;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    body: ApiError,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, body: ApiError { code: code.to_owned(), message: message.into() } }
    }

    /// The caller's mistake: `message` names the field and what was expected.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    pub(crate) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(crate) fn code(&self) -> &str {
        &self.body.code
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = Json(self.body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            return (self.status, [(header::RETRY_AFTER, "1")], body).into_response();
        }
        (self.status, body).into_response()
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        tracing::error!(%error, "a request failed");
        match error {
            Error::Busy => Self::unavailable("busy", "the database has too much to do"),
            Error::TimedOut(_) => Self::unavailable("slow", "the database is too slow"),
            Error::NotCommitted => Self::unavailable("not-stored", "the database can't commit"),
            Error::Store(_) => Self::unavailable("no-store", "the object store can't be read"),
            Error::Database(_)
            | Error::Service(_)
            | Error::Read { .. }
            | Error::Write { .. }
            | Error::Networks { .. }
            | Error::Credential { .. }
            | Error::Key { .. }
            | Error::Open { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "an error of the control plane: its log says which",
            ),
        }
    }
}

impl From<token::Refusal> for Fault {
    fn from(refusal: token::Refusal) -> Self {
        use token::Refusal;
        let status = match refusal {
            Refusal::Malformed(_) | Refusal::UnknownKey | Refusal::BadSignature => {
                StatusCode::UNAUTHORIZED
            }
            Refusal::UnknownClaim
            | Refusal::Expired
            | Refusal::NotYet
            | Refusal::WrongPath
            | Refusal::Method => StatusCode::FORBIDDEN,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}
