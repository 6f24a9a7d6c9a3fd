//! What is used, fresh and stale, case by case.

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
    assert!(joins("", "Cache-Control: max-age=1\nDate: @-1"), "its second was over just then");
    assert!(!joins("", "Cache-Control: max-age=1\nDate: @-2"));
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
    assert!(joinable(&HeaderMap::new(), &stored("ETag: \"a\"\nDate: @-9"), &ruled), "from then on");
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
    let day = stored("Cache-Control: max-age=86400, stale-while-revalidate=5, stale-if-error=9");
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

/// RFC 9110 section 15.5: what one request is told takes nothing from others that is fresh.
#[test]
fn what_outlives_other_errors() {
    let settings = Settings { negative_ms: Some(60_000), ..Settings::default() };
    let good = stored("Cache-Control: max-age=10");
    let outlives = |status: u16, error: &str, later_s: i64, soft_purged_ms: Option<i64>| {
        let status = StatusCode::from_u16(status).unwrap();
        let error = Stored { status, ..stored(error) };
        outlives(&good, &error, NOW_MS + later_s * 1000, &settings, soft_purged_ms)
    };
    for status in [400, 401, 403, 405, 414, 431, 451, 501, 505] {
        for error in ["", "ETag: \"a\"", "Last-Modified: @-1000", "Cache-Control: no-cache"] {
            assert!(outlives(status, error, 9, None), "{status} {error}");
            assert!(!outlives(status, error, 10, None), "{status} {error}: it is stale");
            assert!(!outlives(status, error, 1, Some(NOW_MS)), "{status} {error}: purged");
        }
        assert!(!outlives(status, "Cache-Control: max-age=1", 1, None), "{status}: to be kept");
    }
    for status in [200, 301, 404, 410] {
        assert!(!outlives(status, "", 1, None), "{status}");
    }
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
    for never in ["Cache-Control: max-age=0", "Expires: 0", "Expires: @-9\nDate: @0"] {
        let never = format!("{never}\nETag: \"a\"");
        assert!(!serves("", &never, 1), "{never}");
        assert!(!serves("Cache-Control: stale-if-error=9000", &never, 1), "{never}");
        assert_eq!(
            at("Cache-Control: max-stale", &never, 1),
            Reuse::Revalidate(Why::Stale),
            "{never}"
        );
    }
    assert!(serves("", "Cache-Control: max-age=0, stale-if-error=9", 3), "the origin's own word");
    assert!(!serves("", "Cache-Control: max-age=2\nAge: x", 1), "age unknown");
}

/// RFC 9111 sections 4.2.4 and 5.2.2: a slow origin has not failed.
#[test]
fn when_the_origin_is_slow() {
    let serves = |request: &str, control: &str| {
        let (request, stored) = (fields(request), stored(&format!("Cache-Control: {control}")));
        let settings = Settings::default();
        stale_when_slow(&request, &stored, NOW_MS + 3000, &settings, None)
    };
    for control in ["max-age=2", "max-age=2, stale-if-error=5", "public, max-age=2"] {
        assert!(serves("", control), "{control}");
        assert!(!serves("Cache-Control: no-cache", control), "{control}");
    }
    for control in [
        "max-age=0",
        "max-age=0, stale-if-error=9",
        "max-age=2, must-revalidate",
        "max-age=2, proxy-revalidate",
        "max-age=2, no-cache",
        "s-maxage=2",
        "s-maxage=2, stale-if-error=9",
        "no-cache, stale-if-error=9",
    ] {
        assert!(!serves("", control), "{control}");
        assert!(!serves("Cache-Control: stale-if-error=9", control), "{control}");
    }
    assert!(!serves("", "max-age=2, stale-if-error=0"));
}
