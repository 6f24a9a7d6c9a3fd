//! Whether a stored response answers a request (RFC 9111 sections 4, 4.2.4 and 5.2.1, RFC 5861).

use crate::control::{self, Directives};
use crate::freshness::is_told_fresh;
use crate::{Freshness, Settings, Stored, age_ms, freshness};
use http::HeaderMap;

/// Verdict on using a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Use it.
    Fresh,
    /// Use it now and revalidate it behind the response, one at a time (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Use it although it is stale: the client's `max-stale` takes it.
    StaleAccepted,
    /// Ask the origin first.
    Revalidate(Why),
    /// The origin ought to be asked, but the client says `only-if-cached`: answer 504.
    OnlyIfCached,
}

/// Why the origin must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is past its lifetime.
    Stale,
    /// The origin said `no-cache`.
    NoCache,
    /// The client said `no-cache`.
    RequestNoCache,
    /// It is older than the client's `max-age`.
    RequestMaxAge,
    /// It is not fresh for as long as the client's `min-fresh`.
    RequestMinFresh,
    /// A soft purge marked it stale.
    SoftPurged,
}

impl Why {
    /// A short token for logs and the `detail` of `Cache-Status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::SoftPurged => "soft-purged",
        }
    }

    /// Whether the client's words are the reason, not the response's age.
    #[must_use]
    pub fn is_request(self) -> bool {
        matches!(self, Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh)
    }
}

/// Judges a stored response that [`crate::selects`] the request. `soft_purged_ms`: it is stale by
/// the operator's word since then, in milliseconds since 1970 UTC. What may be served stale still
/// may; how long it has been stale counts from then, if it was fresh.
#[must_use]
pub fn reuse(
    request: &HeaderMap,
    stored: &Stored,
    now_ms: i64,
    settings: &Settings,
    soft_purged_ms: Option<i64>,
) -> Reuse {
    let (fresh, age_ms) = (freshness(stored, settings), age_ms(stored, now_ms));
    decide(
        request,
        &fresh,
        age_ms,
        settings,
        soft_purged_ms.map(|at_ms| now_ms.saturating_sub(at_ms)),
    )
}

/// [`reuse`] of parts; `purged_for_ms`: so long ago was the soft purge.
pub(crate) fn decide(
    request: &HeaderMap,
    fresh: &Freshness,
    age_ms: i64,
    settings: &Settings,
    purged_for_ms: Option<i64>,
) -> Reuse {
    let wishes = wishes(request, settings);
    match judge(&wishes, fresh, age_ms, purged_for_ms) {
        Reuse::Revalidate(_) if wishes.only_if_cached => Reuse::OnlyIfCached,
        verdict => verdict,
    }
}

/// How much longer it is fresh: after a soft purge not at all, however much was left. The time is
/// that of a clock which may have been set back.
fn left_ms(natural_ms: i64, purged_for_ms: Option<i64>) -> i64 {
    match purged_for_ms {
        Some(purged_for_ms) => natural_ms.min(purged_for_ms.max(0).saturating_neg()),
        None => natural_ms,
    }
}

fn judge(wishes: &Directives, fresh: &Freshness, age_ms: i64, purged_for_ms: Option<i64>) -> Reuse {
    let left_ms = left_ms(fresh.left_ms(age_ms), purged_for_ms);
    let is_fresh = left_ms > 0;
    if fresh.no_cache {
        return Reuse::Revalidate(Why::NoCache);
    }
    if wishes.no_cache {
        return Reuse::Revalidate(Why::RequestNoCache);
    }
    // RFC 8246 section 2: a reload of what never changes is served while fresh.
    if !(is_fresh && fresh.immutable) && wishes.max_age_ms.is_some_and(|max_ms| age_ms > max_ms) {
        return Reuse::Revalidate(Why::RequestMaxAge);
    }
    if wishes.min_fresh_ms.is_some_and(|min_ms| left_ms < min_ms) {
        return Reuse::Revalidate(Why::RequestMinFresh);
    }
    if is_fresh {
        return Reuse::Fresh;
    }
    let stale_ms = left_ms.saturating_neg().max(0);
    let accepted = wishes.max_stale_ms.is_some_and(|max_ms| stale_ms <= max_ms);
    if accepted && fresh.is_shared() && !fresh.must_revalidate && purged_for_ms.is_none() {
        return Reuse::StaleAccepted;
    }
    if fresh.while_revalidate_ms > 0 && stale_ms <= fresh.while_revalidate_ms {
        return Reuse::StaleWhileRevalidate;
    }
    Reuse::Revalidate(if purged_for_ms.is_some() { Why::SoftPurged } else { Why::Stale })
}

/// A request that waited for another's exchange with the origin, and selects what came of it:
/// whether that may answer it (RFC 9111 section 4, "collapse requests"). Where it may not, as with
/// `no-cache`, the answer was for the one who asked, perhaps by credentials that no field names.
/// The time that the origin took does not count as age: it passed for those who waited as well,
/// and an origin that holds a playlist back until it changes would never be shared otherwise.
/// An origin that says nothing at all may have looked at any field of the one who asked: only a
/// lifetime, told, guessed from `Last-Modified` or ruled, makes an answer everybody's.
#[must_use]
pub fn joinable(request: &HeaderMap, stored: &Stored, settings: &Settings) -> bool {
    let wishes = wishes(request, settings);
    let (fresh, age_ms) = freshness(stored, settings).at_once(stored);
    let verdict = judge(&wishes, &fresh, age_ms, None);
    matches!(verdict, Reuse::Fresh | Reuse::StaleWhileRevalidate | Reuse::StaleAccepted)
}

/// What a request wants of caches beside freshness, read once for all who ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What is stored, or nothing: where the origin ought to be asked, or waited for, the answer is
    /// 504 (RFC 9111 section 5.2.1.7).
    pub only_if_cached: bool,
    /// Nothing of the request or its answer may be stored (RFC 9111 section 5.2.1.5), whether or not
    /// the operator heeds what clients say of freshness.
    pub no_store: bool,
}

impl Wishes {
    /// Reads them.
    #[must_use]
    pub fn of(request: &HeaderMap, settings: &Settings) -> Self {
        let said = control::of_request(request);
        let only_if_cached = said.only_if_cached && settings.request_directives;
        Self { only_if_cached, no_store: said.no_store }
    }
}

/// The client says that nothing of this request or its answer may be stored (RFC 9111 section
/// 5.2.1.5). What is stored already may still answer it.
#[must_use]
pub fn request_no_store(request: &HeaderMap) -> bool {
    control::of_request(request).no_store
}

/// The origin failed: it gave no whole answer in time, or answered 500, 502, 503 or 504. Whether
/// the stored response may be used instead (RFC 9111 sections 4.2.4 and 4.3.3, RFC 5861
/// section 4).
#[must_use]
pub fn stale_on_error(
    request: &HeaderMap,
    stored: &Stored,
    now_ms: i64,
    settings: &Settings,
    soft_purged_ms: Option<i64>,
) -> bool {
    let wishes = wishes(request, settings);
    let fresh = freshness(stored, settings);
    let purged_for_ms = soft_purged_ms.map(|at_ms| now_ms.saturating_sub(at_ms));
    let left_ms = left_ms(fresh.left_ms(age_ms(stored, now_ms)), purged_for_ms);
    if wishes.no_cache || fresh.no_cache {
        return false;
    }
    if left_ms > 0 {
        return true;
    }
    let allowed_ms = match wishes.if_error_ms {
        Some(wished_ms) if fresh.is_shared() && !fresh.must_revalidate => {
            fresh.if_error_ms.max(wished_ms)
        }
        _ => fresh.if_error_ms,
    };
    allowed_ms > 0 && left_ms.saturating_neg() <= allowed_ms
}

/// The origin takes long. Whether the stored response may be used before it answers. That is no
/// failure (RFC 5861 section 4), nor is the cache disconnected: it is the operator's configuration
/// that allows it (RFC 9111 section 4.2.4), and only of what was everybody's while it was fresh,
/// and which the origin wants revalidated by no directive (section 5.2.2), `s-maxage` with a time
/// of its own for failures included.
#[must_use]
pub fn stale_when_slow(
    request: &HeaderMap,
    stored: &Stored,
    now_ms: i64,
    settings: &Settings,
    soft_purged_ms: Option<i64>,
) -> bool {
    let fresh = freshness(stored, settings);
    fresh.is_shared()
        && !fresh.must_revalidate
        && stale_on_error(request, stored, now_ms, settings, soft_purged_ms)
}

/// The origin gave an error to a client who may not have what is stored instead. Whether that leaves
/// what is stored to all others who may, and is not kept in its place: unless the origin says for how
/// long the error holds. A rule of the operator spares an origin that fails, and takes nothing good
/// from viewers. By 500, 502, 503 and 504 the origin has failed (RFC 9111 section 4.2.4, RFC 5861
/// section 4); 404 and 410 are its word on what is there; any other error may be about the one
/// request, and takes nothing from others that is fresh.
#[must_use]
pub fn outlives(
    stored: &Stored,
    error: &Stored,
    now_ms: i64,
    settings: &Settings,
    soft_purged_ms: Option<i64>,
) -> bool {
    if stored.status.is_server_error() || is_told_fresh(error, settings) {
        return false;
    }
    let others = HeaderMap::new();
    match error.status.as_u16() {
        404 | 410 => false,
        500 | 502 | 503 | 504 => stale_on_error(&others, stored, now_ms, settings, soft_purged_ms),
        400..=599 => reuse(&others, stored, now_ms, settings, soft_purged_ms) == Reuse::Fresh,
        _ => false,
    }
}

fn wishes(request: &HeaderMap, settings: &Settings) -> Directives {
    if settings.request_directives { control::of_request(request) } else { Directives::default() }
}

#[cfg(test)]
mod tests;
