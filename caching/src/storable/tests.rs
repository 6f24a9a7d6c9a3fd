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
        (502, "", "Last-Modified: @-1000\nDate: @0", Reason::Status),
        (599, "", "ETag: \"a\"", Reason::Status),
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
    for status in [200, 401, 429] {
        assert!(!judge(status, "", "", &settings).is_yes(), "{status}");
    }
    assert!(!judge(404, "Authorization: x", "", &settings).is_yes());
}

#[test]
fn a_rule_shares_nothing_that_a_cookie_made() {
    let ruled = |ttl| Settings { ttl, negative_ms: Some(1000), ..Settings::default() };
    let ttl = crate::Ttl::default();
    let rules = [
        ruled(crate::Ttl { fixed_ms: Some(1000), ..ttl }),
        ruled(crate::Ttl { min_ms: Some(1000), ..ttl }),
        Settings { while_revalidate_ms: 1000, ..ruled(ttl) },
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
        // Always asked for first, rule or not.
        (200, "Cache-Control: max-age=0, no-cache\nETag: \"a\"", true, true),
    ];
    for settings in rules {
        for (status, lines, sets, answers) in table {
            let setting = format!("{lines}\nSet-Cookie: a=b");
            assert_eq!(judge(status, "", &setting, &settings).is_yes(), sets, "{setting}");
            let answered = judge(status, "Cookie: a=b", lines, &settings).is_yes();
            assert_eq!(answered, answers, "{status} {lines}");
        }
    }
}
