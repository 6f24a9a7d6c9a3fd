//! Stories of what is stored in part, stale, while its origin fails: it stands in for what is here
//! of it, and promises nothing else. What a soft purge has made stale does so for as long as what
//! is stale since then.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{Answer, CHUNK, Item, Proxy, head, until};
use http::Method;

const FILM: &str = "/film.mp4";
const CHUNKS: u64 = 6;

fn film() -> Item {
    Item::stale(CHUNKS * CHUNK, "stale-if-error=600")
}

/// An edge that has the first chunk of the film, stale, and asks but once.
async fn stage() -> Proxy {
    let proxy = Proxy::with(serde_json::json!({"retries": 0})).await;
    proxy.web.put(FILM, film());
    assert_eq!(proxy.part(FILM, 0..100).await.status, 206);
    proxy.has_filled().await;
    proxy
}

async fn end(proxy: &Proxy, bytes: u64) -> Answer {
    proxy.get_with(FILM, &[("range", &format!("bytes=-{bytes}"))]).await
}

fn heads(proxy: &Proxy) -> usize {
    proxy.web.asked_for(FILM).iter().filter(|asked| asked.method == "HEAD").count()
}

#[tokio::test]
async fn it_stands_in_for_what_is_here_and_else_the_origins_word_is_passed_on() {
    for (misdeed, status) in [(Misdeed::Status(503), 503), (Misdeed::Mute, 502)] {
        let proxy = stage().await;
        proxy.web.always(Some(misdeed));
        let here = proxy.part(FILM, 5..100).await;
        assert_eq!((here.status.as_u16(), here.verdict()), (206, "stale"));
        assert!(here.bytes() == &proxy.web.part(FILM, 5..100));
        let whole = head(Method::HEAD, &proxy.url(FILM)).await;
        assert_eq!(whole.status, 200, "a head promises no more than is known");
        for answer in [
            proxy.get(FILM).await,
            proxy.part(FILM, 2 * CHUNK..2 * CHUNK + 100).await,
            proxy.part(FILM, CHUNK - 1..CHUNK + 1).await,
            end(&proxy, 9).await,
        ] {
            assert_eq!(answer.status, status, "{misdeed:?}");
            assert!(answer.body.is_ok(), "{misdeed:?}");
        }
        let conditions = proxy.web.asked_for(FILM);
        let conditions = conditions.iter().filter(|asked| !asked.field("if-match").is_empty());
        assert_eq!(conditions.count(), 0, "nothing is asked of a version that may be gone");
        assert_eq!(heads(&proxy), 1, "that of the client");
        // What is stored outlives it.
        assert_eq!(proxy.part(FILM, 5..100).await.verdict(), "stale");
    }
}

#[tokio::test]
async fn all_of_it_stands_in_for_all_of_it() {
    let proxy = stage().await;
    proxy.get(FILM).await;
    proxy.web.always(Some(Misdeed::Status(503)));
    let answer = proxy.get(FILM).await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (200, "stale"));
    assert!(answer.bytes() == &proxy.web.whole(FILM));
    let answer = end(&proxy, 9).await;
    assert!(answer.bytes() == &proxy.web.part(FILM, CHUNKS * CHUNK - 9..CHUNKS * CHUNK));
}

/// A slow origin is waited for where what is stored can't answer without it.
#[tokio::test]
async fn what_is_not_here_does_not_stand_in_for_a_slow_origin() {
    let proxy = Proxy::with(serde_json::json!({"stale-after": "50ms"})).await;
    proxy.web.put(FILM, film());
    proxy.part(FILM, 0..100).await;
    proxy.has_filled().await;
    proxy.web.put(FILM, film().version(2));
    proxy.web.hold(common::Hold::Head);
    // Who wants what is here has it after that time.
    let releasing = async {
        assert_eq!(proxy.part(FILM, 0..100).await.verdict(), "stale");
        proxy.web.release();
    };
    let range = 3 * CHUNK..3 * CHUNK + 100;
    let (answer, ()) = tokio::join!(proxy.part(FILM, range.clone()), releasing);
    assert!(answer.bytes() == &proxy.web.part(FILM, range));
    let asked = proxy.web.asked_for(FILM);
    assert!(asked.iter().all(|asked| asked.field("if-match") != "\"v1\""), "{asked:?}");
}

#[tokio::test]
async fn the_end_of_what_is_stored_is_where_it_was() {
    let proxy = stage().await;
    end(&proxy, 100).await;
    end(&proxy, 100).await;
    assert_eq!(heads(&proxy), 0);
    // However long the next version is.
    for (version, chunks) in [(2, CHUNKS + 3), (3, 2), (4, 2), (5, 1), (6, CHUNKS)] {
        let bytes = chunks * CHUNK - version;
        proxy.web.put(FILM, Item::stale(bytes, "").version(version));
        let answer = end(&proxy, 100).await;
        assert_eq!(answer.status, 206, "{version}");
        assert!(answer.bytes() == &proxy.web.part(FILM, bytes - 100..bytes), "{version}");
    }
}

async fn purge_softly(proxy: &Proxy) {
    proxy.edge.purge(&serde_json::json!({"all": true, "soft": true})).await;
}

/// RFC 5861: once it is stale, for so many seconds, and a soft purge makes it stale.
#[tokio::test]
async fn what_is_softly_purged_is_served_for_as_long_as_what_is_stale_since_the_purge() {
    let proxy = Proxy::with(serde_json::json!({"retries": 0})).await;
    let fresh = |windows: &str| Item::of(100).cache_control(&format!("max-age=86400, {windows}"));
    for (path, windows) in [
        ("/long", "stale-while-revalidate=600"),
        ("/none", "stale-while-revalidate=0, stale-if-error=0"),
        ("/short", "stale-while-revalidate=1, stale-if-error=0"),
        ("/failing", "stale-while-revalidate=0, stale-if-error=1"),
    ] {
        proxy.web.put(path, fresh(windows));
        proxy.get(path).await;
        assert_eq!(proxy.get(path).await.verdict(), "hit-memory", "{path}");
    }
    purge_softly(&proxy).await;
    assert_eq!(proxy.get("/long").await.verdict(), "stale");
    until("it is renewed behind the answer", || async {
        (proxy.get("/long").await.verdict() == "hit-memory").then_some(())
    })
    .await;
    assert_eq!(proxy.web.count("/long"), 2, "a purge is one question");
    // While the origin fails each goes on to the end of its time, and that comes.
    proxy.web.always(Some(Misdeed::Status(503)));
    assert_eq!(proxy.get("/none").await.status, 503);
    for path in ["/short", "/failing"] {
        until("its time is over", || async {
            let answer = proxy.get(path).await;
            let is_stale = (answer.status.as_u16(), answer.verdict()) == (200, "stale");
            assert!(is_stale || answer.status.is_server_error(), "{path}: {answer:?}");
            (!is_stale).then_some(())
        })
        .await;
    }
}
