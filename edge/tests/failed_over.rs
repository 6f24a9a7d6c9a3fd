//! Stories of origins and nodes whose answers are sound by themselves, and none to what they were
//! asked: another one is asked, as for any other failure.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::nodes::{below, fetch, node};
use common::{Answer, Edge, Item, Proxy, Web, get, proxy_settings};
use upstream::hierarchy::Peer;

const FILM: &str = "/film.mp4";
const BYTES: u64 = 3 << 20;
const PART: (&str, &str) = ("range", "bytes=1500000-1500009");
/// What is wrong for who wants the whole, and for who wants a part.
const WRONG: [(&[(&str, &str)], Misdeed); 4] = [
    (&[], Misdeed::Unasked),
    (&[], Misdeed::Status(304)),
    (&[PART], Misdeed::WrongRange(7)),
    (&[PART], Misdeed::Status(304)),
];

async fn web(misdeed: Option<Misdeed>) -> Web {
    let web = Web::start().await;
    web.put(FILM, Item::of(BYTES));
    web.always(misdeed);
    web
}

fn is_right(answer: &Answer, web: &Web, fields: &[(&str, &str)]) -> bool {
    let part = || web.part(FILM, 1_500_000..1_500_010);
    let expected = if fields.is_empty() { web.whole(FILM) } else { part() };
    *answer.bytes() == expected
}

#[tokio::test]
async fn a_wrong_answer_of_one_origin_is_asked_of_another() {
    for (fields, misdeed) in WRONG {
        let (first, second) = (web(Some(misdeed)).await, web(None).await);
        let dir = tempfile::tempdir().unwrap();
        let mut settings = proxy_settings(dir.path(), &first.url, &serde_json::json!({}));
        let more = serde_json::json!({ "url": second.url, "priority": 1 });
        let more = serde_json::from_value(more).unwrap();
        settings.sites.get_mut("*").unwrap().origins.push(more);
        let edge = Edge::start(settings).await;
        let answer = get(&format!("{}{FILM}", edge.http), fields).await;
        assert!(is_right(&answer, &second, fields), "{fields:?} {misdeed:?}: {answer:?}");
        assert_eq!((first.count(FILM), second.count(FILM)), (1, 1), "{fields:?} {misdeed:?}");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_answer_of_another_node_is_asked_of_the_origin() {
    for (fields, misdeed) in WRONG {
        let (parent, origin) = (web(Some(misdeed)).await, web(None).await);
        let dir = tempfile::tempdir().unwrap();
        let own = Peer { id: "edge-a".into(), url: common::nodes::free_url() };
        let above = Peer { id: "region-1".into(), url: parent.url.clone() };
        let edge = Edge::start(node(&dir, &own, &origin.url, below(&[above]))).await;
        let answer = fetch(&edge, FILM, fields).await;
        assert!(is_right(&answer, &origin, fields), "{fields:?} {misdeed:?}: {answer:?}");
        assert_eq!((parent.count(FILM), origin.count(FILM)), (1, 1), "{fields:?} {misdeed:?}");
        edge.stop().await;
    }
}

/// RFC 9110 section 15.4.5: there is nothing that the client could go on using.
#[tokio::test]
async fn a_304_that_nobody_asked_for_is_no_answer() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(BYTES));
    proxy.web.always(Some(Misdeed::Status(304)));
    for fields in [&[][..], &[PART], &[("authorization", "Basic YTpi")]] {
        let answer = proxy.get_with(FILM, fields).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (502, "failed"), "{fields:?}");
        assert!(answer.header("proxy-status").contains("http_protocol_error"), "{answer:?}");
    }
    proxy.web.always(None);
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
}
