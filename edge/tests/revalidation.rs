//! Stories of what may be used again, for whom and for how long, as the origin and the
//! operator's rules say.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, Item, Proxy, Validator, Web, ask, content, get, proxy_settings, until};
use http::Method;
use serde_json::json;

const PAGE: &str = "/page";

async fn with(item: Item) -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, item);
    proxy
}

async fn verdicts(proxy: &Proxy, path: &str, count: usize) -> Vec<String> {
    let mut verdicts = Vec::new();
    for _ in 0..count {
        verdicts.push(proxy.get(path).await.verdict().to_owned());
    }
    verdicts
}

#[tokio::test]
async fn a_304_freshens_what_is_stored_with_its_own_fields() {
    let validators = [
        (Validator::Strong, "if-none-match", "\"v1\""),
        (Validator::Weak, "if-none-match", "W/\"v1\""),
        (Validator::Date, "if-modified-since", "Mon, 01 Jan 2024 01:00:00 GMT"),
    ];
    for (validator, field, value) in validators {
        let proxy = with(Item::stale(5000, "").validator(validator).field("x-a", "old")).await;
        let first = proxy.get(PAGE).await;
        proxy.web.put(PAGE, Item::of(5000).validator(validator).field("x-a", "new"));
        let second = proxy.get(PAGE).await;
        assert_eq!((second.verdict(), second.header("x-a")), ("revalidated", "new"));
        assert!(second.header("cache-status").contains("fwd=stale;fwd-status=304"), "{second:?}");
        let third = proxy.get(PAGE).await;
        assert_eq!((third.verdict(), third.header("x-a")), ("hit-memory", "new"));
        assert!([&second, &third].iter().all(|answer| answer.bytes() == first.bytes()));
        let asked = proxy.web.asked_for(PAGE);
        assert_eq!((asked.len(), asked[1].field(field), asked[1].status), (2, value, 304));
    }
}

/// A `Cache-Status` without its `ttl`, and that: it is another one a part of a second later.
fn without_ttl(answer: &Answer) -> (String, Option<i64>) {
    let parts = answer.header("cache-status").split(';');
    let (ttl, others): (Vec<_>, Vec<_>) = parts.partition(|part| part.starts_with("ttl="));
    (others.join(";"), ttl.first().map(|ttl| ttl["ttl=".len()..].parse().unwrap()))
}

/// RFC 9211: why an answer that is only kept whole was asked for, and that it is kept, and for how
/// long, only where that is sure.
#[tokio::test]
async fn cache_status_of_an_answer_that_is_kept_whole() {
    let item = Item::of(3000).validator(Validator::Weak);
    let proxy = with(item.clone().vary("accept-language")).await;
    let told = async |path: &str, fields: &[(&str, &str)]| {
        let (told, ttl) = without_ttl(&proxy.get_with(path, fields).await);
        let is_stored = told.contains(";stored;") || told.contains(";hit;");
        let is_right = ttl.is_none_or(|ttl| path == "/stale" || (1..=3600).contains(&ttl));
        assert_eq!((ttl.is_some(), is_right), (is_stored, true), "{path}: {told} {ttl:?}");
        told
    };
    let expected = "edge-a;fwd=uri-miss;fwd-status=200;stored;detail=\"origin\"";
    assert_eq!(told(PAGE, &[]).await, expected);
    let expected = expected.replace("uri-miss", "vary-miss");
    assert_eq!(told(PAGE, &[("accept-language", "nl")]).await, expected);
    proxy.web.put("/reload", item.clone().validator(Validator::None));
    told("/reload", &[]).await;
    let expected = "edge-a;fwd=request;fwd-status=200;stored;detail=\"origin\"";
    assert_eq!(told("/reload", &[("cache-control", "no-cache")]).await, expected);
    proxy.web.put("/stale", Item::stale(3000, "").validator(Validator::Weak));
    told("/stale", &[]).await;
    proxy.web.change("/stale");
    assert!(told("/stale", &[]).await.starts_with("edge-a;fwd=stale;"));
    proxy.web.put("/gone", item.clone().validator(Validator::None).status(404));
    let expected = "edge-a;fwd=uri-miss;fwd-status=404;stored;detail=\"origin\"";
    assert_eq!(told("/gone", &[]).await, expected);
    let is_kept = || async { told("/gone", &[]).await.contains(";hit;").then_some(()) };
    until("a hit", is_kept).await;
    // Nobody knows whether these come whole.
    proxy.web.put("/long", Item::of(5 << 20).validator(Validator::Weak));
    proxy.web.put("/chunked", item.chunked());
    for path in ["/long", "/chunked"] {
        assert_eq!(told(path, &[]).await, "edge-a;fwd=uri-miss;fwd-status=200;detail=\"origin\"");
    }
}

/// RFC 9110 section 7.6.3: whether it is passed on, arriving, stored, or renewed.
#[tokio::test]
async fn every_answer_names_the_hops_that_it_came_by_once() {
    let kept = Item::of(3000);
    let growing = Item::of(3000).validator(Validator::None);
    for item in [kept.clone(), growing, Item::stale(3000, ""), kept.cache_control("no-store")] {
        let proxy = with(item.field("via", "1.0 packager")).await;
        let asked: [&[(&str, &str)]; 5] =
            [&[], &[], &[("range", "bytes=5-9")], &[("if-none-match", "\"v1\"")], &[]];
        for fields in asked {
            let answer = proxy.get_with(PAGE, fields).await;
            let via: Vec<_> = answer.headers.get_all("via").iter().collect();
            assert_eq!(via, ["1.0 packager", "1.1 edge-a"], "{fields:?} {answer:?}");
        }
        let passed = ask(Method::POST, &proxy.url(PAGE), &[]).await;
        let via: Vec<_> = passed.headers.get_all("via").iter().collect();
        assert_eq!(via.last().unwrap(), &"1.1 edge-a");
    }
}

#[tokio::test]
async fn a_head_does_not_grow_with_the_304s_that_renew_it() {
    let item = Item::stale(5000, "").field("via", "1.1 packager").field("x-note", "again");
    let proxy = with(item).await;
    let head_bytes = || proxy.edge.metric("nearcast_edge_heads_memory_bytes ");
    verdicts(&proxy, PAGE, 5).await;
    let measured = || async { Some(head_bytes().await).filter(|bytes| *bytes > 0.0) };
    let (before, fields) =
        (until("a measure", measured).await, proxy.get(PAGE).await.headers.len());
    assert!(verdicts(&proxy, PAGE, 300).await.iter().all(|verdict| verdict == "revalidated"));
    // The gauge is set with each batch of changes.
    let written = async || proxy.edge.metric("nearcast_edge_head_rows_written_total ").await;
    let earlier = written().await;
    let last = proxy.get(PAGE).await;
    until("another batch", || async { (written().await > earlier).then_some(()) }).await;
    assert_eq!((head_bytes().await, last.headers.len()), (before, fields));
}

#[tokio::test]
async fn another_version_takes_the_place_of_a_stale_one() {
    for validator in [Validator::Strong, Validator::Weak, Validator::Date, Validator::None] {
        let proxy = with(Item::stale(5000, "").validator(validator)).await;
        proxy.get(PAGE).await;
        proxy.web.put(PAGE, Item::of(7000).validator(validator).version(2));
        for _ in 0..3 {
            let answer = proxy.get(PAGE).await;
            assert!(answer.bytes() == &content(PAGE, 2, "", 0..7000), "{validator:?}");
        }
        assert_eq!(proxy.web.count(PAGE), 2, "{validator:?}");
    }
}

/// Found by hammering an origin whose dates had wrong weekdays: a HEAD gave the new version's
/// fields to the old one's bytes.
#[tokio::test]
async fn a_head_that_no_validator_ties_to_what_is_stored_leaves_its_fields_alone() {
    for (before, after) in [("yesterday", "today"), ("yesterday", "yesterday")] {
        let item = |version: u64, date: &str| {
            let item = Item::of(3000).validator(Validator::None).version(version);
            item.field("last-modified", date).field("x-version", &version.to_string())
        };
        let proxy = with(item(1, before)).await;
        proxy.get(PAGE).await;
        proxy.web.put(PAGE, item(2, after));
        ask(Method::HEAD, &proxy.url(PAGE), &[("cache-control", "no-cache")]).await;
        let answer = proxy.get(PAGE).await;
        let version = answer.header("x-version").parse().unwrap();
        assert!(answer.bytes() == &content(PAGE, version, "", 0..3000), "{before} {after}");
    }
}

#[tokio::test]
async fn variants_are_kept_apart_and_each_hits() {
    let proxy = with(Item::of(3000).vary("accept-language")).await;
    for round in 0..2 {
        for language in ["de", "en", "fr"] {
            let answer = proxy.get_with(PAGE, &[("accept-language", language)]).await;
            assert!(answer.bytes() == &content(PAGE, 1, language, 0..3000), "{language}");
            assert_eq!(answer.verdict() == "hit-memory", round == 1, "{language}");
        }
    }
    assert_eq!(proxy.web.count(PAGE), 3);
}

#[tokio::test]
async fn one_variant_may_be_stale_while_another_is_fresh() {
    let proxy = with(Item::stale(3000, "").vary("accept-language")).await;
    let (de, en) = ([("accept-language", "de")], [("accept-language", "en")]);
    proxy.get_with(PAGE, &de).await;
    proxy.web.put(PAGE, Item::of(3000).vary("accept-language").version(2));
    proxy.get_with(PAGE, &en).await;
    assert_eq!(proxy.get_with(PAGE, &en).await.verdict(), "hit-memory");
    let german = proxy.get_with(PAGE, &de).await;
    assert!(german.bytes() == &content(PAGE, 2, "de", 0..3000));
    assert_eq!(proxy.web.asked_for(PAGE)[2].field("if-none-match"), "\"v1de\"");
}

#[tokio::test]
async fn an_answer_to_credentials_is_nobody_elses_unless_it_says_so() {
    let auth = [("authorization", "Basic YTpi")];
    for (control, shared) in [("max-age=60", false), ("public, max-age=60", true)] {
        let proxy = with(Item::of(3000).cache_control(control)).await;
        proxy.get_with(PAGE, &auth).await;
        let stranger = proxy.get(PAGE).await;
        assert_eq!(stranger.verdict() == "hit-memory", shared, "{control}");
        assert_eq!(proxy.web.count(PAGE), if shared { 1 } else { 2 }, "{control}");
        assert_eq!(proxy.web.asked_for(PAGE)[0].field("authorization"), "Basic YTpi");
    }
}

#[tokio::test]
async fn errors_are_kept_as_their_fields_say() {
    let table = [
        (Item::of(100).status(404).cache_control("max-age=60"), 1),
        (Item::of(100).status(410).cache_control("max-age=60"), 1),
        (Item::of(100).status(503).cache_control("max-age=60"), 1),
        (Item::of(100).status(404).cache_control("no-store"), 3),
        (Item::of(100).status(500).cache_control("max-age=0"), 3),
    ];
    for (item, asked) in table {
        let proxy = with(item.clone()).await;
        for _ in 0..3 {
            assert_eq!(proxy.get(PAGE).await.status.as_u16(), item.status, "{item:?}");
        }
        assert_eq!(proxy.web.count(PAGE), asked, "{item:?}");
    }
}

#[tokio::test]
async fn an_unsafe_method_ends_what_is_stored() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let proxy = with(Item::of(3000)).await;
        proxy.web.put("/other", Item::of(3000));
        proxy.get(PAGE).await;
        proxy.get("/other").await;
        let changed = ask(method.clone(), &proxy.url(PAGE), &[]).await;
        assert_eq!(changed.status, 204, "{method}");
        proxy.web.change(PAGE);
        let after = proxy.get(PAGE).await;
        assert!(after.bytes() == &content(PAGE, 2, "", 0..3000), "{method}");
        assert_eq!(proxy.get("/other").await.verdict(), "hit-memory", "{method}");
        // What was asked for in the very millisecond of the change is not kept: who knows.
        until("it is kept again", || async {
            (proxy.get(PAGE).await.verdict() == "hit-memory").then_some(())
        })
        .await;
        // One that fails ends nothing.
        proxy.web.misbehave(&[common::WebMisdeed::Status(500)]);
        ask(method.clone(), &proxy.url(PAGE), &[]).await;
        assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory", "{method}");
    }
}

/// A URL is stored under one spelling, whatever the origin's `Location` says.
#[tokio::test]
async fn an_unsafe_method_ends_what_its_answer_names_however_that_is_spelled() {
    for field in ["location", "content-location"] {
        for spelled in ["/%7Evar/x", "/~var/x", "/%7evar/./x", "/a/../~var/%78"] {
            let proxy = Proxy::new().await;
            proxy.web.put("/~var/x", Item::of(100));
            proxy.web.put("/edit", Item::of(10).field(field, spelled));
            verdicts(&proxy, "/~var/x", 2).await;
            ask(Method::POST, &proxy.url("/edit"), &[]).await;
            let verdict = proxy.get("/~var/x").await.verdict().to_owned();
            assert_ne!(verdict, "hit-memory", "{field}: {spelled}");
        }
    }
}

#[tokio::test]
async fn an_unsafe_method_ends_a_cache_group() {
    let proxy = Proxy::new().await;
    for (path, group) in [("/a", "\"red\""), ("/b", "\"red\", \"blue\""), ("/c", "\"blue\"")] {
        proxy.web.put(path, Item::of(100).field("cache-groups", group));
        proxy.get(path).await;
    }
    proxy.web.put("/edit", Item::of(10).field("cache-group-invalidation", "\"red\""));
    ask(Method::POST, &proxy.url("/edit"), &[]).await;
    for (path, hits) in [("/a", false), ("/b", false), ("/c", true)] {
        assert_eq!(proxy.get(path).await.verdict() == "hit-memory", hits, "{path}");
    }
    // Also one whose name is longer than any that is kept.
    let long = format!("\"{}\"", "x".repeat(300));
    proxy.web.put("/d", Item::of(100).field("cache-groups", &long));
    proxy.web.put("/edit", Item::of(10).field("cache-group-invalidation", &long));
    verdicts(&proxy, "/d", 2).await;
    ask(Method::POST, &proxy.url("/edit"), &[]).await;
    for (path, hits) in [("/d", false), ("/c", true)] {
        assert_eq!(proxy.get(path).await.verdict() == "hit-memory", hits, "{path}");
    }
}

#[tokio::test]
async fn the_field_for_cdns_goes_before_the_one_for_all() {
    let table = [
        ("max-age=0", "max-age=60", 1),
        ("no-store", "max-age=60", 1),
        ("max-age=60", "no-store", 3),
        ("max-age=60", "private", 3),
        ("max-age=60", "not a=valid list,,", 1),
    ];
    for (control, targeted, asked) in table {
        let item = Item::of(100).cache_control(control).field("cdn-cache-control", targeted);
        let proxy = with(item).await;
        verdicts(&proxy, PAGE, 3).await;
        assert_eq!(proxy.web.count(PAGE), asked, "{control} / {targeted}");
        assert_eq!(proxy.get(PAGE).await.header("cache-control"), control);
    }
}

#[tokio::test]
async fn age_counts_what_it_was_before() {
    let age = |answer: &Answer| answer.header("age").parse::<u64>().unwrap();
    let proxy = with(Item::of(100).field("age", "1000")).await;
    assert!((1000..1030).contains(&age(&proxy.get(PAGE).await)));
    let hit = proxy.get(PAGE).await;
    assert_eq!(hit.verdict(), "hit-memory");
    assert!((1000..1030).contains(&age(&hit)), "{hit:?}");
    // What has used up its time upstream has none left here.
    proxy.web.put("/old", Item::of(100).field("age", "3600"));
    assert_eq!(verdicts(&proxy, "/old", 2).await, ["origin", "revalidated"]);
}

#[tokio::test]
async fn what_the_client_says_of_freshness_is_heeded_unless_the_operator_says_no() {
    for (heeds, asked) in [(true, 4), (false, 1)] {
        let proxy = Proxy::with(json!({"heed-client": heeds})).await;
        proxy.web.put(PAGE, Item::of(100).field("age", "50"));
        proxy.get(PAGE).await;
        for control in ["no-cache", "max-age=10", "min-fresh=3590"] {
            proxy.get_with(PAGE, &[("cache-control", control)]).await;
        }
        assert_eq!(proxy.web.count(PAGE), asked, "{heeds}");
        let only = [("cache-control", "only-if-cached")];
        assert_eq!(proxy.get_with(PAGE, &only).await.verdict(), "hit-memory");
        let absent = proxy.get_with("/absent", &only).await;
        assert_eq!(absent.status.as_u16(), if heeds { 504 } else { 404 });
    }
}

#[tokio::test]
async fn times_to_live_are_the_operators_where_it_says_so() {
    let proxy = Proxy::with(json!({"ttl": [
        {"path": "/fixed/*", "fixed": "1h"},
        {"path": "*.m3u8", "max": "0s"},
        {"path": "/long/*", "min": "1h"},
        {"path": "/lost/*", "negative": "1h"},
    ]}))
    .await;
    let short = || Item::of(100).cache_control("max-age=0");
    let table = [
        ("/fixed/a", short(), 1),
        ("/live/a.m3u8", Item::of(100), 3),
        ("/long/a", short(), 1),
        ("/other/a", short(), 3),
        ("/other/b", Item::of(100), 1),
        ("/lost/a", Item { fields: Vec::new(), ..Item::of(10).status(404) }, 1),
        ("/other/c", Item { fields: Vec::new(), ..Item::of(10).status(404) }, 3),
        // The operator's time makes nobody's secret public.
        ("/fixed/b", Item::of(100).cache_control("private"), 3),
        ("/fixed/c", Item::of(100).cache_control("no-store"), 3),
    ];
    for (path, item, asked) in table {
        proxy.web.put(path, item);
        verdicts(&proxy, path, 3).await;
        assert_eq!(proxy.web.count(path), asked, "{path}");
    }
}

/// Found by an audit: `fixed` and `negative` counted as the origin's own word, and one client's
/// session came to the next. A rule says how long, the origin whether.
#[tokio::test]
async fn no_rule_of_the_operator_shares_what_a_cookie_made() {
    let silent = |status: u16| Item { fields: Vec::new(), ..Item::of(100).status(status) };
    let dated = silent(200).field("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT");
    let said = |control: &str| silent(200).cache_control(control);
    // By what the origin says: whether an answer that sets a cookie, and one to a request with a
    // cookie, is anybody else's.
    let table = [
        (silent(200), false, false),
        (silent(404), false, false),
        (dated, false, true),
        (said("max-age=0"), false, false),
        (said("max-age=60"), true, true),
        (said("public"), true, true),
        (said("private, max-age=60"), false, false),
    ];
    for rule in [json!({"fixed": "1h"}), json!({"min": "1h"}), json!({"max": "1h"})] {
        let mut rule = rule;
        rule["path"] = "*".into();
        rule["negative"] = "1h".into();
        rule["stale-while-revalidate"] = "1h".into();
        let proxy = Proxy::with(json!({"ttl": [rule]})).await;
        for (place, (item, sets, gets)) in table.iter().enumerate() {
            let setting = item.clone().validator(Validator::Weak).field("set-cookie", "session=1");
            let told = format!("{rule} {item:?}");
            let path = format!("/sets/{place}");
            proxy.web.put(&path, setting);
            proxy.get(&path).await;
            let second = proxy.get(&path).await;
            assert_eq!(second.verdict() != "bypass", *sets, "set-cookie {told} {second:?}");
            let path = format!("/gets/{place}");
            proxy.web.put(&path, item.clone().validator(Validator::Weak));
            proxy.get_with(&path, &[("cookie", "a=1")]).await;
            let second = proxy.get_with(&path, &[("cookie", "b=2")]).await;
            assert_eq!(second.verdict() != "bypass", *gets, "cookie {told} {second:?}");
        }
    }
}

/// Found by an audit: the site's `stale-if-error` held only for what the origin had named a
/// lifetime of, not where a rule or a guess had, as before a bucket.
#[tokio::test]
async fn the_sites_stale_if_error_is_for_whatever_was_fresh() {
    let (fixed, min, guess) = (json!({"fixed": "1s"}), json!({"min": "1s"}), json!({"max": "1h"}));
    // `Age` makes it stale at once: nothing has to wait.
    let silent = || Item { fields: Vec::new(), ..Item::of(100) }.field("age", "20");
    let ago = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    let modified = httpdate::fmt_http_date(ago);
    let dated = || silent().field("last-modified", &modified);
    let table = [
        (&fixed, silent(), true),
        (&min, silent(), true),
        (&guess, dated(), true),
        (&fixed, Item::stale(100, ""), true),
        (&fixed, silent().status(404), true),
        // The origin forbids it, or named its own time.
        (&fixed, silent().cache_control("must-revalidate"), false),
        (&fixed, silent().cache_control("proxy-revalidate"), false),
        (&fixed, silent().cache_control("no-cache"), false),
        (&fixed, silent().cache_control("s-maxage=1"), false),
        (&fixed, silent().cache_control("stale-if-error=1"), false),
        // It was never fresh, or is a failure itself.
        (&guess, silent(), false),
        (&fixed, silent().status(503), false),
    ];
    for (site, outlasts) in [
        (json!({"stale-if-error": "24h"}), true),
        (json!({}), true),
        (json!({"stale-if-error": "0s"}), false),
    ] {
        for (rule, item, stands_in) in &table {
            let (mut site, mut rule) = (site.clone(), (*rule).clone());
            rule["path"] = "*".into();
            rule["negative"] = "1s".into();
            site["ttl"] = json!([rule]);
            let proxy = Proxy::with(site.clone()).await;
            proxy.web.put(PAGE, item.clone());
            let first = proxy.get(PAGE).await;
            proxy.web.always(Some(common::WebMisdeed::Mute));
            let second = proxy.get(PAGE).await;
            let told = format!("{site} {item:?} {second:?}");
            if outlasts && *stands_in {
                assert_eq!((second.status, second.verdict()), (first.status, "stale"), "{told}");
                assert!(second.bytes() == first.bytes(), "{told}");
            } else {
                assert_eq!(second.status, 502, "{told}");
            }
        }
    }
}

/// A failure that is kept for a while holds its origin's load back each time, not only once.
#[tokio::test]
async fn a_failure_is_kept_anew_after_its_time() {
    let failing = Item::of(10).status(503).validator(Validator::None);
    let silent = Item { fields: Vec::new(), ..failing.clone() };
    for item in [failing, silent] {
        let proxy = Proxy::with(json!({"ttl": [{"path": "*", "negative": "1h"}]})).await;
        proxy.web.put(PAGE, item.clone().field("age", "3600"));
        assert_eq!(proxy.get(PAGE).await.status, 503);
        proxy.web.put(PAGE, item.clone());
        let then = verdicts(&proxy, PAGE, 3).await;
        assert_eq!(then, ["origin", "hit-memory", "hit-memory"], "{item:?}");
    }
}

#[tokio::test]
async fn stale_while_revalidate_by_the_operators_rule() {
    let rule = json!({"ttl": [{"path": "/*", "stale-while-revalidate": "1h"}]});
    let proxy = Proxy::with(rule).await;
    proxy.web.put(PAGE, Item::stale(100, ""));
    assert_eq!(verdicts(&proxy, PAGE, 2).await, ["origin", "stale"]);
}

#[tokio::test]
async fn the_query_counts_as_the_operator_says_and_nothing_else_of_it_is_sent() {
    let table = [
        (json!({}), ["/page?a=1&b=2", "/page?b=2&a=1"], 2, "/page?a=1&b=2"),
        (json!({"sort": true}), ["/page?b=2&a=1", "/page?a=1&b=2"], 1, "/page?a=1&b=2"),
        (json!({"query": "none"}), ["/page?a=1", "/page?a=2"], 1, "/page"),
        (json!({"query": {"keep": ["a"]}}), ["/page?x=1&a=1", "/page?a=1&x=2"], 1, "/page?a=1"),
        (json!({"query": {"drop": ["x"]}}), ["/page?x=1&a=1", "/page?a=1"], 1, "/page?a=1"),
        (
            json!({"query": {"drop": ["utm_*"]}}),
            ["/page?utm_a=1&a=1", "/page?a=1&utm_b=2"],
            1,
            "/page?a=1",
        ),
        (json!({"query": {"keep": ["a*"]}}), ["/page?x=1&ab=1", "/page?ab=1&x=2"], 1, "/page?ab=1"),
        (json!({}), ["/page?a=1&CMCD=bs", "/page?a=1"], 1, "/page?a=1"),
    ];
    for (rules, targets, asked, sent) in table {
        let proxy = Proxy::with(rules.clone()).await;
        proxy.web.put(PAGE, Item::of(100));
        for target in targets {
            assert_eq!(proxy.get(target).await.status, 200, "{rules} {target}");
        }
        assert_eq!(proxy.web.count(PAGE), asked, "{rules}");
        assert_eq!(proxy.web.asked()[0].target, sent, "{rules}");
    }
}

#[tokio::test]
async fn two_spellings_of_a_path_are_one_object() {
    let proxy = with(Item::of(100)).await;
    for spelling in ["/page", "/%70age", "/p%61ge"] {
        let answer = proxy.get(spelling).await;
        assert_eq!(answer.status, 200, "{spelling}");
        assert!(answer.bytes() == &proxy.web.whole(PAGE), "{spelling}");
    }
    assert_eq!(proxy.web.asked().len(), 1, "{:?}", proxy.web.asked());
}

#[tokio::test]
async fn every_spelling_of_a_sites_host_is_that_site() {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let mut settings = proxy_settings(dir.path(), &web.url, &json!({}));
    let site = settings.sites.remove("*").unwrap();
    settings.sites.insert("films.example".into(), site);
    let edge = Edge::start(settings).await;
    web.put(PAGE, Item::of(100));
    let status =
        async |host: &str| get(&(edge.http.clone() + PAGE), &[("host", host)]).await.status;
    for host in ["films.example", "FILMS.example", "films.example:80", "films.example."] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    assert_eq!(web.count(PAGE), 1);
    for host in ["films.example.evil", "films.example..", "evil.example"] {
        assert_eq!(status(host).await.as_u16() / 100, 4, "{host}");
    }
}

#[tokio::test]
async fn what_origins_obey_outside_the_key_never_reaches_them() {
    let proxy = with(Item::of(100).cache_control("no-store")).await;
    let fields = [
        ("x-forwarded-host", "evil.example"),
        ("x-original-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("forwarded", "host=evil.example"),
    ];
    for (name, value) in fields {
        for method in [Method::GET, Method::POST] {
            ask(method, &proxy.url(PAGE), &[(name, value), ("x-other", "kept")]).await;
            let seen = proxy.web.asked().pop().unwrap();
            assert_eq!((seen.field(name), seen.field("x-other")), ("", "kept"), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn a_conditional_request_is_answered_here_and_never_forwarded_as_it_is() {
    let proxy = with(Item::of(3000)).await;
    // Nothing is stored yet: the origin's 304 would leave nothing to store.
    let tag = [("if-none-match", "\"v1\"")];
    assert_eq!(proxy.get_with(PAGE, &tag).await.status, 304);
    assert_eq!(proxy.web.asked_for(PAGE)[0].status, 200);
    assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory");
    assert_eq!(proxy.get_with(PAGE, &[("if-none-match", "\"v0\"")]).await.status, 200);
    let since = [("if-none-match", "\"v9\", \"v1\"")];
    assert_eq!(proxy.get_with(PAGE, &since).await.status, 304);
    assert_eq!(proxy.web.count(PAGE), 1);
    // If-Match that fails is the origin's to decide.
    assert_eq!(proxy.get_with(PAGE, &[("if-match", "\"v0\"")]).await.status, 412);
    assert_eq!(proxy.web.count(PAGE), 2);
}
