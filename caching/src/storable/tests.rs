//! What is stored, and why not, case by case.

use super::*;
use crate::test_fields::fields;

fn judge(status: u16, request: &str, response: &str, settings: &Settings) -> Storable {
    let status = StatusCode::from_u16(status).unwrap();
    storable(&Method::GET, &fields(request), status, &fields(response), settings)
}

fn plain(status: u16, request: &str, response: &str) -> Storable {
    judge(status, request, response, &Settings::default())
}

#[test]
fn what_may_be_stored() {
    let fresh = "Cache-Control: max-age=9";
    let cookie = "Cache-Control: max-age=9\nSet-Cookie: a=b";
    let yes = [
        (200, "", fresh),
        (200, "", "Expires: @9\nDate: @0"),
        (200, "", "ETag: \"a\""),
        (200, "", "Cache-Control: no-cache\nETag: \"a\""),
        (200, "", "Last-Modified: @-1000\nDate: @0"),
        (200, "", "Cache-Control: max-age=0, stale-while-revalidate=9"),
        (200, "Cookie: a=b", cookie),
        (200, "Cookie: a=b", "Cache-Control: no-cache\nETag: \"a\""),
        (200, "Cookie: a=b", "Last-Modified: @-1000\nDate: @0"),
        (200, "", "Cache-Control: no-store, must-understand, max-age=9"),
        (200, "", "CDN-Cache-Control: max-age=9\nCache-Control: no-store, private"),
        (200, "", "Surrogate-Control: max-age=9;nearcast\nCache-Control: no-store"),
        (299, "", fresh),
        (404, "", fresh),
        (503, "", fresh),
        (599, "", fresh),
        (599, "", "Cache-Control: public\nLast-Modified: @-1000\nDate: @0"),
        (206, "", "Cache-Control: max-age=9\nContent-Range: bytes 0-1/9"),
        (200, "Authorization: x", "Cache-Control: max-age=9, public"),
        (200, "Authorization: x", "Cache-Control: max-age=9, must-revalidate"),
        (200, "Authorization: x", "Cache-Control: s-maxage=9"),
    ];
    for (status, request, response) in yes {
        assert_eq!(plain(status, request, response), Storable::Yes, "{status} {response}");
    }
}

#[test]
fn what_may_not() {
    let fresh = "Cache-Control: max-age=9";
    let no = [
        (304, "", fresh, Reason::Status),
        (412, "", fresh, Reason::Status),
        (416, "", fresh, Reason::Status),
        (200, "Cache-Control: no-store", fresh, Reason::RequestNoStore),
        (404, "Sec-Purpose: prefetch;prerender", fresh, Reason::Speculative),
        (503, "Sec-Purpose: prefetch", fresh, Reason::Speculative),
        (200, "", "Cache-Control: max-age=9, no-store", Reason::NoStore),
        (200, "", "CDN-Cache-Control: no-store\nCache-Control: max-age=9", Reason::NoStore),
        (200, "", "Surrogate-Control: no-store\nCache-Control: max-age=9", Reason::NoStore),
        (200, "", "Cache-Control: private, max-age=9", Reason::Private),
        (200, "", "Cache-Control: private=\"a\", max-age=9", Reason::Private),
        (200, "", "CDN-Cache-Control: private\nCache-Control: max-age=9", Reason::Private),
        (200, "Authorization: x", fresh, Reason::Authorization),
        (200, "", "Cache-Control: max-age=9\nVary: a, *", Reason::VaryAll),
        (599, "", "Cache-Control: must-understand, max-age=9", Reason::NotUnderstood),
        (200, "", "Set-Cookie: a=b\nETag: \"a\"", Reason::SetCookie),
        (200, "Cookie: a=b", "ETag: \"a\"", Reason::Cookie),
        (200, "", "", Reason::Unusable),
        (200, "", "Cache-Control: max-age=0", Reason::Unusable),
        (200, "", "Cache-Control: max-age=9, no-cache", Reason::Unusable),
        (404, "", "", Reason::Unusable),
        (502, "", "Last-Modified: @-1000\nDate: @0", Reason::Uncacheable),
        (599, "", "ETag: \"a\"", Reason::Uncacheable),
    ];
    for (status, request, response, reason) in no {
        assert_eq!(plain(status, request, response), Storable::No(reason), "{response}");
    }
    let post = storable(
        &Method::POST,
        &HeaderMap::new(),
        StatusCode::OK,
        &fields(fresh),
        &Settings::default(),
    );
    assert_eq!(post, Storable::No(Reason::Method));
}

#[test]
fn errors_for_a_while_if_the_operator_says_so() {
    let settings = Settings { negative_ms: Some(1000), ..Settings::default() };
    for status in [404, 410, 500, 503] {
        assert_eq!(judge(status, "", "", &settings), Storable::Yes, "{status}");
    }
    for status in [200, 400, 401, 403, 405, 429, 431, 451] {
        assert_ne!(judge(status, "", "", &settings), Storable::Yes, "{status}");
    }
    assert_ne!(judge(404, "Authorization: x", "", &settings), Storable::Yes);
}

#[test]
fn a_rule_shares_nothing_that_a_cookie_made() {
    let ruled = |ttl| Settings { ttl, negative_ms: Some(1000), ..Settings::default() };
    let ttl = crate::Ttl::default();
    let rules = [
        ruled(crate::Ttl { fixed_ms: Some(1000), ..ttl }),
        ruled(crate::Ttl { min_ms: Some(1000), ..ttl }),
    ];
    let dated = "Last-Modified: @-1000\nDate: @0";
    // Whether it is stored though it sets a cookie, or answers a request with one.
    let table = [
        (200, "ETag: \"a\"", false, false),
        (200, "Cache-Control: max-age=0\nETag: \"a\"", false, false),
        (200, "Expires: 0\nETag: \"a\"", false, false),
        (200, dated, false, true),
        // Nothing is guessed of these.
        (200, "Cache-Control: max-age=0\nLast-Modified: @-1000\nDate: @0", false, false),
        (200, "Expires: 0\nLast-Modified: @-1000\nDate: @0", false, false),
        (200, "Last-Modified: @0\nDate: @0", false, false),
        (404, "ETag: \"a\"", false, false),
        (500, "ETag: \"a\"", false, false),
        (200, "Cache-Control: public\nETag: \"a\"", true, true),
        (200, "Cache-Control: max-age=1", true, true),
        (200, "Cache-Control: max-age=0, stale-while-revalidate=9", true, true),
        (200, "Cache-Control: max-age=0, stale-if-error=9\nETag: \"a\"", true, true),
        (200, "Cache-Control: max-age=0, stale-if-error=0\nETag: \"a\"", false, false),
    ];
    // Asked for first each time, where no rule names a time for which it is not. Of what sets a cookie,
    // no rule takes that back.
    let asked_first = (200, "Cache-Control: max-age=0, no-cache\nETag: \"a\"", true, false);
    let table = || table.into_iter().chain([asked_first]);
    for settings in rules {
        for (status, lines, sets, answers) in table() {
            let setting = format!("{lines}\nSet-Cookie: a=b");
            let stored = judge(status, "", &setting, &settings) == Storable::Yes;
            assert_eq!(stored, sets, "{setting}");
            let answered = judge(status, "Cookie: a=b", lines, &settings) == Storable::Yes;
            assert_eq!(answered, answers, "{status} {lines}");
        }
    }
    // One for what has a lifetime names none.
    let (none, following) = (ruled(ttl), Settings { while_revalidate_ms: 1000, ..ruled(ttl) });
    for (status, lines, ..) in table() {
        let setting = format!("{lines}\nSet-Cookie: a=b");
        for (request, lines) in [("", &*setting), ("Cookie: a=b", lines)] {
            let judged = |settings| judge(status, request, lines, settings);
            assert_eq!(judged(&following), judged(&none), "{status} {request} {lines}");
        }
    }
}

/// What was made for a cookie, sets one, or answers credentials, by all ways in which a stored answer
/// reaches somebody else: none of them goes where no fresh hit would, but by the origin's own word.
#[test]
fn what_one_client_was_given_reaches_others_by_no_way_that_the_origin_has_not_named() {
    // Nobody's; to a stranger while fresh, behind its back, for a failure, before a slow answer.
    let table = [
        ("max-age=9", true, [true, false, true, true]),
        ("max-age=9, stale-while-revalidate=9", true, [true, true, true, true]),
        ("max-age=9, must-revalidate", true, [true, false, false, false]),
        ("max-age=9, proxy-revalidate", true, [true, false, false, false]),
        ("s-maxage=9", true, [true, false, false, false]),
        ("s-maxage=9, stale-if-error=9", true, [true, false, true, false]),
        ("public, max-age=0", true, [false, false, false, false]),
        ("public, max-age=0, stale-if-error=9", true, [false, false, true, false]),
        ("max-age=0", true, [false, false, false, false]),
        ("max-age=x", true, [false, false, false, false]),
        ("max-age=0, stale-while-revalidate=9", true, [false, true, false, false]),
        ("max-age=0, stale-if-error=9", true, [false, false, true, false]),
        ("max-age=0, stale-if-error=0", true, [false, false, false, false]),
        ("max-age=0, must-revalidate, stale-if-error=9", true, [false, false, false, false]),
        ("max-age=9, no-cache", true, [false, false, false, false]),
        ("private, max-age=9", false, [false, false, false, false]),
        ("no-store, max-age=9", false, [false, false, false, false]),
        ("stale-if-error=9", false, [false, false, true, false]),
        ("", false, [false, false, false, false]),
    ];
    let settings = Settings::default();
    let bob = fields("Cookie: bob");
    for (control, is_shared, ways) in table {
        for (request, sets) in
            [("", ""), ("Cookie: a", ""), ("", "Set-Cookie: a"), ("Cookie: a", "Set-Cookie: a")]
        {
            let lines = format!("ETag: \"a\"\nCache-Control: {control}\n{sets}");
            let told = format!("{request} {lines}");
            let is_of_one = !request.is_empty() || !sets.is_empty();
            let verdict = plain(200, request, &lines);
            if !is_shared && is_of_one {
                assert_ne!(verdict, Storable::Yes, "{told}");
                continue;
            }
            if verdict != Storable::Yes {
                assert!(!is_shared, "{told}");
                continue;
            }
            let stored = crate::test_fields::stored(&lines);
            let (soon, later) =
                (crate::test_fields::NOW_MS + 1000, crate::test_fields::NOW_MS + 12_000);
            let late = if ways[0] { later } else { soon };
            let used = |now_ms| crate::reuse(&bob, &stored, now_ms, &settings, None);
            let is_used = [
                used(soon) == crate::Reuse::Fresh,
                used(late) == crate::Reuse::StaleWhileRevalidate,
                crate::stale_on_error(&bob, &stored, late, &settings, None),
                crate::stale_when_slow(&bob, &stored, late, &settings, None),
            ];
            assert_eq!(is_used, ways, "{told}");
            // Nor by what the stranger says.
            for wish in ["max-stale", "stale-if-error=99"] {
                let wish = fields(&format!("Cache-Control: {wish}"));
                let takes = crate::reuse(&wish, &stored, soon, &settings, None)
                    == crate::Reuse::StaleAccepted
                    || crate::stale_on_error(&wish, &stored, soon, &settings, None);
                assert!(!takes || ways[0] || ways[2], "{told}");
            }
        }
        // Credentials: what does not allow it by name is not stored at all.
        let lines = format!("ETag: \"a\"\nCache-Control: {control}");
        let names = ["public", "must-revalidate", "s-maxage"];
        let allows =
            names.iter().any(|name| control.contains(name) && !control.contains("private"));
        let stored = plain(200, "Authorization: a", &lines) == Storable::Yes;
        assert_eq!(stored, allows, "{lines}");
    }
}
