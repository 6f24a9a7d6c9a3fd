//! Stories of hard purges that come while a request of what they end is under way: at whatever point,
//! nothing of it comes back.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{CHUNK, Hold, Item, Proxy, until};
use serde_json::json;

const PAGE: &str = "/page";

/// The name of the bytes that are stored; empty for none.
async fn body(proxy: &Proxy) -> String {
    let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(PAGE));
    let told: serde_json::Value =
        serde_json::from_slice(common::get(&url, &[]).await.bytes()).unwrap();
    told["variants"][0]["body"].as_str().unwrap_or_default().to_owned()
}

/// An answer that may be asked about before it is asked for: who wants the end of an error needs its
/// length first.
fn page() -> Item {
    Item::stale(CHUNK + 100, "").status(410)
}

#[tokio::test]
async fn what_is_purged_before_or_while_the_origin_is_asked_is_not_had_again() {
    // The origin says 304, or sends the same again.
    for says_same in [true, false] {
        // The purge comes while the length is asked for, or the answer itself.
        for after in 0..2 {
            let proxy = Proxy::with(json!({"retries": 0})).await;
            proxy.web.put(PAGE, page());
            proxy.get(PAGE).await;
            proxy.has_filled().await;
            let ended = body(&proxy).await;
            assert!(!ended.is_empty());
            if says_same {
                proxy.web.misbehave(&[Misdeed::NoHead(410), Misdeed::Status(304)]);
            }
            proxy.web.put(PAGE, page().cache_control("max-age=3600"));
            let asked = proxy.web.asked().len();
            proxy.web.hold(Hold::HeadsAfter(asked + after));
            let end = [("range", "bytes=-10")];
            let (answer, ()) = tokio::join!(proxy.get_with(PAGE, &end), async {
                until("it is asked for", || async { (proxy.web.held() > 0).then_some(()) }).await;
                proxy.edge.purge(&json!({"all": true})).await;
                proxy.web.release();
            });
            let all = proxy.web.asked();
            let told = format!("{says_same} after {after}: {all:?}");
            assert_eq!(answer.status, 410, "{told}");
            assert!(answer.bytes() == &proxy.web.whole(PAGE), "{told}");
            assert_ne!(body(&proxy).await, ended, "{told}");
            let is_unconditional = all.last().unwrap().field("if-none-match").is_empty();
            assert_eq!(is_unconditional, says_same, "{told}");
        }
    }
}
