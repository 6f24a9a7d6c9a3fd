//! What callers send, parsed once: bodies, ids, queries.

use super::Fault;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use std::str::FromStr;

/// A profile's, an account's or a device's id, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A JSON body, whatever its content type says. An error names the field.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = Bytes::from_request(request, state).await.map_err(too_large)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // `?` is where a body ends before its first field.
            let field = if matches!(path.as_str(), "." | "?") {
                String::new()
            } else {
                format!("{path}: ")
            };
            Fault::bad(format!("{field}{}", error.inner()))
        })?;
        json.end().map_err(|error| Fault::bad(format!("after the body: {error}")))?;
        Ok(Self(value))
    }
}

fn too_large(rejection: BytesRejection) -> Fault {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = "the body is larger than this call takes";
        return Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message);
    }
    Fault::bad("the body ended early")
}

/// An id in the path.
pub(crate) fn id<T: FromStr<Err = model::IdError>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: model::IdError| Fault::bad(error.to_string()))
}

/// A name that an app or the operator gives: opaque, but printable and bounded.
pub(crate) fn name(field: &str, text: &str) -> Result<(), Fault> {
    let length = (1..=NAME_BYTES_MAX).contains(&text.len());
    if length && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Fault::bad(format!(
        "{field}: {shown:?}: expected 1 to {NAME_BYTES_MAX} bytes without control characters"
    )))
}

/// The value of a query parameter, decoded; the first one, if it stands twice.
pub(crate) fn query(query: Option<&str>, wanted: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}
