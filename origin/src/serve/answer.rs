//! The life of a request at the origin: name -> published -> condition -> range -> bytes.

use super::catalog::Catalog;
use super::metrics::Metrics;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use model::api::ApiError;
use model::range_field::{self, Wanted};
use model::{ByteRange, TitleId, TrackId, Version, store_key};
use std::sync::Arc;
use std::time::Instant;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Nothing below a version ever changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// When a busy origin may be asked again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An origin, as requests see it.
pub(super) struct Origin {
    pub store: Store,
    pub catalog: Catalog,
    pub metrics: Metrics,
    pub places: Arc<Semaphore>,
}

/// Why a request gets no bytes.
enum Refused {
    NotFound(&'static str),
    Method,
    Changed,
    Range(u64),
    Busy,
    Store(store::Error),
}

/// A file of a published version.
struct Object {
    key: String,
    etag: HeaderValue,
    bytes: u64,
    content_type: HeaderValue,
}

/// Answers GET and HEAD (axum takes HEAD to a GET handler and drops the body).
pub(super) async fn answer(
    State(origin): State<Arc<Origin>>,
    Path((title, version, file)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let started = Instant::now();
    let outcome = respond(&origin, (&title, &version, &file), &method, &headers).await;
    let response = finish(&origin, outcome);
    origin.metrics.seconds.observe(started.elapsed().as_secs_f64());
    let status = response.status();
    tracing::debug!(%method, title, version, file, status = status.as_u16(), "answered");
    response
}

/// Any other path.
pub(super) async fn no_such_path(State(origin): State<Arc<Origin>>) -> Response {
    let expected = "no such path: expected /titles/{title}/{version}/{file}";
    finish(&origin, Err(Refused::NotFound(expected)))
}

/// Any method but GET and HEAD.
pub(super) async fn no_such_method(State(origin): State<Arc<Origin>>) -> Response {
    finish(&origin, Err(Refused::Method))
}

fn finish(origin: &Origin, outcome: Result<Response, Refused>) -> Response {
    let response = outcome.unwrap_or_else(|refused| refusal(origin, &refused));
    origin.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

async fn respond(
    origin: &Arc<Origin>,
    name: (&str, &str, &str),
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let place = Arc::clone(&origin.places).try_acquire_owned().map_err(|_| Refused::Busy)?;
    let object = find(origin, name).await?;
    if names(headers, header::IF_MATCH, &object.etag) == Some(false) {
        return Err(Refused::Changed);
    }
    if names(headers, header::IF_NONE_MATCH, &object.etag) == Some(true) {
        let mut response = with_facts(StatusCode::NOT_MODIFIED, &object, None, Body::empty());
        // What the 200 would say (RFC 9110 section 8.6): a zero would be a lie.
        response.headers_mut().insert(header::CONTENT_LENGTH, object.bytes.into());
        return Ok(response);
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let unchanged = text(header::IF_RANGE).is_none_or(|tag| object.etag == tag);
    let range = text(header::RANGE).filter(|_| unchanged);
    let (status, range) = match range_field::wanted(range, object.bytes) {
        Wanted::Whole => (StatusCode::OK, ByteRange::new(0, object.bytes)),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => return Err(Refused::Range(object.bytes)),
    };
    let body = if method == Method::HEAD || range.bytes == 0 {
        Body::empty()
    } else {
        let reading = origin.store.read(&object.key, Some(range.start..range.end())).await;
        Body::from_stream(counted(Arc::clone(origin), reading?.stream, place))
    };
    Ok(with_facts(status, &object, Some(range), body))
}

/// The object that a URL names, if its version is published.
async fn find(origin: &Origin, name: (&str, &str, &str)) -> Result<Object, Refused> {
    let (Ok(title), Ok(version)) = (name.0.parse::<TitleId>(), name.1.parse::<Version>()) else {
        return Err(Refused::NotFound("no such title or version"));
    };
    let no_file = Refused::NotFound("no such file: expected index, {track}.mp4, .vtt or .tree");
    let (key, content_type) = if name.2 == "index" {
        (store_key::index(&title, &version), "application/octet-stream")
    } else {
        let Some((track, extension)) = name.2.rsplit_once('.') else { return Err(no_file) };
        let Ok(track) = track.parse::<TrackId>() else { return Err(no_file) };
        let content_type = match extension {
            "mp4" => "video/mp4",
            "vtt" => "text/vtt",
            store_key::TREE => "application/octet-stream",
            _ => return Err(no_file),
        };
        (store_key::track(&title, &version, &track, extension), content_type)
    };
    if !origin.catalog.is_published(&title, &version).await? {
        return Err(Refused::NotFound("this version is not published"));
    }
    let bytes = match origin.catalog.size(&key).await {
        Err(store::Error::NotFound { .. }) => return Err(no_file),
        size => size?,
    };
    // The version is a hash of the content: with the file's name it is a strong validator.
    let etag = HeaderValue::try_from(format!("\"{version}-{}\"", name.2));
    Ok(Object {
        key,
        etag: etag.map_err(|_| Refused::NotFound("no such file"))?,
        bytes,
        content_type: HeaderValue::from_static(content_type),
    })
}

/// Whether the entity tags of a condition name this one; nothing without that condition.
/// `If-None-Match` compares weakly, `If-Match` strongly (RFC 9110 sections 13.1.1 and 13.1.2).
fn names(headers: &HeaderMap, condition: header::HeaderName, etag: &HeaderValue) -> Option<bool> {
    let weak = condition == header::IF_NONE_MATCH;
    let mut fields = headers.get_all(condition).iter().peekable();
    fields.peek()?;
    let same = |tag: &str| tag == "*" || etag == tag || weak && is_weak_form(tag, etag);
    let tags = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
    Some(tags.map(str::trim).any(same))
}

fn is_weak_form(tag: &str, etag: &HeaderValue) -> bool {
    tag.strip_prefix("W/").is_some_and(|tag| etag == tag)
}

fn with_facts(
    status: StatusCode,
    object: &Object,
    range: Option<ByteRange>,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, object.etag.clone());
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(range) = range {
        headers.insert(header::CONTENT_TYPE, object.content_type.clone());
        headers.insert(header::CONTENT_LENGTH, range.bytes.into());
        if status == StatusCode::PARTIAL_CONTENT {
            let (last, all) = (range.end() - 1, object.bytes);
            let text = format!("bytes {}-{last}/{all}", range.start);
            let value = HeaderValue::try_from(text).expect("digits and punctuation");
            headers.insert(header::CONTENT_RANGE, value);
        }
    }
    response
}

/// The store's bytes, counted; the place is given back with the last of them. An error cuts
/// the connection: a short body never looks whole.
fn counted(
    origin: Arc<Origin>,
    stream: impl Stream<Item = store::Result<Bytes>> + Send + 'static,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = store::Result<Bytes>> + Send + 'static {
    stream.map(move |piece| {
        let _ = &place;
        match &piece {
            Ok(bytes) => origin.metrics.bytes.inc_by(bytes.len() as u64),
            Err(error) => {
                origin.metrics.store_errors.inc();
                tracing::warn!(%error, "a body is cut short");
            }
        }
        piece
    })
}

fn refusal(origin: &Origin, refused: &Refused) -> Response {
    let (status, code, message) = match refused {
        Refused::NotFound(why) => (StatusCode::NOT_FOUND, "not-found", (*why).to_owned()),
        Refused::Method => {
            let message = "only GET and HEAD are answered".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, "method", message)
        }
        Refused::Changed => {
            let message = "If-Match names another version".to_owned();
            (StatusCode::PRECONDITION_FAILED, "changed", message)
        }
        Refused::Range(bytes) => {
            let message = format!("the range lies past the end: the file has {bytes} bytes");
            (StatusCode::RANGE_NOT_SATISFIABLE, "range", message)
        }
        Refused::Busy => {
            let message = "too many requests are under way".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "busy", message)
        }
        Refused::Store(error) => {
            origin.metrics.store_errors.inc();
            tracing::error!(%error, "the store has failed");
            let (status, code) = store_status(error);
            // The error names the store's place: for the log, not for whoever asks.
            (status, code, "the store can't give this file now".to_owned())
        }
    };
    let body = ApiError { code: code.to_owned(), message };
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refused {
        Refused::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Refused::Busy => {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        Refused::Range(bytes) => {
            let value = HeaderValue::try_from(format!("bytes */{bytes}")).expect("digits");
            headers.insert(header::CONTENT_RANGE, value);
        }
        _ => {}
    }
    response
}

fn store_status(error: &store::Error) -> (StatusCode, &'static str) {
    match error {
        store::Error::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "store-timed-out"),
        store::Error::Unavailable { .. } => (StatusCode::BAD_GATEWAY, "store-unavailable"),
        store::Error::Refused { .. } => (StatusCode::BAD_GATEWAY, "store-refused"),
        _ => (StatusCode::BAD_GATEWAY, "store-failed"),
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_origin_says_when_to_come_back() {
        let store = Store::open("mem:").unwrap();
        let origin = Arc::new(Origin {
            catalog: Catalog::new(store.clone()),
            store,
            metrics: Metrics::new(&prometheus::Registry::new()),
            places: Arc::new(Semaphore::new(0)),
        });
        let name = ("film".to_owned(), "0".repeat(32), "v1.mp4".to_owned());
        let state = State(Arc::clone(&origin));
        let response = answer(state, Path(name), Method::GET, HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(origin.metrics.requests.with_label_values(&["503"]).get(), 1);
    }
}
