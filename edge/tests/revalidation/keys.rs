//! For whom: what is one object, or one variant, and what is another.

use crate::common::{Edge, Item, Proxy, Web, ask, content, get, proxy_settings};
use crate::{PAGE, with};
use http::Method;
use serde_json::json;

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
        ("x-forwarded-ssl", "on"),
        ("front-end-https", "on"),
        ("x-arr-ssl", "2048"),
        ("x-url-scheme", "https"),
        ("x-scheme", "https"),
        ("x-forwarded-protocol", "ssl"),
        ("cloudfront-forwarded-proto", "https"),
        ("cf-visitor", "{\"scheme\":\"https\"}"),
        ("x-forwarded-uri", "/admin"),
        ("x-forwarded-path", "/admin"),
        ("x-forwarded-method", "DELETE"),
        ("x-original-uri", "/admin"),
        ("x-script-name", "/evil"),
        ("script_name", "/evil"),
        ("path_info", "/admin"),
        ("x-http-destinationurl", "http://evil.example/"),
    ];
    for (name, value) in fields {
        for method in [Method::GET, Method::POST] {
            ask(method, &proxy.url(PAGE), &[(name, value), ("x-other", "kept")]).await;
            let seen = proxy.web.asked().pop().unwrap();
            assert_eq!((seen.field(name), seen.field("x-other")), ("", "kept"), "{seen:?}");
        }
    }
}
