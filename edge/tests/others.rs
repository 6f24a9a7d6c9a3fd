//! Stories of one client's answer and everybody else, when the origin fails or is slow: what would
//! have been nobody else's as long as the origin was well, is nobody else's then.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{Answer, Hold, Item, Proxy, ask, get, until};
use http::Method;
use serde_json::json;

const ALICE: (&str, &str) = ("cookie", "session=alice");
const SESSION: &str = "session=of-alice";
/// Of which something is always good, and stale.
const CANARY: &str = "/canary";

/// What the origin says, and whether that stands in for it when it fails, and when it is slow.
const SAID: [(&str, bool, bool); 13] = [
    ("max-age=10", true, true),
    ("public, max-age=10", true, true),
    ("max-age=10, must-revalidate", false, false),
    ("max-age=10, proxy-revalidate", false, false),
    ("max-age=10, no-cache", false, false),
    ("private, max-age=10", false, false),
    ("s-maxage=10", false, false),
    ("s-maxage=10, stale-if-error=600", true, false),
    ("max-age=0", false, false),
    ("public, max-age=0", false, false),
    ("max-age=x", false, false),
    ("max-age=0, stale-if-error=600", true, false),
    // `Expires: 0`, and nothing else.
    ("", false, false),
];

/// One answer to one client.
#[derive(Clone, Debug)]
struct Given {
    path: String,
    item: Item,
    asked_with: Vec<(&'static str, &'static str)>,
    stands_in: bool,
    goes_before: bool,
}

/// All that differs in what it says, whether it sets a cookie, is chosen by one, and who asked.
fn all() -> Vec<Given> {
    let mut all = Vec::new();
    for (control, stands_in, goes_before) in SAID {
        let requests = [vec![], vec![ALICE], vec![("authorization", "Basic YQ==")]];
        for asked_with in requests {
            for (sets, varies) in [(false, false), (true, false), (false, true)] {
                // `Age` makes it stale at once: nothing has to wait.
                let mut item = Item::of(100).cache_control(control).field("age", "20");
                if control.is_empty() {
                    item = Item::of(100).field("expires", "0");
                    item.fields.retain(|(name, _)| name != "cache-control");
                }
                if sets {
                    item = item.field("set-cookie", SESSION);
                }
                if varies {
                    item = item.vary("cookie");
                }
                let may_share = asked_with.iter().all(|(name, _)| *name != "authorization")
                    || ["public", "must-revalidate", "s-maxage"]
                        .iter()
                        .any(|word| control.contains(word));
                // A stranger without a cookie asks like who had none.
                let may_share = may_share && !(varies && asked_with.contains(&ALICE));
                all.push(Given {
                    path: format!("/{}", all.len()),
                    item,
                    asked_with: asked_with.clone(),
                    stands_in: stands_in && may_share,
                    goes_before: goes_before && may_share,
                });
            }
        }
    }
    all
}

/// Each was given to whom it was for.
async fn stage(stale_after: &str, all: &[Given]) -> Proxy {
    let proxy = Proxy::with(json!({"retries": 0, "stale-after": stale_after})).await;
    proxy.web.put(CANARY, Item::stale(100, ""));
    proxy.get(CANARY).await;
    for Given { path, item, asked_with, .. } in all {
        proxy.web.put(path, item.clone());
        assert_eq!(proxy.get_with(path, asked_with).await.status, 200);
    }
    proxy
}

/// Strangers: what they ask with.
fn strangers() -> Vec<(Method, Vec<(&'static str, &'static str)>)> {
    let mut strangers: Vec<_> = [Method::GET, Method::HEAD].map(|method| (method, vec![])).into();
    for fields in [
        vec![("range", "bytes=5-9")],
        vec![("cache-control", "max-stale")],
        vec![("cache-control", "stale-if-error=9999")],
    ] {
        strangers.push((Method::GET, fields));
    }
    strangers
}

fn is_alices(answer: &Answer) -> bool {
    answer.status.is_success()
}

#[tokio::test]
async fn a_failing_origin_gives_nobody_what_was_another_ones() {
    let all = all();
    for misdeed in [Some(Misdeed::Status(503)), Some(Misdeed::Mute), None] {
        let mut proxy = stage("1h", &all).await;
        match misdeed {
            Some(_) => proxy.web.always(misdeed),
            // Connections are refused.
            None => proxy.web.stop().await,
        }
        for given in &all {
            for (method, mut fields) in strangers() {
                let varies = given.item.vary.is_some();
                if !varies {
                    fields.push(("cookie", "session=bob"));
                }
                let answer = ask(method.clone(), &proxy.url(&given.path), &fields).await;
                let told = format!("{misdeed:?} {given:?} {method} {fields:?} {answer:?}");
                assert_eq!(is_alices(&answer), given.stands_in, "{told}");
                if !given.stands_in {
                    assert!(answer.status.is_server_error(), "{told}");
                    assert!(!answer.headers.contains_key("set-cookie"), "{told}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_slow_origin_is_waited_for_by_who_may_not_have_what_was_another_ones() {
    let all = all();
    let proxy = stage("1ms", &all).await;
    let asked_before = proxy.web.asked().len();
    proxy.web.hold(Hold::Head);
    let ask = |given: &Given| {
        proxy.web.change(&given.path);
        let url = proxy.url(&given.path);
        tokio::spawn(async move { get(&url, &[]).await })
    };
    let waiting: Vec<_> = all.iter().map(|given| (given, ask(given))).collect();
    until("the origin is asked for each", || async {
        (proxy.web.asked().len() >= asked_before + all.len()).then_some(())
    })
    .await;
    // Who asks later is answered: the time of who asked before is over, too.
    assert_eq!(proxy.get(CANARY).await.verdict(), "stale");
    let (early, late): (Vec<_>, _) = waiting.into_iter().partition(|(given, _)| given.goes_before);
    let judge = |given: &Given, answer: &Answer| {
        let told = format!("{given:?} {answer:?}");
        assert_eq!(answer.status, 200, "{told}");
        assert_eq!(answer.verdict() == "stale", given.goes_before, "{told}");
    };
    for (given, answer) in early {
        judge(given, &answer.await.unwrap());
    }
    proxy.web.release();
    for (given, answer) in late {
        judge(given, &answer.await.unwrap());
    }
}
