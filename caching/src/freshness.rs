//! How long a response is fresh, and how long it may be used after that (RFC 9111 section 4.2,
//! RFC 5861, RFC 8246, RFC 9213).

use crate::age::{age_on_arrival_ms, untold_ms};
use crate::control::{self, Directives};
use crate::{Settings, Stored, age_ms, date};
use http::header::{DATE, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, StatusCode};

/// What a response says about its use, with the site's settings applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long after its generation it is fresh, in milliseconds; not negative.
    pub lifetime_ms: i64,
    /// What of its age does not count against that, in milliseconds: a lifetime of the operator's
    /// runs from when the answer came, so that neither the time for which the origin held it back
    /// nor what its `Date` says is taken off. An answer that was held for longer than a rule says
    /// would be stale at once, and of rules of less than a second whatever came in another second
    /// than its `Date`.
    pub waived_ms: i64,
    /// How long after that it may be used while it is revalidated, in milliseconds.
    pub while_revalidate_ms: i64,
    /// How long after the lifetime it may be used when the origin fails, in milliseconds.
    pub if_error_ms: i64,
    /// It may not be used stale, whatever the client says: `must-revalidate`,
    /// `proxy-revalidate`, `s-maxage`, `no-cache`.
    pub must_revalidate: bool,
    /// It may never be used without asking the origin: `no-cache`, unless a rule of the operator
    /// says for how long it may; or a 304 has brought `no-store` or `private` since it was stored.
    pub no_cache: bool,
    /// A client's reload need not ask the origin while it is fresh (RFC 8246).
    pub immutable: bool,
    /// Where the lifetime comes from.
    pub source: Source,
}

impl Freshness {
    /// Whether it was given to others for a while without the origin being asked. What was not may
    /// be one client's page: a client's own wish (`max-stale`) takes no such thing from another.
    pub(crate) fn is_shared(&self) -> bool {
        self.lifetime_ms > 0 && !self.no_cache
    }

    /// How much longer a response of this age is fresh, in milliseconds; 0 or less: it is stale.
    #[must_use]
    pub fn left_ms(&self, age_ms: i64) -> i64 {
        self.lifetime_ms.saturating_add(self.waived_ms).saturating_sub(age_ms)
    }

    /// [`Self::left_ms`], and no more than 0 of what may not be used without asking.
    pub(crate) fn usable_ms(&self, age_ms: i64) -> i64 {
        let left_ms = self.left_ms(age_ms);
        if self.no_cache { left_ms.min(0) } else { left_ms }
    }

    /// As for an answer that the origin took no time for, with its age on arrival.
    pub(crate) fn at_once(self, stored: &Stored) -> (Self, i64) {
        let age_ms = age_on_arrival_ms(stored, self.source.is_ruled());
        (Self { waived_ms: 0, ..self }, age_ms)
    }
}

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A targeted field such as `CDN-Cache-Control` (RFC 9213).
    Targeted,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A share of the time since `Last-Modified`.
    Heuristic,
    /// The operator's lifetime for errors, whatever the origin says.
    Negative,
    /// The operator's lifetime for everything else, whatever the origin says.
    Fixed,
    /// The operator's least lifetime: what the origin says, if anything, is shorter.
    Min,
    /// The operator's longest lifetime: what the origin says is longer.
    Max,
    /// Nothing: the lifetime is 0.
    None,
}

impl Source {
    /// The origin named the lifetime itself.
    pub(crate) fn is_explicit(self) -> bool {
        matches!(self, Self::Targeted | Self::SMaxage | Self::MaxAge | Self::Expires)
    }

    /// The operator says how long it is good, not only how long at most.
    fn is_prolonging(self) -> bool {
        matches!(self, Self::Negative | Self::Fixed | Self::Min)
    }

    /// The operator named it.
    fn is_ruled(self) -> bool {
        matches!(self, Self::Negative | Self::Fixed | Self::Min | Self::Max)
    }

    /// A word for logs and `nearcast explain`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Targeted => "targeted",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Negative => "negative",
            Self::Fixed => "fixed",
            Self::Min => "min",
            Self::Max => "max",
            Self::None => "none",
        }
    }
}

/// Reads a stored response's freshness.
#[must_use]
pub fn freshness(stored: &Stored, settings: &Settings) -> Freshness {
    let directives = control::of_response(&stored.fields, &settings.targeted);
    of(
        stored.status,
        &stored.fields,
        (stored.received_ms, untold_ms(stored)),
        &directives,
        settings,
    )
}

/// How much longer the response is fresh, in milliseconds; 0 or less: it is stale, or may not be used
/// without asking.
#[must_use]
pub fn fresh_for_ms(stored: &Stored, now_ms: i64, settings: &Settings) -> i64 {
    freshness(stored, settings).usable_ms(age_ms(stored, now_ms))
}

/// [`freshness`] of parts: when it came, and how much of its age then no cache had told.
pub(crate) fn of(
    status: StatusCode,
    fields: &HeaderMap,
    (received_ms, untold_ms): (i64, i64),
    directives: &Directives,
    settings: &Settings,
) -> Freshness {
    let (lifetime_ms, source) =
        lifetime(status, fields, (received_ms, untold_ms), directives, settings);
    let no_store = directives.no_store && !directives.must_understand;
    // RFC 9111 section 5.2.2.4 has the origin asked each time. An operator who names a time for that
    // answers for it as the origin would; once it is over nothing stale may be used, as was said. Not
    // for a cookie that was stored before the rule was, unless nobody gets it.
    let sets_cookie = fields.contains_key(SET_COOKIE) && !settings.cookies.are_dropped();
    let is_waived = lifetime_ms > 0 && source.is_prolonging() && !sets_cookie;
    let no_cache = (directives.no_cache && !is_waived) || no_store || directives.private;
    let must_revalidate =
        directives.must_revalidate || directives.proxy_revalidate || directives.no_cache;
    let no_stale = must_revalidate || no_cache;
    // RFC 9111 reads s-maxage as proxy-revalidate too; an origin that names a time to serve
    // stale beside it means that time.
    let shared = directives.s_maxage_ms.is_some();
    let window = |named_ms: Option<i64>, default_ms: i64| match named_ms {
        _ if no_stale => 0,
        Some(named_ms) => named_ms,
        None if shared => 0,
        None => default_ms.max(0),
    };
    // What was never fresh has nothing to outlive, and nobody but who asked was given it, perhaps for a
    // field that no `Vary` names: only the origin's own word gives it to others then. One failure does
    // not stand in for another.
    let stands_in = lifetime_ms > 0 && !status.is_server_error();
    let if_error_ms = if stands_in { settings.if_error_ms } else { 0 };
    // What an operator cuts to nothing is everybody's by the origin's word.
    let may_follow = lifetime_ms > 0 || source == Source::Max;
    let while_revalidate_ms = if may_follow { settings.while_revalidate_ms } else { 0 };
    Freshness {
        lifetime_ms,
        waived_ms: if source.is_ruled() { untold_ms } else { 0 },
        while_revalidate_ms: window(directives.while_revalidate_ms, while_revalidate_ms),
        if_error_ms: window(directives.if_error_ms, if_error_ms),
        must_revalidate: must_revalidate || shared,
        no_cache,
        immutable: directives.immutable,
        source,
    }
}

fn lifetime(
    status: StatusCode,
    fields: &HeaderMap,
    (received_ms, untold_ms): (i64, i64),
    directives: &Directives,
    settings: &Settings,
) -> (i64, Source) {
    let ttl = &settings.ttl;
    let error = status.is_client_error() || status.is_server_error();
    if let Some(fixed_ms) = ttl.fixed_ms.filter(|_| !error) {
        return (fixed_ms.max(0), Source::Fixed);
    }
    if let Some(negative_ms) = settings.negative_ms.filter(|_| is_negative(status)) {
        return (negative_ms.max(0), Source::Negative);
    }
    let (lifetime_ms, source) = by_origin(status, fields, received_ms, directives, settings);
    if error {
        return (lifetime_ms, source);
    }
    // By when each ends: the operator's run from when the answer came.
    let ends = |ruled_ms: i64| ruled_ms.saturating_add(untold_ms);
    match (ttl.min_ms, ttl.max_ms) {
        (Some(min_ms), _) if ends(min_ms) > lifetime_ms || (directives.no_cache && min_ms > 0) => {
            (min_ms.max(0), Source::Min)
        }
        (_, Some(max_ms)) if ends(max_ms) < lifetime_ms => (max_ms.max(0), Source::Max),
        _ => (lifetime_ms.max(0), source),
    }
}

/// The lifetime that the answer would have without any rule of the operator.
pub(crate) fn by_origin(
    status: StatusCode,
    fields: &HeaderMap,
    received_ms: i64,
    directives: &Directives,
    settings: &Settings,
) -> (i64, Source) {
    named(fields, received_ms, directives)
        .or_else(|| heuristic(status, fields, received_ms, directives, settings))
        .unwrap_or((0, Source::None))
}

/// The origin's own word (RFC 9111 section 4.2.1).
fn named(fields: &HeaderMap, received_ms: i64, directives: &Directives) -> Option<(i64, Source)> {
    let targeted = |source| if directives.targeted { Source::Targeted } else { source };
    if let Some(lifetime_ms) = directives.s_maxage_ms {
        return Some((lifetime_ms, targeted(Source::SMaxage)));
    }
    if let Some(lifetime_ms) = directives.max_age_ms {
        return Some((lifetime_ms, targeted(Source::MaxAge)));
    }
    if directives.targeted || !fields.contains_key(EXPIRES) {
        return None;
    }
    // An Expires that cannot be read is a time in the past (RFC 9111 section 5.3).
    let date_ms = date::of(fields, &DATE).unwrap_or(received_ms);
    let expires_ms = date::ahead(fields, &EXPIRES, date_ms).unwrap_or(0);
    Some((expires_ms.saturating_sub(date_ms).max(0), Source::Expires))
}

/// Whether the origin itself has others given this for a while, whatever the operator's rules say.
pub(crate) fn is_told_fresh(stored: &Stored, settings: &Settings) -> bool {
    let directives = control::of_response(&stored.fields, &settings.targeted);
    let Stored { status, fields, received_ms, .. } = stored;
    let (lifetime_ms, source) = by_origin(*status, fields, *received_ms, &directives, settings);
    let no_store = directives.no_store && !directives.must_understand;
    let is_forbidden = directives.no_cache || no_store || directives.private;
    source.is_explicit() && lifetime_ms > 0 && !is_forbidden
}

/// Errors that say something of the resource, by its URL, or of the origin. All others may be about
/// the fields, the address or the rights of the one who asked, even where RFC 9110 lets them be
/// guessed fresh (405), or a firewall says them of a long field (400, 403): kept for all by a rule
/// that knows no better, one request would shut everybody out.
pub(crate) fn is_negative(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 410 | 414 | 500..=504)
}

/// RFC 9110 section 15.1.
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn heuristic(
    status: StatusCode,
    fields: &HeaderMap,
    received_ms: i64,
    directives: &Directives,
    settings: &Settings,
) -> Option<(i64, Source)> {
    let rule = settings.heuristic?;
    if !is_heuristically_cacheable(status) && !directives.public {
        return None;
    }
    let modified_ms = date::of(fields, &LAST_MODIFIED)?;
    let date_ms = date::of(fields, &DATE).unwrap_or(received_ms);
    let unchanged_ms = date_ms.saturating_sub(modified_ms).max(0);
    let guess_ms = unchanged_ms.saturating_mul(i64::from(rule.percent)) / 100;
    (guess_ms > 0).then(|| (guess_ms.min(rule.max_ms).max(0), Source::Heuristic))
}

#[cfg(test)]
mod tests;
