//! Stories of an origin whose bodies break off: what who comes next gets.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::WebMisdeed as Misdeed;
use common::{CHUNK, Item, Proxy};

/// A fetch that failed is told to who comes after it no more: that one asks the origin itself.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_a_broken_body_asks_the_origin() {
    const ROUNDS: usize = 100;
    let proxy = Proxy::new().await;
    // So little that no chunk comes of as many answers as one fetch takes.
    proxy.web.always(Some(Misdeed::Cut(CHUNK / 4)));
    for round in 0..ROUNDS {
        let path = format!("/{round}");
        proxy.web.put(&path, Item::of(3 * CHUNK));
        let answer = proxy.get(&path).await;
        assert!(answer.body.is_err() || answer.status == 502, "{}", answer.status);
        let asked = proxy.web.count(&path);
        proxy.get(&path).await;
        assert!(proxy.web.count(&path) > asked, "round {round}");
    }
}
