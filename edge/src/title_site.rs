//! A title site: strict paths behind a play token, manifests made from the title's index, media
//! that is checked against it.

use crate::body::{Content, Sending};
use crate::object::{Object as Chunked, Passed};
use crate::refused::Refused;
use crate::serve::{Answer, Asked, Edge, TitleSite, set};
use crate::steer;
use crate::title::{Manifest, Object};
use crate::verdict::Verdict;
use crate::{ahead, compress, cors};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::ByteRange;
use model::range_field::{self, Wanted};
use model::route::{self, Resource};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nothing below a version ever changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Whether a path is a title site's: those of no proxy site begin so.
pub fn is_titles(path: &str) -> bool {
    path.starts_with("/~") || path.starts_with("/t/")
}

/// Answers a request to the title site.
///
/// # Errors
/// [`Refused`].
pub async fn answer(
    edge: &Arc<Edge>,
    site: &TitleSite,
    asked: &Asked<'_>,
) -> Result<Answer, Refused> {
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
    let known = site.views.known().ok_or(Refused::NoView)?;
    known.gate.check(route.token, route.path, method.as_str(), now_s())?;

    // Site and object.
    if route.resource == Resource::Steering {
        return Ok(text(steer::answer(edge, &known.view, &route, asked.via.scheme), method));
    }
    let (title, verdict) =
        site.titles.get(&(route.title.clone(), route.version), &Passed::default()).await?;
    match title.object_apart(&route.resource).await.ok_or(Refused::NoObject)? {
        Object::Manifest(manifest, kind) => {
            let fields = &asked.head.headers;
            Ok(manifest_answer(edge, &manifest, kind, verdict, fields, method).await)
        }
        Object::Media { track, range, content_type } => {
            let object = Chunked::track(&title, track).ok_or(Refused::NoObject)?;
            let segment = match (&route.resource, method) {
                (Resource::Segment(_, number), &Method::GET) => Some((object.clone(), *number)),
                _ => None,
            };
            let awaited =
                segment.as_ref().and_then(|(of, number)| ahead::segment(edge, of, *number));
            let etag = format!("\"{}/{}\"", route.version, route.resource);
            let file = File { etag, content_type, object, within: range };
            let answer = media(edge, asked, file, verdict).await?;
            if let Some((of, number)) = segment {
                ahead::follow(edge, &of, &title, track, number);
            }
            Ok(Answer { awaited, ..answer })
        }
    }
}

/// Bytes of a track's file.
pub struct File {
    /// Strong validator, with quotes.
    pub etag: String,
    /// Media type.
    pub content_type: &'static str,
    /// The file.
    pub object: Chunked,
    /// Which of its bytes.
    pub within: ByteRange,
}

/// What is wanted of bytes that never change.
pub enum Part {
    /// Nothing: the client has them.
    Unchanged(Box<Answer>),
    /// These.
    Of {
        /// 200 or 206.
        status: StatusCode,
        /// All fields but those of the length.
        headers: HeaderMap,
        /// Which bytes.
        part: ByteRange,
    },
}

/// Media: a conditional request, a range, a HEAD, or bytes of which the first are at hand
/// before the head leaves, so that its verdict and status are true.
///
/// # Errors
/// [`Refused`].
pub async fn media(
    edge: &Arc<Edge>,
    asked: &Asked<'_>,
    file: File,
    known: Verdict,
) -> Result<Answer, Refused> {
    let fields = &asked.head.headers;
    let File { etag, content_type, object, within } = file;
    let (status, headers, part) = match wanted(asked, &etag, content_type, within.bytes)? {
        Part::Unchanged(answer) => return Ok(*answer),
        Part::Of { status, headers, part } => (status, headers, part),
    };
    let in_file = ByteRange::new(within.start + part.start, part.bytes);
    let urgency = caching::Priority::of_request(fields).urgency;
    let mut sending = Sending::part(&edge.engine, object, in_file, urgency);
    if asked.head.method == Method::HEAD {
        let content = Content::Object(Box::new(sending));
        let answer = Answer::new(known, status, headers, content);
        return Ok(without_body(answer, &asked.head.method));
    }
    let place = edge.places.take(urgency)?;
    let verdict = sending.first().await?;
    // That the index came from disk says nothing of the media; that it had to be fetched does.
    let verdict = if known.is_hit() { verdict } else { known.max(verdict) };
    let answer = Answer::new(verdict, status, headers, Content::Object(Box::new(sending)));
    Ok(Answer { place: Some(place), ..answer })
}

/// What a request wants of `bytes` bytes that never change.
///
/// # Errors
/// [`Refused::Range`].
pub fn wanted(
    asked: &Asked<'_>,
    etag: &str,
    content_type: &'static str,
    bytes: u64,
) -> Result<Part, Refused> {
    let fields = &asked.head.headers;
    let mut headers = immutable_headers(content_type, etag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if matches_etag(fields, etag) {
        return Ok(Part::Unchanged(Box::new(unchanged(headers))));
    }
    // RFC 9110 section 14.2: a HEAD has none.
    let is_get = asked.head.method == Method::GET;
    let range = range_of(fields, etag).filter(|_| is_get);
    let (status, part) = match range_field::wanted(range, bytes) {
        Wanted::Unsatisfiable => return Err(Refused::Range { bytes }),
        Wanted::Whole => (StatusCode::OK, ByteRange::new(0, bytes)),
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{bytes}", part.start, part.end() - 1);
            set(&mut headers, header::CONTENT_RANGE, range);
            (StatusCode::PARTIAL_CONTENT, part)
        }
    };
    Ok(Part::Of { status, headers, part })
}

async fn manifest_answer(
    edge: &Arc<Edge>,
    manifest: &Manifest,
    content_type: &'static str,
    verdict: Verdict,
    fields: &HeaderMap,
    method: &Method,
) -> Answer {
    let mut headers = immutable_headers(content_type, &manifest.etag);
    let text = &manifest.text;
    let compresses = compress::is_compressible(StatusCode::OK, &headers, text.len() as u64);
    if compresses {
        compress::vary(&mut headers);
    }
    let encoding = compress::choose(fields).filter(|_| compresses);
    if matches_etag(fields, &manifest.etag) {
        if encoding.is_some() {
            compress::weaken(&mut headers);
        }
        return unchanged(headers);
    }
    let mut content = Content::Whole(text.clone());
    if let Some(encoding) = encoding {
        let id = compress::body_id(&manifest.id(), encoding);
        let whole = || futures::stream::iter([Ok(text.clone())]);
        let found = edge.encoded.of(&edge.engine, id, encoding, whole).await;
        if let Some([encoded]) = found.as_deref() {
            compress::encoded(&mut headers, encoding, encoded.len() as u64);
            content = Content::Whole(encoded.clone());
        }
    }
    without_body(Answer::new(verdict, StatusCode::OK, headers, content), method)
}

fn text(steering: String, method: &Method) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let content = Content::Whole(steering.into());
    without_body(Answer::new(Verdict::Steering, StatusCode::OK, headers, content), method)
}

/// An answer without a body but a length, for HEAD.
pub fn without_body(mut answer: Answer, method: &Method) -> Answer {
    if method == Method::HEAD {
        answer.promised = answer.content.bytes();
        answer.content = Content::empty();
    }
    answer
}

fn preflight() -> Answer {
    let mut headers = HeaderMap::new();
    cors::preflight(&mut headers);
    Answer::new(Verdict::Preflight, StatusCode::NO_CONTENT, headers, Content::empty())
}

fn unchanged(headers: HeaderMap) -> Answer {
    Answer::new(Verdict::Unchanged, StatusCode::NOT_MODIFIED, headers, Content::empty())
}

fn immutable_headers(content_type: &'static str, etag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    set(&mut headers, header::ETAG, etag.to_owned());
    headers
}

/// Whether `If-None-Match` (RFC 9110 section 13.1.2) names what would be sent. `*` does: all
/// objects here exist.
pub fn matches_etag(fields: &HeaderMap, etag: &str) -> bool {
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
        name.is_empty() || cmcd::is_cmcd(pair) || (steering && steers)
    };
    let known = query.is_none_or(|query| query.split('&').all(allowed));
    if known { Ok(()) } else { Err(Refused::Parameter) }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_are_refused() {
        let check = |resource: &Resource, query| check_query(resource, Some(query)).is_ok();
        assert!(check(&Resource::Hls, "CMCD=br%3D1"));
        assert!(check(&Resource::Hls, "%43MCD=br%3D1"));
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
