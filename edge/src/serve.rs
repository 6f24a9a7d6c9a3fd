//! The life of a request, top to bottom, the same for HTTP/1.1, 2 and 3:
//! parse and limit -> token -> site and object -> verdict -> respond.

use crate::account::Account;
use crate::body::{Body, Source};
use crate::metrics::Metrics;
use crate::refused::Refused;
use crate::tiers::Tiers;
use crate::title::{Manifest, Object, Titles};
use crate::verdict::Verdict;
use crate::view::Views;
use crate::{cors, steer};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use model::range_field::{self, Wanted};
use model::route::{self, Resource, Route};
use model::{ByteRange, EdgeId};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Media responses under way; each pins at most two chunks (2 MiB). More are refused as busy.
pub const RESPONSES_MAX: usize = 4096;
/// When a busy edge may be asked again, in seconds.
const RETRY_AFTER_S: &str = "2";
/// Nothing below a version ever changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The edge, as requests see it.
pub struct Edge {
    /// Its name.
    pub id: EdgeId,
    /// Titles.
    pub titles: Arc<Titles>,
    /// Chunks.
    pub tiers: Arc<Tiers>,
    /// The fleet and the keys.
    pub views: Arc<Views>,
    /// Counters.
    pub metrics: Metrics,
    /// Room for media responses.
    pub places: Arc<Semaphore>,
}

/// What a connection tells of each of its requests.
#[derive(Clone)]
pub struct Via {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The `Alt-Svc` field, where there is an HTTP/3 listener beside this one.
    pub alt_svc: Option<HeaderValue>,
}

/// A request without its body, which nothing here reads.
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a http::request::Parts,
    /// `http/1.1`, `h2` or `h3`.
    pub protocol: &'static str,
    /// What its connection tells.
    pub via: &'a Via,
}

/// An answer before the fields that all answers share.
struct Answer {
    verdict: Verdict,
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

enum Content {
    Text(Bytes),
    Media(Source, ByteRange, crate::tiers::Got, tokio::sync::OwnedSemaphorePermit),
    /// For HEAD: how long the body would be.
    Length(u64),
}

/// Answers a request.
pub async fn serve(edge: &Edge, asked: Asked<'_>) -> Response<Body> {
    let head = asked.head;
    let account = Account::open(
        edge.metrics.clone(),
        head.method.clone(),
        below_token(head.uri.path()).to_owned(),
        asked.protocol,
    );
    let answer = match answer(edge, &asked).await {
        Ok(answer) => answer,
        Err(refused) => refusal(&refused),
    };
    respond(edge, &asked, answer, account)
}

async fn answer(edge: &Edge, asked: &Asked<'_>) -> Result<Answer, Refused> {
    // Parse and limit.
    let (method, path) = (&asked.head.method, asked.head.uri.path());
    if method == Method::OPTIONS {
        return Ok(preflight());
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Refused::Method);
    }
    let route = route::parse(path).map_err(|error| {
        if path.starts_with("/t/") { Refused::NoToken } else { Refused::Path(error) }
    })?;
    check_query(&route.resource, asked.head.uri.query())?;

    // Token.
    let known = edge.views.known().ok_or(Refused::NoView)?;
    known.gate.check(route.token, route.path, method.as_str(), now_s())?;

    // Site and object.
    if route.resource == Resource::Steering {
        return Ok(text(steer::answer(edge, &known.view, &route, asked.via.scheme), method));
    }
    let (title, verdict) = edge.titles.get(&(route.title.clone(), route.version)).await?;
    match title.object(&route.resource).ok_or(Refused::NoObject)? {
        Object::Manifest(manifest, kind) => {
            Ok(manifest_answer(&manifest, kind, verdict, &asked.head.headers, method))
        }
        Object::Media { track, range, content_type } => {
            let source = Source { tiers: Arc::clone(&edge.tiers), title, track };
            media(edge, asked, &route, source, range, content_type, verdict).await
        }
    }
}

/// Media: a conditional request, a range, a HEAD, or bytes of which the first are at hand
/// before the head leaves, so that its verdict and status are true.
async fn media(
    edge: &Edge,
    asked: &Asked<'_>,
    route: &Route<'_>,
    source: Source,
    object: ByteRange,
    content_type: &'static str,
    known: Verdict,
) -> Result<Answer, Refused> {
    let fields = &asked.head.headers;
    let etag = format!("\"{}/{}\"", route.version, route.resource);
    let mut headers = immutable_headers(content_type, &etag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if matches_etag(fields, &etag) {
        return Ok(unchanged(headers));
    }
    let wanted = match range_field::wanted(range_of(fields, &etag), object.bytes) {
        Wanted::Unsatisfiable => return Err(Refused::Range { bytes: object.bytes }),
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
    };
    let status = if wanted.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if let Some(part) = wanted {
        let last = part.end() - 1;
        set(
            &mut headers,
            header::CONTENT_RANGE,
            format!("bytes {}-{last}/{}", part.start, object.bytes),
        );
    }
    let part = wanted.unwrap_or(ByteRange::new(0, object.bytes));
    if asked.head.method == Method::HEAD {
        let content = Content::Length(part.bytes);
        return Ok(Answer { verdict: known, status, headers, content });
    }
    let place = Arc::clone(&edge.places).try_acquire_owned().map_err(|_| Refused::Busy)?;
    let in_file = ByteRange::new(object.start + part.start, part.bytes);
    let (first, verdict) = source.first(in_file).await?;
    // That the index came from disk says nothing of the media; that it had to be fetched does.
    let verdict = if known.is_hit() { verdict } else { known.max(verdict) };
    Ok(Answer { verdict, status, headers, content: Content::Media(source, in_file, first, place) })
}

fn manifest_answer(
    manifest: &Manifest,
    content_type: &'static str,
    verdict: Verdict,
    fields: &HeaderMap,
    method: &Method,
) -> Answer {
    let headers = immutable_headers(content_type, &manifest.etag);
    if matches_etag(fields, &manifest.etag) {
        return unchanged(headers);
    }
    let answer = Answer {
        verdict,
        status: StatusCode::OK,
        headers,
        content: Content::Text(manifest.text.clone()),
    };
    without_body(answer, method)
}

fn text(steering: String, method: &Method) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let content = Content::Text(steering.into());
    let answer = Answer { verdict: Verdict::Steering, status: StatusCode::OK, headers, content };
    without_body(answer, method)
}

fn without_body(mut answer: Answer, method: &Method) -> Answer {
    if let (&Method::HEAD, Content::Text(text)) = (method, &answer.content) {
        answer.content = Content::Length(text.len() as u64);
    }
    answer
}

fn preflight() -> Answer {
    let mut headers = HeaderMap::new();
    cors::preflight(&mut headers);
    let content = Content::Text(Bytes::new());
    Answer { verdict: Verdict::Preflight, status: StatusCode::NO_CONTENT, headers, content }
}

fn unchanged(headers: HeaderMap) -> Answer {
    let content = Content::Text(Bytes::new());
    Answer { verdict: Verdict::Unchanged, status: StatusCode::NOT_MODIFIED, headers, content }
}

fn refusal(refused: &Refused) -> Answer {
    let (verdict, status, _) = refused.parts();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refused {
        Refused::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        }
        Refused::Range { bytes } => {
            set(&mut headers, header::CONTENT_RANGE, format!("bytes */{bytes}"));
        }
        _ if status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        _ => {}
    }
    let body = serde_json::to_vec(&refused.body()).unwrap_or_default();
    Answer { verdict, status, headers, content: Content::Text(body.into()) }
}

/// Adds what all answers share and hands the body over.
fn respond(edge: &Edge, asked: &Asked<'_>, answer: Answer, mut account: Account) -> Response<Body> {
    let Answer { verdict, status, mut headers, content } = answer;
    account.answered(verdict, status.as_u16());
    set(&mut headers, HeaderName::from_static("cache-status"), verdict.cache_status(&edge.id));
    cors::expose(&mut headers);
    if let Some(alt_svc) = &asked.via.alt_svc {
        headers.insert(header::ALT_SVC, alt_svc.clone());
    }
    let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    let length = match &content {
        Content::Text(text) => text.len() as u64,
        Content::Media(_, range, ..) => range.bytes,
        Content::Length(bytes) => *bytes,
    };
    if has_body {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = match content {
        Content::Text(_) if asked.head.method == Method::HEAD => Body::whole(Bytes::new(), account),
        Content::Text(text) => Body::whole(text, account),
        Content::Length(_) => Body::whole(Bytes::new(), account),
        Content::Media(source, range, first, place) => {
            account.media(range.bytes, place);
            Body::media(source, range, first, account)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn immutable_headers(content_type: &'static str, etag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    set(&mut headers, header::ETAG, etag.to_owned());
    headers
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // Only checked names and numbers come here: no value can be refused.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Whether `If-None-Match` (RFC 9110 section 13.1.2) names what would be sent. `*` does: all
/// objects here exist.
fn matches_etag(fields: &HeaderMap, etag: &str) -> bool {
    let named = |field: &HeaderValue| {
        let Ok(field) = field.to_str() else { return false };
        let mut tags = field.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    };
    fields.get_all(header::IF_NONE_MATCH).iter().any(named)
}

/// The `Range` field, unless `If-Range` names another representation.
fn range_of<'a>(fields: &'a HeaderMap, etag: &str) -> Option<&'a str> {
    let text = |name| fields.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or(""));
    if text(header::IF_RANGE).is_some_and(|named| named != etag) {
        return None;
    }
    text(header::RANGE)
}

/// A title site is strict about parameters: what is not known here is a mistake, or somebody
/// who wants to miss the cache. CMCD (CTA-5004) is for logs; players add `_HLS_` and `_DASH_`
/// parameters to the steering URL.
fn check_query(resource: &Resource, query: Option<&str>) -> Result<(), Refused> {
    let steering = *resource == Resource::Steering;
    let allowed = |pair: &str| {
        let name = pair.split('=').next().unwrap_or(pair);
        let steers = name.starts_with("_HLS_") || name.starts_with("_DASH_");
        name.is_empty() || name == "CMCD" || (steering && steers)
    };
    let known = query.is_none_or(|query| query.split('&').all(allowed));
    if known { Ok(()) } else { Err(Refused::Parameter) }
}

/// The path without its token.
fn below_token(path: &str) -> &str {
    match path.strip_prefix("/~") {
        None => path,
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_path_holds_no_token() {
        assert_eq!(below_token("/~secret/t/film/v/x"), "/t/film/v/x");
        assert_eq!(below_token("/~secret"), "");
        assert_eq!(below_token("/t/film"), "/t/film");
    }

    #[test]
    fn unknown_parameters_are_refused() {
        let check = |resource: &Resource, query| check_query(resource, Some(query)).is_ok();
        assert!(check(&Resource::Hls, "CMCD=br%3D1"));
        assert!(check(&Resource::Hls, ""));
        assert!(!check(&Resource::Hls, "_HLS_pathway=a"));
        assert!(check(&Resource::Steering, "_HLS_pathway=.&_HLS_throughput=1"));
        assert!(!check(&Resource::Steering, "bust=1"));
    }

    #[test]
    fn an_etag_is_found_in_a_list() {
        let mut fields = HeaderMap::new();
        fields.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"a\", W/\"b\""));
        assert!(matches_etag(&fields, "\"b\""));
        assert!(!matches_etag(&fields, "\"c\""));
    }
}
