//! Pages from anywhere may call what players call: nothing there depends on a cookie.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const ALLOWED: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS")),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Authorization, Content-Type")),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
];

/// `OPTIONS`: what a browser asks before it calls.
pub(crate) async fn preflight() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, HeaderMap::from_iter(ALLOWED))
}

/// Marks every answer as readable by any page.
pub(crate) async fn allow_all(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}
