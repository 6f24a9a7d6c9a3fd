//! For how long: by the origin's fields, by the operator's rules, and by what clients say.

use crate::common::{Answer, Item, Proxy, Validator};
use crate::{PAGE, verdicts, with};
use serde_json::json;

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
        {"path": "/soon/*", "negative": "0s"},
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
        // The rule for errors goes before what they say, as `fixed` does before all else: a segment
        // that is not there yet is so for as long as the operator says.
        ("/lost/b", Item::of(10).status(404).cache_control("max-age=0"), 1),
        ("/lost/c", Item::of(10).status(503).cache_control("no-cache"), 1),
        ("/lost/d", Item::of(10).status(404).cache_control("no-store"), 3),
        ("/lost/e", Item::of(10).status(404).cache_control("private"), 3),
        ("/soon/a", Item::of(10).status(404), 3),
        ("/other/d", Item::of(10).status(404), 1),
        // A time that the operator names goes before `no-cache`.
        ("/fixed/d", Item::of(100).cache_control("no-cache"), 1),
        ("/fixed/e", Item::of(100).cache_control("no-cache, must-revalidate, max-age=0"), 1),
        ("/long/b", Item::of(100).cache_control("no-cache"), 1),
        ("/long/c", Item::of(100).cache_control("no-cache, max-age=86400"), 1),
        ("/other/e", Item::of(100).cache_control("no-cache, max-age=86400"), 3),
        ("/live/b.m3u8", Item::of(100).cache_control("no-cache, max-age=86400"), 3),
        ("/fixed/f", Item::of(100).cache_control("no-cache, no-store"), 3),
        ("/fixed/g", Item::of(100).cache_control("no-cache, private"), 3),
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
    for rule in [json!({"fixed": "1h"}), json!({"min": "1h"}), json!({"max": "1h"})] {
        // By what the origin says: whether an answer that sets a cookie, and one to a request with a
        // cookie, is anybody else's.
        let is_asked_about = rule.get("max").is_some();
        let table = [
            (silent(200), false, false),
            (silent(404), false, false),
            (dated.clone(), false, true),
            // No time is named for which nobody asks about it.
            (said("max-age=0"), is_asked_about, is_asked_about),
            (said("max-age=60"), true, true),
            (said("public"), true, true),
            (said("private, max-age=60"), false, false),
        ];
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

/// An origin that wants to be asked each time may look at who asks: a rule names a time for what is
/// the same for all.
#[tokio::test]
async fn no_rule_of_the_operator_shares_unasked_what_credentials_made() {
    let asks_again = [
        "no-cache",
        "no-cache, max-age=60",
        "no-cache, must-revalidate",
        "no-cache, public",
        "max-age=0, must-revalidate",
        "s-maxage=0",
    ];
    for rule in [json!({"path": "*", "fixed": "1h"}), json!({"path": "*", "min": "1h"})] {
        let proxy = Proxy::with(json!({"ttl": [rule]})).await;
        for (place, control) in asks_again.into_iter().enumerate() {
            for (name, value) in [("authorization", "Basic eDp5"), ("cookie", "session=1")] {
                let path = format!("/{name}/{place}");
                proxy.web.put(&path, Item::of(100).cache_control(control));
                proxy.get_with(&path, &[(name, value)]).await;
                proxy.get(&path).await;
                assert_eq!(proxy.web.count(&path), 2, "{rule} {control} {name}");
            }
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
            proxy.web.always(Some(crate::common::WebMisdeed::Mute));
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
