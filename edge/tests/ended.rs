//! Stories of what is stored and stale when the origin answers that it is there no more, or no more
//! for all: nothing serves it again (RFC 9111 section 4.3.3).

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Item, Proxy, WebMisdeed as Misdeed, until};

const PAGE: &str = "/page";
const BYTES: u64 = 3000;
const STATUSES: [u16; 6] = [401, 403, 404, 410, 451, 302];

type Fields = &'static [(&'static str, &'static str)];

/// An edge that has this, of an origin that asks nobody twice.
async fn with(item: Item) -> Proxy {
    let proxy = Proxy::with(serde_json::json!({"retries": 0})).await;
    proxy.web.put(PAGE, item);
    proxy.get(PAGE).await;
    proxy
}

/// What the origin says from now on; and the status that comes of it.
fn words() -> Vec<(Option<Misdeed>, Item, u16)> {
    let next = |control: &str| Item::of(BYTES).version(2).cache_control(control);
    let kept = || Item::of(BYTES);
    let said = STATUSES.map(|status| (Some(Misdeed::Status(status)), kept(), status));
    let unshared = [
        (None, next("no-store"), 200),
        (None, next("private"), 200),
        (None, next("no-cache").field("set-cookie", "a=b"), 200),
    ];
    said.into_iter().chain(unshared).collect()
}

fn say(proxy: &Proxy, misdeed: Option<Misdeed>, item: &Item) {
    proxy.web.put(PAGE, item.clone());
    proxy.web.always(misdeed);
}

#[tokio::test]
async fn what_the_origin_has_no_more_for_all_does_not_stand_in_for_a_failure() {
    for fields in [&[][..], &[("cookie", "a=b")]] {
        for (misdeed, item, status) in words() {
            let told = format!("{misdeed:?} {item:?}");
            let proxy = with(Item::stale(BYTES, "stale-if-error=3600")).await;
            say(&proxy, misdeed, &item);
            assert_eq!(proxy.get_with(PAGE, fields).await.status, status, "{told}");
            proxy.web.always(Some(Misdeed::Status(503)));
            for stale in [&[][..], &[("cache-control", "max-stale")]] {
                assert_eq!(proxy.get_with(PAGE, stale).await.status, 503, "{told}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_told_behind_a_stale_answer_ends_it() {
    for (misdeed, item, status) in words() {
        let told = format!("{misdeed:?} {item:?}");
        let proxy = with(Item::stale(BYTES, "stale-while-revalidate=3600")).await;
        say(&proxy, misdeed, &item);
        assert_eq!(proxy.get(PAGE).await.verdict(), "stale", "{told}");
        let next =
            || async { Some(proxy.get(PAGE).await).filter(|next| next.verdict() != "stale") };
        assert_eq!(until("the origin's word", next).await.status, status, "{told}");
    }
}

/// What is about one client or one request takes nothing from others, nor does a failure.
#[tokio::test]
async fn what_the_origin_says_of_a_request_leaves_it() {
    let authorized: Fields = &[("authorization", "Basic eDp5")];
    let not_to_be_kept: Fields = &[("cache-control", "no-store")];
    let renewed: Fields = &[("cache-control", "no-cache")];
    let renewed_for_one: Fields = &[("cache-control", "no-cache"), ("authorization", "x")];
    let window = "stale-if-error=3600";
    let cases = [
        (Item::stale(BYTES, window), authorized, 401, "stale"),
        (Item::stale(BYTES, window), not_to_be_kept, 403, "stale"),
        (Item::stale(BYTES, window), &[], 429, "stale"),
        (Item::stale(BYTES, window), &[], 400, "stale"),
        (Item::of(BYTES), renewed, 403, "hit-memory"),
        (Item::of(BYTES), renewed, 410, "failed"),
        (Item::of(BYTES), renewed_for_one, 404, "hit-memory"),
        (Item::stale(BYTES, window), authorized, 410, "stale"),
        (Item::stale(BYTES, window), not_to_be_kept, 404, "stale"),
    ];
    for (item, fields, status, verdict) in cases {
        let told = format!("{item:?} {fields:?} {status}");
        let proxy = with(item).await;
        proxy.web.always(Some(Misdeed::Status(status)));
        assert_eq!(proxy.get_with(PAGE, fields).await.status, status, "{told}");
        proxy.web.always(Some(Misdeed::Mute));
        assert_eq!(proxy.get(PAGE).await.verdict(), verdict, "{told}");
    }
}
