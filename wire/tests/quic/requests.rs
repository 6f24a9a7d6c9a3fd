//! Bodies of requests, frame by frame as clients may send them (RFC 9114 sections 4.1 and 7.1): what
//! is read is all that was sent, or an error.

use crate::world::{Connection, World, whole, within};
use nearcast_wire::Levers;

/// POST, https, a host, `/read`.
fn head() -> Vec<u8> {
    let fields = [&[0, 0, 0xd4, 0xd7, 0x50, 1, b'a', 0x51, 5][..], b"/read"].concat();
    [&[1, u8::try_from(fields.len()).unwrap()][..], &fields].concat()
}

/// HEADERS with `ns: ` in them.
const TRAILERS: [u8; 8] = [1, 6, 0, 0, 0x22, b'n', b's', 0];

/// Sends a request whose head is read before the rest comes, or comes with it.
async fn sent(connection: &Connection, head: &[u8], rest: &[u8], apart: bool) -> Option<usize> {
    let (mut send, receive) = connection.quic.open_bi().await.unwrap();
    if apart {
        send.write_all(head).await.unwrap();
        assert_eq!(connection.body("/10").await.unwrap().len(), 10);
        // It may be refused already.
        let _ = send.write_all(rest).await;
    } else {
        send.write_all(&[head, rest].concat()).await.unwrap();
    }
    let _ = send.finish();
    within(whole(receive)).await.ok().map(|body| body.len())
}

#[tokio::test]
async fn bodies_are_read_to_their_ends() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let three = [0, 3, 7, 7, 7];
    let empty = [0, 0].repeat(1_000);
    let cases = [
        (Vec::new(), 0),
        (three.to_vec(), 3),
        (empty.clone(), 0),
        ([&three[..], &empty, &three].concat(), 6),
        ([&empty[..], &three, &empty].concat(), 3),
        ([&three[..], &TRAILERS].concat(), 3),
        ([&three[..], &[0x21, 1, 9], &three, &TRAILERS, &[0x21, 1, 9]].concat(), 6),
        ([&empty[..], &TRAILERS].concat(), 0),
    ];
    for (rest, bytes) in &cases {
        for apart in [false, true] {
            let read = sent(&connection, &head(), rest, apart).await;
            assert_eq!(read, Some(*bytes), "{:?}", &rest[..rest.len().min(20)]);
        }
    }
    world.end().await;
}

#[tokio::test]
async fn bodies_that_are_not_whole_or_no_bodies_are_errors() {
    let world = World::start(1, Levers::default());
    let three = [0, 3, 7, 7, 7];
    let behind = |more: &[u8]| [&three[..], &TRAILERS, more].concat();
    let cases = [
        three[..2].to_vec(),
        three[..4].to_vec(),
        [&three[..], &three[..4]].concat(),
        [0, 0].repeat(17).into_iter().chain([0, 1]).collect(),
        behind(&three),
        behind(&[0, 0]),
        behind(&TRAILERS),
    ];
    for rest in &cases {
        for apart in [false, true] {
            // Some end it.
            let connection = world.connect().await;
            assert_eq!(sent(&connection, &head(), rest, apart).await, None, "{rest:?}");
        }
    }
    let connection = world.connect().await;
    // A frame's head that is not whole is the connection's end (section 7.1).
    assert_eq!(sent(&connection, &head(), &[&three[..], &[0]].concat(), true).await, None);
    within(connection.quic.closed()).await;
    world.end().await;
}
