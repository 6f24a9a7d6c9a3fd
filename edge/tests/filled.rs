//! Stories of what the origin answers when more of a stored object is asked for: it is judged as a
//! first answer is, and what is not kept goes to the one who asked (RFC 9111 sections 3 to 3.5).

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Proxy, Stopped, until};
use std::ops::Range;

const FILM: &str = "/film";
const BYTES: u64 = 5 * CHUNK + 4321;
const FAR: Range<u64> = 3 * CHUNK + 1000..3 * CHUNK + 1100;

type Fields = &'static [(&'static str, &'static str)];

const AUTHORIZED: Fields = &[("authorization", "Basic eDp5")];
const COOKIE: Fields = &[("cookie", "a=b")];

/// An edge that has the first chunk of this, of an origin that is asked but once.
async fn with(item: Item) -> Proxy {
    let proxy = Proxy::with(serde_json::json!({"retries": 0})).await;
    proxy.web.put(FILM, item);
    assert_eq!(proxy.part(FILM, 0..100).await.verdict(), "origin");
    proxy
}

async fn far(proxy: &Proxy, fields: Fields) -> Answer {
    let field = format!("bytes={}-{}", FAR.start, FAR.end - 1);
    let fields: Vec<_> = fields.iter().copied().chain([("range", &*field)]).collect();
    proxy.get_with(FILM, &fields).await
}

/// It is the far part.
fn is_far(proxy: &Proxy, answer: &Answer, verdict: &str, told: &str) {
    assert_eq!((answer.status.as_u16(), answer.verdict()), (206, verdict), "{told}: {answer:?}");
    assert!(answer.bytes() == &proxy.web.part(FILM, FAR), "{told}");
}

fn silent() -> Item {
    Item { fields: Vec::new(), ..Item::of(BYTES) }
}

#[tokio::test]
async fn more_of_it_that_is_for_one_client_is_nobody_elses() {
    let of = || Item::of(BYTES);
    let cookie = || of().cache_control("no-cache").field("set-cookie", "SID=x");
    let cases: [(Item, Fields); 10] = [
        (of(), AUTHORIZED),
        (silent(), AUTHORIZED),
        (of().cache_control("private, max-age=60"), AUTHORIZED),
        (of(), &[("cache-control", "no-store")]),
        (of().cache_control("no-store"), &[]),
        (of().cache_control("private"), &[]),
        (of().cache_control("private"), COOKIE),
        (of().field("vary", "*"), &[]),
        (cookie(), &[]),
        (cookie(), COOKIE),
    ];
    for (more, fields) in cases {
        let told = format!("{more:?} {fields:?}");
        let proxy = with(of()).await;
        let sets_cookie = more.fields.iter().any(|(name, _)| name == "set-cookie");
        proxy.web.put(FILM, more);
        let own = far(&proxy, fields).await;
        is_far(&proxy, &own, "bypass", &told);
        assert_eq!(own.headers.contains_key("set-cookie"), sets_cookie, "{told}");
        assert_eq!(proxy.web.count(FILM), 2, "{told}");
        proxy.web.put(FILM, of());
        is_far(&proxy, &far(&proxy, &[]).await, "origin", &told);
        assert_eq!(proxy.web.count(FILM), 3, "{told}");
    }
}

#[tokio::test]
async fn more_of_it_that_may_be_shared_is_kept() {
    let (of, public) = (|| Item::of(BYTES), || Item::of(BYTES).cache_control("public"));
    let cases: [(Item, Item, Fields); 6] = [
        (of(), of(), &[]),
        (of(), silent(), &[]),
        (of(), silent(), COOKIE),
        (of(), of().field("set-cookie", "SID=x"), COOKIE),
        (public().field("expires", "Fri, 01 Jan 2100 00:00:00 GMT"), silent(), AUTHORIZED),
        (of().cache_control("s-maxage=600"), of().cache_control("s-maxage=600"), AUTHORIZED),
    ];
    for (stored, more, fields) in cases {
        let told = format!("{stored:?} {more:?} {fields:?}");
        let proxy = with(stored).await;
        proxy.web.put(FILM, more);
        is_far(&proxy, &far(&proxy, fields).await, "origin", &told);
        let chunk = 2 * CHUNK..2 * CHUNK + 10;
        assert!(proxy.part(FILM, chunk.clone()).await.bytes() == &proxy.web.part(FILM, chunk));
        let other = far(&proxy, &[]).await;
        assert!(["hit-memory", "filling"].contains(&other.verdict()), "{told} {other:?}");
        assert_eq!(proxy.web.count(FILM), 3, "{told}");
    }
}

#[tokio::test]
async fn who_waited_for_what_is_anothers_asks_alone() {
    let proxy = with(Item::of(BYTES)).await;
    proxy.web.put(FILM, Item::of(BYTES).cache_control("private").field("set-cookie", "SID=x"));
    proxy.web.hold(Hold::Head);
    let released = async {
        until("one asks", || async { (proxy.web.held() > 0).then_some(()) }).await;
        proxy.web.release();
    };
    let (one, other, ()) = tokio::join!(far(&proxy, &[]), far(&proxy, &[]), released);
    for answer in [one, other] {
        is_far(&proxy, &answer, "bypass", "each");
    }
    assert_eq!(proxy.web.count(FILM), 3);
}

#[tokio::test]
async fn an_error_in_place_of_more_of_it_is_passed_on() {
    for status in [302, 401, 403, 404, 410, 429, 503] {
        let proxy = with(Item::of(BYTES)).await;
        let error = Item::of(100).status(status).field("retry-after", "9");
        proxy.web.put(FILM, error.field("location", "/login"));
        let told = far(&proxy, &[]).await;
        assert_eq!((told.status.as_u16(), told.verdict()), (status, "bypass"), "{told:?}");
        let fields = (told.header("retry-after"), told.header("location"));
        assert_eq!(fields, ("9", "/login"), "{status}");
        assert!(told.bytes() == &proxy.web.whole(FILM), "{status}");
        assert_eq!(proxy.web.count(FILM), 2, "{status}");
        // In mid-body there is no other way to say so.
        if status == 403 {
            let cut = proxy.part(FILM, 0..2 * CHUNK).await;
            assert!(cut.status == 206 && cut.body.is_err(), "{status}");
        }
        proxy.web.put(FILM, Item::of(BYTES));
        let is_gone = matches!(status, 404 | 410);
        let verdict = if is_gone { "origin" } else { "hit-memory" };
        assert_eq!(proxy.part(FILM, 0..100).await.verdict(), verdict, "{status}");
        is_far(&proxy, &far(&proxy, &[]).await, "origin", "it has come back");
    }
}

/// A response whose head is out has no use for such an answer, and may not come to know of it for
/// as long as its client takes nothing.
#[tokio::test]
async fn a_client_that_stops_in_mid_body_holds_no_place_at_the_origin() {
    let proxy = with(Item::of(BYTES)).await;
    proxy.has_filled().await;
    proxy.web.put(FILM, Item::of(100).status(403));
    let _stopped = Stopped::at(&proxy.edge, FILM).await;
    let is_refused = || async { (proxy.web.count(FILM) == 2).then_some(()) };
    until("the next chunk is refused", is_refused).await;
    let in_flight = "nearcast_edge_upstream_in_flight_requests";
    let in_flight = format!("{in_flight}{{hop=\"{}\",site=\"*\"}} ", proxy.web.url);
    let is_free = || async { (proxy.edge.metric(&in_flight).await == 0.0).then_some(()) };
    until("its place is free", is_free).await;
    assert_eq!(proxy.edge.metric("nearcast_edge_responses ").await, 1.0);
}

#[tokio::test]
async fn what_is_hidden_from_one_client_stays_for_others() {
    for status in [404, 410] {
        let proxy = with(Item::of(BYTES).cache_control("public, max-age=3600")).await;
        proxy.has_filled().await;
        proxy.web.put(FILM, Item::of(100).status(status));
        assert_eq!(far(&proxy, AUTHORIZED).await.status, status);
        assert_eq!(proxy.part(FILM, 0..100).await.verdict(), "hit-memory", "{status}");
    }
}
