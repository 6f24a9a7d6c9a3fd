//! Stories of HEADs: those of clients that share one answer, and those of the edge that an origin
//! does not take.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Proxy, WebMisdeed as Misdeed, ask, until};
use futures::future::join_all;
use http::Method;

const FILM: &str = "/film";
const BYTES: u64 = 5 * CHUNK + 4321;
const MANY: usize = 40;

/// So many HEADs at once, that the origin holds until the edge has read them all.
async fn many(proxy: &Proxy) -> Vec<Answer> {
    proxy.web.hold(Hold::Head);
    let url = proxy.url(FILM);
    let asked = join_all((0..MANY).map(|_| ask(Method::HEAD, &url, &[])));
    let release = async {
        let read = "nearcast_edge_cmcd_requests_total{verdict=\"absent\"}";
        let all = async || (proxy.edge.metric(read).await >= MANY as f64).then_some(());
        until("the edge has read them all", all).await;
        until("the origin is asked", async || (proxy.web.held() > 0).then_some(())).await;
        proxy.web.release();
    };
    tokio::join!(asked, release).0
}

#[tokio::test]
async fn heads_of_what_is_not_stored_share_one_answer() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES));
    let answers = many(&proxy).await;
    let is_shared = |answer: &&Answer| answer.header("cache-status").contains(";collapsed");
    let shared = answers.iter().filter(is_shared).count();
    // One that came to the table as the first left it asks for those who come then.
    assert_eq!(shared + proxy.web.count(FILM), MANY);
    assert!(shared > MANY / 2, "{shared}");
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, "\"v1\""), "{answer:?}");
        assert_eq!(answer.header("content-length"), BYTES.to_string(), "{answer:?}");
    }
    let told = "edge-a;fwd=uri-miss;fwd-status=200;collapsed;detail=\"filling\"";
    let shared = answers.iter().find(is_shared).unwrap();
    assert_eq!(shared.header("cache-status"), told);
}

/// RFC 9111 section 4: what may be reused for another request.
#[tokio::test]
async fn heads_of_what_is_one_clients_share_nothing() {
    for control in ["private", "no-store", "no-cache", ""] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, Item::of(BYTES).cache_control(control));
        let answers = many(&proxy).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{control}");
        assert_eq!(proxy.web.count(FILM), MANY, "{control}");
    }
}

/// Only the origin may refuse (RFC 9111 section 4.3.2): it is asked with the condition, then.
#[tokio::test]
async fn what_is_not_stored_is_given_to_nobody_whose_condition_fails() {
    for control in ["max-age=3600", "no-store"] {
        for method in [Method::HEAD, Method::GET] {
            let proxy = Proxy::new().await;
            proxy.web.put(FILM, Item::of(BYTES).cache_control(control));
            for (tag, status) in [("\"v0\"", 412), ("\"v1\"", 200)] {
                let answer = ask(method.clone(), &proxy.url(FILM), &[("if-match", tag)]).await;
                assert_eq!(answer.status, status, "{method} {tag} {control}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_film_whose_origin_takes_no_head_costs_no_whole_film() {
    for status in [405, 501, 403, 500] {
        let proxy = Proxy::with(serde_json::json!({ "retries": 0 })).await;
        proxy.web.put(FILM, Item::of(BYTES));
        proxy.web.always(Some(Misdeed::NoHead(status)));
        let end = proxy.get_with(FILM, &[("range", "bytes=-100")]).await;
        assert_eq!(end.status, 206, "{status}: {end:?}");
        assert!(end.bytes() == &proxy.web.part(FILM, BYTES - 100..BYTES), "{status}");
        let last = format!("bytes={}-{}", 5 * CHUNK, BYTES - 1);
        assert_eq!(proxy.web.ranges(FILM), ["", "bytes=0-0", &last], "{status}");
        assert_eq!(proxy.web.sent(FILM), 1 + 4321, "{status}");
    }
    // What is not there is asked for once more, and what knows no ranges comes whole.
    let proxy = Proxy::new().await;
    assert_eq!(proxy.get_with(FILM, &[("range", "bytes=-100")]).await.status, 404);
    assert_eq!(proxy.web.count(FILM), 2);
    proxy.web.put("/whole", Item::of(BYTES).no_ranges());
    proxy.web.always(Some(Misdeed::NoHead(405)));
    let end = proxy.get_with("/whole", &[("range", "bytes=-100")]).await;
    assert_eq!(end.status, 206, "{end:?}");
    assert!(end.bytes() == &proxy.web.part("/whole", BYTES - 100..BYTES));
}
