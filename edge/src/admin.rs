//! The admin port's calls about what is stored: purge, the list of purges, explain.
//!
//! A purge is answered once it is on disk and in force. Everything a caller says is checked
//! first: a purge that names nothing this edge could have stored is an error, not a success.

mod explain;
mod title;

use crate::hygiene;
use crate::proxy::{Site, Sites, named, now_ms};
use crate::serve::{Edge, TitleSite};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use caching::TAG_BYTES_MAX;
use heads::{Head, KeyId, Purge, Purged, What};
use model::admin::{ChunkPlace, Explanation, PurgeDone, PurgeList, PurgeRecord, PurgeRequest};
use model::api::ApiError;
use std::sync::Arc;

/// A call's body, in bytes: the longest URL, a reason, and what JSON adds.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Purges listed unless told otherwise.
const LISTED: usize = 20;

/// The calls.
pub(crate) fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/v1/purge", post(purge))
        .route("/v1/purges", get(purges))
        .route("/v1/explain", get(explain_url))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(edge)
}

/// An answer that is an error.
#[derive(Debug)]
struct Fault(StatusCode, ApiError);

impl Fault {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, ApiError { code: code.to_owned(), message: message.into() })
    }

    /// The caller's mistake: names the field and what was expected.
    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self(status, body) = self;
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<heads::Error> for Fault {
    fn from(error: heads::Error) -> Self {
        use heads::Error;
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match &error {
            Error::BadPurge { .. } => Self::bad(error.to_string()),
            Error::Busy { .. } => Self::new(unavailable, "busy", error.to_string()),
            Error::NotDurable { .. } | Error::NotWritten { .. } => {
                Self::new(unavailable, "not-stored", error.to_string())
            }
            Error::Closed | Error::Start { .. } => {
                Self::new(unavailable, "ending", error.to_string())
            }
        }
    }
}

async fn purge(
    State(edge): State<Arc<Edge>>,
    fields: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PurgeDone>, Fault> {
    // A page in a browser on this machine can send any other type here without asking first.
    let json = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !json.is_some_and(|value| value.starts_with("application/json")) {
        let message = "Content-Type: expected application/json";
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", message));
    }
    let body = body.map_err(not_whole)?;
    let request: PurgeRequest =
        serde_json::from_slice(&body).map_err(|error| Fault::bad(error.to_string()))?;
    let purge = checked(request, &edge.sites).map_err(Fault::bad)?;
    let shown = (purge.what.kind(), purge.what.text().to_owned(), purge.soft);
    let number = edge.purges.append(purge).await?;
    tracing::info!(number, kind = shown.0, text = shown.1, soft = shown.2, "purged");
    Ok(Json(PurgeDone { number }))
}

/// Why a body was not read to its end.
fn not_whole(rejection: BytesRejection) -> Fault {
    let status = rejection.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body: expected at most {BODY_BYTES_MAX} bytes");
        return Fault::new(status, "too-large", message);
    }
    Fault::bad("the body ended early")
}

/// A purge as the log takes it, in the words of what is stored; or what is wrong with it.
fn checked(request: PurgeRequest, sites: &Sites) -> Result<Purge, String> {
    let PurgeRequest { url, prefix, tag, all, site, soft, by, reason } = request;
    let given = [url.is_some(), prefix.is_some(), tag.is_some(), all];
    if given.into_iter().filter(|given| *given).count() != 1 {
        return Err("expected exactly one of url, prefix, tag and all".to_owned());
    }
    let names = sites.names();
    let site = site.map(|site| hygiene::in_ascii(&site).unwrap_or(site));
    if let Some(site) = site.as_ref().filter(|site| !names.contains(site)) {
        return Err(format!("site: {site:?} is none of {}", names.join(", ")));
    }
    let note = [by, reason].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let (what, site) = match (url, prefix, tag) {
        (Some(url), ..) => {
            let named = named::url(sites, &url).map_err(|reason| format!("url: {reason}"))?;
            (What::Url(named.url), Some(of_site(&named.site, site)?))
        }
        (None, Some(prefix), _) => {
            let named = named::prefix(sites, &prefix);
            let named = named.map_err(|reason| format!("prefix: {reason}"))?;
            (What::Prefix(named.url), Some(of_site(&named.site, site)?))
        }
        (None, None, Some(tag)) if tag.len() > TAG_BYTES_MAX => {
            let length = tag.len();
            return Err(format!(
                "tag: has {length} bytes, expected at most {TAG_BYTES_MAX}: nothing is stored under a longer one"
            ));
        }
        (None, None, Some(tag)) => (What::Tag(tag), site),
        (None, None, None) => (What::All, site),
    };
    Ok(Purge { what, site, soft, note })
}

/// The site that a URL is of, which is the one that was named, if any was.
fn of_site(site: &Site, named: Option<String>) -> Result<String, String> {
    match named {
        Some(named) if *named != *site.name => {
            Err(format!("site: the URL is of site {:?}, not of {named:?}", site.name))
        }
        _ => Ok(site.name.to_string()),
    }
}

async fn purges(
    State(edge): State<Arc<Edge>>,
    RawQuery(query): RawQuery,
) -> Result<Json<PurgeList>, Fault> {
    let last = match parameter(query.as_deref(), "last") {
        None => LISTED,
        Some(last) => last
            .parse()
            .map_err(|_| Fault::bad(format!("last: {last:?}: expected a number, as 20")))?,
    };
    let purges = edge.purges.recent(last).iter().map(|purged| record(purged)).collect();
    Ok(Json(PurgeList { number: edge.purges.number(), purges }))
}

fn record(purged: &Purged) -> PurgeRecord {
    let purge = &purged.purge;
    PurgeRecord {
        number: purged.number,
        unix_ms: purged.unix_ms,
        kind: purge.what.kind().to_owned(),
        text: purge.what.text().to_owned(),
        site: purge.site.clone(),
        soft: purge.soft,
        note: purge.note.clone(),
    }
}

async fn explain_url(
    State(edge): State<Arc<Edge>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Explanation>, Fault> {
    let asked = parameter(query.as_deref(), "url");
    let asked = asked.ok_or_else(|| Fault::bad("url: is missing: expected ?url=URL"))?;
    if let (Some(path), Some(titles)) = (title::path(&edge, &asked), &edge.titles) {
        return title_url(&edge, titles, path).await;
    }
    let named = named::url(&edge.sites, &asked);
    let named = named.map_err(|reason| Fault::bad(format!("url: {reason}")))?;
    let settings = named.site.caching_of(&named.path, named.query.as_deref());
    let now_ms = now_ms();
    let key = KeyId::of(&named.site.name, &named.url);
    let arriving = edge.lives.heads(&key);
    let heads = edge.engine.heads.get(&key).await;
    // What has just come is in both for a moment.
    let is_stored = |head: &Head| heads.iter().any(|stored| stored.body == head.body);
    let purged = |head: &Head| (edge.purges.verdict(head), edge.purges.stale_since(head));
    let arriving = arriving.iter().rev().filter(|head| !is_stored(head)).map(|head| {
        let filling = |_| ChunkPlace::Filling;
        explain::variant(head, purged(head), &settings, now_ms, filling)
    });
    let stored = heads.iter().map(|head| {
        let place = |chunk| edge.engine.place(&chunks::Key { body: head.body, number: chunk });
        explain::variant(head, purged(head), &settings, now_ms, place)
    });
    let name = (&*named.site.name, &*named.url);
    let tags: Vec<_> = heads.iter().flat_map(|head| head.tags.iter().cloned()).collect();
    let others = edge.engine.purges_of(&key, name, &tags);
    Ok(Json(Explanation {
        others_newer_than_ms: others.last_ms,
        others_hard_ms: others.any_hard_ms(),
        variants: arriving.chain(stored).collect(),
        site: named.site.name.to_string(),
        url: named.url,
        key: key.to_string(),
        number: edge.purges.number(),
        now_ms,
        drops_cookies: settings.cookies.are_dropped(),
        not_stored: edge.fetches.why_not_stored(&key).map(|why| why.as_str().to_owned()),
        title: None,
    }))
}

async fn title_url(
    edge: &Edge,
    titles: &TitleSite,
    path: &str,
) -> Result<Json<Explanation>, Fault> {
    let title = title::explain(edge, titles, path).await;
    let title = title.map_err(|reason| Fault::bad(format!("url: {reason}")))?;
    let media = title.media.as_ref();
    Ok(Json(Explanation {
        site: "titles".to_owned(),
        // Without the token: it opens the title to whoever reads this.
        url: path[path.find("/t/").unwrap_or(0)..].to_owned(),
        key: media.map(|media| media.body.clone()).unwrap_or_default(),
        number: edge.purges.number(),
        now_ms: now_ms(),
        others_newer_than_ms: None,
        others_hard_ms: None,
        variants: Vec::new(),
        not_stored: None,
        drops_cookies: false,
        title: Some(title),
    }))
}

/// The value of a query parameter, decoded; the first one, if it stands twice.
fn parameter(query: Option<&str>, wanted: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}
