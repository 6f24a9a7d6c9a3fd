//! Of several origins one that is much slower: it is spared, and has its share again when it is
//! quick.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use futures::future::join_all;
use nearcast_upstream::SiteKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Far above what a loaded machine adds to each answer of both, as four times as long is much slower;
/// less than the second from which on a route takes long.
const PAUSE: Duration = Duration::from_millis(900);
/// Answers before anything is known of an origin's times, and some more.
const ANSWERS: usize = 60;

#[tokio::test]
async fn an_origin_that_was_slow_has_its_objects_again_when_it_is_quick() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = is_slow.clone();
    let steps = move |_: usize, _: &Seen| match slow.load(SeqCst) {
        true => [vec![Step::Pause(PAUSE)], ok("a")].concat(),
        false => ok("a"),
    };
    let (a, b) = (Origin::new(steps).await, Origin::saying("b").await);
    let text = format!("origins = [{:?}, {:?}]\nhedge = false", a.url(), b.url());
    let site = site(SiteKind::Proxy, &text);
    let by = async |object| site.upstream.send(ask_for("/a", object)).await.unwrap().hop;
    let hops = join_all((0..4 * ANSWERS as u64).map(by)).await;
    let own = hops.iter().position(|hop| hop.as_str() == a.url()).unwrap() as u64;

    // One shows that it is slow, the others go elsewhere.
    let before = a.count();
    join_all((0..ANSWERS).map(|_| by(own))).await;
    assert!(a.count() <= before + 1, "{} more", a.count() - before);

    is_slow.store(false, SeqCst);
    let again = async || {
        while by(own).await.as_str() != a.url() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again()).await.unwrap();
    let before = b.count();
    join_all((0..ANSWERS).map(|_| by(own))).await;
    assert_eq!(b.count(), before);
}
