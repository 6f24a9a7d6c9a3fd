//! Whether a response may be stored (RFC 9111 sections 3 and 3.5).

use crate::control::{self, Directives};
use crate::freshness::{self, Freshness, Source};
use crate::{Settings, Stored, date, request_no_store};
use http::header::{AUTHORIZATION, COOKIE, ETAG, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, Method, StatusCode};

/// Says that nobody waits for the answer.
pub const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Verdict on storing a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storable {
    /// It may be stored.
    Yes,
    /// It may not, or it would never be of use.
    No(Reason),
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request is no GET.
    Method,
    /// The status belongs to one request: 1xx, 304, 412, 416.
    Status,
    /// The client said `no-store`.
    RequestNoStore,
    /// An error, to a request that somebody is only expected to make (`Sec-Purpose: prefetch`,
    /// Fetch standard section 3.6): what is asked for may not be there yet.
    Speculative,
    /// The origin said `no-store`.
    NoStore,
    /// The origin said `private`.
    Private,
    /// The request had `Authorization` and the origin does not allow sharing the answer, or only
    /// an operator's rule would have it shared unasked.
    Authorization,
    /// `Vary: *`, or a `Vary` that cannot be read.
    VaryAll,
    /// `must-understand` with a status that this cache has no rules for.
    NotUnderstood,
    /// It sets a cookie and does not say that it is fresh, whatever the operator's rules say:
    /// likely meant for one client.
    SetCookie,
    /// The request had a cookie, and nothing that the origin said says or hints that the answer
    /// is fresh.
    Cookie,
    /// Its status is not cacheable by itself (RFC 9110 section 15.1), and nothing names a lifetime.
    Uncacheable,
    /// It is stale when it arrives and has no validator.
    Unusable,
}

impl Reason {
    /// Whether another request might be given an answer that can be stored, for all that this one
    /// was answered.
    #[must_use]
    pub fn is_of_request(self) -> bool {
        matches!(self, Self::Method | Self::Status | Self::RequestNoStore | Self::Speculative)
    }

    /// A short token for logs and the `detail` of `Cache-Status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request-no-store",
            Self::Speculative => "speculative",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::VaryAll => "vary-all",
            Self::NotUnderstood => "must-understand",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::Uncacheable => "uncacheable",
            Self::Unusable => "unusable",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Judges the answer to a request. Only answers to GET are stored; a 206 is judged like a 200
/// (whether its range is sound is the caller's to see).
#[must_use]
pub fn storable(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    settings: &Settings,
) -> Storable {
    let directives = control::of_response(response, &settings.targeted);
    let reason = forbidden(method, request, status, response, &directives)
        .or_else(|| useless(request, status, response, &directives, settings));
    reason.map_or(Storable::Yes, Storable::No)
}

/// What the answer to a request that renews a stored response allows (RFC 9111 sections 3.2 and
/// 4.3.4).
pub(crate) enum Renewable {
    /// What is stored may be renewed by it for all.
    Yes,
    /// It is about the one who asked: nothing of it may be kept.
    No,
    /// What is stored may no longer be, either.
    Never,
}

impl Renewable {
    fn at_most_alone(self) -> Self {
        match self {
            Self::Yes | Self::No => Self::No,
            Self::Never => Self::Never,
        }
    }
}

/// Whether bytes that a stored response lacks may be kept if this request fetches them, and the
/// origin says what it said before (RFC 9111 section 3.5). `no_store` is that of [`crate::Wishes`].
#[must_use]
pub fn may_fill(request: &HeaderMap, no_store: bool, stored: &Stored, settings: &Settings) -> bool {
    let counts = [AUTHORIZATION, COOKIE].iter().any(|name| request.contains_key(name));
    let judged = || fillable(request, &stored.fields, stored, settings);
    !(counts || no_store) || matches!(judged(), Renewable::Yes)
}

/// Judges what a stored response would be, `renewed` by an answer with the fields `new`. Such an
/// answer stands for the 200 that it spares: what that may not bring to others, this may not.
/// But what the origin says of lifetimes may be in the stored fields alone.
pub(crate) fn renewable(
    request: &HeaderMap,
    new: &HeaderMap,
    renewed: &Stored,
    settings: &Settings,
) -> Renewable {
    let own = control::of_response(new, &settings.targeted);
    match forbidden_by_request(request, &own) {
        Some(_) => fillable(request, new, renewed, settings).at_most_alone(),
        None => fillable(request, new, renewed, settings),
    }
}

/// The same of bytes that a stored response lacks: an answer with them that says nothing of caches
/// is for those whom the stored fields name.
pub(crate) fn fillable(
    request: &HeaderMap,
    new: &HeaderMap,
    renewed: &Stored,
    settings: &Settings,
) -> Renewable {
    let (status, fields) = (renewed.status, &renewed.fields);
    let directives = control::of_response(fields, &settings.targeted);
    let own = control::of_response(new, &settings.targeted);
    let forbidden = |fields, directives| forbidden_by_response(status, fields, directives);
    if forbidden(new, &own).or_else(|| forbidden(fields, &directives)).is_some() {
        return Renewable::Never;
    }
    let reason = forbidden_by_request(request, &directives)
        .or_else(|| useless(request, status, fields, &directives, settings));
    let sets_cookie =
        new.contains_key(SET_COOKIE) && !Said::of(status, new, &own, settings).shares_cookies();
    if reason.is_some() || sets_cookie { Renewable::No } else { Renewable::Yes }
}

/// Whether a response says or hints nothing of how long it is fresh, to a client whose cookie it
/// may have looked at.
pub(crate) fn is_silent_to_cookie(
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    settings: &Settings,
) -> bool {
    let directives = control::of_response(response, &settings.targeted);
    request.contains_key(COOKIE) && Said::of(status, response, &directives, settings).is_silent()
}

fn forbidden(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    directives: &Directives,
) -> Option<Reason> {
    let is_error = status.is_client_error() || status.is_server_error();
    let checks = [
        (method != Method::GET, Reason::Method),
        (is_of_one_request(status), Reason::Status),
        (is_error && is_speculative(request), Reason::Speculative),
    ];
    first(checks)
        .or_else(|| forbidden_by_request(request, directives))
        .or_else(|| forbidden_by_response(status, response, directives))
}

/// Whether a request is made ahead of the one that it is for.
fn is_speculative(request: &HeaderMap) -> bool {
    let purposes = request.get_all(SEC_PURPOSE).iter().filter_map(|value| value.to_str().ok());
    purposes.flat_map(|value| value.split([',', ';'])).any(|token| token.trim() == "prefetch")
}

/// What who asked does not allow.
fn forbidden_by_request(request: &HeaderMap, directives: &Directives) -> Option<Reason> {
    let is_authorized = request.contains_key(AUTHORIZATION);
    first([
        (request_no_store(request), Reason::RequestNoStore),
        (is_authorized && !directives.allows_authorized(), Reason::Authorization),
    ])
}

/// What the origin does not allow, whoever asks.
fn forbidden_by_response(
    status: StatusCode,
    response: &HeaderMap,
    directives: &Directives,
) -> Option<Reason> {
    first([
        (directives.must_understand && !is_understood(status), Reason::NotUnderstood),
        // must-understand replaces no-store for caches that know the status (5.2.2.3).
        (directives.no_store && !directives.must_understand, Reason::NoStore),
        (directives.private, Reason::Private),
        (response.contains_key(VARY) && !crate::vary::is_usable(response), Reason::VaryAll),
    ])
}

fn first<const N: usize>(checks: [(bool, Reason); N]) -> Option<Reason> {
    checks.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
}

/// What a response says of its lifetime.
struct Said {
    /// With the operator's rules.
    fresh: Freshness,
    /// It names one itself, or that it is for all.
    is_explicit: bool,
    /// Only a rule of the operator has it used without the origin being asked. Such a rule says
    /// how long, not that what a cookie or credentials made is everybody's.
    is_prolonged: bool,
    /// Neither does it name one nor hint at one.
    is_mute: bool,
    /// It says when it was last changed: one could guess how long it will be good, were it for no
    /// time since that is now.
    is_dated: bool,
}

impl Said {
    fn of(
        status: StatusCode,
        response: &HeaderMap,
        directives: &Directives,
        settings: &Settings,
    ) -> Self {
        // Date is present after `received_fields`; without it the guess is 0 and the rest holds.
        let fresh = freshness::of(status, response, (0, 0), directives, settings);
        let (own_ms, own) = freshness::by_origin(status, response, 0, directives, settings);
        let windows_ms = [directives.while_revalidate_ms, directives.if_error_ms];
        // With `no-cache` it lets nobody have it whom it was not asked about.
        let names = own_ms > 0 || windows_ms.iter().any(|ms| *ms > Some(0));
        let lets = (directives.public || names) && !directives.no_cache;
        Self {
            fresh,
            is_explicit: directives.public || own.is_explicit(),
            is_prolonged: serves_unasked(&fresh) && !lets,
            is_mute: own == Source::None && !directives.no_cache,
            is_dated: settings.heuristic.is_some()
                && freshness::is_heuristically_cacheable(status)
                && date::of(response, &LAST_MODIFIED).is_some(),
        }
    }

    fn shares_cookies(&self) -> bool {
        self.is_explicit && !self.is_prolonged
    }

    fn is_silent(&self) -> bool {
        !self.is_explicit && self.is_mute
    }

    fn is_undated(&self) -> bool {
        self.is_silent() && !self.is_dated
    }
}

/// Whether it goes to others for a while without the origin having said so to each: fresh, behind
/// its back, or in its place when it fails.
fn serves_unasked(fresh: &Freshness) -> bool {
    let windows_ms = [fresh.lifetime_ms, fresh.while_revalidate_ms, fresh.if_error_ms];
    !fresh.no_cache && windows_ms.into_iter().any(|window_ms| window_ms > 0)
}

/// A response that is allowed in the store, but would never be served from it, or whose origin
/// seems not to think of caches.
fn useless(
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    directives: &Directives,
    settings: &Settings,
) -> Option<Reason> {
    let said = Said::of(status, response, directives, settings);
    let Said { fresh, is_explicit, is_prolonged, .. } = said;
    let is_ruled = matches!(fresh.source, Source::Fixed | Source::Negative);
    if !is_explicit && !is_ruled && !freshness::is_heuristically_cacheable(status) {
        return Some(Reason::Uncacheable);
    }
    if !said.shares_cookies() && response.contains_key(SET_COOKIE) {
        return Some(Reason::SetCookie);
    }
    if is_prolonged && request.contains_key(AUTHORIZATION) {
        return Some(Reason::Authorization);
    }
    if (said.is_undated() || is_prolonged) && request.contains_key(COOKIE) {
        return Some(Reason::Cookie);
    }
    let validator = response.contains_key(ETAG) || response.contains_key(LAST_MODIFIED);
    (!validator && !serves_unasked(&fresh)).then_some(Reason::Unusable)
}

/// Answers that speak of the request's own conditions, or are not final.
fn is_of_one_request(status: StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 304 | 412 | 416)
}

/// Statuses whose rules for caching this crate implements (RFC 9111 section 5.2.2.3).
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300..=303 | 307 | 308 | 400 | 403..=405 | 410 | 414 | 451 | 500..=504
    )
}

#[cfg(test)]
mod tests;
