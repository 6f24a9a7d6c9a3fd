//! What a client may not send ends its connection, by the error that RFC 9114 names.

use crate::world::{World, assert_first, message, whole, within};
use nearcast_wire::Levers;
use quinn::{ConnectionError, SendStream};

/// A stream of the client's, and how it goes on behind these bytes.
#[derive(Debug)]
enum Stream {
    /// For requests.
    Both(Vec<u8>),
    /// The client's own, open.
    Own(Vec<u8>),
    /// Finished.
    Ended(Vec<u8>),
    Reset(Vec<u8>),
}

use Stream::{Both, Ended, Own, Reset};

/// H3_STREAM_CREATION_ERROR and so on (section 8.1).
const CREATION: u64 = 0x103;
const CLOSED: u64 = 0x104;
const UNEXPECTED: u64 = 0x105;
const FRAME: u64 = 0x106;
const LOAD: u64 = 0x107;
const ID: u64 = 0x108;
const SETTINGS: u64 = 0x109;
const MISSING: u64 = 0x10a;

fn own(bytes: &[u8]) -> Vec<Stream> {
    vec![Own(bytes.to_vec())]
}

/// A control stream that goes on so behind its SETTINGS.
fn control(frames: &[u8]) -> Vec<Stream> {
    own(&[&[0, 4, 0], frames].concat())
}

/// A request beside a control stream.
fn asked(frames: &[u8]) -> Vec<Stream> {
    vec![Own(vec![0, 4, 0]), Both(frames.to_vec())]
}

/// An upload that goes on so behind its head.
fn upload(frames: &[u8]) -> Vec<Stream> {
    let mut head = message("/read", &[]);
    // POST.
    head[4] = 0xd4;
    asked(&[&head[..], frames].concat())
}

async fn sent(quic: &quinn::Connection, streams: Vec<Stream>) -> Vec<SendStream> {
    let mut kept = Vec::new();
    for stream in streams {
        let is_both = matches!(stream, Both(_));
        let opened = match is_both {
            true => quic.open_bi().await.map(|(send, _)| send),
            false => quic.open_uni().await,
        };
        // The connection may have ended, as it should.
        let Ok(mut send) = opened else { break };
        let (Both(bytes) | Own(bytes) | Ended(bytes) | Reset(bytes)) = &stream;
        let _ = send.write_all(bytes).await;
        match stream {
            Ended(_) => drop(send.finish()),
            Reset(_) => drop(send.reset(0_u32.into())),
            _ => {}
        }
        kept.push(send);
    }
    kept
}

#[tokio::test]
async fn what_is_forbidden_ends_the_connection_by_its_error() {
    let world = World::start(1, Levers::default());
    let mut cases = vec![
        ("a push stream", own(&[1, 0]), CREATION),
        ("a push stream without its number", own(&[1]), CREATION),
        ("a push stream by a long number", own(&[0x40, 1]), CREATION),
        ("two control streams", vec![Own(vec![0, 4, 0]), Own(vec![0])], CREATION),
        ("two encoders' streams", vec![Own(vec![2]), Own(vec![2])], CREATION),
        ("two decoders' streams", vec![Own(vec![3]), Own(vec![3])], CREATION),
        ("the control stream ends", vec![Ended(vec![0, 4, 0])], CLOSED),
        ("the control stream ends at once", vec![Ended(vec![0])], CLOSED),
        ("the encoder's stream ends", vec![Ended(vec![2])], CLOSED),
        ("the decoder's stream ends", vec![Ended(vec![3])], CLOSED),
        ("DATA before SETTINGS", own(&[0, 0, 1, 7]), MISSING),
        ("MAX_PUSH_ID before SETTINGS", own(&[0, 0xd, 1, 7]), MISSING),
        ("what nobody knows before SETTINGS", own(&[0, 0x21, 0, 4, 0]), MISSING),
        ("SETTINGS twice", control(&[4, 0]), UNEXPECTED),
        ("a smaller MAX_PUSH_ID", control(&[0xd, 1, 5, 0xd, 1, 4]), ID),
        ("CANCEL_PUSH of what was not promised", control(&[3, 1, 0]), ID),
        ("a larger GOAWAY", control(&[7, 1, 0, 7, 1, 4]), ID),
        ("MAX_PUSH_ID and more", control(&[0xd, 2, 5, 5]), FRAME),
        ("MAX_PUSH_ID of nothing", control(&[0xd, 0]), FRAME),
        ("MAX_PUSH_ID of half a number", control(&[0xd, 1, 0x40]), FRAME),
        ("GOAWAY and more", control(&[7, 2, 0, 0]), FRAME),
        ("SETTINGS that are never whole", own(&[0, 4, 0x80, 1, 0, 0]), LOAD),
        ("GOAWAY that is never whole", control(&[7, 0xc0, 0, 0, 1, 0, 0, 0, 0]), LOAD),
        ("half a setting", own(&[0, 4, 1, 6]), FRAME),
        ("a setting twice", own(&[0, 4, 4, 6, 1, 6, 2]), SETTINGS),
        ("a control stream that ends in a frame", vec![Ended(vec![0, 4, 0, 0xd, 1])], FRAME),
        ("DATA before a head", asked(&[0, 1, 7]), UNEXPECTED),
        ("DATA behind trailers", upload(&[0, 1, 7, 1, 2, 0, 0, 0, 1, 7]), UNEXPECTED),
        ("HEADERS behind trailers", upload(&[1, 2, 0, 0, 1, 2, 0, 0]), UNEXPECTED),
    ];
    for setting in 2..6 {
        cases.push(("a setting of HTTP/2", own(&[0, 4, 2, setting, 1]), SETTINGS));
    }
    // DATA, HEADERS, PUSH_PROMISE, and those of HTTP/2.
    for kind in [0, 1, 5, 2, 6, 8, 9] {
        cases.push(("a frame that no control stream has", control(&[kind, 1, 0]), UNEXPECTED));
    }
    // CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, and those of HTTP/2.
    for kind in [3, 4, 5, 7, 0xd, 2, 6, 8, 9] {
        cases.push(("a frame that no request begins with", asked(&[kind, 1, 0]), UNEXPECTED));
        cases.push(("a frame that no request has", upload(&[kind, 1, 0]), UNEXPECTED));
    }
    for (what, streams, code) in cases {
        let endpoint = world.client();
        let quic = endpoint.connect(world.addr, "localhost").unwrap().await.unwrap();
        let shown = format!("{streams:02x?}");
        let _kept = sent(&quic, streams).await;
        let ended = within(quic.closed()).await;
        let ConnectionError::ApplicationClosed(closed) = ended else { panic!("{what}: {ended}") };
        assert_eq!(closed.error_code.into_inner(), code, "{what}: {shown}");
    }
    world.end().await;
}

/// Nor may it end what the server keeps open (section 6.2.1).
#[tokio::test]
async fn a_client_that_stops_the_servers_control_stream_ends_the_connection() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    // Control, encoder's and decoder's.
    let mut stopped = within(connection.quic.accept_uni()).await.unwrap();
    stopped.stop(0_u32.into()).unwrap();
    let ended = within(connection.quic.closed()).await;
    let ConnectionError::ApplicationClosed(closed) = ended else { panic!("{ended}") };
    assert_eq!(closed.error_code.into_inner(), CLOSED);
    world.end().await;
}

#[tokio::test]
async fn what_is_allowed_ends_nothing() {
    let world = World::start(1, Levers::default());
    let cases = [
        ("nothing", Vec::new()),
        ("settings that nobody knows", own(&[0, 4, 4, 0x21, 1, 0x33, 1])),
        ("frames that nobody knows", control(&[0x21, 3, 1, 1, 1, 0x40, 0x40, 0, 0x21, 0])),
        ("many frames that nobody knows", control(&[0x21, 2, 0, 0].repeat(50_000))),
        ("a long one", control(&[&[0x21, 0x80, 0x10, 0, 0][..], &[4; 1 << 20]].concat())),
        ("MAX_PUSH_ID that grows", control(&[0xd, 1, 1, 0xd, 1, 1, 0xd, 2, 0x40, 9])),
        ("streams of QPACK", vec![Own(vec![2]), Own(vec![0x40, 3]), Own(vec![0, 4, 0])]),
        (
            "streams that nobody knows",
            vec![Own(vec![0x21, 7]), Ended(vec![0x21]), Reset(vec![0x40, 0x54, 0])],
        ),
        ("streams that end before they begin", vec![Ended(Vec::new()), Ended(vec![0x40])]),
        ("a control stream in pieces", own(&[0])),
        ("an upload with trailers", upload(&[0, 1, 7, 0x21, 0, 1, 2, 0, 0, 0x21, 1, 1])),
    ];
    for (what, streams) in cases {
        let endpoint = world.client();
        let quic = endpoint.connect(world.addr, "localhost").unwrap().await.unwrap();
        let _kept = sent(&quic, streams).await;
        for _ in 0..3 {
            let (mut send, receive) = quic.open_bi().await.unwrap();
            send.write_all(&message("/1000", &[])).await.unwrap();
            send.finish().unwrap();
            let body = whole(receive).await;
            assert_first(&body.unwrap_or_else(|error| panic!("{what}: {error}")));
        }
    }
    world.end().await;
}
