//! A server or a client leaves, and what is under way ends well, whoever reads its head.

use crate::world::{Connection, HOST, World, assert_first, message, payload, whole, within};
use bytes::BytesMut;
use nearcast_wire::Levers;
use quinn::{ConnectionError, ReadError, TransportErrorCode};
use std::sync::atomic::Ordering::SeqCst;

const BYTES: usize = 30_000;

fn assert_whole(body: Result<BytesMut, ReadError>) {
    let body = body.unwrap();
    assert_eq!(body.len(), BYTES);
    assert_first(&body);
}

/// The last request still waits for its answer, whoever has read it.
#[tokio::test]
async fn a_drain_lets_the_last_request_be_answered() {
    for more in [&[][..], &HOST] {
        let world = World::start(1, Levers::default());
        let connection = world.connect().await;
        let waiting = connection.ask(&message("/30000/later", more)).await;
        world.until_asked(1).await;
        world.shared.drain.cancel();
        assert_eq!(connection.goaway().await, 4);
        world.shared.service.answers.add_permits(1);
        assert_whole(whole(waiting).await);
        world.end().await;
    }
}

/// Its head comes when the server drains already, and nothing else keeps the connection.
#[tokio::test]
async fn a_stream_that_was_accepted_is_answered_when_its_head_comes() {
    for more in [&[][..], &HOST] {
        let world = World::start(1, Levers::default());
        let (other, connection) = (world.connect().await, world.connect().await);
        let before = other.get("/30000/later").await;
        world.until_asked(1).await;
        let (mut send, waiting) = connection.quic.open_bi().await.unwrap();
        assert_first(&connection.body("/1000").await.unwrap());
        world.shared.drain.cancel();
        assert_eq!(connection.goaway().await, 8);
        send.write_all(&message("/30000/later", more)).await.unwrap();
        send.finish().unwrap();
        world.until_asked(2).await;
        // The other connection is answered first. When it has ended, this one would have ended too.
        world.shared.service.answers.add_permits(1);
        assert_whole(whole(before).await);
        assert_ended(&other).await;
        world.shared.service.answers.add_permits(1);
        assert_whole(whole(waiting).await);
        world.end().await;
    }
}

/// A GOAWAY names the first stream that is not answered: it and what comes after it may be sent
/// again elsewhere, so the service must not be asked.
#[tokio::test]
async fn a_drain_refuses_what_comes_after_it() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let waiting = connection.get("/30000/later").await;
    world.until_asked(1).await;
    world.shared.drain.cancel();
    assert_eq!(connection.goaway().await, 4);
    for _ in 0..2 {
        let refused = connection.body("/30000").await;
        assert!(matches!(refused, Err(ReadError::Reset(code)) if code.into_inner() == 0x10b));
    }
    world.shared.service.answers.add_permits(1);
    assert_whole(whole(waiting).await);
    world.end().await;
}

/// Who comes while the last requests are waited for learns at once that nobody serves it.
#[tokio::test]
async fn a_drain_refuses_new_connections() {
    let world = World::start(2, Levers::default());
    let connection = world.connect().await;
    let waiting = connection.get("/30000/later").await;
    world.until_asked(1).await;
    world.shared.drain.cancel();
    assert_eq!(connection.goaway().await, 4);
    // From several ports, so that each socket has some.
    for _ in 0..8 {
        let client = world.client();
        let connecting = client.connect(world.addr, "localhost").unwrap();
        let refused = within(connecting).await.unwrap_err();
        let ConnectionError::ConnectionClosed(closed) = refused else { panic!("{refused}") };
        assert_eq!(closed.error_code, TransportErrorCode::CONNECTION_REFUSED);
    }
    world.shared.service.answers.add_permits(1);
    assert_whole(whole(waiting).await);
    world.end().await;
}

/// Whatever a client gives up before its first byte ends there; what follows is answered.
#[tokio::test]
async fn a_stream_without_a_request_is_incomplete() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let ended = whole(connection.ask(&[]).await).await;
    assert!(matches!(ended, Err(ReadError::Reset(code)) if code.into_inner() == 0x10d));
    assert_whole(connection.body("/30000").await);
    world.end().await;
}

/// A connection without a request ends at once.
#[tokio::test]
async fn a_drain_ends_idle_connections() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    world.shared.drain.cancel();
    assert_eq!(connection.goaway().await, 0);
    assert_ended(&connection).await;
    world.end().await;
}

async fn assert_ended(connection: &Connection) {
    let ended = within(connection.quic.closed()).await;
    match ended {
        ConnectionError::ApplicationClosed(closed) => {
            assert_eq!(closed.error_code.into_inner(), 0x100);
        }
        // The packet that says so may be lost on a busy machine; who asks later is told that.
        ConnectionError::Reset => {}
        ended => panic!("{ended}"),
    }
}

/// The client goes; its body comes whole, and the connection then ends.
#[tokio::test]
async fn a_client_that_goes_gets_what_it_asked_for() {
    for more in [&[][..], &HOST] {
        let world = World::start(1, Levers::default());
        let mut connection = world.connect().await;
        assert_whole(whole(connection.ask(&message("/30000", &HOST)).await).await);
        let mut stream = connection.ask(&message("/50000000", more)).await;
        let first = within(stream.read_chunk(1000, true)).await.unwrap().unwrap();
        connection.control.write_all(&[7, 1, 0]).await.unwrap();
        assert_eq!(connection.goaway().await, 8);
        let mut all = BytesMut::from(&first.bytes[..]);
        while let Some(chunk) = within(stream.read_chunk(usize::MAX, true)).await.unwrap() {
            all.extend_from_slice(&chunk.bytes);
        }
        let body = payload(all);
        assert_eq!(body.len(), 50_000_000);
        assert_first(&body);
        assert_ended(&connection).await;
        world.end().await;
    }
}

/// It has asked for nothing, or for what is slow to come.
#[tokio::test]
async fn a_client_that_goes_is_waited_for_no_longer_than_its_answers() {
    let world = World::start(1, Levers::default());
    let mut idle = world.connect().await;
    idle.control.write_all(&[7, 1, 0]).await.unwrap();
    assert_ended(&idle).await;
    for more in [&[][..], &HOST] {
        let mut slow = world.connect().await;
        let asked = world.shared.service.asked.load(SeqCst);
        let waiting = slow.ask(&message("/30000/later", more)).await;
        world.until_asked(asked + 1).await;
        slow.control.write_all(&[7, 1, 0]).await.unwrap();
        assert_eq!(slow.goaway().await, 4);
        world.shared.service.answers.add_permits(1);
        assert_whole(whole(waiting).await);
        assert_ended(&slow).await;
    }
    world.end().await;
}
