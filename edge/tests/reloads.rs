//! Stories of one client that wants nothing stored, or what there is not, and of many players who
//! want what all do: they still share one request.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Item, Proxy, Validator, ask, until};
use http::Method;

const PLAYLIST: &str = "/live.m3u8";
const PLAYERS: usize = 40;

/// A request by its method and fields, and the status of its answer.
type Odd = (Method, &'static [(&'static str, &'static str)], u16);

#[tokio::test]
async fn what_one_client_says_of_its_own_request_takes_nobody_elses_share() {
    let odd: [Odd; 5] = [
        (Method::GET, &[("cache-control", "no-cache, no-store")], 200),
        (Method::GET, &[("cache-control", "no-store")], 200),
        (Method::HEAD, &[("cache-control", "no-store")], 200),
        (Method::HEAD, &[("cache-control", "no-cache, no-store")], 200),
        (Method::GET, &[("range", "bytes=99999999-")], 416),
    ];
    for is_stored in [true, false] {
        for (method, fields, status) in &odd {
            let told = format!("{method} {fields:?}, stored before: {is_stored}");
            let proxy = Proxy::new().await;
            proxy.web.put(PLAYLIST, Item::stale(3000, ""));
            if is_stored {
                proxy.get(PLAYLIST).await;
            }
            let one = ask(method.clone(), &proxy.url(PLAYLIST), fields).await;
            assert_eq!(one.status, *status, "{told}: {one:?}");
            proxy.web.put(PLAYLIST, Item::of(3000).version(2));
            let before = proxy.web.count(PLAYLIST);
            let answers = proxy.get_together(PLAYLIST, PLAYERS).await;
            let whole = proxy.web.whole(PLAYLIST);
            assert!(answers.iter().all(|answer| answer.bytes() == &whole), "{told}");
            assert_eq!(proxy.web.count(PLAYLIST) - before, 1, "{told}");
        }
    }
}

/// Found by an audit: packagers say `no-cache` of playlists, and each player that waited for a reload
/// was a request that they held, though a rule named a time.
#[tokio::test]
async fn a_rule_has_players_share_what_a_packager_says_no_cache_of() {
    let rules = serde_json::json!({"ttl": [
        {"path": "*", "query": "_HLS_msn", "fixed": "1h"},
        {"path": "*", "min": "1h", "max": "2h"},
    ]});
    for path in [PLAYLIST, "/live.m3u8?_HLS_msn=7"] {
        for validator in [Validator::Strong, Validator::None] {
            let proxy = Proxy::with(rules.clone()).await;
            let item = Item::of(3000).cache_control("no-cache").validator(validator);
            proxy.web.put(PLAYLIST, item);
            let answers = proxy.get_together(path, PLAYERS).await;
            assert!(answers.iter().all(|answer| answer.bytes() == &proxy.web.whole(PLAYLIST)));
            let late = proxy.get(path).await;
            assert_eq!(late.verdict(), "hit-memory", "{path} {validator:?}");
            assert_eq!(proxy.web.count(PLAYLIST), 1, "{path} {validator:?}");
        }
    }
}

/// What may not be used without asking is not told to be fresh.
#[tokio::test]
async fn what_is_asked_about_each_time_has_no_time_left() {
    let proxy = Proxy::new().await;
    proxy.web.put(PLAYLIST, Item::of(3000).cache_control("no-cache, max-age=60"));
    for verdict in ["origin", "revalidated"] {
        let answer = proxy.get(PLAYLIST).await;
        assert_eq!(answer.verdict(), verdict);
        assert!(answer.header("cache-status").contains(";ttl=0;"), "{answer:?}");
    }
}

/// What comes of its request may not be stored: renewing is left to somebody else.
#[tokio::test]
async fn who_wants_nothing_stored_renews_nothing_behind_what_is_stale() {
    let proxy = Proxy::new().await;
    proxy.web.put(PLAYLIST, Item::stale(3000, "stale-while-revalidate=600"));
    proxy.get(PLAYLIST).await;
    proxy.web.put(PLAYLIST, Item::of(3000).version(2));
    let no_store = [("cache-control", "no-store")];
    assert_eq!(proxy.get_with(PLAYLIST, &no_store).await.verdict(), "stale");
    assert_eq!(proxy.get(PLAYLIST).await.verdict(), "stale");
    until("it is renewed", || async {
        (proxy.get(PLAYLIST).await.verdict() == "hit-memory").then_some(())
    })
    .await;
    assert_eq!(proxy.web.count(PLAYLIST), 2);
}
