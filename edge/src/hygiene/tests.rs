//! Heads as clients send them, and as attackers do.

use super::*;
use caching::{Priority, Ranges, Stored};
use http::Request;
use proptest::collection::vec;
use proptest::prelude::*;

fn head(method: &str, version: Version, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).version(version).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn h1(target: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
    check(&head("GET", Version::HTTP_11, target, fields)).map(drop)
}

const HOST: (&str, &str) = ("host", "a.example");

#[test]
fn a_browsers_request_passes() {
    let parts = head(
        "GET",
        Version::HTTP_11,
        "/film/%61?x=1",
        &[("host", "Films.Example.:8080"), ("te", "trailers")],
    );
    let target = check(&parts).unwrap();
    let host = Host { name: "films.example".into(), port: Some(8080) };
    assert_eq!(target, Target { host: Some(host), path: "/film/a".into(), query: Some("x=1") });
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let parts = head(
            "POST",
            version,
            "https://a.example/x",
            &[("te", "trailers"), ("content-length", "3")],
        );
        assert_eq!(check(&parts).unwrap().host.unwrap().name, "a.example");
    }
    assert_eq!(check(&head("GET", Version::HTTP_10, "/", &[])).unwrap().host, None);
}

#[test]
fn hosts() {
    let good = [
        ("a", "a"),
        ("A.b", "a.b"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("[0:0::1]", "[::1]"),
        ("a_b.c.", "a_b.c"),
        ("a:", "a"),
    ];
    for (text, name) in good {
        assert_eq!(Host::parse(text).map(|host| host.name).as_deref(), Ok(name), "{text}");
    }
    let long = "a".repeat(64);
    let bad = [
        "", ".", "a..b", "a b", "user@a", "a/b", "a:99999", "a:+1", "a:1:2", "[::1", "::1",
        "[::1]x", "a,b", "ä", "a%2eb", "a\tb", &long,
    ];
    for text in bad {
        assert_eq!(Host::parse(text), Err(Refusal::HostBad), "{text}");
    }
}

#[test]
fn one_host() {
    assert_eq!(h1("/", &[]), Err(Refusal::HostMissing));
    assert_eq!(h1("/", &[HOST, HOST]), Err(Refusal::HostTwice));
    assert_eq!(h1("/", &[("host", "a@b")]), Err(Refusal::HostBad));
    assert_eq!(h1("/", &[("host", "")]), Err(Refusal::HostBad));
    assert_eq!(h1("http://A.example/", &[HOST]), Ok(()));
    assert_eq!(h1("http://b.example/", &[HOST]), Err(Refusal::HostUnlike));
    assert_eq!(h1("http://a.example:81/", &[HOST]), Err(Refusal::HostUnlike));
    assert_eq!(h1("http://user@a.example/", &[HOST]), Err(Refusal::HostBad));
    let h2 = |fields: &[(&str, &str)]| {
        check(&head("GET", Version::HTTP_2, "https://a.example/", fields)).map(drop)
    };
    assert_eq!((h2(&[]), h2(&[HOST])), (Ok(()), Ok(())));
    assert_eq!(h2(&[("host", "b.example")]), Err(Refusal::HostUnlike));
    assert_eq!(check(&head("GET", Version::HTTP_2, "/", &[])), Err(Refusal::HostMissing));
}

#[test]
fn targets_and_methods() {
    let of = |method: &str, target: &str| {
        check(&head(method, Version::HTTP_11, target, &[HOST])).map(drop)
    };
    assert_eq!(of("CONNECT", "a.example:443"), Err(Refusal::Method));
    assert_eq!(of("TRACE", "/"), Err(Refusal::Method));
    assert_eq!(of("OPTIONS", "*"), Err(Refusal::TargetForm));
    assert_eq!(of("GET", "a.example:80"), Err(Refusal::HostUnlike));
    assert_eq!(of("GET", "a.example"), Err(Refusal::TargetForm));
    assert_eq!(of(&"A".repeat(33), "/"), Err(Refusal::MethodTooLong));
    assert_eq!(of("GET", "ftp://a.example/"), Err(Refusal::Scheme));
    assert_eq!(of("GET", "HTTPS://a.example/"), Ok(()));
    assert_eq!(of("BREW", "/pot"), Ok(()));
    assert_eq!(of("GET", "/%2e%2e/x"), Err(Refusal::HiddenDots));
    assert_eq!(
        of("GET", &format!("/{}", "a".repeat(TARGET_BYTES_MAX))),
        Err(Refusal::TargetTooLong)
    );
}

#[test]
fn lengths_and_codings() {
    let of = |fields: &[(&str, &str)]| h1("/", &[&[HOST], fields].concat());
    assert_eq!(of(&[("content-length", "5")]), Ok(()));
    assert_eq!(of(&[("content-length", "5"), ("content-length", "5")]), Ok(()));
    assert_eq!(
        of(&[("content-length", "5"), ("content-length", "6")]),
        Err(Refusal::LengthsUnlike)
    );
    for odd in ["+5", "-1", "5, 5", "0x5", "5.0", " ", "5_0", "99999999999999999999"] {
        assert_eq!(of(&[("content-length", odd)]), Err(Refusal::LengthBad), "{odd}");
    }
    assert_eq!(of(&[("transfer-encoding", "Chunked")]), Ok(()));
    for odd in
        ["identity", "gzip, chunked", "chunked, chunked", "chunked;a=b", "xchunked", "\"chunked\""]
    {
        assert_eq!(of(&[("transfer-encoding", odd)]), Err(Refusal::Coding), "{odd}");
    }
    assert_eq!(
        of(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
        Err(Refusal::Coding)
    );
    assert_eq!(of(&[("content_length", "5")]), Err(Refusal::LookAlike));
    assert_eq!(of(&[("expect", "100-Continue")]), Ok(()));
    assert_eq!(of(&[("expect", "teapot")]), Err(Refusal::Expectation));
    assert_eq!(of(&[("upgrade", "h2c"), ("connection", "upgrade")]), Ok(()));
}

#[test]
fn connection_fields_have_no_place_in_http_2_and_3() {
    for version in [Version::HTTP_2, Version::HTTP_3] {
        for (name, value) in [
            ("connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("te", "gzip"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
        ] {
            let parts = head("GET", version, "https://a.example/", &[(name, value)]);
            assert_eq!(check(&parts), Err(Refusal::ConnectionField), "{name}");
        }
    }
}

#[test]
fn header_bombs() {
    let many: Vec<_> = (0..FIELDS_MAX).map(|number| format!("x-{number}")).collect();
    let fields: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).chain([HOST]).collect();
    assert_eq!(h1("/", &fields), Err(Refusal::FieldsTooMany));
    let long = "a".repeat(FIELDS_BYTES_MAX);
    assert_eq!(h1("/", &[HOST, ("x", &long)]), Err(Refusal::FieldsTooLong));
}

#[test]
fn codes_are_one_to_a_refusal() {
    use Refusal as R;
    let all = [
        R::Method,
        R::MethodTooLong,
        R::TargetForm,
        R::TargetTooLong,
        R::BrokenEscape,
        R::ControlByte,
        R::HiddenSeparator,
        R::HiddenDots,
        R::AboveRoot,
        R::HostMissing,
        R::HostTwice,
        R::HostBad,
        R::HostUnlike,
        R::LengthBad,
        R::LengthsUnlike,
        R::LengthsTwoWays,
        R::Coding,
        R::ConnectionField,
        R::LookAlike,
        R::FieldsTooLong,
        R::FieldsTooMany,
        R::Expectation,
    ];
    let codes: std::collections::BTreeSet<_> =
        all.iter().map(|refusal| refusal.parts().1).collect();
    assert_eq!(codes.len(), all.len());
    assert!(all.iter().all(|refusal| refusal.parts().0.is_client_error()
        || refusal.parts().0 == StatusCode::NOT_IMPLEMENTED));
}

/// Names that mean something to somebody, and such as look like them; not taken from [`SAID`], which
/// may lack one.
const NAMES: [&str; 51] = [
    "cache-control",
    "cdn-loop",
    "cmcd-object",
    "cmcd-request",
    "cmcd-session",
    "cmcd-status",
    "connection",
    "content-length",
    "content_length",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "priority",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "transfer_encoding",
    "upgrade",
    "via",
    "x_forwarded_host",
    "accept",
    "accept-encoding",
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "x-forwarded-host",
    "x_forwarded-host",
    "content-type",
    "content-range",
    "content-encoding",
    "surrogate-capability",
    "if",
    "if-schedule-tag-match",
    "rangex",
    "max-forwards",
    "warning",
    "date",
    "age",
    "alt-used",
    "http2-settings",
    "save-data",
    "early-data",
    "x-a",
];
const VALUES: [&str; 12] = [
    "",
    "a.example",
    "no-cache",
    "max-age=0",
    "no-store, only-if-cached",
    "bytes=0-1",
    "\"a\"",
    "*",
    "u=0, i",
    "chunked",
    "edge-a",
    "100-continue",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What counts as saying nothing is refused by nobody, and nobody finds anything in it.
    #[test]
    fn who_says_nothing_says_nothing_to_anybody(
        version in prop_oneof![Just(Version::HTTP_11), Just(Version::HTTP_2), Just(Version::HTTP_3)],
        fields in vec((0..NAMES.len(), 0..VALUES.len()), 0..3),
    ) {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (NAMES[*name], VALUES[*value])).collect();
        let is_multiplexed = version != Version::HTTP_11;
        let target = if is_multiplexed { "https://a.example/" } else { "/" };
        let parts = head("GET", version, target, &fields);
        let request = &parts.headers;
        if plain_host(request, is_multiplexed).is_none() {
            return Ok(());
        }
        let of_host = [Refusal::HostMissing, Refusal::HostBad, Refusal::HostUnlike];
        let refused = check(&parts).err().filter(|refusal| !of_host.contains(refusal));
        prop_assert_eq!(refused, None);
        let (settings, nothing) = (caching::Settings::default(), HeaderMap::new());
        let fresh = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("max-age=9"))]);
        let stored = Stored { status: StatusCode::OK, fields: fresh, requested_ms: 0, received_ms: 0 };
        for (now_ms, purged_ms) in [(0, None), (0, Some(0)), (20_000, None)] {
            let told = |request| caching::reuse(request, &stored, now_ms, &settings, purged_ms);
            prop_assert_eq!(told(request), told(&nothing));
        }
        prop_assert_eq!(caching::Wishes::of(request, &settings), caching::Wishes::default());
        prop_assert!(!caching::is_conditional(request));
        let mut told = HeaderMap::from_iter([(caching::SURROGATE_CONTROL, HeaderValue::from_static("max-age=1"))]);
        caching::keep_surrogate_control(request, &mut told);
        prop_assert!(told.is_empty());
        prop_assert_eq!(caching::ranges(request, 100, 9), Ranges::Whole);
        prop_assert!(caching::if_range(request, &stored));
        prop_assert_eq!(Priority::of_request(request), Priority::default());
        let found = caching::loops(request, "edge-a", false);
        prop_assert_eq!((found.own, found.hops), (0, 0));
    }
}
