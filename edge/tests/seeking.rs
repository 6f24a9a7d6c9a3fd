//! A player that seeks through a cold film: each time it asks for the rest of the film, and leaves
//! after a little of it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Item, Proxy, SMALL_BUFFER_BYTES, Stopped, range_bytes, until};

const MIB: usize = 1 << 20;
const FILM: &str = "/film";
const FILM_BYTES: usize = 96 * MIB;
const TAKEN_BYTES: usize = 100_000;
/// What a response asks for at first.
const FIRST_BYTES: u64 = 2 << 20;

/// What the origin has sent by the time that the player leaves is kept, and nothing is sent again.
#[tokio::test]
async fn a_player_that_seeks_costs_no_byte_twice() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(FILM_BYTES as u64));
    let whole = proxy.web.whole(FILM);
    // From now on its length is known.
    proxy.part(FILM, 0..9).await;
    let seeks = [41, 7, 60, 22, 75, 52].map(|at| at * MIB + MIB / 3);
    for at in seeks {
        let mut player = Stopped::from(&proxy.edge, FILM, (at, SMALL_BUFFER_BYTES)).await;
        assert!(player.takes(TAKEN_BYTES).await == whole[at..at + TAKEN_BYTES], "{at}");
    }
    proxy.has_filled().await;
    let asked = proxy.web.ranges(FILM);
    let of_seeks: u64 = asked[1..].iter().map(|asked| range_bytes(asked)).sum();
    assert_eq!(of_seeks, seeks.len() as u64 * FIRST_BYTES, "{asked:?}");
    until("all that was asked for came", || async {
        (proxy.web.sent(FILM) == of_seeks + MIB as u64).then_some(())
    })
    .await;
    assert!(proxy.get(FILM).await.bytes() == &whole);
    assert_eq!(proxy.web.sent(FILM), FILM_BYTES as u64, "{:?}", proxy.web.ranges(FILM));
}

/// Who stays soon has as much asked for at a time as one request may bring.
#[tokio::test]
async fn who_stays_is_brought_more_at_a_time() {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(FILM_BYTES as u64));
    proxy.part(FILM, 0..9).await;
    assert!(proxy.get(FILM).await.bytes() == &proxy.web.whole(FILM));
    let asked = proxy.web.ranges(FILM);
    let mib: Vec<_> = asked.iter().map(|asked| range_bytes(asked) >> 20).collect();
    // One request is for bytes of one run of 64 MiB.
    assert_eq!(mib, [1, 2, 3, 6, 12, 16, 16, 8, 16, 16], "{asked:?}");
}
