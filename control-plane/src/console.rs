//! The console: pages that the build embeds, served as they are.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../console/dist"]
struct Assets;

/// The page plays media from edges (any address), runs players' workers from blobs, and nothing
/// that came from elsewhere.
const POLICY: &str = "default-src 'self'; script-src 'self'; worker-src 'self' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
    media-src 'self' blob: data: http: https:; connect-src 'self' blob: data: http: https:; \
    object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// `GET /`.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    page("index.html", &headers)
}

/// `GET` of anything that no other route answers.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    page(&path, &headers)
}

fn page(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Assets::get(path) else {
        return (StatusCode::NOT_FOUND, "there is no such page\n").into_response();
    };
    let etag = format!("\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let known =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|tag| tag.trim() == etag);
    let common = [
        (header::ETAG, etag),
        (header::CONTENT_TYPE, content_type(&file)),
        // Asked for again each time, answered 304 while the build is the same.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, file.data).into_response()
}

fn content_type(file: &rust_embed::EmbeddedFile) -> String {
    let mime = file.metadata.mimetype();
    if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}
