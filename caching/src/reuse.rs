//! Whether a stored response answers a request (RFC 9111 sections 4, 4.2.4 and 5.2.1, RFC 5861).

use crate::age::age_on_arrival_ms;
use crate::control::{self, Directives};
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
    if accepted && !fresh.must_revalidate && purged_for_ms.is_none() {
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
    let fresh = freshness(stored, settings).at_once();
    let verdict = judge(&wishes, &fresh, age_on_arrival_ms(stored), None);
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
        Some(wished_ms) if !fresh.must_revalidate => fresh.if_error_ms.max(wished_ms),
        _ => fresh.if_error_ms,
    };
    allowed_ms > 0 && left_ms.saturating_neg() <= allowed_ms
}

/// The origin failed (500, 502, 503 or 504) for a client who may not have what is stored instead.
/// Whether the `failure` leaves that to all others who may, and is not kept in its place (RFC 9111
/// section 4.2.4, RFC 5861 section 4): always, unless the origin says for how long the failure
/// holds. A rule of the operator spares an origin that fails, and takes nothing good from viewers.
#[must_use]
pub fn outlives(
    stored: &Stored,
    failure: &Stored,
    now_ms: i64,
    settings: &Settings,
    soft_purged_ms: Option<i64>,
) -> bool {
    let said = freshness(failure, settings);
    let is_to_be_kept = said.source.is_explicit() && said.lifetime_ms > 0 && !said.no_cache;
    let is_good = !is_to_be_kept && !stored.status.is_server_error();
    is_good && stale_on_error(&HeaderMap::new(), stored, now_ms, settings, soft_purged_ms)
}

fn wishes(request: &HeaderMap, settings: &Settings) -> Directives {
    if settings.request_directives { control::of_request(request) } else { Directives::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, fields, stored};
    use http::StatusCode;

    fn at(request: &str, response: &str, later_s: i64) -> Reuse {
        let now_ms = NOW_MS + later_s * 1000;
        reuse(&fields(request), &stored(response), now_ms, &Settings::default(), None)
    }

    #[test]
    fn fresh_and_stale() {
        let max = "Cache-Control: max-age=10";
        assert_eq!(at("", max, 9), Reuse::Fresh);
        assert_eq!(at("", max, 10), Reuse::Revalidate(Why::Stale));
        assert_eq!(at("", "Cache-Control: max-age=10\nAge: 20", 0), Reuse::Revalidate(Why::Stale));
        assert_eq!(at("", "Cache-Control: max-age=10\nAge: a", 0), Reuse::Revalidate(Why::Stale));
        let window = "Cache-Control: max-age=10, stale-while-revalidate=5";
        assert_eq!(at("", window, 15), Reuse::StaleWhileRevalidate);
        assert_eq!(at("", window, 16), Reuse::Revalidate(Why::Stale));
        let no_cache = "Cache-Control: max-age=10, no-cache, stale-while-revalidate=5";
        assert_eq!(at("", no_cache, 0), Reuse::Revalidate(Why::NoCache));
        assert_eq!(at("Cookie: a=b", max, 1), Reuse::Fresh);
    }

    /// RFC 9111 section 5.2.1, and the suite's cc-request.
    #[test]
    fn the_clients_wishes() {
        let max = "Cache-Control: max-age=1500";
        let aged = "Cache-Control: max-age=1500\nAge: 1000";
        let table = [
            ("Cache-Control: max-age=0", max, 1, Reuse::Revalidate(Why::RequestMaxAge)),
            ("Cache-Control: max-age=600", aged, 0, Reuse::Revalidate(Why::RequestMaxAge)),
            ("Cache-Control: max-age=1000", aged, 0, Reuse::Fresh),
            ("Cache-Control: min-fresh=2000", max, 0, Reuse::Revalidate(Why::RequestMinFresh)),
            ("Cache-Control: min-fresh=501", aged, 0, Reuse::Revalidate(Why::RequestMinFresh)),
            ("Cache-Control: min-fresh=500", aged, 0, Reuse::Fresh),
            ("Cache-Control: max-stale", max, 99_999, Reuse::StaleAccepted),
            ("Cache-Control: max-stale=10", max, 1510, Reuse::StaleAccepted),
            ("Cache-Control: max-stale=10", max, 1511, Reuse::Revalidate(Why::Stale)),
            ("Cache-Control: no-cache", max, 0, Reuse::Revalidate(Why::RequestNoCache)),
            ("Pragma: no-cache", max, 0, Reuse::Revalidate(Why::RequestNoCache)),
            ("Pragma: foo\nCache-Control: nothing-to-see-here", max, 0, Reuse::Fresh),
            ("Cache-Control: no-store", max, 0, Reuse::Fresh),
            ("Cache-Control: only-if-cached", max, 0, Reuse::Fresh),
            ("Cache-Control: only-if-cached", max, 1501, Reuse::OnlyIfCached),
            ("Cache-Control: only-if-cached, max-stale", max, 1501, Reuse::StaleAccepted),
        ];
        for (request, response, later_s, wanted) in table {
            assert_eq!(at(request, response, later_s), wanted, "{request}");
        }
        for prohibits in ["must-revalidate", "proxy-revalidate", "s-maxage=1"] {
            let response = format!("Cache-Control: max-age=1, {prohibits}");
            let verdict = at("Cache-Control: max-stale", &response, 5);
            assert_eq!(verdict, Reuse::Revalidate(Why::Stale), "{prohibits}");
        }
        let deaf = Settings { request_directives: false, ..Settings::default() };
        let reload = fields("Cache-Control: no-cache, only-if-cached");
        assert_eq!(reuse(&reload, &stored(max), NOW_MS, &deaf, None), Reuse::Fresh);
        let wishes = |settings| Wishes::of(&reload, settings).only_if_cached;
        assert!(!wishes(&deaf) && wishes(&Settings::default()));
    }

    /// RFC 8246 section 2.
    #[test]
    fn immutable_is_served_to_a_reload_while_fresh() {
        let immutable = "Cache-Control: max-age=10, immutable";
        let reload = "Cache-Control: max-age=0";
        assert_eq!(at(reload, immutable, 5), Reuse::Fresh);
        assert_eq!(at(reload, immutable, 11), Reuse::Revalidate(Why::RequestMaxAge));
        let forced = at("Cache-Control: no-cache", immutable, 5);
        assert_eq!(forced, Reuse::Revalidate(Why::RequestNoCache));
    }

    /// RFC 9111 section 4.
    #[test]
    fn who_waited_may_be_answered_too() {
        let joins = |request: &str, response: &str| {
            let mut held_back = stored(response);
            held_back.requested_ms -= 6000;
            joinable(&fields(request), &held_back, &Settings::default())
        };
        assert!(joins("", "Cache-Control: max-age=1\nDate: @0"));
        assert!(joins("", "Cache-Control: max-age=0, stale-while-revalidate=1"));
        assert!(!joins("Cache-Control: no-cache", "Cache-Control: max-age=1"));
        let own = ["max-age=0", "no-cache, max-age=9", "private, max-age=9", "no-store"];
        for directives in own {
            let response = format!("ETag: \"a\"\nCache-Control: {directives}");
            assert!(!joins("", &response), "{directives}");
        }
        assert!(!joins("", "ETag: \"a\""), "nothing was said");
        assert!(joins("", "Last-Modified: @-100000\nDate: @0"), "a guess that is allowed");
        assert!(!joins("Cache-Control: max-age=0, no-cache", "ETag: \"a\""));
        assert!(joins("Cookie: a=b", "Cache-Control: max-age=1"));
        assert!(!joins("", "Cache-Control: max-age=1\nAge: 5"));
        let ttl = crate::Ttl { min_ms: Some(1_000), ..crate::Ttl::default() };
        let ruled = Settings { ttl, ..Settings::default() };
        assert!(joinable(&HeaderMap::new(), &stored("ETag: \"a\""), &ruled), "by a rule");
    }

    #[test]
    fn soft_purged_is_stale() {
        let settings = Settings::default();
        let none = HeaderMap::new();
        let soft = |request: &str, lines: &str| {
            reuse(&fields(request), &stored(lines), NOW_MS, &settings, Some(NOW_MS))
        };
        let of = |lines: &str| soft("", lines);
        assert_eq!(of("Cache-Control: max-age=10"), Reuse::Revalidate(Why::SoftPurged));
        let window = "Cache-Control: max-age=10, stale-while-revalidate=5";
        assert_eq!(of(window), Reuse::StaleWhileRevalidate);
        let wish = soft("Cache-Control: min-fresh=1", window);
        assert_eq!(wish, Reuse::Revalidate(Why::RequestMinFresh));
        let wish = soft("Cache-Control: max-stale", "Cache-Control: max-age=10");
        assert_eq!(wish, Reuse::Revalidate(Why::SoftPurged), "the operator's word goes first");
        let error =
            |lines: &str| stale_on_error(&none, &stored(lines), NOW_MS, &settings, Some(NOW_MS));
        assert!(error("Cache-Control: max-age=10"));
        assert!(!error("Cache-Control: max-age=10, must-revalidate"));
    }

    /// RFC 5861 sections 3 and 4 count from when it has become stale.
    #[test]
    fn what_was_softly_purged_is_stale_since_then() {
        let none = HeaderMap::new();
        let settings = Settings::default();
        let day =
            stored("Cache-Control: max-age=86400, stale-while-revalidate=5, stale-if-error=9");
        let since = |purged_s: i64, later_s: i64| {
            let (purged_ms, now_ms) = (NOW_MS + purged_s * 1000, NOW_MS + later_s * 1000);
            let purged = Some(purged_ms);
            let is_used = match reuse(&none, &day, now_ms, &settings, purged) {
                Reuse::StaleWhileRevalidate => true,
                Reuse::Revalidate(Why::SoftPurged) => false,
                verdict => panic!("{verdict:?}"),
            };
            (is_used, stale_on_error(&none, &day, now_ms, &settings, purged))
        };
        assert_eq!(since(100, 100), (true, true));
        assert_eq!(since(100, 105), (true, true));
        assert_eq!(since(100, 106), (false, true));
        assert_eq!(since(100, 109), (false, true));
        assert_eq!(since(100, 110), (false, false));
        // What was stale before does not become less so.
        assert_eq!(since(86_404, 86_405), (true, true));
        assert_eq!(since(86_404, 86_406), (false, true));
        assert_eq!(since(100, 90), (true, true), "the clock was set back");
    }

    /// RFC 9111 section 4.2.4, RFC 5861 section 4.
    #[test]
    fn what_outlives_a_failure() {
        let settings = Settings { negative_ms: Some(60_000), ..Settings::default() };
        let good = stored("Cache-Control: max-age=10");
        let failing = |lines: &str| Stored { status: StatusCode::BAD_GATEWAY, ..stored(lines) };
        let is_left = |stored: &Stored, failure: &str, later_s: i64| {
            let now_ms = NOW_MS + later_s * 1000;
            outlives(stored, &failing(failure), now_ms, &settings, None)
        };
        for failure in ["", "ETag: \"a\"", "Cache-Control: max-age=0", "Cache-Control: no-store"] {
            assert!(is_left(&good, failure, 1), "{failure}");
            assert!(is_left(&good, failure, 20), "{failure}: in place of a failure");
            assert!(!is_left(&good, failure, 9000), "{failure}: nobody gets it any more");
            assert!(!is_left(&failing(""), failure, 1), "{failure}: of two failures the newer");
        }
        assert!(!is_left(&good, "Cache-Control: max-age=1", 1), "the origin wants it kept");
        assert!(is_left(&good, "Cache-Control: private, max-age=1", 1));
        assert!(!is_left(&stored("Cache-Control: max-age=10, no-cache"), "", 1));
    }

    /// RFC 9111 section 4.2.4, RFC 5861 section 4, and the suite's stale tests.
    #[test]
    fn when_the_origin_fails() {
        let settings = Settings::default();
        let serves = |request: &str, response: &str, later_s: i64| {
            let now_ms = NOW_MS + later_s * 1000;
            stale_on_error(&fields(request), &stored(response), now_ms, &settings, None)
        };
        assert!(serves("", "Cache-Control: max-age=2", 3));
        assert!(!serves("", "Cache-Control: max-age=2", 4000));
        assert!(serves("", "Cache-Control: max-age=2, stale-if-error=9000", 4000));
        assert!(!serves("", "Cache-Control: max-age=2, stale-if-error=60", 63));
        assert!(!serves("Cache-Control: no-cache", "Cache-Control: max-age=2", 3));
        assert!(serves("Cache-Control: stale-if-error=9000", "Cache-Control: max-age=2", 4000));
        for prohibits in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"] {
            let response = format!("Cache-Control: max-age=2, {prohibits}");
            assert!(!serves("", &response, 3), "{prohibits}");
            assert!(!serves("Cache-Control: stale-if-error=9", &response, 3), "{prohibits}");
        }
        assert!(serves("", "Last-Modified: @-1000\nDate: @0", 200), "by a guess");
        assert!(!serves("", "Last-Modified: @-1000\nDate: @0", 4000), "by a guess, an hour ago");
        assert!(!serves("", "ETag: \"a\"", 1), "never said to be fresh");
        assert!(!serves("", "Cache-Control: max-age=2\nAge: x", 1), "age unknown");
    }
}
