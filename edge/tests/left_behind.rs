//! Stories of clients at different paces that share an answer that is too large to be kept.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{CHUNK, Hold, Item, Proxy, Validator, open, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FILM: &str = "/film";
/// More than what memory has for answers of which no part can be had again.
const BYTES: u64 = 60 << 20;

#[tokio::test]
async fn who_stops_reading_what_is_not_kept_is_left_behind_and_cut() {
    for item in [
        Item::of(BYTES).validator(Validator::None),
        Item::of(BYTES).validator(Validator::None).chunked(),
    ] {
        let proxy = Proxy::new().await;
        proxy.web.put(FILM, item);
        proxy.web.hold(Hold::Byte(100));
        let mut stopped =
            TcpStream::connect(proxy.edge.http.strip_prefix("http://").unwrap()).await.unwrap();
        stopped
            .write_all(format!("GET {FILM} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut head = [0; 12];
        stopped.read_exact(&mut head).await.unwrap();
        let others = async {
            let joined = || async {
                (proxy.edge.metric("nearcast_edge_responses ").await == 3.0).then_some(())
            };
            until("they share one answer", joined).await;
            proxy.web.release();
        };
        let (one, two, ()) = tokio::join!(proxy.get(FILM), proxy.get(FILM), others);
        for answer in [one, two] {
            assert!(answer.bytes() == &proxy.web.whole(FILM));
        }
        assert_eq!(proxy.web.count(FILM), 1);
        assert_eq!(proxy.edge.metric("nearcast_edge_readers_left_behind_total ").await, 1.0);
        // What was on its way still comes, and then no end.
        let mut rest = Vec::new();
        let ended = stopped.read_to_end(&mut rest).await;
        assert!((rest.len() as u64) < BYTES && !rest.ends_with(b"\r\n0\r\n\r\n"), "{ended:?}");
    }
}

#[tokio::test]
async fn what_some_take_byte_by_byte_leaves_room_for_what_is_small() {
    let proxy = Proxy::new().await;
    let mut stopped = Vec::new();
    for number in 0..3 {
        let path = format!("/{number}");
        proxy.web.put(&path, Item::of(BYTES).validator(Validator::None));
        stopped.push(open(&proxy.url(&path), &[]).await);
    }
    // A quarter of memory is 32 MiB; each has four times what is left of that.
    let grown = || async {
        let bytes = proxy.edge.metric("nearcast_edge_growing_bytes ").await;
        (bytes >= (3 * 9 * CHUNK) as f64).then_some(())
    };
    until("they have their part", grown).await;
    proxy.web.put("/text", Item::of(700).chunked());
    proxy.web.put("/page", Item::of(CHUNK).validator(Validator::None));
    for path in ["/text", "/page"] {
        for _ in 0..3 {
            assert!(proxy.get(path).await.bytes() == &proxy.web.whole(path));
            proxy.has_filled().await;
        }
        assert_eq!(proxy.web.count(path), 1, "{path}");
    }
}
