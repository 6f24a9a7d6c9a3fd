//! Stories of what a 304 and the answer to a HEAD bring to what is stored, and of what they may
//! not bring to anybody but the one who asked.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, DEADLINE, Hold, Item, Proxy, Validator, WebMisdeed, ask, until};
use futures::future::join_all;
use http::Method;
use model::admin::PurgeDone;
use serde_json::json;
use service::client::Client;

const PAGE: &str = "/page";
const BYTES: u64 = 3000;

/// How a stored response is renewed: by 304s, and by a 200 to a HEAD.
const HOW: [(Method, &[WebMisdeed]); 3] =
    [(Method::GET, &[]), (Method::HEAD, &[]), (Method::HEAD, &[WebMisdeed::Unconditional])];

type Fields<'a> = &'a [(&'a str, &'a str)];

/// An edge that has this.
async fn with(item: Item) -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, item);
    proxy.get_with(PAGE, &[("cookie", "a=b")]).await;
    proxy
}

/// Nothing is said of caching, but for what these fields say.
fn silent(fields: Fields<'_>) -> Item {
    let item = Item { fields: Vec::new(), ..Item::of(BYTES) };
    fields.iter().fold(item, |item, (name, value)| item.field(name, value))
}

/// Without anything of another client's.
fn is_clean(answer: &Answer) -> bool {
    !["set-cookie", "x-user"].iter().any(|name| answer.headers.contains_key(*name))
}

/// What is stored, what the 304 says to a request with which fields.
fn about_one_client() -> Vec<(Item, Item, Fields<'static>)> {
    let dated = |fields| silent(fields).validator(Validator::Date);
    let stale = || Item::stale(BYTES, "");
    let cookie = ("set-cookie", "SID=x");
    let fresh = || Item::of(BYTES);
    vec![
        // A guess by `Last-Modified`, two days ago.
        (dated(&[("age", "172800")]), dated(&[cookie]), &[]),
        (stale(), silent(&[cookie]), &[]),
        (stale(), silent(&[cookie, ("cache-control", "no-cache")]), &[]),
        (stale(), silent(&[]), &[("cookie", "SID=x")]),
        (stale(), fresh(), &[("authorization", "Basic YTpi")]),
        (stale(), fresh(), &[("cache-control", "no-store")]),
        (stale(), fresh().cache_control("private, max-age=60"), &[]),
        (stale(), fresh().cache_control("no-store"), &[]),
        (stale(), fresh().field("vary", "*"), &[]),
        (stale().field("cdn-cache-control", "max-age=10"), fresh().cache_control("private"), &[]),
        (Item::stale(BYTES, "public"), silent(&[]), &[("authorization", "Basic YTpi")]),
    ]
}

#[tokio::test]
async fn what_a_304_says_to_one_client_is_nobody_elses() {
    for (stored, renewing, fields) in about_one_client() {
        let told = format!("{stored:?} {renewing:?} {fields:?}");
        let proxy = with(stored).await;
        let sets_cookie = renewing.fields.iter().any(|(name, _)| name == "set-cookie");
        proxy.web.put(PAGE, renewing.clone().field("x-user", "me"));
        let own = proxy.get_with(PAGE, fields).await;
        assert_eq!((own.status.as_u16(), own.verdict()), (200, "revalidated"), "{told}");
        assert!(own.bytes() == &proxy.web.whole(PAGE), "{told}");
        assert_eq!(proxy.web.asked_for(PAGE)[1].status, 304, "{told}");
        assert_eq!(own.headers.contains_key("set-cookie"), sets_cookie, "{told}");
        proxy.web.put(PAGE, Item { validator: renewing.validator, ..Item::of(BYTES) });
        for _ in 0..2 {
            let other = proxy.get(PAGE).await;
            assert!(is_clean(&other), "{told}: {other:?}");
            assert!(other.bytes() == &proxy.web.whole(PAGE), "{told}");
        }
    }
}

#[tokio::test]
async fn what_a_304_says_behind_a_stale_answer_is_nobody_elses() {
    // Behind what a client with no-store was given, nothing is renewed: that could not be kept.
    let renews = |fields: &[(&str, &str)]| !fields.contains(&("cache-control", "no-store"));
    for (stored, renewing, fields) in about_one_client() {
        if !renews(fields) {
            continue;
        }
        let control = "public, max-age=10, stale-while-revalidate=172800";
        let (told, validator) = (format!("{renewing:?} {fields:?}"), stored.validator);
        let proxy = with(Item::stale(BYTES, "").cache_control(control).validator(validator)).await;
        proxy.web.put(PAGE, renewing.field("x-user", "me"));
        assert_eq!(proxy.get_with(PAGE, fields).await.verdict(), "stale", "{told}");
        let over = || async { proxy.web.asked_for(PAGE).get(1)?.is_over.then_some(()) };
        until("the 304", over).await;
        proxy.web.put(PAGE, Item { validator, ..Item::of(BYTES) });
        let fresh = || async {
            let other = proxy.get(PAGE).await;
            assert!(is_clean(&other), "{told}: {other:?}");
            (other.verdict() == "hit-memory").then_some(())
        };
        until("a fresh answer", fresh).await;
    }
}

/// RFC 9111 section 5.2.2: what was public is so no more, nor does it stand in for a failure.
#[tokio::test]
async fn a_304_that_makes_it_private_ends_it_for_all_others() {
    for control in ["private, max-age=60", "no-store"] {
        for window in ["stale-while-revalidate=3600", "stale-if-error=3600"] {
            let proxy = with(Item::stale(BYTES, window)).await;
            proxy.web.put(PAGE, Item::of(BYTES).cache_control(control));
            proxy.get_with(PAGE, &[("cache-control", "no-cache")]).await;
            assert_eq!(proxy.web.asked_for(PAGE)[1].status, 304, "{control}");
            proxy.web.always(Some(WebMisdeed::Status(503)));
            for stale in [&[][..], &[("cache-control", "max-stale")]] {
                assert_eq!(proxy.get_with(PAGE, stale).await.status, 503, "{control} {window}");
            }
            let asked = proxy.web.asked_for(PAGE);
            assert_eq!(asked.last().unwrap().field("if-none-match"), "", "{control} {window}");
        }
    }
    // What was about one client leaves what is stored as it was.
    let proxy = with(Item::stale(BYTES, "stale-if-error=3600")).await;
    proxy.web.put(PAGE, silent(&[("set-cookie", "SID=x")]));
    assert_eq!(proxy.get(PAGE).await.header("set-cookie"), "SID=x");
    proxy.web.always(Some(WebMisdeed::Status(503)));
    let other = proxy.get(PAGE).await;
    assert_eq!((other.verdict(), is_clean(&other)), ("stale", true), "{other:?}");
}

#[tokio::test]
async fn what_a_head_says_to_one_client_is_nobody_elses() {
    let authorized = ("authorization", "Basic YTpi");
    let table: [(Item, Fields<'_>, &str); 6] = [
        (silent(&[("set-cookie", "SID=x")]), &[], "hit-memory"),
        (silent(&[]), &[("cookie", "SID=x")], "hit-memory"),
        (Item::of(BYTES), &[authorized], "hit-memory"),
        (Item::of(BYTES).cache_control("private"), &[authorized], "origin"),
        (Item::of(BYTES).cache_control("no-store"), &[], "origin"),
        (Item::of(BYTES).field("vary", "*"), &[], "origin"),
    ];
    let cases = table.iter().flat_map(|case| HOW[1..].iter().map(move |how| (case, how)));
    for ((said, fields, verdict), (_, misdeeds)) in cases {
        let proxy = with(Item::of(BYTES)).await;
        proxy.web.put(PAGE, said.clone().field("x-user", "me"));
        proxy.web.misbehave(misdeeds);
        let fields = [&[("cache-control", "no-cache")], *fields].concat();
        let own = ask(Method::HEAD, &proxy.url(PAGE), &fields).await;
        assert_eq!(proxy.web.asked_for(PAGE)[1].method, "HEAD", "{said:?}");
        assert_eq!(own.status, 200, "{said:?}");
        proxy.web.put(PAGE, Item::of(BYTES));
        let other = proxy.get(PAGE).await;
        assert!(is_clean(&other), "{said:?} {fields:?}: {other:?}");
        assert_eq!(other.verdict(), *verdict, "{said:?} {fields:?}");
    }
}

/// None is sent all of it because another's answer could not be shared.
#[tokio::test]
async fn each_of_many_is_told_by_its_own_304() {
    let proxy = with(Item::stale(BYTES, "")).await;
    proxy.web.put(PAGE, silent(&[("set-cookie", "SID=x")]));
    proxy.web.hold(Hold::Head);
    let all = join_all((0..5).map(|_| proxy.get(PAGE)));
    let released = async {
        until("one asks", || async { (proxy.web.held() > 0).then_some(()) }).await;
        proxy.web.release();
    };
    let (answers, ()) = tokio::join!(all, released);
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.header("set-cookie")), (200, "SID=x"));
        assert!(answer.bytes() == &proxy.web.whole(PAGE));
    }
    assert_eq!((proxy.web.count(PAGE), proxy.web.sent(PAGE)), (6, BYTES));
}

/// Where the stored fields name a lifetime, that is for all, and such an origin's 304s may not
/// repeat it; what else they say may be about the cookie.
#[tokio::test]
async fn a_304_to_a_cookie_that_says_nothing_of_time_only_renews_the_time() {
    let proxy = with(Item::stale(BYTES, "")).await;
    proxy.web.put(PAGE, silent(&[("x-user", "me")]));
    proxy.get_with(PAGE, &[("cookie", "SID=x")]).await;
    let other = proxy.get(PAGE).await;
    assert_eq!((other.verdict(), is_clean(&other)), ("hit-memory", true), "{other:?}");
    assert_eq!(proxy.web.count(PAGE), 2);
}

/// RFC 9111 section 4.3: what a stored response is found and purged by is renewed with it.
#[tokio::test]
async fn what_it_is_purged_by_is_what_its_fields_say_now() {
    for (method, misdeeds) in HOW {
        let proxy = with(Item::stale(BYTES, "").field("cache-tag", "a")).await;
        proxy.web.put(PAGE, Item::of(BYTES).field("cache-tag", "b"));
        proxy.web.misbehave(misdeeds);
        ask(method.clone(), &proxy.url(PAGE), &[]).await;
        assert_eq!(proxy.get(PAGE).await.verdict(), "hit-memory", "{method}");
        for (tag, verdict) in [("a", "hit-memory"), ("b", "origin")] {
            let purge = json!({ "tag": tag });
            let admin = Client::new(DEADLINE, None, None).unwrap();
            let url = format!("{}/v1/purge", proxy.edge.admin);
            admin.post_json::<_, PurgeDone>(&url, &purge).await.unwrap();
            assert_eq!(proxy.get(PAGE).await.verdict(), verdict, "{method} {tag}");
        }
    }
}

#[tokio::test]
async fn who_selects_it_is_what_its_fields_say_now() {
    let (nl, fr) = ([("accept-language", "nl")], [("accept-language", "fr")]);
    for (method, misdeeds) in HOW {
        // The answer to a HEAD that was not asked about what is stored says nothing of whose it is.
        let verdict = if misdeeds.is_empty() { "hit-memory" } else { "origin" };
        let proxy = with(Item::stale(BYTES, "")).await;
        proxy.web.put(PAGE, Item::of(BYTES).field("vary", "accept-language"));
        proxy.web.misbehave(misdeeds);
        ask(method.clone(), &proxy.url(PAGE), &nl).await;
        assert_eq!(proxy.get_with(PAGE, &fr).await.verdict(), "origin", "{method}");
        assert_eq!(proxy.get_with(PAGE, &nl).await.verdict(), verdict, "{method}");
    }
    // The same fields, said in other words by another client.
    let proxy = with(Item::stale(BYTES, "").field("vary", "accept-language")).await;
    let item = Item::stale(BYTES, "").field("vary", "accept-language");
    proxy.web.put(PAGE, item.field("content-language", "nl"));
    proxy.get_with(PAGE, &nl).await;
    proxy.web.put(PAGE, Item::of(BYTES).field("vary", "accept-language"));
    let (many, verdicts) = ([("accept-language", "nl, en;q=0.5")], ["revalidated", "hit-memory"]);
    for verdict in verdicts {
        assert_eq!(proxy.get_with(PAGE, &many).await.verdict(), verdict);
    }
    assert_eq!(proxy.get_with(PAGE, &nl).await.verdict(), "hit-memory");
}

/// RFC 8246 section 2.1: what a browser's reload asks (`max-age=0`, and for a 304) is answered from
/// here while it is fresh. `no-cache`, by which a user insists, is the origin's to answer.
#[tokio::test]
async fn a_reload_of_what_is_immutable_and_fresh_costs_the_origin_nothing() {
    let reload = ("cache-control", "max-age=0");
    let reloads: [Fields<'_>; 2] = [&[reload], &[reload, ("if-none-match", "\"v1\"")]];
    for (control, age, is_asked) in [
        ("max-age=60, immutable", "20", false),
        ("max-age=60", "20", true),
        // No longer fresh.
        ("max-age=60, immutable", "70", true),
    ] {
        let proxy = with(Item::of(BYTES).cache_control(control).field("age", age)).await;
        for fields in reloads {
            let before = proxy.web.count(PAGE);
            let answer = proxy.get_with(PAGE, fields).await;
            let status = if fields.len() > 1 { 304 } else { 200 };
            assert_eq!(answer.status, status, "{control} {age} {fields:?}");
            let asked = proxy.web.count(PAGE) - before;
            assert_eq!(asked, usize::from(is_asked), "{control} {age} {fields:?}");
        }
        let before = proxy.web.count(PAGE);
        assert_eq!(proxy.get_with(PAGE, &[("cache-control", "no-cache")]).await.status, 200);
        assert_eq!(proxy.web.count(PAGE) - before, 1, "{control} {age}");
    }
}
