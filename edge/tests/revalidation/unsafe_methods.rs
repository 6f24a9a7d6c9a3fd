//! What an unsafe method ends (RFC 9111 section 4.4).

use crate::common::{Item, Proxy, ask, content, until};
use crate::{PAGE, verdicts, with};
use http::Method;

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
        proxy.web.misbehave(&[crate::common::WebMisdeed::Status(500)]);
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
