//! What an unsafe method invalidates is not stored by an exchange that began before it, wherever
//! that is, and is by one that begins after it (RFC 9111 section 4.4).

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Hold, Item, Proxy, Validator, ask, until};
use http::Method;

const FILM: &str = "/film.mp4";
const BYTES: u64 = 3000;

/// Kept in chunks, or once it is whole.
fn kinds() -> [Item; 3] {
    let item = Item::of(BYTES);
    [item.clone(), item.clone().validator(Validator::None), item.chunked()]
}

async fn held(proxy: &Proxy) {
    until("an answer is held", || async { (proxy.web.held() == 1).then_some(()) }).await;
}

/// Edits the film, as the answer to a POST says.
async fn edit(proxy: &Proxy) {
    proxy.web.put("/edit", Item::of(3).field("location", FILM));
    let answer = ask(Method::POST, &proxy.url("/edit"), &[]).await;
    assert_eq!(answer.status, 204);
}

fn asked(proxy: &Proxy) -> usize {
    proxy.web.count(FILM)
}

/// Who asks now is answered by a new exchange, and who asks then by what that stored.
async fn is_asked_for_anew(proxy: &Proxy, item: &Item) {
    let before = asked(proxy);
    for _ in 0..2 {
        assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM), "{item:?}");
    }
    // The second may still have found what is kept once it is whole on its way: no exchange.
    assert_eq!(asked(proxy), before + 1, "{item:?}");
}

#[tokio::test]
async fn a_head_that_was_asked_for_before_is_not_stored() {
    for item in kinds() {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Get);
        let changing = async {
            held(&proxy).await;
            edit(&proxy).await;
            proxy.web.release();
        };
        let (answer, ()) = tokio::join!(proxy.get(FILM), changing);
        assert!(answer.bytes() == &proxy.web.whole(FILM), "{item:?}");
        is_asked_for_anew(&proxy, &item).await;
    }
}

#[tokio::test]
async fn a_body_that_is_on_its_way_is_not_kept() {
    for item in kinds() {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.web.hold(Hold::Byte(BYTES / 2));
        let mut open = proxy.open(FILM, &[]).await;
        held(&proxy).await;
        edit(&proxy).await;
        let old = proxy.web.whole(FILM);
        proxy.web.change(FILM);
        proxy.web.release();
        assert!(open.rest().await.unwrap() == old, "{item:?}");
        is_asked_for_anew(&proxy, &item).await;
    }
}

#[tokio::test]
async fn a_304_that_was_asked_for_before_renews_nothing() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::stale(BYTES, ""));
    proxy.get(FILM).await;
    // The same, and fresh from now on.
    proxy.web.put(FILM, Item::of(BYTES));
    proxy.web.hold(Hold::Get);
    let changing = async {
        held(&proxy).await;
        edit(&proxy).await;
        proxy.web.release();
    };
    let (answer, ()) = tokio::join!(proxy.get(FILM), changing);
    assert!(answer.bytes() == &proxy.web.whole(FILM));
    let statuses: Vec<u16> = proxy.web.asked_for(FILM).iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [200, 304, 200], "the 304 was of no use");
    assert_eq!(proxy.get(FILM).await.verdict(), "hit-memory");
}

#[tokio::test]
async fn what_is_asked_for_after_it_is_stored() {
    for item in kinds() {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item.clone());
        proxy.get(FILM).await;
        edit(&proxy).await;
        is_asked_for_anew(&proxy, &item).await;
    }
}

/// An origin that is not told the clients' host names itself.
#[tokio::test]
async fn what_an_origin_names_by_its_own_address_is_ended() {
    for field in ["location", "content-location"] {
        let proxy = Proxy::new().await;
        let own = format!("{}{FILM}", proxy.web.url);
        let other = format!("http://127.0.0.1:1{FILM}");
        for (named, ends) in [(other, false), (own, true)] {
            proxy.web.put(FILM, Item::of(BYTES));
            proxy.get(FILM).await;
            proxy.web.put("/edit", Item::of(3).field(field, &named));
            let before = asked(&proxy);
            assert_eq!(ask(Method::POST, &proxy.url("/edit"), &[]).await.status, 204);
            proxy.get(FILM).await;
            assert_eq!(asked(&proxy) > before, ends, "{field}: {named}");
        }
    }
}
