//! What a 304, or the answer to a HEAD, makes of what is stored.

use super::*;
use crate::test_fields::{NOW_MS, fields, stored};

const LATER_MS: i64 = NOW_MS + 5000;

fn renew(known: &str, new: &str) -> Option<Stored> {
    match asked("", known, new) {
        Renewal::Shared(renewed) => Some(renewed),
        Renewal::Alone { .. } | Renewal::Changed => None,
    }
}

fn asked(request: &str, known: &str, new: &str) -> Renewal {
    let (request, settings) = (fields(request), Settings::default());
    refreshed(later(&request, &settings), &stored(known), &fields(new))
}

fn later<'a>(request: &'a HeaderMap, settings: &'a Settings) -> Exchange<'a> {
    Exchange { request, settings, requested_ms: LATER_MS - 10, received_ms: LATER_MS }
}

/// RFC 9111 section 4.3.4.
#[test]
fn a_304_selects_by_its_validators() {
    let yes = [
        ("ETag: \"a\"", "ETag: \"a\""),
        ("ETag: W/\"a\"", "ETag: \"a\""),
        ("ETag: \"a\"", ""),
        ("ETag: \"a\"", "Last-Modified: @-9"),
        ("Last-Modified: @-9", "Last-Modified: @-9"),
        ("Last-Modified: @-9", ""),
        ("Last-Modified: last week", "Last-Modified: last week"),
    ];
    for (known, new) in yes {
        assert!(renew(known, new).is_some(), "{known} / {new}");
    }
    let no = [
        ("ETag: \"a\"", "ETag: \"b\""),
        ("ETag: W/\"a\"", "ETag: W/\"b\""),
        ("ETag: \"a\"", "ETag: \"a\"\nETag: \"b\""),
        ("Last-Modified: @-9", "ETag: \"a\""),
        ("Last-Modified: @-9", "Last-Modified: @-8"),
        ("", "Last-Modified: @-8"),
        ("Last-Modified: @-9", "Last-Modified: last week"),
        ("Last-Modified: last week", "Last-Modified: this week"),
        ("Last-Modified: @-9", "Last-Modified: @-9\nLast-Modified: @-8"),
    ];
    for (known, new) in no {
        assert_eq!(renew(known, new), None, "{known} / {new}");
    }
}

#[test]
fn a_head_does_not_grow_with_the_304s_that_renew_it() {
    let new = "ETag: \"a\"\nVia: 1.1 x\nVia: 1.1 y\nWarning: 110 - a\nSet-Cookie: b=c\n\
               Cache-Control: max-age=9";
    let (request, settings, new) = (HeaderMap::new(), Settings::default(), fields(new));
    let renew = |known: &Stored| match refreshed(later(&request, &settings), known, &new) {
        Renewal::Shared(renewed) => renewed,
        other => panic!("{other:?}"),
    };
    let once = renew(&stored("ETag: \"a\"\nVia: 1.1 x\nAge: 9"));
    let again = (0..1000).fold(once.clone(), |known, _| renew(&known));
    assert_eq!(again, once);
}

/// RFC 9111 section 3.2, and the suite's update304.
#[test]
fn a_304_renews_the_head_but_not_what_describes_the_bytes() {
    let known = "ETag: \"a\"\nA: 1\nB: 1\nB: 2\nAge: 60\nDate: @-60\nContent-Length: 5\n\
                 Content-Encoding: gzip\nContent-MD5: x\nContent-Type: text/plain\nExpires: @9";
    let new = "ETag: W/\"a\"\nB: 3\nB: 4\nContent-Length: 10\nContent-Encoding: br\n\
               Content-MD5: y\nContent-Range: z\nContent-Type: text/html\nConnection: C\nC: 1\n\
               Expires: @99";
    let renewed = renew(known, new).unwrap();
    let get = |name: &str| {
        let values = renewed.fields.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("|")
    };
    let (later, expires) = (date::format(LATER_MS), date::format(NOW_MS + 99_000));
    let table = [
        ("etag", "\"a\""),
        ("a", "1"),
        ("b", "3|4"),
        ("c", ""),
        ("age", ""),
        ("connection", ""),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-md5", "x"),
        ("content-range", ""),
        ("content-type", "text/html"),
        ("date", later.to_str().unwrap()),
        ("expires", expires.to_str().unwrap()),
    ];
    for (name, wanted) in table {
        assert_eq!(get(name), wanted, "{name}");
    }
    assert_eq!((renewed.requested_ms, renewed.received_ms), (LATER_MS - 10, LATER_MS));
}

/// RFC 9110 section 8.8.2.2: of two versions of one second only the later one has a date that
/// is strong, and either may be here.
#[test]
fn a_date_that_was_weak_when_the_bytes_came_never_is_strong() {
    let weak = "Last-Modified: @-57\nDate: @0\nCache-Control: max-age=9";
    assert!(renew(weak, "Date: @2").is_some());
    for new in
        ["Date: @3", "Date: @900\nLast-Modified: @-57", "Date: @900\nCache-Control: max-age=1"]
    {
        for request in ["", "Cookie: a=b", "Authorization: x", "Cache-Control: no-store"] {
            assert_eq!(asked(request, weak, new), Renewal::Changed, "{request} / {new}");
        }
    }
    // The answer's own time counts where it tells none.
    let known = format!("Last-Modified: @{}\nDate: @-20", LATER_MS / 1000 - NOW_MS / 1000 - 60);
    assert_eq!(asked("", &known, ""), Renewal::Changed);
    let told = "Last-Modified: @-57\nDate: @3";
    assert_eq!(headed("", weak, 200, told), HeadUpdate::Unrelated);
    assert!(matches!(
        headed("", weak, 200, "Last-Modified: @-57\nDate: @2"),
        HeadUpdate::Refreshed(_)
    ));
    for strong in ["Last-Modified: @-60\nDate: @0", "ETag: \"a\"\nLast-Modified: @-9\nDate: @0"] {
        assert!(renew(strong, "Date: @900").is_some(), "{strong}");
    }
}

const TIMED: &str = "ETag: \"a\"\nCache-Control: max-age=9";

/// RFC 9111 sections 3, 3.5 and 5.2.2: the answer to one client is nobody else's.
#[test]
fn what_is_about_one_client_renews_nothing_for_others() {
    let dated = "Last-Modified: @-1000\nDate: @0";
    let public = "ETag: \"a\"\nCache-Control: public, max-age=9";
    let alone = [
        ("", dated, "Set-Cookie: a=b"),
        ("", dated, "Last-Modified: @-1000\nSet-Cookie: a=b"),
        ("", TIMED, "Set-Cookie: a=b"),
        ("", TIMED, "Cache-Control: no-cache\nSet-Cookie: a=b"),
        ("Cookie: a=b", "ETag: \"a\"", "ETag: \"a\""),
        ("Authorization: x", public, "ETag: \"a\""),
        ("Authorization: x", public, "Cache-Control: max-age=9"),
        ("Authorization: x", TIMED, "Cache-Control: max-age=9"),
        ("Cache-Control: no-store", TIMED, "Cache-Control: max-age=9"),
    ];
    let ended = [
        ("", TIMED, "Cache-Control: no-store"),
        ("", TIMED, "Cache-Control: private, max-age=9"),
        ("Cache-Control: no-store", TIMED, "Cache-Control: private=\"a\""),
        ("", TIMED, "Vary: *"),
        ("Authorization: x", public, "Vary: a, *"),
        ("", "ETag: \"a\"\nCDN-Cache-Control: max-age=9", "Cache-Control: private"),
        ("", TIMED, "CDN-Cache-Control: no-store"),
    ];
    let all = alone.iter().map(|case| (case, false));
    for ((request, known, new), expected) in all.chain(ended.iter().map(|case| (case, true))) {
        let Renewal::Alone { renewed, ends } = asked(request, known, new) else {
            panic!("{request} / {known} / {new}");
        };
        assert_eq!(ends, expected, "{request} / {known} / {new}");
        // That one gets all of it.
        let new = fields(new);
        assert!(new.iter().all(|(name, value)| renewed.fields.get(name) == Some(value)));
    }
    let shared = [
        ("", TIMED, "Cache-Control: max-age=9\nSet-Cookie: a=b"),
        ("Cookie: a=b", dated, "Last-Modified: @-1000\nA: 1"),
        ("Cookie: a=b", TIMED, "Cache-Control: no-cache\nA: 1"),
        ("Authorization: x", TIMED, "Cache-Control: s-maxage=9\nA: 1"),
        ("", TIMED, "Cache-Control: no-store, must-understand, max-age=9\nA: 1"),
        ("", TIMED, "CDN-Cache-Control: max-age=9\nCache-Control: private\nA: 1"),
    ];
    for (request, known, new) in shared {
        let is_shared = matches!(asked(request, known, new), Renewal::Shared(_));
        assert!(is_shared, "{request} / {known} / {new}");
    }
}

#[test]
fn a_304_to_a_cookie_that_says_nothing_of_time_only_renews_the_time() {
    let new = "Date: @4\nAge: 3\nUser: me";
    for known in [TIMED, "Last-Modified: @-1000\nDate: @0"] {
        let Renewal::Shared(renewed) = asked("Cookie: a=b", known, new) else {
            panic!("{known}");
        };
        assert_eq!(renewed.fields.get(AGE).unwrap(), "3");
        assert_eq!(renewed.fields.get(DATE).unwrap(), date::format(NOW_MS + 4000));
        assert!(!renewed.fields.contains_key("user"));
        assert!(renew(known, new).unwrap().fields.contains_key("user"));
    }
}

fn headed(request: &str, known: &str, status: u16, new: &str) -> HeadUpdate {
    let (request, settings) = (fields(request), Settings::default());
    let status = StatusCode::from_u16(status).unwrap();
    head_update(later(&request, &settings), &stored(known), 10, status, &fields(new))
}

#[test]
fn a_head_that_is_about_one_client_renews_nothing() {
    let table = [
        ("", TIMED, "ETag: \"a\"\nSet-Cookie: a=b", HeadUpdate::Unrelated),
        ("Authorization: x", TIMED, TIMED, HeadUpdate::Unrelated),
        ("Cookie: a=b", "ETag: \"a\"", "ETag: \"a\"", HeadUpdate::Unrelated),
        ("", TIMED, "ETag: \"a\"\nCache-Control: private", HeadUpdate::Outdated),
        ("", TIMED, "ETag: \"a\"\nVary: *", HeadUpdate::Outdated),
    ];
    for (request, known, new, expected) in table {
        assert_eq!(headed(request, known, 200, new), expected, "{request} / {known} / {new}");
    }
    for request in ["Authorization: x", "Cache-Control: no-store"] {
        for (status, new) in [(404, ""), (410, ""), (200, "ETag: \"b\"")] {
            let told = headed(request, TIMED, status, new);
            assert_eq!(told, HeadUpdate::Unrelated, "{request} / {status} / {new}");
        }
    }
}

/// RFC 9111 section 4.3.5, and the suite's updates by HEAD.
#[test]
fn answers_to_head() {
    let head = |known: &str, status: u16, new: &str| headed("", known, status, new);
    let kept = "Template-A: 1\nCache-Control: max-age=2\nETag: \"a\"";
    let said = "Cache-Control: max-age=1000\nETag: \"a\"";
    let HeadUpdate::Refreshed(new) = head(kept, 200, said) else {
        panic!("the same representation");
    };
    assert_eq!(new.fields.get("template-a").unwrap(), "1");
    assert_eq!(new.fields.get("cache-control").unwrap(), "max-age=1000");
    let tagged = "ETag: \"a\"";
    // Without a validator it may be another version of the same length.
    assert_eq!(head(tagged, 200, "Content-Length: 10"), HeadUpdate::Unrelated);
    assert_eq!(head("", 200, "Content-Length: 10"), HeadUpdate::Unrelated);
    assert!(matches!(head(tagged, 200, "ETag: \"a\""), HeadUpdate::Refreshed(_)));
    assert_eq!(head(tagged, 200, "Content-Length: 11"), HeadUpdate::Outdated);
    assert_eq!(head(tagged, 200, "Content-Length: x"), HeadUpdate::Outdated);
    assert_eq!(head(tagged, 200, "ETag: \"b\""), HeadUpdate::Outdated);
    assert_eq!(head(tagged, 200, "Content-Encoding: br"), HeadUpdate::Outdated);
    assert_eq!(head(tagged, 200, "Last-Modified: @-9"), HeadUpdate::Unrelated);
    let (known, now) = ("Last-Modified: last week", "Last-Modified: this week");
    assert_eq!(head(known, 200, now), HeadUpdate::Outdated);
    assert_eq!(head(known, 200, known), HeadUpdate::Unrelated);
    let (known, now) = ("Last-Modified: @-9", "Last-Modified: @-9\nA: 1");
    assert!(matches!(head(known, 200, now), HeadUpdate::Refreshed(_)));
    assert_eq!(head(tagged, 410, ""), HeadUpdate::Outdated);
    assert_eq!(head(tagged, 503, ""), HeadUpdate::Unrelated);
    assert_eq!(head(tagged, 304, ""), HeadUpdate::Unrelated);
}
