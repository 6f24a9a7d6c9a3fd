//! Stories of many who want one URL, but not all the same of it: variants, and HEADs beside GETs.
//! Who can be answered by one request to the origin shares it, and nobody waits for another's.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, CHUNK, Hold, Item, Proxy, Validator, ask, content, get, until};
use futures::future::join_all;
use http::Method;

const PAGE: &str = "/page";
const BYTES: u64 = 3000;
const KINDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A page of each kind of client, as each kind of origin would have it.
fn pages() -> [Item; 3] {
    let page = Item::of(BYTES).vary("x-kind");
    let weak = page.clone().validator(Validator::Weak);
    [page.clone(), weak, page.validator(Validator::None).chunked()]
}

/// Asks for each of these kinds at a time, so often each, and checks that each is given its own.
async fn ask_all(proxy: &Proxy, kinds: &[&'static str], each: usize) {
    let all = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, each));
    let answers =
        all.map(|kind| async move { (kind, proxy.get_with(PAGE, &[("x-kind", kind)]).await) });
    for (kind, answer) in join_all(answers).await {
        assert!(answer.bytes() == &content(PAGE, 1, kind, 0..BYTES), "{kind}: {answer:?}");
    }
}

async fn held_are(proxy: &Proxy, count: usize) {
    until("held", || async { (proxy.web.held() == count).then_some(()) }).await;
}

/// Until so many clients are there. One that comes later still finds what the others were given.
async fn clients_are(proxy: &Proxy, count: f64) {
    until("clients", || async {
        (proxy.edge.metric("nearcast_edge_connections").await >= count).then_some(())
    })
    .await;
}

/// varnishcache/varnish-cache#1799 and many others: the waiting list is woken, and goes to the
/// origin one by one.
#[tokio::test]
async fn variants_wait_for_the_first_answer_of_all_and_then_for_none_of_another() {
    for (page, each) in pages().into_iter().zip([2, 1, 1]) {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, page.clone());
        proxy.web.hold(Hold::Head);
        let answers = ask_all(&proxy, &KINDS, each);
        let (_, ()) = tokio::join!(answers, async {
            held_are(&proxy, 1).await;
            clients_are(&proxy, 6.0).await;
            // Nobody knew that there are variants.
            assert_eq!(proxy.web.held(), 1, "{page:?}");
            proxy.web.hold(Hold::HeadsAfter(1));
            held_are(&proxy, 5).await;
            proxy.web.release();
        });
        assert_eq!(proxy.web.count(PAGE), 6, "{page:?}");
    }
}

/// What a HEAD is told is stored nowhere; its `Vary` counts all the same.
#[tokio::test]
async fn heads_of_variants_wait_for_the_first_answer_of_all_and_then_for_none_of_another() {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, Item::of(BYTES).vary("x-kind"));
    proxy.web.hold(Hold::Head);
    let url = proxy.url(PAGE);
    let kinds = KINDS.map(|kind| [("x-kind", kind)]);
    let heads = join_all(kinds.iter().map(|fields| ask(Method::HEAD, &url, fields)));
    let (answers, ()) = tokio::join!(heads, async {
        held_are(&proxy, 1).await;
        clients_are(&proxy, 6.0).await;
        proxy.web.hold(Hold::HeadsAfter(1));
        held_are(&proxy, 5).await;
        proxy.web.release();
    });
    for (kind, answer) in KINDS.iter().zip(answers) {
        assert_eq!(answer.header("etag"), format!("\"v1{kind}\""), "{answer:?}");
    }
    assert_eq!(proxy.web.count(PAGE), 6);
}

#[tokio::test]
async fn variants_that_are_arriving_are_joined_each_and_told_of() {
    for page in [pages()[1].clone(), pages()[2].clone()] {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, page.clone());
        proxy.web.hold(Hold::Byte(1000));
        let mut arriving = Vec::new();
        for kind in ["a", "b", "a", "b"] {
            let mut one = proxy.open(PAGE, &[("x-kind", kind)]).await;
            assert!(one.take(1000).await.unwrap() == content(PAGE, 1, kind, 0..1000), "{page:?}");
            arriving.push((kind, one));
        }
        assert_eq!(proxy.web.count(PAGE), 2, "{page:?}");
        let url = format!("{}/v1/explain?url={}", proxy.edge.admin, proxy.url(PAGE));
        let told: serde_json::Value = serde_json::from_str(&get(&url, &[]).await.text()).unwrap();
        let said = |variant: &serde_json::Value| variant["selecting"][0][1].clone();
        let said: Vec<_> = told["variants"].as_array().unwrap().iter().map(said).collect();
        assert_eq!(said, ["b", "a"], "{page:?} {told}");
        proxy.web.release();
        for (kind, mut one) in arriving {
            assert!(one.rest().await.unwrap() == content(PAGE, 1, kind, 1000..BYTES), "{page:?}");
        }
    }
}

#[tokio::test]
async fn variants_of_which_one_is_known_are_asked_for_together_each_once() {
    for (page, each) in pages().into_iter().zip([2, 1, 1]) {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, page.clone());
        ask_all(&proxy, &KINDS[..1], 1).await;
        proxy.web.hold(Hold::Head);
        let answers = ask_all(&proxy, &KINDS, each);
        let (_, ()) = tokio::join!(answers, async {
            held_are(&proxy, 5).await;
            proxy.web.release();
        });
        assert_eq!(proxy.web.count(PAGE), 6, "{page:?}");
    }
}

/// However many variants there are, the origin is asked for as many at a time as it may be.
#[tokio::test]
async fn variants_that_are_asked_for_together_wait_for_a_place_at_the_origin() {
    let proxy = Proxy::with(serde_json::json!({ "in-flight-max": 2 })).await;
    proxy.web.put(PAGE, Item::of(BYTES).vary("x-kind"));
    ask_all(&proxy, &KINDS[..1], 1).await;
    ask_all(&proxy, &KINDS, 2).await;
    assert_eq!(proxy.web.count(PAGE), 6);
    assert!(proxy.web.busy_max() <= 2, "{}", proxy.web.busy_max());
}

async fn head(proxy: &Proxy) -> Answer {
    ask(Method::HEAD, &proxy.url(PAGE), &[]).await
}

/// One that is stale, and by now good for an hour, or the next version of it.
async fn stale(version: u64) -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, Item::stale(BYTES, ""));
    proxy.get(PAGE).await;
    proxy.web.put(PAGE, Item::of(BYTES).version(version));
    proxy
}

fn methods(proxy: &Proxy) -> Vec<(String, u16)> {
    proxy.web.asked_for(PAGE).into_iter().map(|asked| (asked.method, asked.status)).collect()
}

#[tokio::test]
async fn forty_heads_of_what_is_stale_cost_one_conditional_request() {
    let proxy = stale(1).await;
    proxy.web.hold(Hold::Head);
    let (answers, ()) = tokio::join!(join_all((0..40).map(|_| head(&proxy))), async {
        clients_are(&proxy, 40.0).await;
        held_are(&proxy, 1).await;
        proxy.web.release();
    });
    assert!(answers.iter().all(|answer| answer.header("content-length") == "3000"));
    assert_eq!(methods(&proxy), [("GET".to_owned(), 200), ("HEAD".to_owned(), 304)]);
}

#[tokio::test]
async fn heads_wait_for_a_get_that_revalidates_already() {
    for (version, status) in [(1, 304), (2, 200)] {
        let proxy = stale(version).await;
        proxy.web.hold(Hold::Head);
        let heads = async {
            held_are(&proxy, 1).await;
            let all = async {
                clients_are(&proxy, 21.0).await;
                proxy.web.release();
            };
            tokio::join!(join_all((0..20).map(|_| head(&proxy))), all).0
        };
        let (whole, heads) = tokio::join!(proxy.get(PAGE), heads);
        assert!(whole.bytes() == &proxy.web.whole(PAGE));
        let tag = format!("\"v{version}\"");
        assert!(heads.iter().all(|head| head.status == 200 && head.header("etag") == tag));
        assert_eq!(methods(&proxy), [("GET".to_owned(), 200), ("GET".to_owned(), status)]);
    }
}

/// What a HEAD is told of a new version has no body for others.
#[tokio::test]
async fn no_get_waits_for_a_head_and_a_new_version_that_one_meets_is_got_once() {
    let proxy = stale(2).await;
    proxy.web.hold(Hold::Head);
    let both = async {
        held_are(&proxy, 1).await;
        let second = async {
            held_are(&proxy, 2).await;
            proxy.web.release();
        };
        tokio::join!(proxy.get(PAGE), second).0
    };
    let (head_of, whole) = tokio::join!(head(&proxy), both);
    assert_eq!(head_of.header("etag"), "\"v2\"");
    assert!(whole.bytes() == &proxy.web.whole(PAGE));

    let proxy = stale(2).await;
    let heads = join_all((0..5).map(|_| head(&proxy))).await;
    assert!(heads.iter().all(|head| head.status == 200 && head.header("etag") == "\"v2\""));
    let before = proxy.web.count(PAGE);
    proxy.web.hold(Hold::Head);
    let (answers, ()) = tokio::join!(join_all((0..20).map(|_| proxy.get(PAGE))), async {
        clients_are(&proxy, 20.0).await;
        held_are(&proxy, 1).await;
        proxy.web.release();
    });
    assert!(answers.iter().all(|answer| answer.bytes() == &proxy.web.whole(PAGE)));
    assert_eq!(proxy.web.count(PAGE), before + 1);
}

/// The origin can't have chosen by what it was not told.
#[tokio::test]
async fn what_never_reaches_the_origin_makes_no_variants() {
    for (name, values) in [
        ("x-forwarded-proto", ["http", "https"]),
        ("forwarded", ["host=a", "host=b"]),
        ("cmcd-session", ["sid=\"a\"", "sid=\"b\""]),
        ("te", ["trailers", "gzip"]),
    ] {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, Item::of(3 * CHUNK).vary(name));
        let mut asked = 0;
        for (chunk, values) in [values, [values[1], values[0]]].into_iter().enumerate() {
            let range = format!("bytes={0}-{0}", 2 * chunk as u64 * CHUNK);
            for value in values {
                let answer = proxy.get_with(PAGE, &[("range", &range), (name, value)]).await;
                assert_eq!(answer.status, 206, "{name}: {answer:?}");
                proxy.has_filled().await;
            }
            asked += 1;
            assert_eq!(proxy.web.count(PAGE), asked, "{name}: {:?}", proxy.web.asked_for(PAGE));
        }
        assert!(proxy.web.asked_for(PAGE).iter().all(|asked| asked.field(name).is_empty()));
    }
}

/// A client that has a field taken off on the way (RFC 9110 section 7.6.1) is given what the origin
/// has for who says nothing, and so is nobody else who says it.
#[tokio::test]
async fn a_field_that_a_client_has_taken_off_chooses_for_nobody() {
    for page in pages() {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, page.clone());
        let off = [("connection", "x-kind"), ("x-kind", "a")];
        let unsaid = content(PAGE, 1, "", 0..BYTES);
        assert!(proxy.get_with(PAGE, &off).await.bytes() == &unsaid, "{page:?}");
        ask_all(&proxy, &["a"], 1).await;
        assert_eq!(proxy.web.count(PAGE), 2, "{page:?}");
        for fields in [&off[..], &[]] {
            assert!(proxy.get_with(PAGE, fields).await.bytes() == &unsaid, "{page:?} {fields:?}");
        }
        assert_eq!(proxy.web.count(PAGE), 2, "{page:?}");
    }
}
