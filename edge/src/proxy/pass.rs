//! What is passed on as it is: methods that are not cached, and answers that may not be shared.

use super::fetch::{Asking, Cut, Sent, Unshared};
use super::{Wanted, by_hop, in_url, named, now_ms, renewing, without_body};
use crate::body::{Content, Passing};
use crate::compress;
use crate::engine::OWNED_RUN_BYTES;
use crate::error::Fault;
use crate::hygiene;
use crate::refused::Refused;
use crate::serve::{Answer, Edge, set};
use crate::verdict::Verdict;
use caching::{CacheStatus, Forwarded, Forwards, Target};
use heads::{KeyId, Purge, What};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::sync::Arc;
use tokio::sync::oneshot;
use upstream::{Ask, Purges, RequestBody};

/// Passes a request on with its conditions and its body, and invalidates what an unsafe method makes
/// invalid (RFC 9111 section 4.4). What is asked for, with these tags, may have
/// been purged: what other nodes have of it may be from before that, so none of them is asked.
///
/// # Errors
/// [`Refused::Fault`].
pub async fn on(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    tags: &[Box<str>],
    body: RequestBody,
) -> Result<Answer, Refused> {
    if wanted.method == Method::OPTIONS
        && let Some(allowed) = wanted.site.cors.preflight(&wanted.fields)
    {
        return Ok(told_here(edge, StatusCode::NO_CONTENT, allowed));
    }
    if wanted.site.upstream.is_s3() && !matches!(wanted.method, Method::GET | Method::HEAD) {
        let is_asked = wanted.method == Method::OPTIONS;
        return if is_asked { Ok(options(edge, wanted)) } else { Err(Refused::Method) };
    }
    let mut fields = wanted.forwarded();
    if wanted.method == Method::OPTIONS {
        match caching::forwards(&wanted.fields) {
            Forwards::Unsaid => {}
            Forwards::Here => return Ok(options(edge, wanted)),
            Forwards::Left(left) => {
                fields.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            }
        }
    }
    for name in CONDITIONS {
        for value in wanted.fields.get_all(&name) {
            fields.append(&name, value.clone());
        }
    }
    let run = caching::asks_from(&wanted.fields) / OWNED_RUN_BYTES;
    let ask = || {
        let (method, fields) = (wanted.method.clone(), fields.clone());
        Ask { method, fields, run, ..wanted.site.ask(wanted) }
    };
    let has_body = !http_body::Body::is_end_stream(&body);
    let is_looked_up = matches!(wanted.method, Method::GET | Method::HEAD);
    let asking = Asking { edge, wanted, tags };
    let unsure = upstream::Unsure::default();
    let sent = match is_looked_up {
        true if !has_body => asking.send(ask).await,
        // With a body there is one try.
        true => {
            let at_the_origin = asking.purges(None) != Purges::default();
            asking.once(Ask { body: Some(body), at_the_origin, ..ask() }).await
        }
        false => {
            let unsure = unsure.clone();
            let ask = Ask { body: has_body.then_some(body), unsure, ..ask() };
            carried_out(edge, wanted, ask).await.ok_or(Refused::Fault(Fault::Lost))?
        }
    };
    let Sent { answered, requested_ms, asked_ms, .. } = sent;
    let forwarded = if is_looked_up { Forwarded::Request } else { Forwarded::Method };
    let answer = answered.map_err(|fault| Refused::Fault(fault).forwarded(forwarded))?;
    let status = answer.head.status;
    let mut fields = received(edge, &answer.head, now_ms());
    if is_looked_up {
        wanted.tell_times(&mut fields, asked_ms, answer.fetched_ms);
        renewing::by_another_version(edge, wanted, &answer, asked_ms);
    }
    // Whatever the answer says to the node that asks, also by a listener for clients: what that has
    // stored is to end as well.
    if unsure.is_so() && wanted.fields.contains_key(CDN_LOOP) {
        upstream::tell_unsure(&mut fields);
    }
    let told = CacheStatus {
        forwarded: Some(forwarded),
        forwarded_status: Some(status),
        ..CacheStatus::default()
    };
    let unshared =
        Unshared { answer, fields, requested_ms, cut: None, unkept: None, is_of_request: false };
    Ok(self::answer(edge, wanted, unshared, told))
}

/// Sends what may change something, and ends what is stored of that: in a task of its own, since who
/// leaves does not keep the origin from carrying it out. None if that task panics.
async fn carried_out(edge: &Arc<Edge>, wanted: &Arc<Wanted>, ask: Ask) -> Option<Sent> {
    let (sender, receiver) = oneshot::channel();
    let (own, wanted) = (Arc::clone(edge), Arc::clone(wanted));
    tokio::spawn(edge.metrics.guarded(async move {
        let unsure = ask.unsure.clone();
        let sent = Asking { edge: &own, wanted: &wanted, tags: &[] }.once(ask).await;
        let changed = changed(&wanted, &sent, unsure.is_so());
        if !changed.is_empty() {
            invalidate(&own, &wanted, changed).await;
        }
        let _ = sender.send(sent);
    }));
    receiver.await.ok()
}

/// What a request has made invalid; `is_unsure` where the origin may have carried it out whatever
/// the answer says.
fn changed(wanted: &Wanted, sent: &Sent, is_unsure: bool) -> Vec<Target> {
    let path = wanted.path();
    let head = sent.answered.as_ref().ok().map(|answer| &answer.head);
    let named = head.map_or_else(Vec::new, |head| {
        let origins: Vec<&str> = wanted.site.upstream.origins().collect();
        // What it names is by the host that the client named.
        let host = hygiene::check(&wanted.fields.0).ok().and_then(|target| target.host);
        let host = host.map(|host| in_url(host, wanted.scheme)).unwrap_or_default();
        let (method, scheme, status) = (&wanted.method, wanted.scheme, head.status);
        caching::invalidated(method, scheme, &host, &path, &origins, status, &head.headers)
    });
    let is_unsure = is_unsure || head.is_some_and(|head| caching::is_of_gateway(head.status));
    match named.is_empty() && is_unsure && !caching::is_safe(&wanted.method) {
        true => vec![Target::Url(path)],
        false => named,
    }
}

/// The fields of an answer as they are kept and passed on: without those of the connection that
/// it came by, which `Via` names.
pub fn received(edge: &Edge, head: &http::response::Parts, received_ms: i64) -> HeaderMap {
    caching::received_fields(&via(edge, head), received_ms)
}

/// The fields of an answer, with the hop that it came by (RFC 9110 section 7.6.3).
pub fn via(edge: &Edge, head: &http::response::Parts) -> HeaderMap {
    let mut fields = head.headers.clone();
    caching::append_via(&mut fields, &caching::Hop { version: head.version, name: edge.node.id() });
    fields
}

/// Removes of an answer's fields what is not for the client of this `request`: where the origin itself
/// can be had, what is for caches alone, and cookies that are left out, of what was stored before they
/// were.
pub fn keep_for(request: &HeaderMap, settings: &caching::Settings, fields: &mut HeaderMap) {
    fields.remove(header::ALT_SVC);
    settings.cookies.leave_out_of_answer(fields);
    caching::keep_surrogate_control(request, fields);
}

/// What is passed on, of the methods that are usual: to a bucket, and to any other origin.
const OF_BUCKETS: &str = "GET, HEAD";
const PASSED_ON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// To an OPTIONS that goes no further than this node.
fn options(edge: &Edge, wanted: &Wanted) -> Answer {
    let allowed = if wanted.site.upstream.is_s3() { OF_BUCKETS } else { PASSED_ON };
    let mut headers = HeaderMap::new();
    headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    told_here(edge, StatusCode::OK, headers)
}

fn told_here(edge: &Edge, status: StatusCode, mut headers: HeaderMap) -> Answer {
    headers.insert("cache-status", Verdict::Preflight.cache_status(&edge.id));
    Answer::new(Verdict::Preflight, status, headers, Content::empty())
}

const CDN_LOOP: header::HeaderName = header::HeaderName::from_static("cdn-loop");

const CONDITIONS: [header::HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// Ends what is stored of the targets, so that no crash brings it back once this is answered.
/// What the origin has done is done: if the disk fails, that is logged, and it is answered.
async fn invalidate(edge: &Edge, wanted: &Wanted, targets: Vec<Target>) {
    let (mut keys, mut purges) = (Vec::new(), Vec::new());
    for target in targets {
        match target {
            Target::Url(path) => {
                let url = named::of_host(&wanted.site, &wanted.host, &path);
                keys.extend(url.map(|url| KeyId::of(&wanted.site.name, &url)));
            }
            Target::Group(group) => purges.push(edge.purges.append(Purge {
                what: What::Tag(group.into()),
                site: Some(wanted.site.name.to_string()),
                soft: false,
                note: "cache group invalidated by the origin".into(),
            })),
        }
    }
    // Of the nodes above, those that the request has not passed know nothing of it.
    let noted = edge.engine.others_are_outdated(&keys, &wanted.site.name);
    for key in &keys {
        edge.fetches.invalidate(*key);
        edge.lives.forget(key);
    }
    let (removed, noted, purged) =
        tokio::join!(edge.engine.heads.invalidate(&keys), noted, futures::future::join_all(purges));
    let failed = [removed.err(), noted.err()].into_iter().flatten();
    for error in failed.chain(purged.into_iter().filter_map(Result::err)) {
        tracing::error!(url = %wanted.url(), %error, "an invalidation may not outlive a crash");
    }
}

/// An answer that goes to one client only.
pub fn answer(edge: &Edge, wanted: &Wanted, unshared: Unshared, told: CacheStatus<'_>) -> Answer {
    let Unshared { answer, fields: mut headers, requested_ms, cut, .. } = unshared;
    let mut status = answer.head.status;
    keep_for(&wanted.fields, &wanted.caching, &mut headers);
    let source = by_hop(answer.kind);
    let told = CacheStatus {
        forwarded_status: Some(status),
        detail: Some(Verdict::Bypass.name()),
        ..told
    };
    told.append(edge.node.id(), &mut headers);
    renewing::by_head(edge, wanted, &answer.head, requested_ms);
    let promised = answer.head.headers.get(header::CONTENT_LENGTH);
    let promised = promised.and_then(|length| length.to_str().ok()?.parse().ok());
    let body = answer.body;
    let (mut skipped, mut left) = (0, body.length());
    if let Some(Cut { given, total, wanted: part }) = cut {
        status = StatusCode::PARTIAL_CONTENT;
        let total = total.map_or("*".to_owned(), |total| total.to_string());
        let range = format!("bytes {}-{}/{total}", part.start, part.end() - 1);
        set(&mut headers, header::CONTENT_RANGE, range);
        if part != given {
            compress::remove_content_digests(&mut headers);
        }
        skipped = part.start - given.start;
        left = Some(part.bytes);
    }
    let came = edge.metrics.came_of(source).clone();
    let content = Content::Passing(Box::new(Passing { body, skipped, left, source, came }));
    let mut answer = Answer::new(Verdict::Bypass, status, headers, content);
    if wanted.method == Method::HEAD {
        answer = without_body(wanted, answer);
        answer.promised = promised;
    }
    answer
}
