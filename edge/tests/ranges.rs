//! Stories of ranges: any part out of any chunks, and no more from the origin than the chunks
//! that are touched.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Item, Proxy};

#[tokio::test]
async fn one_range_costs_the_chunks_that_it_touches_and_then_hits() {
    let proxy = Proxy::new().await;
    proxy.web.put("/film", Item::of(5 * CHUNK + 17));
    let answer = proxy.part("/film", 100..200).await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (206, "origin"));
    assert_eq!(answer.header("content-range"), format!("bytes 100-199/{}", 5 * CHUNK + 17));
    assert_eq!(answer.bytes(), &proxy.web.part("/film", 100..200));
    assert_eq!(proxy.web.sent("/film"), CHUNK);
    let across = 2 * CHUNK - 10..3 * CHUNK + 10;
    assert_eq!(proxy.part("/film", across.clone()).await.bytes(), &proxy.web.part("/film", across));
    assert_eq!(proxy.web.sent("/film"), 4 * CHUNK);
    let again = proxy.part("/film", 2 * CHUNK..2 * CHUNK + 5).await;
    assert_eq!(again.verdict(), "hit-memory");
    assert_eq!(proxy.web.count("/film"), 2);
}
