//! Stories of fetches whose task panics: who waits gets the whole answer by another fetch, or an
//! error, and never a part that looks like the whole; the panic is counted and leaves nothing.
//!
//! The panic comes from the log: a subscriber that is told to panic at a line does so on the
//! task that logs it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::{CHUNK, DEADLINE, Hold, Item, Proxy, Validator, WebMisdeed, log, until};
use futures::future::join_all;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};

/// The line that is not survived: by the first task that logs it.
static FATAL: Mutex<Option<&str>> = Mutex::new(None);
/// One story at a time: they share the log.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const FILM: &str = "/film.mp4";

fn fatal() -> MutexGuard<'static, Option<&'static str>> {
    FATAL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Line<'a>(&'a mut bool);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut fatal = fatal();
        if field.name() == "message" && fatal.is_some_and(|line| format!("{value:?}") == line) {
            (*fatal, *self.0) = (None, true);
        }
    }
}

/// The first task that logs this line panics.
fn panic_at(line: &'static str) {
    log::watch("nearcast_", |event| {
        let mut is_fatal = false;
        event.record(&mut Line(&mut is_fatal));
        assert!(!is_fatal, "as the story wants it");
    });
    *fatal() = Some(line);
}

async fn panics(proxy: &Proxy) -> f64 {
    proxy.edge.metric("nearcast_edge_fetch_panics_total ").await
}

/// The panic came, was counted, and nothing of what it was about is left.
async fn is_over(proxy: &Proxy) {
    until("the panic's count", || async { (panics(proxy).await == 1.0).then_some(()) }).await;
    assert_eq!(*fatal(), None);
    for gauge in ["filling_chunks", "growing_bytes", "responses", "memory_held_bytes"] {
        let line = format!("nearcast_edge_{gauge} ");
        until(gauge, || async { (proxy.edge.metric(&line).await == 0.0).then_some(()) }).await;
    }
}

/// Asks so often at once, while the origin holds its answer there. Statuses, and bodies; an error
/// for one that was cut.
async fn together(proxy: &Proxy, hold: Hold) -> Vec<(u16, Result<Bytes, String>)> {
    proxy.web.hold(hold);
    let asking = join_all((0..8).map(async |_| {
        let mut opened = proxy.open(FILM, &[]).await;
        (opened.status.as_u16(), opened.rest().await)
    }));
    let releasing = async {
        until("all are there", || async {
            let there = proxy.edge.metric("nearcast_edge_responses ").await;
            (proxy.web.held() == 1 && there == 8.0).then_some(())
        })
        .await;
        proxy.web.release();
    };
    let both = async { tokio::join!(asking, releasing).0 };
    tokio::time::timeout(DEADLINE, both).await.expect("nobody waits for ever")
}

#[tokio::test]
async fn who_follows_a_first_answer_whose_taking_panics_gets_the_rest_by_another() {
    let _turn = TURN.lock().await;
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3 * CHUNK + 7));
    proxy.web.misbehave(&[WebMisdeed::Cut(CHUNK + 9)]);
    panic_at("fetching the rest");
    let whole = proxy.web.whole(FILM);
    for answer in together(&proxy, Hold::Byte(CHUNK)).await {
        assert!(answer.1.unwrap() == whole);
    }
    is_over(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &whole);
}

#[tokio::test]
async fn who_waits_for_chunks_whose_fetch_panics_gets_them_by_another() {
    let _turn = TURN.lock().await;
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3 * CHUNK + 7));
    let whole = proxy.web.whole(FILM);
    proxy.part(FILM, 0..10).await;
    proxy.web.misbehave(&[WebMisdeed::Cut(9)]);
    panic_at("fetching again");
    for answer in together(&proxy, Hold::Byte(2 * CHUNK)).await {
        assert!(answer.1.unwrap() == whole);
    }
    is_over(&proxy).await;
}

#[tokio::test]
async fn who_waits_for_a_head_whose_exchange_panics_is_told_so_and_the_next_asks_anew() {
    let _turn = TURN.lock().await;
    let proxy = Proxy::with(serde_json::json!({ "retries": 0 })).await;
    proxy.web.put(FILM, Item::of(10));
    proxy.web.misbehave(&[WebMisdeed::Mute]);
    panic_at("exchange failed");
    let whole = proxy.web.whole(FILM);
    let answers = together(&proxy, Hold::Head).await;
    assert!(answers.iter().any(|(status, _)| *status == 502));
    for (status, body) in answers {
        // Or it asked only after the others were told.
        assert!(status == 502 || (status == 200 && body.unwrap() == whole), "{status}");
    }
    is_over(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &whole);
}

#[tokio::test]
async fn a_growing_answer_whose_taking_panics_is_no_clean_end_and_not_in_the_way_of_the_next() {
    let _turn = TURN.lock().await;
    let proxy = Proxy::new().await;
    let weak = |item: Item| item.validator(Validator::None);
    let old = weak(Item::stale(10, "stale-while-revalidate=600"));
    proxy.web.put(FILM, old);
    proxy.get(FILM).await;
    // Renewed in the background, twice: the first time in vain.
    let (before, new) = (proxy.web.whole(FILM), weak(Item::of(3 * CHUNK)));
    proxy.web.put(FILM, new.version(2));
    proxy.web.misbehave(&[WebMisdeed::Cut(CHUNK)]);
    panic_at("an answer was not whole");
    assert!(proxy.get(FILM).await.bytes() == &before);
    is_over(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &before);
    let whole = proxy.web.whole(FILM);
    until("the new one", || async { (proxy.get(FILM).await.bytes() == &whole).then_some(()) })
        .await;
    assert_eq!(proxy.web.count(FILM), 3);
}

#[tokio::test]
async fn who_reads_a_growing_answer_whose_taking_panics_sees_it_cut() {
    let _turn = TURN.lock().await;
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3 * CHUNK).validator(Validator::None));
    proxy.web.misbehave(&[WebMisdeed::Cut(CHUNK + 9)]);
    panic_at("an answer was not whole");
    for (status, body) in together(&proxy, Hold::Byte(CHUNK)).await {
        assert_eq!(status, 200);
        body.unwrap_err();
    }
    is_over(&proxy).await;
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
}
