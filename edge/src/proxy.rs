//! A proxy site: any HTTP or S3 origin behind HTTP caching as RFC 9111 says.
//!
//! The life of a request, top to bottom: check -> key -> stored? -> reuse, or ask the origin
//! once for all who want the same -> answer. No time to live is invented beyond the standard's
//! heuristics, and nothing is joined that one validator does not hold together.

mod fetch;
mod forwarded;
pub mod lately;
mod live;
pub mod named;
mod newer;
mod pass;
mod renewing;
mod site;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod wanted;

pub use fetch::Fetches;
pub use live::Lives;
pub use site::{Site, Sites};
pub use wanted::Wanted;

use crate::body::Content;
use crate::error::Fault;
use crate::hygiene;
use crate::refused::Refused;
use crate::serve::{Answer, Asked, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Forwarded, Reuse, Wishes};
use fetch::{Fetch, Outcome};
use heads::{Head, Variants};
use http::{Method, StatusCode};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use upstream::RequestBody;

/// How often a request starts over, since what it was about to be answered from has changed.
const TRIES_MAX: usize = 3;

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// What is stored for a request, and what the purges say of it.
struct Found {
    head: Arc<Head>,
    /// See [`caching::reuse`].
    soft_purged_ms: Option<i64>,
}

/// Answers a request to a proxy site at once, if it is a hit and its first bytes are in memory:
/// most are, and need no future. What it led to is remembered (see [`lately`]).
#[must_use]
pub fn at_hand(edge: &Arc<Edge>, asked: &Asked<'_>, wanted: &Arc<Wanted>) -> Option<Answer> {
    if wanted.method != Method::GET && wanted.method != Method::HEAD {
        return None;
    }
    let now = now_ms();
    let variants = edge.engine.heads.in_memory_at(&wanted.key, now)?;
    let Found { head, soft_purged_ms } = selected(edge, wanted, &variants).ok()?;
    match wanted.reuse(&head, now, soft_purged_ms) {
        Reuse::Fresh if !wanted.wishes().only_if_cached => {
            let answer = stored::at_hand(edge, wanted, &head, now)?;
            lately::learn(asked, wanted, &variants);
            Some(answer)
        }
        _ => None,
    }
}

/// Answers a request to a proxy site.
///
/// # Errors
/// [`Refused`].
pub async fn answer(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    body: RequestBody,
) -> Result<Answer, Refused> {
    if wanted.method != Method::GET && wanted.method != Method::HEAD {
        return pass::on(edge, wanted, &[], body).await;
    }
    for _ in 0..TRIES_MAX {
        match cached(edge, wanted).await {
            // The origin has another version by now, or a chunk is gone that can't be fetched or
            // only in crumbs, or the fetch that was joined is of no use to this request.
            Err(Refused::Fault(fault)) if fault.starts_over() => {}
            Err(refused) => match refused.apart() {
                Some(apart) => return fetch::apart(edge, wanted, apart).await,
                None => return Err(refused),
            },
            answered => return answered,
        }
    }
    Box::pin(Fetch::new(edge, wanted, None).alone(Forwarded::UriMiss)).await
}

async fn cached(edge: &Arc<Edge>, wanted: &Arc<Wanted>) -> Result<Answer, Refused> {
    let now = now_ms();
    let found = find(edge, wanted).await;
    wanted.count_told(edge, found.as_ref().ok().map(|found| &*found.head));
    let Found { head, soft_purged_ms } = match found {
        Ok(found) => found,
        Err(missing) => return not_stored(edge, wanted, missing).await,
    };
    let reuse = wanted.reuse(&head, now, soft_purged_ms);
    // What is missing of it would not be kept: the one who asks is given all of it anew.
    let Wishes { only_if_cached, no_store } = wanted.wishes();
    if !only_if_cached
        && !caching::may_fill(&wanted.fields, no_store, &head.stored, &wanted.caching)
        && !stored::is_here(edge, wanted, &head)
    {
        let alone = Fetch::new(edge, wanted, None).alone(Forwarded::Partial);
        return Box::pin(alone).await;
    }
    match reuse {
        Reuse::Fresh => stored::answer(edge, wanted, head, stored::How::Fresh).await,
        Reuse::StaleAccepted => stored::answer(edge, wanted, head, stored::How::Stale).await,
        Reuse::StaleWhileRevalidate => {
            // What comes of a request with `no-store` renews nothing.
            if !no_store && !edge.lives.has(&wanted.key) {
                Fetch::in_background(edge, wanted, (Arc::clone(&head), soft_purged_ms));
            }
            stored::answer(edge, wanted, head, stored::How::Stale).await
        }
        Reuse::OnlyIfCached => Err(Refused::OnlyIfCached),
        Reuse::Revalidate(why) => {
            let forwarded = if why.is_request() { Forwarded::Request } else { Forwarded::Stale };
            // What follows it may be arriving already.
            if let Some(live) = edge.lives.find(wanted, &edge.purges) {
                return live.answer(edge, wanted, (None, None), joined(forwarded)).await;
            }
            let found = Found { head, soft_purged_ms };
            let answered = fetched(edge, wanted, Some(found), forwarded).await;
            answered.map_err(|refused| refused.forwarded(forwarded))
        }
    }
}

/// Nothing is stored for the request: what is arriving for somebody else may do.
async fn not_stored(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    missing: Forwarded,
) -> Result<Answer, Refused> {
    // What is arriving is not stored yet (RFC 9111 section 5.2.1.7), and comes when the origin likes.
    if wanted.wishes().only_if_cached {
        return Err(Refused::OnlyIfCached);
    }
    if let Some(live) = edge.lives.find(wanted, &edge.purges) {
        return live.answer(edge, wanted, (None, None), joined(missing)).await;
    }
    let answered = fetched(edge, wanted, None, missing).await;
    answered.map_err(|refused| refused.forwarded(missing))
}

/// `Cache-Status` of who only joins what is arriving.
fn joined(forwarded: Forwarded) -> CacheStatus<'static> {
    CacheStatus { forwarded: Some(forwarded), collapsed: true, ..CacheStatus::default() }
}

/// The stored representation that the request selects, if it may still be used; else what is
/// missing: all of the URL, or a variant.
async fn find(edge: &Edge, wanted: &Wanted) -> Result<Found, Forwarded> {
    let variants = match edge.engine.heads.in_memory(&wanted.key) {
        Some(variants) => variants,
        None => edge.engine.heads.get(&wanted.key).await,
    };
    selected(edge, wanted, &variants)
}

/// Whether anything is stored for the request, as far as memory knows: no purge has ended it.
#[must_use]
pub fn is_stored(edge: &Edge, wanted: &Wanted) -> bool {
    let variants = edge.engine.heads.in_memory(&wanted.key);
    variants.is_none_or(|variants| selected(edge, wanted, &variants).is_ok())
}

/// The one of these that the request selects.
fn selected(edge: &Edge, wanted: &Wanted, variants: &Variants) -> Result<Found, Forwarded> {
    let is_usable = |head: &&Arc<Head>| {
        edge.purges.verdict(head) != heads::Verdict::Hard && !wanted.is_ended(head)
    };
    let candidates = || variants.iter().filter(is_usable).filter(|head| wanted.selects(head));
    match caching::newest(candidates().map(|head| &head.stored)) {
        Some(newest) => {
            let head = candidates().nth(newest).ok_or(Forwarded::Miss)?;
            Ok(Found { head: Arc::clone(head), soft_purged_ms: edge.purges.stale_since(head) })
        }
        None if variants.iter().any(|head| is_usable(&head)) => Err(Forwarded::VaryMiss),
        None => Err(Forwarded::UriMiss),
    }
}

/// Asks the origin, together with all who want the same, and answers from what it says.
async fn fetched(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    stale: Option<Found>,
    forwarded: Forwarded,
) -> Result<Answer, Refused> {
    let known = |found: Found| (found.head, found.soft_purged_ms);
    let (outcome, own, collapsed) = Fetch::new(edge, wanted, stale.map(known)).join().await;
    let told = |status: Option<StatusCode>| CacheStatus {
        forwarded: Some(forwarded),
        forwarded_status: status,
        collapsed,
        ..CacheStatus::default()
    };
    // Who only joined the fetch must be allowed what came of it: it may have begun before a purge that
    // this request has come after. Who wants another variant starts over: these are many, and one
    // fetch for each variant does.
    let is_past = |head: &Head| {
        edge.purges.verdict(head) != heads::Verdict::Valid
            || wanted.is_older(head)
            || !wanted.selects(head)
    };
    match outcome {
        Outcome::Stored { head, verdict, status, hold } => {
            if collapsed && is_past(&head) {
                return Err(Refused::Fault(Fault::Changed));
            }
            if collapsed && !caching::joinable(&wanted.fields, &head.stored, &wanted.caching) {
                let again = Fetch::new(edge, wanted, Some((head, None)));
                return Box::pin(again.alone(forwarded)).await;
            }
            let reading = fetch::reading(own);
            let how = stored::How::Fetched { verdict, told: told(Some(status)), reading };
            let answer = stored::answer(edge, wanted, head, how).await;
            drop(hold);
            answer
        }
        Outcome::Told(head) => match own {
            Some(own) => own.answer(edge, wanted, told(None)).await,
            None if is_past(&head.head) => Err(Refused::Fault(Fault::Changed)),
            None if head.is_for(wanted) => Ok(head.answer(edge, wanted, told(None))),
            None => Box::pin(Fetch::new(edge, wanted, None).alone(forwarded)).await,
        },
        Outcome::Growing(live, hold) => {
            if collapsed && !live.is_selected(wanted, &edge.purges) {
                return Err(Refused::Fault(Fault::Changed));
            }
            if collapsed && !live.is_for_waiting(wanted, &edge.purges) {
                return Box::pin(Fetch::new(edge, wanted, None).alone(forwarded)).await;
            }
            live.answer(edge, wanted, (fetch::reader(own), hold), told(None)).await
        }
        Outcome::Stale(head, fault) => match own {
            Some(own) => own.answer(edge, wanted, told(None)).await,
            None => stand_in(edge, wanted, (head, fault), told(None)).await,
        },
        Outcome::Failed(fault) => Err(Refused::Fault(fault)),
        Outcome::Alone => match own {
            Some(own) => own.answer(edge, wanted, told(None)).await,
            None => {
                // What the other was told may have ended what is stored.
                let stale = find(edge, wanted).await.ok().map(known);
                Box::pin(Fetch::new(edge, wanted, stale).alone(forwarded)).await
            }
        },
    }
}

/// Answers from what is stored in place of an origin that failed like this, or is too slow. Who only
/// waited for one that failed may want nothing stale, or more than is here.
async fn stand_in(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    (head, fault): (Arc<Head>, Option<Fault>),
    told: CacheStatus<'static>,
) -> Result<Answer, Refused> {
    let may_stand_in = may_be_stale(edge, wanted, &head) && stored::is_here(edge, wanted, &head);
    let forwarded_status = match fault {
        Some(fault) if !may_stand_in => return Err(Refused::Fault(fault)),
        fault => fault.and_then(|fault| fault.status()),
    };
    let how = stored::How::StandIn { told: CacheStatus { forwarded_status, ..told } };
    stored::answer(edge, wanted, head, how).await
}

fn may_be_stale(edge: &Edge, wanted: &Wanted, head: &Head) -> bool {
    edge.purges.verdict(head) != heads::Verdict::Hard
        && wanted.may_stand_in(head, edge.purges.stale_since(head))
}

/// An answer without a body but a length, for HEAD.
fn without_body(wanted: &Wanted, mut answer: Answer) -> Answer {
    if wanted.method == Method::HEAD {
        answer.promised = answer.content.bytes();
        answer.content = Content::empty();
    }
    answer
}

/// A host as it is written in a URL of this scheme.
fn in_url(host: hygiene::Host, scheme: &str) -> String {
    let usual = if scheme == "https" { 443 } else { 80 };
    let mut url = host.name;
    if let Some(port) = host.port.filter(|port| *port != usual) {
        url.push(':');
        url.push_str(itoa::Buffer::new().format(port));
    }
    url
}

/// Milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The verdict of what an upstream sent, by what kind of hop it is.
fn by_hop(kind: upstream::HopKind) -> Verdict {
    crate::engine::source(kind)
}
