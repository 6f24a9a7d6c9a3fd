//! Stories of one client whose own fields an origin refuses, on a site with a rule for errors: what it
//! is told is nobody else's, and takes nothing from others.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Item, Proxy, Validator, WebMisdeed as Misdeed};
use serde_json::json;

const FILM: &str = "/film.mp4";
const BYTES: u64 = 300_000;
const PLAYERS: usize = 20;
/// What origins say to a field that they don't take, and firewalls before them.
const REFUSALS: [u16; 13] = [400, 401, 403, 405, 406, 408, 413, 415, 417, 421, 429, 431, 451];

/// A site as the guide has it before a bucket, and one whose origin's own word counts.
async fn stages() -> [Proxy; 2] {
    let fixed = json!([{"path": "*", "fixed": "1h", "negative": "1h"}]);
    let told = json!([{"path": "*", "negative": "1h"}]);
    let of = async |ttl| Proxy::with(json!({"retries": 0, "ttl": ttl})).await;
    [of(fixed).await, of(told).await]
}

async fn refused(proxy: &Proxy, status: u16) {
    let fields = [("cache-control", "no-cache"), ("x-refused", "1")];
    assert_eq!(proxy.get_with(FILM, &fields).await.status, status);
}

/// Found by an audit: an origin that has not changed what a page is known by, and sends it in full all
/// the same, was taken to have sent what is stored: another client's page (RFC 9111 section 4.3.3).
#[tokio::test]
async fn who_is_answered_in_full_gets_that_answer_whatever_it_is_known_by() {
    const DATE: &str = "Mon, 01 Jan 2024 01:00:00 GMT";
    for (control, bytes) in [
        ("no-cache", 500),
        ("max-age=0, must-revalidate", 500),
        ("no-cache", 3 * CHUNK + 5),
        ("max-age=3600", 3 * CHUNK + 5),
    ] {
        let proxy = Proxy::with(json!({"retries": 0, "hedge": false})).await;
        proxy.web.always(Some(Misdeed::Unconditional));
        let page = |version| {
            let page = Item::of(bytes).version(version).cache_control(control);
            page.validator(Validator::Told).field("last-modified", DATE)
        };
        for version in 1..4 {
            proxy.web.put(FILM, page(version));
            let reload = [("cache-control", "no-cache")];
            let answer = proxy.get_with(FILM, &reload).await;
            assert_eq!(answer.status, 200);
            assert!(answer.bytes() == &proxy.web.whole(FILM), "{control} {bytes} {version}");
            proxy.has_filled().await;
            // That is what is stored from then on.
            let next = proxy.get(FILM).await;
            assert!(next.bytes() == &proxy.web.whole(FILM), "{control} {bytes} {version}");
        }
    }
}

/// Of what is large, and of who asks for a part, the name is believed, as RFC 9110 section 8.8.1 allows
/// of a strong one: each such answer would else fetch a film anew. What is here stays and serves.
#[tokio::test]
async fn what_is_large_or_asked_for_in_part_is_known_by_its_strong_validator() {
    for (bytes, range) in [(5 * CHUNK + 5, None), (3 * CHUNK + 5, Some(("range", "bytes=7-")))] {
        let proxy = Proxy::with(json!({"retries": 0, "hedge": false})).await;
        proxy.web.put(FILM, Item::of(bytes));
        assert_eq!(proxy.get(FILM).await.status, 200);
        proxy.has_filled().await;
        proxy.web.always(Some(Misdeed::Unconditional));
        let reload: Vec<_> = [("cache-control", "no-cache")].into_iter().chain(range).collect();
        let (start, status) = if range.is_some() { (7, 206) } else { (0, 200) };
        for _ in 0..2 {
            let answer = proxy.get_with(FILM, &reload).await;
            assert_eq!(answer.status, status);
            assert!(answer.bytes() == &proxy.web.part(FILM, start..bytes));
        }
        proxy.has_filled().await;
        // No chunk came a second time under another name: all that was sent before is held still.
        let (asked, held) =
            (proxy.web.count(FILM), proxy.edge.metric("nearcast_edge_memory_kept_bytes ").await);
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
        assert_eq!(proxy.web.count(FILM), asked);
        assert!((1.0..2.0).contains(&(held / bytes as f64)), "{held}");
    }
}

/// Found by an audit: one such request a second had all viewers told 400, and the origin send a film
/// again each time.
#[tokio::test]
async fn what_one_client_is_refused_takes_nothing_from_others_that_is_stored_and_fresh() {
    for proxy in stages().await {
        proxy.web.put(FILM, Item::of(BYTES));
        assert_eq!(proxy.get(FILM).await.status, 200);
        for status in REFUSALS.into_iter().chain([414, 501, 500, 503]) {
            proxy.web.always(Some(Misdeed::Refuses(status)));
            refused(&proxy, status).await;
            let other = proxy.get(FILM).await;
            assert_eq!((other.status.as_u16(), other.verdict()), (200, "hit-memory"), "{status}");
            assert_eq!(proxy.web.sent(FILM), BYTES, "{status}");
        }
    }
}

#[tokio::test]
async fn what_one_client_is_refused_is_not_kept_for_others_where_nothing_is_stored() {
    for proxy in stages().await {
        for status in REFUSALS {
            let path = format!("/{status}");
            proxy.web.put(&path, Item::of(100));
            proxy.web.always(Some(Misdeed::Refuses(status)));
            let refused = proxy.get_with(&path, &[("x-refused", "1")]).await;
            assert_eq!(refused.status, status);
            assert_eq!(proxy.get(&path).await.status, 200, "{status}");
        }
    }
}

/// 404 and 410 are what the resource is, whoever asks; what the origin names a time of is its own.
#[tokio::test]
async fn what_is_told_of_the_resource_is_everybodys() {
    for (status, control) in [(404, ""), (410, ""), (403, "max-age=60"), (400, "max-age=60")] {
        for proxy in stages().await {
            proxy.web.put(FILM, Item::of(BYTES));
            proxy.get(FILM).await;
            let mut item = Item { fields: Vec::new(), ..Item::of(10).status(status) };
            if !control.is_empty() {
                item = item.cache_control(control);
            }
            proxy.web.put(FILM, item);
            refused(&proxy, status).await;
            let other = proxy.get(FILM).await;
            assert_eq!((other.status.as_u16(), other.verdict()), (status, "hit-memory"));
        }
    }
}

/// Who is refused does not keep others from sharing one request for the next ten seconds.
#[tokio::test]
async fn viewers_still_wait_for_one_another_after_a_refusal() {
    for status in REFUSALS {
        let proxy = Proxy::with(json!({"retries": 0})).await;
        proxy.web.put(FILM, Item::of(3000));
        proxy.web.always(Some(Misdeed::Refuses(status)));
        refused(&proxy, status).await;
        let answers = proxy.get_together(FILM, PLAYERS).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{status}");
        assert_eq!(proxy.web.count(FILM), 2, "{status}");
    }
}

/// Found by an audit: what an origin says to one client's field that its `Vary` does not name, and gives
/// no time to, went to others for as long as an operator's `stale-while-revalidate` says.
#[tokio::test]
async fn what_an_origin_gives_no_time_follows_nobody_by_the_operators_rule() {
    let rule = json!({"ttl": [{"path": "*", "stale-while-revalidate": "1h"}]});
    // By the origin's own word it does (RFC 5861 section 3), or where the operator cuts a time to 0.
    let (own, cut) = (
        "max-age=0, stale-while-revalidate=60",
        json!({"ttl": [
            {"path": "*", "max": "0s", "stale-while-revalidate": "1h"}
        ]}),
    );
    for (site, status, control, verdict) in [
        (&rule, 200, "max-age=0", "revalidated"),
        (&rule, 200, "", "revalidated"),
        (&rule, 302, "max-age=0", "origin"),
        (&rule, 200, own, "stale"),
        (&cut, 200, "max-age=60", "stale"),
        (&cut, 200, "max-age=0", "revalidated"),
    ] {
        let proxy = Proxy::with(site.clone()).await;
        let item = Item { fields: Vec::new(), ..Item::of(100).status(status) };
        proxy.web.put(FILM, if control.is_empty() { item } else { item.cache_control(control) });
        proxy.get_with(FILM, &[("x-hidden", "1")]).await;
        let other = proxy.get(FILM).await;
        assert_eq!((other.status.as_u16(), other.verdict()), (status, verdict), "{control:?}");
    }
}
