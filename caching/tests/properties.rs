//! What holds for any fields that a client or an origin may send.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use nearcast_caching::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const NOW_MS: i64 = 1_795_244_400_000;

/// Fields that some function of the crate reads, or that must be left alone.
const NAMES: [&str; 41] = [
    "accept-encoding",
    "accept-language",
    "age",
    "authorization",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cache-tag",
    "cdn-cache-control",
    "cdn-loop",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "cookie",
    "date",
    "etag",
    "expires",
    "foo",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "last-modified",
    "location",
    "pragma",
    "priority",
    "range",
    "set-cookie",
    "surrogate-control",
    "surrogate-key",
    "te",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
];

/// Pieces that values are made of: they meet more branches than random bytes do.
const PIECES: [&str; 44] = [
    "max-age=",
    "s-maxage=",
    "stale-while-revalidate=",
    "stale-if-error=",
    "max-stale",
    "min-fresh=",
    "no-cache",
    "no-store",
    "private",
    "public",
    "must-revalidate",
    "immutable",
    "must-understand",
    "only-if-cached",
    "=",
    "\"",
    "\\",
    ",",
    ", ",
    ";",
    " ",
    "*",
    "0",
    "5",
    "3600",
    "99999999999999999999",
    "-1",
    "W/",
    "\"a\"",
    "\"b\"",
    "bytes=",
    "bytes ",
    "0-4",
    "-5",
    "/10",
    "gzip",
    "de",
    "q=0.5",
    "Foo",
    "/a/../b?c",
    "http://a.example/x",
    "u=1, i",
    "Sat, 21 Nov 2026 07:00:00 GMT",
    "Sat, 21 Nov 2026 06:00:00 GMT",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(select(&PIECES[..]), 0..8).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..40),
    ]
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    vec((select(&NAMES[..]), value()), 0..12).prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(&value).expect("no control characters");
            fields.append(HeaderName::from_static(name), value);
        }
        fields
    })
}

fn stored() -> impl Strategy<Value = Stored> {
    let status = select(vec![200_u16, 203, 204, 206, 301, 404, 410, 500, 503, 599]);
    (status, fields(), -5000_i64..5000).prop_map(|(status, fields, delay_ms)| Stored {
        status: StatusCode::from_u16(status).expect("a status"),
        fields,
        requested_ms: NOW_MS - delay_ms,
        received_ms: NOW_MS,
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let some_ms = || prop::option::of(prop_oneof![Just(0), 1..100_000_i64, Just(i64::MAX)]);
    (some_ms(), some_ms(), some_ms(), some_ms(), any::<bool>()).prop_map(
        |(fixed_ms, min_ms, max_ms, negative_ms, request_directives)| Settings {
            ttl: Ttl { fixed_ms, min_ms, max_ms },
            negative_ms,
            request_directives,
            ..Settings::default()
        },
    )
}

/// Every function once.
fn run_all(request: &HeaderMap, stored: &Stored, now_ms: i64, settings: &Settings) {
    let response = &stored.fields;
    let hop = Hop { version: Version::HTTP_2, name: "edge-1" };
    let _ = storable(&Method::GET, request, stored.status, response, settings);
    let _ = reuse(request, stored, now_ms, settings, None);
    let _ = reuse(request, stored, now_ms, settings, Some(now_ms));
    let _ = stale_on_error(request, stored, now_ms, settings, Some(now_ms));
    let _ = Wishes::of(request, settings);
    let facts = Facts::of(stored, settings);
    let _ = facts.reused_fields(stored, now_ms);
    let _ = (strong_validator(stored), revalidation_fields(stored, now_ms));
    let _ = same_validator(stored, request);
    let exchange = Exchange { request, settings, requested_ms: now_ms, received_ms: now_ms };
    let _ = refreshed(exchange, stored, request);
    let _ = head_update(exchange, stored, 10, StatusCode::OK, request);
    let _ = precondition(&Method::GET, request, stored);
    let _ = if_range(request, stored);
    let _ = not_modified_fields(response);
    let _ =
        selecting(response, request, |_| true).map(|s| selects(&s, response, request, |_| true));
    let _ = forward_request(request, &hop);
    let _ = received_fields(response, now_ms);
    let _ = (loops(request, "edge-1", false), loops(request, "edge-1", true));
    let _ = invalidated(&Method::POST, "http", "a.example", "/x", &[], StatusCode::OK, response);
    let _ = tags(response);
    let _ = Priority::of_request(request).merged(response).value();
    let _ = (ranges(request, 1000, 16), content_range(response), unsatisfied_total(response));
}

proptest! {
    #[test]
    fn nothing_panics(
        request in fields(),
        stored in stored(),
        now_ms in prop_oneof![NOW_MS - 10_000..NOW_MS + 10_000_000, any::<i64>()],
        received_ms in prop_oneof![Just(NOW_MS), any::<i64>()],
        settings in settings(),
    ) {
        run_all(&request, &Stored { received_ms, ..stored }, now_ms, &settings);
    }

    /// What is read once is what is read each time.
    #[test]
    fn facts_are_what_the_functions_say(
        request in fields(),
        stored in stored(),
        settings in settings(),
        now_ms in prop_oneof![NOW_MS - 10_000..NOW_MS + 10_000_000, any::<i64>()],
        purged_ms in proptest::option::of(prop_oneof![NOW_MS..NOW_MS + 10_000_000, any::<i64>()]),
    ) {
        let facts = Facts::of(&stored, &settings);
        prop_assert_eq!(
            facts.reuse(&request, now_ms, &settings, purged_ms),
            reuse(&request, &stored, now_ms, &settings, purged_ms)
        );
        prop_assert_eq!(facts.fresh_for_ms(now_ms), fresh_for_ms(&stored, now_ms, &settings));
        prop_assert_eq!(facts.source(), freshness(&stored, &settings).source);
        prop_assert_eq!(facts.has_strong_validator(), strong_validator(&stored).is_some());
    }

    /// RFC 9110 section 8.8.2.2: what names the bytes is what they came with, whatever is said of
    /// them later, and to whom.
    #[test]
    fn no_renewal_makes_a_validator_strong(
        request in fields(),
        stored in stored(),
        (modified_s, sent_s, renewed_s) in (-200_i64..0, 0..200_i64, 0..200_i64),
        new in fields(),
        settings in settings(),
        is_dated in any::<bool>(),
    ) {
        let (mut stored, mut new) = (stored, new);
        let date = |s: i64| {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis((NOW_MS + s * 1000).cast_unsigned());
            HeaderValue::try_from(httpdate::fmt_http_date(at)).expect("a date")
        };
        if is_dated {
            stored.fields.remove("etag");
            stored.fields.insert("last-modified", date(modified_s));
            stored.fields.insert("date", date(modified_s + sent_s));
            new.remove("etag");
            new.remove("last-modified");
            new.insert("date", date(modified_s + sent_s + renewed_s));
        }
        let settings = &settings;
        let exchange = Exchange { request: &request, settings, requested_ms: NOW_MS, received_ms: NOW_MS };
        let renewed = match refreshed(exchange, &stored, &new) {
            Renewal::Shared(renewed) | Renewal::Alone { renewed, .. } => Some(renewed),
            Renewal::Changed => None,
        };
        let by_head = match head_update(exchange, &stored, 10, StatusCode::OK, &new) {
            HeadUpdate::Refreshed(renewed) => Some(renewed),
            HeadUpdate::Outdated | HeadUpdate::Unrelated => None,
        };
        for renewed in [renewed, by_head].into_iter().flatten() {
            let gained = strong_validator(&renewed);
            prop_assert!(gained.is_none() || strong_validator(&stored).is_some(), "{renewed:?}");
        }
    }

    /// RFC 9111 section 4.2: time only makes a response staler.
    #[test]
    fn stale_stays_stale(
        request in fields(),
        stored in stored(),
        settings in settings(),
        (early_s, later_s) in (0..10_000_i64, 0..10_000_i64),
        purged_ms in proptest::option::of(NOW_MS..NOW_MS + 10_000_000),
    ) {
        let (now_ms, then_ms) = (NOW_MS + early_s * 1000, NOW_MS + (early_s + later_s) * 1000);
        prop_assert!(age_ms(&stored, then_ms) >= age_ms(&stored, now_ms));
        prop_assert!(age_ms(&stored, now_ms) >= 0);
        let now_left = fresh_for_ms(&stored, now_ms, &settings);
        prop_assert!(fresh_for_ms(&stored, then_ms, &settings) <= now_left);
        let serves = |at_ms| {
            matches!(
                reuse(&request, &stored, at_ms, &settings, purged_ms),
                Reuse::Fresh | Reuse::StaleWhileRevalidate | Reuse::StaleAccepted
            )
        };
        prop_assert!(serves(now_ms) || !serves(then_ms));
        let on_error = |at_ms| stale_on_error(&request, &stored, at_ms, &settings, purged_ms);
        prop_assert!(on_error(now_ms) || !on_error(then_ms));
    }

    /// A soft purge, `no-cache`, `no-store` and `private` only ever take away.
    #[test]
    fn restrictions_restrict(request in fields(), stored in stored(), settings in settings()) {
        let fresh = |stored: &Stored, soft| reuse(&request, stored, NOW_MS, &settings, soft) == Reuse::Fresh;
        prop_assert!(!fresh(&stored, Some(NOW_MS)));
        for (word, keeps) in [("no-cache", true), ("no-store", false), ("private", false)] {
            let mut strict = stored.clone();
            strict.fields.remove("cdn-cache-control");
            strict.fields.remove("surrogate-control");
            strict.fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=9"));
            strict.fields.append(CACHE_CONTROL, HeaderValue::from_static(word));
            if keeps {
                // But for so long as an operator's rule says.
                let told = freshness(&strict, &settings);
                let rules = [Source::Fixed, Source::Min, Source::Negative];
                let is_ruled = told.lifetime_ms > 0 && rules.contains(&told.source);
                let stands_in = |at_ms| stale_on_error(&request, &strict, at_ms, &settings, None);
                prop_assert!(is_ruled || !(fresh(&strict, None) || stands_in(NOW_MS)));
                let later_ms = NOW_MS.saturating_add(told.lifetime_ms);
                for at_ms in [NOW_MS, later_ms] {
                    let is_over = fresh_for_ms(&strict, at_ms, &settings) <= 0;
                    prop_assert!(!(is_over && stands_in(at_ms)));
                }
            } else {
                let verdict = storable(&Method::GET, &request, strict.status, &strict.fields, &settings);
                prop_assert_ne!(verdict, Storable::Yes);
            }
        }
    }

    /// RFC 9111 section 4.1: the request that was stored with a variant selects it.
    #[test]
    fn a_request_selects_its_own_variant(request in fields(), response in fields()) {
        if let Some(selecting) = selecting(&response, &request, |_| true) {
            prop_assert!(selects(&selecting, &response, &request, |_| true));
            prop_assert!(selecting.len() <= SELECTING_MAX);
            prop_assert!(!response.get_all(VARY).iter().any(|line| line == "*"));
        }
    }

    /// RFC 9111 section 3.2: what describes the stored bytes outlives a 304. Section 3: and what
    /// it brings to others is what a 200 would.
    #[test]
    fn a_304_keeps_what_describes_the_bytes(
        stored in stored(),
        request in fields(),
        new in fields(),
    ) {
        let settings = Settings::default();
        let exchange =
            Exchange { request: &request, settings: &settings, requested_ms: NOW_MS, received_ms: NOW_MS };
        let renewed = match refreshed(exchange, &stored, &new) {
            Renewal::Changed => return Ok(()),
            Renewal::Alone { renewed, .. } => renewed,
            Renewal::Shared(renewed) => {
                let (status, fields) = (renewed.status, &renewed.fields);
                let storable = storable(&Method::GET, &request, status, fields, &settings);
                let is_of_one = [Reason::Status, Reason::Uncacheable].map(Storable::No);
                let is_kept = storable == Storable::Yes || is_of_one.contains(&storable);
                prop_assert!(is_kept, "{:?}", storable);
                renewed
            }
        };
        for name in ["etag", "content-encoding", "content-range", "content-length"] {
            let (known, kept) = (stored.fields.get_all(name), renewed.fields.get_all(name));
            prop_assert!(known.iter().eq(kept.iter()), "{}", name);
        }
        prop_assert!(renewed.fields.contains_key("date"));
        prop_assert_eq!(renewed.status, stored.status);
    }

    /// RFC 9110 section 7.6.1, RFC 8586.
    #[test]
    fn the_next_hop_sees_no_connection_fields_and_where_the_request_was(request in fields()) {
        let hop = Hop { version: Version::HTTP_11, name: "edge-1" };
        let mut sent = forward_request(&request, &hop);
        add_to_loop(&mut sent, hop.name, false);
        for name in ["connection", "keep-alive", "te", "transfer-encoding", "upgrade", "host"] {
            prop_assert!(!sent.contains_key(name), "{}", name);
        }
        prop_assert!(!sent.contains_key(CONTENT_LENGTH));
        let (before, after) = (loops(&request, hop.name, false), loops(&sent, hop.name, false));
        prop_assert!(after.refuse() && after.hops == before.hops + 1);
        prop_assert_eq!(loops(&sent, hop.name, true), Loop { own: 1, hops: 1 });
        prop_assert_eq!(sent.get("authorization"), request.get("authorization"));
    }

    /// RFC 9110 section 14.2: parts lie within, do not overlap, and cover what was asked for.
    #[test]
    fn parts_cover_exactly_what_was_asked(
        pairs in vec((0_u64..60, 0_u64..60, any::<bool>()), 1..10),
        bytes in 0_u64..50,
    ) {
        let spec = |&(first, length, suffix): &(u64, u64, bool)| {
            if suffix { format!("-{length}") } else { format!("{first}-{}", first + length) }
        };
        let specs: Vec<String> = pairs.iter().map(spec).collect();
        let mut request = HeaderMap::new();
        let value = format!("bytes={}", specs.join(","));
        request.insert("range", HeaderValue::try_from(value).expect("ASCII"));
        let wanted = |byte: u64| {
            pairs.iter().any(|&(first, length, suffix)| match suffix {
                true => byte + length >= bytes,
                false => (first..=first + length).contains(&byte),
            })
        };
        let mut covered = vec![0; usize::try_from(bytes).expect("small")];
        match ranges(&request, bytes, 10) {
            Ranges::Parts(parts) => {
                for part in parts {
                    prop_assert!(part.bytes > 0 && part.fits(bytes));
                    for byte in part.start..part.end() {
                        covered[usize::try_from(byte).expect("small")] += 1;
                    }
                }
            }
            verdict => prop_assert_eq!(verdict, Ranges::Unsatisfiable),
        }
        for (byte, times) in (0..bytes).zip(covered) {
            prop_assert_eq!(times, i32::from(wanted(byte)), "byte {}", byte);
        }
    }

    #[test]
    fn statuses_are_structured_fields(
        name in ".{0,20}",
        text in ".{0,40}",
        ttl_s in prop::option::of(any::<i64>()),
        hit in any::<bool>(),
    ) {
        let text = Some(text.as_str());
        let status = CacheStatus { hit, ttl_s, key: text, detail: text, ..CacheStatus::default() };
        let value = status.value(&name);
        prop_assert!(sfv::Parser::new(value.as_bytes()).parse::<sfv::List>().is_ok());
        let error = ProxyError::DnsError;
        let value = ProxyStatus { error, details: text, next_hop: text, received_status: None };
        let value = value.value(&name);
        prop_assert!(sfv::Parser::new(value.as_bytes()).parse::<sfv::List>().is_ok());
    }
}

/// Fields of a megabyte in all: whatever took time out of proportion to them would stand out as a
/// test that takes minutes.
#[test]
fn header_bombs_are_read_in_one_pass() {
    let bombs =
        [",", "\"", "a,", "\",", "a=\"b\",", "\\\"", "Foo,", "../", "(", "0-1,", ";q=1,", " "];
    for bomb in bombs {
        let mut fields = HeaderMap::new();
        for name in NAMES {
            let value = bomb.repeat(25_000 / bomb.len());
            let prefix = if name == "range" { "bytes=" } else { "" };
            let value = HeaderValue::try_from(format!("{prefix}{value}")).expect("ASCII");
            fields.append(HeaderName::from_static(name), value);
        }
        let stored = Stored {
            status: StatusCode::OK,
            fields: fields.clone(),
            requested_ms: NOW_MS,
            received_ms: NOW_MS,
        };
        run_all(&fields, &stored, NOW_MS, &Settings::default());
    }
}

/// A map with as many fields as it can hold: additions are dropped, not fatal.
#[test]
fn a_full_map_is_no_panic() {
    let mut fields = HeaderMap::new();
    let line = |n: usize| (format!("f{n}"), HeaderValue::from_static("1"));
    for (name, value) in (0..40_000).map(line) {
        let name = HeaderName::try_from(name).expect("a field name");
        if fields.try_append(name, value).is_err() {
            break;
        }
    }
    let stored =
        Stored { status: StatusCode::OK, fields, requested_ms: NOW_MS, received_ms: NOW_MS };
    run_all(&stored.fields, &stored, NOW_MS, &Settings::default());
    let mut fields = stored.fields.clone();
    CacheStatus::default().append("e", &mut fields);
    append_via(&mut fields, &Hop { version: Version::HTTP_11, name: "e" });
}
