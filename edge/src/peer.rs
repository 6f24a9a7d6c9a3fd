//! Titles for other nodes: the origin's contract, answered from this edge's tiers and, for what
//! is missing, from its own upstream. Behind no token: these listeners are for the operator's
//! own network.
//!
//! Invariant: whatever is fetched for such a request says which nodes it has passed.

use crate::body::Content;
use crate::engine::{OWNED_RUN_BYTES, TREE_BYTES_MAX};
use crate::object::{Object, Passed};
use crate::refused::Refused;
use crate::serve::{Answer, Asked, Edge, TitleSite};
use crate::title_site::{self, File, Part};
use crate::verdict::Verdict;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::route::RouteError;
use model::{ByteRange, TitleId, Track, TrackId, Version, store_key, tree};
use std::sync::Arc;
use upstream::Urgency;

/// Whether a path is one by which nodes ask each other for titles.
pub fn is_titles(path: &str) -> bool {
    path.starts_with("/titles/")
}

/// A file of a version, as a path names it.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    title: TitleId,
    version: Version,
    /// As it stands in the path.
    file: &'a str,
    /// The track and its extension; none for the index.
    track: Option<(TrackId, &'a str)>,
}

impl<'a> Named<'a> {
    /// `/titles/{title}/{version}/{index|track.extension|track.tree}`.
    fn parse(path: &'a str) -> Result<Self, Refused> {
        let unknown = || Refused::Path(RouteError::Unknown);
        let rest = path.strip_prefix("/titles/").ok_or_else(unknown)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [title, version, file] = parts[..] else { return Err(unknown()) };
        let track = match file.rsplit_once('.') {
            None if file == "index" => None,
            Some((track, extension)) => {
                Some((track.parse().map_err(|_| Refused::NoObject)?, extension))
            }
            None => return Err(Refused::NoObject),
        };
        let title = title.parse().map_err(|_| Refused::NoObject)?;
        let version = version.parse().map_err(|_| Refused::NoObject)?;
        Ok(Self { title, version, file, track })
    }
}

/// Whether a request was here before; or another node sent it, as the bytes of what it calls a run say,
/// which is asked for the same by this one.
pub fn goes_round(edge: &Edge, head: &Parts, peers_run_bytes: Option<u64>) -> bool {
    caching::loops(&head.headers, edge.node.id(), peers_run_bytes.is_some()).refuse()
        || peers_run_bytes.is_some_and(|run_bytes| edge.node.is_waiting_for(head, run_bytes))
}

/// In how many bytes of a title's file a run is that has an owner: who has its chunks has their leaves.
fn run_bytes(path: &str) -> u64 {
    match path.rsplit_once('.') {
        Some((_, store_key::TREE)) => tree::bytes(OWNED_RUN_BYTES),
        _ => OWNED_RUN_BYTES,
    }
}

/// Answers another node.
///
/// # Errors
/// [`Refused`]: 404 for what is not there, 508 for a request that was here before.
pub async fn answer(
    edge: &Arc<Edge>,
    site: &TitleSite,
    asked: &Asked<'_>,
) -> Result<Answer, Refused> {
    let head = asked.head;
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(Refused::Method);
    }
    if goes_round(edge, head, Some(run_bytes(head.uri.path()))) {
        return Err(Refused::Loop);
    }
    let named = Named::parse(head.uri.path())?;
    let passed = Passed::of(&head.headers, asked.answer_by());
    let (title, verdict) = site.titles.get(&(named.title, named.version), &passed).await?;
    // The version is a hash of the content: with the file's name it is a strong validator.
    let etag = format!("\"{}-{}\"", named.version, named.file);
    if is_other(&head.headers, &etag) {
        let status = StatusCode::PRECONDITION_FAILED;
        return Ok(Answer::new(Verdict::Refused, status, HeaderMap::new(), Content::empty()));
    }
    let Some((track, extension)) = named.track else {
        let bytes = site.titles.index_bytes(&title, &passed).await?;
        return index(asked, bytes, &etag, verdict);
    };
    let mut tracks = title.index.tracks.iter().enumerate();
    let is_tree = extension == store_key::TREE;
    let is_it = |t: &Track| t.facts.id == track && (is_tree || t.extension() == extension);
    let (place, _) = tracks.find(|(_, track)| is_it(track)).ok_or(Refused::NoObject)?;
    let object = Object::track(&title, place).ok_or(Refused::NoObject)?.passed_by(passed);
    if is_tree {
        return tree(edge, asked, &object, &etag).await;
    }
    let within = ByteRange::new(0, object.bytes);
    let content_type = if extension == "mp4" { "video/mp4" } else { "text/vtt" };
    title_site::media(edge, asked, File { etag, content_type, object, within }, verdict).await
}

/// A part of a tree file, passed on: who asks verifies it.
async fn tree(
    edge: &Arc<Edge>,
    asked: &Asked<'_>,
    object: &Object,
    etag: &str,
) -> Result<Answer, Refused> {
    let length = tree::bytes(object.bytes);
    match title_site::wanted(asked, etag, "application/octet-stream", length)? {
        Part::Unchanged(answer) => Ok(*answer),
        Part::Of { part, .. } if part.bytes > TREE_BYTES_MAX => Err(Refused::NoObject),
        Part::Of { status, headers, part } => {
            let urgency = Urgency::of(caching::Priority::of_request(&asked.head.headers).urgency);
            let (bytes, source, _) = edge.engine.tree_part(object, part, None, &urgency).await?;
            let answer = Answer::new(source, status, headers, Content::Whole(bytes));
            Ok(title_site::without_body(answer, &asked.head.method))
        }
    }
}

fn index(
    asked: &Asked<'_>,
    bytes: bytes::Bytes,
    etag: &str,
    verdict: Verdict,
) -> Result<Answer, Refused> {
    let length = bytes.len() as u64;
    let content_type = "application/octet-stream";
    match title_site::wanted(asked, etag, content_type, length)? {
        Part::Unchanged(answer) => Ok(*answer),
        Part::Of { status, headers, part } => {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let content = Content::Whole(bytes.slice(place(part.start)..place(part.end())));
            let answer = Answer::new(verdict, status, headers, content);
            Ok(title_site::without_body(answer, &asked.head.method))
        }
    }
}

/// Whether `If-Match` (RFC 9110 section 13.1.1) names something else.
fn is_other(fields: &HeaderMap, etag: &str) -> bool {
    let named = |field: &HeaderValue| {
        let Ok(field) = field.to_str() else { return false };
        field.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
    };
    let mut given = fields.get_all(header::IF_MATCH).iter().peekable();
    given.peek().is_some() && !given.any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_origin() {
        let version = "0123456789abcdef0123456789abcdef";
        let of = |path: &str| {
            let path = path.replace("VERSION", version);
            let named = Named::parse(&path).ok()?;
            let track = named.track.map(|(track, extension)| format!("{track} {extension}"));
            Some((named.title.to_string(), track))
        };
        let film = |track: Option<&str>| Some(("film".to_owned(), track.map(str::to_owned)));
        assert_eq!(of("/titles/film/VERSION/index"), film(None));
        assert_eq!(of("/titles/film/VERSION/v1.mp4"), film(Some("v1 mp4")));
        for path in [
            "/titles/film/VERSION",
            "/titles/film/VERSION/v1",
            "/titles/film/VERSION/v1.mp4/",
            "/titles/film/VERSION//v1.mp4",
            "/titles/film/0123/v1.mp4",
            "/titles/../VERSION/index",
            "/t/film/VERSION/hls.m3u8",
            "/~token/t/film/VERSION/hls.m3u8",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_run_of_a_tree_file_is_the_leaves_of_a_run() {
        assert_eq!(run_bytes("/titles/film/VERSION/v1.tree"), 64 << 20 >> 16 << 5);
        for path in ["/titles/film/VERSION/v1.mp4", "/titles/film/VERSION/index", "/v1tree"] {
            assert_eq!(run_bytes(path), 64 << 20, "{path}");
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        let of = |value: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert(header::IF_MATCH, HeaderValue::from_static(value));
            is_other(&fields, "\"a\"")
        };
        assert!(!of("\"b\", \"a\"") && !of("*"));
        assert!(of("\"b\"") && of("W/\"a\""));
        assert!(!is_other(&HeaderMap::new(), "\"a\""));
    }
}
