//! A client on a thin line: what is handed over for it follows what the line takes.

use crate::line::Line;
use crate::world::{Connection, World, assert_first, whole, within};
use nearcast_wire::Levers;
use std::sync::atomic::Ordering::SeqCst;

/// What a connection may have under way at its start (`wire/src/quic/window.rs`), and what waits
/// before it: a piece of the body, a DATA frame and the next one.
const AT_FIRST: usize = 256 << 10;
const BESIDE: usize = 300_000;
/// Datagrams that come while none is acknowledged: the first window, and probes after it.
const UNTIL_PROBED: usize = 14;

#[tokio::test]
async fn what_is_handed_over_follows_the_line() {
    let world = World::start(1, Levers::default());
    let mut line = Line::to(world.addr, usize::MAX).await;
    let endpoint = world.client();
    let quic = endpoint.connect(line.addr, "localhost").unwrap().await.unwrap();
    let connection = Connection::new(endpoint, quic).await;
    line.shut.send_replace(true);
    let stream = connection.get("/6000000").await;
    within(line.kept.wait_for(|kept| *kept >= UNTIL_PROBED)).await.unwrap();
    let given = world.shared.service.given.load(SeqCst);
    assert!(
        (AT_FIRST..AT_FIRST + BESIDE).contains(&given),
        "{given} bytes for a line that is shut"
    );
    // With a line that takes it, all comes.
    line.shut.send_replace(false);
    let body = whole(stream).await.unwrap();
    assert_eq!(body.len(), 6_000_000);
    assert_first(&body);
    drop(connection);
    world.end().await;
}
