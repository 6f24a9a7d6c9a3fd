//! How long, by whose word, case by case.

use super::*;
use crate::test_fields::{NOW_MS, stored};
use crate::{Heuristic, Ttl};

fn read(lines: &str) -> Freshness {
    freshness(&stored(lines), &Settings::default())
}

/// RFC 9111 section 4.2.1: who wins.
#[test]
fn lifetimes_by_source() {
    let table = [
        ("Cache-Control: max-age=10", 10, Source::MaxAge),
        ("Cache-Control: max-age=10\nExpires: @-7200\nDate: @0", 10, Source::MaxAge),
        ("Cache-Control: max-age=0\nExpires: @7200\nDate: @0", 0, Source::MaxAge),
        ("Cache-Control: max-age=1, s-maxage=10", 10, Source::SMaxage),
        ("Cache-Control: max-age=10\nCache-Control: s-maxage=1", 1, Source::SMaxage),
        ("CDN-Cache-Control: max-age=5\nCache-Control: s-maxage=9", 5, Source::Targeted),
        ("CDN-Cache-Control: foo\nCache-Control: max-age=9\nExpires: @99", 0, Source::None),
        ("CDN-Cache-Control: &\nCache-Control: max-age=9", 9, Source::MaxAge),
        ("Surrogate-Control: max-age=5\nCache-Control: max-age=9", 5, Source::Targeted),
        ("Surrogate-Control: content=\"ESI/1.0\"\nCache-Control: max-age=9", 9, Source::MaxAge),
        ("Surrogate-Control: max-age=5\nCDN-Cache-Control: max-age=6", 6, Source::Targeted),
        ("Foo-Cache-Control: max-age=5", 0, Source::None),
        ("Expires: @300\nDate: @0", 300, Source::Expires),
        ("Expires: @300\nDate: @400", 0, Source::Expires),
        ("Expires: @300", 300, Source::Expires),
        ("Expires: @10\nDate: foo", 10, Source::Expires),
        ("Expires: 0\nDate: @0", 0, Source::Expires),
        ("Expires: @300\nExpires: @301\nDate: @0", 0, Source::Expires),
        ("Expires: 0\nLast-Modified: @-1000\nDate: @0", 0, Source::Expires),
        ("Last-Modified: @-1000\nDate: @0", 100, Source::Heuristic),
        ("Last-Modified: @-1000", 100, Source::Heuristic),
        ("Last-Modified: @-99999999\nDate: @0", 86_400, Source::Heuristic),
        ("Last-Modified: @100\nDate: @0", 0, Source::None),
        ("", 0, Source::None),
    ];
    for (lines, seconds, source) in table {
        let fresh = read(lines);
        assert_eq!((fresh.lifetime_ms, fresh.source), (seconds * 1000, source), "{lines}");
    }
}

/// RFC 5861 and RFC 9111 section 4.2.4.
#[test]
fn time_past_the_lifetime() {
    let hour = Settings::default().if_error_ms;
    let table = [
        ("max-age=1", 0, hour),
        ("max-age=1, stale-while-revalidate=5, stale-if-error=7", 5000, 7000),
        ("max-age=1, stale-if-error=0", 0, 0),
        ("max-age=1, stale-while-revalidate=x", 0, hour),
        ("max-age=1, must-revalidate, stale-while-revalidate=5, stale-if-error=7", 0, 0),
        ("max-age=1, proxy-revalidate", 0, 0),
        ("max-age=1, no-cache", 0, 0),
        ("max-age=1, no-store", 0, 0),
        ("max-age=1, private", 0, 0),
        ("s-maxage=1", 0, 0),
        ("s-maxage=1, stale-while-revalidate=5, stale-if-error=7", 5000, 7000),
        ("public", 0, 0),
        ("max-age=0", 0, 0),
        ("max-age=x", 0, 0),
        ("max-age=0, stale-while-revalidate=5", 5000, 0),
        ("max-age=0, stale-if-error=7", 0, 7000),
        ("public, max-age=0", 0, 0),
        ("public\nExpires: 0", 0, 0),
        ("public\nExpires: @-9\nDate: @0", 0, 0),
        ("public\nExpires: @9\nDate: @0", 0, hour),
        ("public\nLast-Modified: @-1000", 0, hour),
    ];
    for (value, while_revalidate_ms, if_error_ms) in table {
        let fresh = read(&format!("Cache-Control: {value}"));
        assert_eq!(fresh.while_revalidate_ms, while_revalidate_ms, "{value}");
        assert_eq!(fresh.if_error_ms, if_error_ms, "{value}");
    }
}

/// The site's own time is for all that was fresh, by whatever it was; a failure stands in for
/// none.
#[test]
fn a_failing_origin_is_stood_in_for_by_what_was_fresh() {
    let hour = Settings::default().if_error_ms;
    let fixed = Ttl { fixed_ms: Some(1000), ..Ttl::default() };
    let min = Ttl { min_ms: Some(1000), ..Ttl::default() };
    let table = [
        (200, fixed, "ETag: \"a\"", hour),
        (200, min, "ETag: \"a\"", hour),
        (200, Ttl::default(), "ETag: \"a\"", 0),
        (200, Ttl::default(), "Last-Modified: @-1000", hour),
        (200, Ttl::default(), "Cache-Control: max-age=0", 0),
        (200, Ttl::default(), "Expires: 0\nLast-Modified: @-1000", 0),
        (200, Ttl { fixed_ms: Some(0), ..Ttl::default() }, "Cache-Control: max-age=9", 0),
        (200, Ttl { max_ms: Some(0), ..Ttl::default() }, "Cache-Control: max-age=9", 0),
        (404, fixed, "", hour),
        (503, fixed, "", 0),
        (503, fixed, "Cache-Control: max-age=1", 0),
        (503, fixed, "Cache-Control: max-age=1, stale-if-error=2", 2000),
        (200, fixed, "Cache-Control: must-revalidate", 0),
        (200, fixed, "Cache-Control: proxy-revalidate", 0),
        (200, fixed, "Cache-Control: no-cache", 0),
        (200, fixed, "Cache-Control: s-maxage=1", 0),
        (200, fixed, "Cache-Control: stale-if-error=0", 0),
    ];
    for (status, ttl, lines, if_error_ms) in table {
        let settings = Settings { ttl, negative_ms: Some(1000), ..Settings::default() };
        let mut stored = stored(lines);
        stored.status = StatusCode::from_u16(status).unwrap();
        let told = format!("{status} {ttl:?} {lines}");
        assert_eq!(freshness(&stored, &settings).if_error_ms, if_error_ms, "{told}");
    }
}

#[test]
fn guesses_by_status() {
    let guess = |status: u16, lines: &str| {
        let mut stored = stored(&format!("Last-Modified: @-1000\nDate: @0\n{lines}"));
        stored.status = StatusCode::from_u16(status).unwrap();
        freshness(&stored, &Settings::default()).source == Source::Heuristic
    };
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert!(guess(status, ""), "{status}");
    }
    for status in [201, 202, 302, 403, 502, 503, 504, 599] {
        assert!(!guess(status, ""), "{status}");
    }
    assert!(guess(599, "Cache-Control: public"));
}

#[test]
fn the_operators_lifetimes() {
    let ttl = |ttl, lines| {
        let settings = Settings { ttl, negative_ms: Some(7000), ..Settings::default() };
        let fresh = freshness(&stored(lines), &settings);
        (fresh.lifetime_ms, fresh.source)
    };
    let fixed = Ttl { fixed_ms: Some(3000), ..Ttl::default() };
    let bounds = Ttl { min_ms: Some(5000), max_ms: Some(9000), ..Ttl::default() };
    assert_eq!(ttl(fixed, "Cache-Control: max-age=1"), (3000, Source::Fixed));
    assert_eq!(ttl(bounds, "Cache-Control: max-age=1"), (5000, Source::Min));
    assert_eq!(ttl(bounds, ""), (5000, Source::Min));
    assert_eq!(ttl(bounds, "Cache-Control: max-age=7"), (7000, Source::MaxAge));
    assert_eq!(ttl(bounds, "Cache-Control: max-age=100"), (9000, Source::Max));
    let mut missing = stored("");
    missing.status = StatusCode::NOT_FOUND;
    let settings = Settings { negative_ms: Some(7000), ttl: fixed, ..Settings::default() };
    let fresh = freshness(&missing, &settings);
    assert_eq!((fresh.lifetime_ms, fresh.source), (7000, Source::Negative));
    for status in [400, 401, 403, 405, 406, 408, 413, 415, 417, 421, 429, 431, 451, 505] {
        missing.status = StatusCode::from_u16(status).unwrap();
        assert_eq!(freshness(&missing, &settings).source, Source::None, "{status}");
    }
    let none = Settings { heuristic: None::<Heuristic>, ..Settings::default() };
    assert_eq!(freshness(&stored("Last-Modified: @-1000"), &none).source, Source::None);
}

/// RFC 9111 section 5.2.2.4, and the operator who answers for it: for so long, and not stale.
#[test]
fn an_operators_lifetime_goes_before_no_cache() {
    let hour = Settings::default().if_error_ms;
    let ttl = |fixed_ms, min_ms, max_ms| Ttl { fixed_ms, min_ms, max_ms };
    let (fixed, min) = (ttl(Some(1000), None, None), ttl(None, Some(1000), Some(3000)));
    let table = [
        (200, fixed, "no-cache", (1000, Source::Fixed, false, 0)),
        (200, min, "no-cache, max-age=9", (1000, Source::Min, false, 0)),
        (404, fixed, "no-cache, max-age=9", (7000, Source::Negative, false, 0)),
        (400, fixed, "no-cache, max-age=9", (9000, Source::MaxAge, true, 0)),
        (200, fixed, "no-cache=\"a\", max-age=9", (1000, Source::Fixed, false, hour)),
        (200, fixed, "no-cache, no-store", (1000, Source::Fixed, true, 0)),
        (200, fixed, "no-cache, private", (1000, Source::Fixed, true, 0)),
        (200, ttl(Some(0), None, None), "no-cache", (0, Source::Fixed, true, 0)),
        (200, ttl(None, Some(0), None), "no-cache", (0, Source::None, true, 0)),
        (200, ttl(None, None, Some(1000)), "no-cache, max-age=9", (1000, Source::Max, true, 0)),
        (200, Ttl::default(), "no-cache, max-age=9", (9000, Source::MaxAge, true, 0)),
    ];
    for (status, ttl, control, expected) in table {
        let settings = Settings { ttl, negative_ms: Some(7000), ..Settings::default() };
        let mut stored = stored(&format!("Cache-Control: {control}"));
        stored.status = StatusCode::from_u16(status).unwrap();
        let Freshness { lifetime_ms, source, no_cache, if_error_ms, must_revalidate, .. } =
            freshness(&stored, &settings);
        let told = (lifetime_ms, source, no_cache, if_error_ms);
        assert_eq!(told, expected, "{status} {ttl:?} {control}");
        assert_eq!(must_revalidate, if_error_ms == 0, "{control}");
    }
}

/// An origin that holds a playlist back until it changes: what the operator allows begins
/// when it comes, what the origin allows began before (RFC 9111 section 4.2.3).
#[test]
fn an_operators_lifetime_runs_from_when_the_answer_came() {
    let fixed = Ttl { fixed_ms: Some(1000), ..Ttl::default() };
    let min = Ttl { min_ms: Some(1000), ..Ttl::default() };
    let max = Ttl { max_ms: Some(1000), ..Ttl::default() };
    let table = [
        (200, fixed, "Cache-Control: max-age=6", 1000, Source::Fixed),
        (200, fixed, "Cache-Control: max-age=6\nAge: 1", 0, Source::Fixed),
        (200, min, "", 1000, Source::Min),
        (200, min, "Cache-Control: max-age=2", 1000, Source::Min),
        (200, min, "Cache-Control: max-age=6", 4500, Source::MaxAge),
        (200, max, "Cache-Control: max-age=6", 1000, Source::Max),
        (200, max, "Cache-Control: max-age=2", 500, Source::MaxAge),
        (200, max, "Cache-Control: max-age=1", -500, Source::MaxAge),
        (200, Ttl::default(), "Cache-Control: max-age=1", -500, Source::MaxAge),
        (503, max, "", 1000, Source::Negative),
        (503, max, "Cache-Control: max-age=6", 1000, Source::Negative),
        (429, max, "Cache-Control: max-age=1", -500, Source::MaxAge),
    ];
    for (status, ttl, lines, left_ms, source) in table {
        let settings = Settings { ttl, negative_ms: Some(1000), ..Settings::default() };
        let mut held = stored(lines);
        held.status = StatusCode::from_u16(status).unwrap();
        held.requested_ms -= 1500;
        let told = format!("{status} {ttl:?} {lines}");
        assert_eq!(fresh_for_ms(&held, NOW_MS, &settings), left_ms, "{told}");
        assert_eq!(freshness(&held, &settings).source, source, "{told}");
    }
    // The origin's clock is behind, or its second was over when the answer came.
    for (ttl, lines, left_ms) in [
        (fixed, "Date: @-3", 1000),
        (min, "Date: @-3", 1000),
        (min, "Cache-Control: max-age=6\nDate: @-3", 3000),
        (max, "Cache-Control: max-age=6\nDate: @-3", 1000),
        (max, "Cache-Control: max-age=3\nDate: @-3", 0),
        (fixed, "Date: @-3\nAge: 1", 0),
        (Ttl::default(), "Cache-Control: max-age=6\nDate: @-3", 3000),
    ] {
        let settings = Settings { ttl, ..Settings::default() };
        assert_eq!(fresh_for_ms(&stored(lines), NOW_MS, &settings), left_ms, "{ttl:?} {lines}");
    }
    let settings = Settings { ttl: fixed, ..Settings::default() };
    let mut unknown = stored("Age: x");
    unknown.requested_ms -= 1500;
    assert!(fresh_for_ms(&unknown, NOW_MS, &settings) < 0, "age unknown");
}

#[test]
fn fresh_for_goes_down_with_time() {
    let response = stored("Cache-Control: max-age=10\nDate: @0");
    let settings = Settings::default();
    assert_eq!(fresh_for_ms(&response, NOW_MS, &settings), 10_000);
    assert_eq!(fresh_for_ms(&response, NOW_MS + 11_000, &settings), -1000);
}

/// One that a field of the one who asked brought about would be given to others, behind whose back
/// the origin is asked only then.
#[test]
fn what_was_never_fresh_is_given_to_nobody_while_the_origin_is_asked() {
    let ttl = |fixed_ms, min_ms, max_ms| Ttl { fixed_ms, min_ms, max_ms };
    let none = Ttl::default();
    for (ttl, status, lines, window_ms) in [
        (none, 403, "Cache-Control: max-age=0\nETag: \"a\"", 0),
        (none, 405, "ETag: \"a\"", 0),
        (none, 404, "Cache-Control: max-age=1", 9000),
        (none, 403, "Cache-Control: max-age=0, stale-while-revalidate=5", 5000),
        (none, 200, "Cache-Control: max-age=0", 0),
        (none, 302, "Cache-Control: max-age=0", 0),
        (none, 200, "ETag: \"a\"", 0),
        (none, 200, "Cache-Control: max-age=0, stale-while-revalidate=5", 5000),
        (none, 200, "Last-Modified: @-1000", 9000),
        (ttl(Some(1), None, None), 200, "Cache-Control: max-age=0", 9000),
        (ttl(None, Some(1), None), 200, "Cache-Control: max-age=0", 9000),
        (ttl(Some(0), None, None), 200, "Cache-Control: max-age=1", 0),
        (ttl(None, None, Some(0)), 200, "Cache-Control: max-age=1", 9000),
        (ttl(None, None, Some(0)), 200, "Cache-Control: max-age=0", 0),
    ] {
        let settings = Settings { ttl, while_revalidate_ms: 9000, ..Settings::default() };
        let mut stored = stored(lines);
        stored.status = StatusCode::from_u16(status).unwrap();
        let told = format!("{status} {lines}");
        assert_eq!(freshness(&stored, &settings).while_revalidate_ms, window_ms, "{told}");
    }
}

/// As of what was stored before the operator left cookies out.
#[test]
fn a_stored_cookie_that_nobody_gets_is_none() {
    let ttl = Ttl { fixed_ms: Some(3_600_000), ..Ttl::default() };
    let stored = stored("Cache-Control: no-cache, max-age=60\nSet-Cookie: a=b");
    for (cookies, asks) in [(crate::Cookies::Keep, true), (crate::Cookies::Drop, false)] {
        let settings = Settings { ttl, cookies, ..Settings::default() };
        assert_eq!(freshness(&stored, &settings).no_cache, asks, "{cookies:?}");
    }
}
