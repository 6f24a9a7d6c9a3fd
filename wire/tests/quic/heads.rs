//! Heads of answers, as an h3 client reads them.

use crate::world::{FRAME_BYTES, World, assert_first, fields, payload, within};
use bytes::{Bytes, BytesMut};
use h3::client::SendRequest;
use http::Request;
use nearcast_wire::Levers;
use nearcast_wire::quic::FUTILE_MAX;
use quinn::{ConnectionError, ReadError, ReadToEndError, WriteError};

type Sender = SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn is_told(sender: &mut Sender, status: u16, bytes: usize) {
    let uri = format!("https://localhost/head/{status}/{bytes}");
    let request = Request::get(uri).body(()).unwrap();
    let mut stream = within(sender.send_request(request)).await.unwrap();
    let response = within(stream.recv_response()).await.unwrap();
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(*response.headers(), fields(bytes), "{status}, {bytes} bytes");
    let mut read = 0;
    while let Some(data) = within(stream.recv_data()).await.unwrap() {
        read += bytes::Buf::remaining(&data);
    }
    assert_eq!(read, 10);
}

/// Whichever status, and from fields that nearcast spells itself to those that h3 does.
#[tokio::test]
async fn heads_come_as_they_are() {
    let world = World::start(1, Levers::default());
    let endpoint = world.client();
    let quic = endpoint.connect(world.addr, "localhost").unwrap().await.unwrap();
    let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(quic)).await.unwrap();
    let driving = tokio::spawn(async move { driver.wait_idle().await });
    for status in [200, 204, 206, 302, 304, 400, 403, 404, 416, 429, 500, 502, 503, 599] {
        is_told(&mut sender, status, 1).await;
    }
    for bytes in [0, 126, 127, 128, 254, 255, 16_383, 3_000, 4_000, 60_000] {
        is_told(&mut sender, 200, bytes).await;
    }
    drop(sender);
    within(driving).await.unwrap();
    world.end().await;
}

/// An answer whose head was made ready is the same, byte for byte, also when it must wait for room.
#[tokio::test]
async fn heads_that_were_made_ready_come_as_they_are() {
    const AT_ONCE: usize = 20;
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    for bytes in [1, 63, 64, 16_384, 65_536, FRAME_BYTES, FRAME_BYTES + 1, 1 << 20] {
        let mut stream = connection.get(&format!("/now/{bytes}")).await;
        let told = within(stream.read_to_end(2 << 20)).await.unwrap();
        assert!(told.len() > bytes);
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE {
            streams.push(connection.get(&format!("/known/{bytes}")).await);
        }
        for mut stream in streams {
            let found = within(stream.read_to_end(2 << 20)).await.unwrap();
            assert!(found == told, "{bytes} bytes");
        }
    }
    world.end().await;
}

/// GET, https, `/10`, and a host; behind it what `more` has.
fn head(more: &[u8]) -> Vec<u8> {
    let fields = [&[0, 0, 0xd1, 0xd7, 0x51, 3, b'/', b'1', b'0', 0x50, 1, b'a'][..], more].concat();
    let mut message = vec![1, u8::try_from(fields.len()).unwrap()];
    message.extend(fields);
    message
}

/// A head may come in one piece or in several, with fields that say the same twice, or with a body
/// behind it.
#[tokio::test]
async fn whatever_way_a_head_comes_it_is_answered() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let plain = head(&[]);
    let host = head(&[0x24, b'h', b'o', b's', b't', 1, b'a']);
    let length = [head(&[0x54, 1, b'3']), vec![0, 3, b'x', b'y', b'z']].concat();
    let other = head(&[0x5f, 0x50, 1, b'u']);
    for message in [&plain, &host, &length, &other] {
        for cut in [0, 1, 5, message.len() - 1, message.len()] {
            let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
            send.write_all(&message[..cut]).await.unwrap();
            // By its answer the first piece of the other one has come, too.
            assert_first(&within(connection.body("/10")).await.unwrap());
            // What comes behind a head may be stopped.
            let _ = send.write_all(&message[cut..]).await;
            let _ = send.finish();
            let answer = within(receive.read_to_end(1 << 16)).await.unwrap();
            let body = payload(BytesMut::from(&answer[..]));
            assert_eq!(body.len(), 10, "cut at {cut}");
            assert_first(&body);
        }
    }
    world.end().await;
}

/// Whether a message's status is 431 (RFC 9204 section 4.5.4), with what the service says of such.
fn is_431(message: &[u8]) -> bool {
    let value = |value: &[u8]| message.windows(value.len()).any(|it| it == value);
    message[0] == 1 && value(b"\x5f\x09\x03431") && value(b"x-read\x09by nobody")
}

/// A head of any length is not waited for, nor kept: it is answered once more than the longest one
/// has come. What comes behind a head may be as long.
#[tokio::test]
async fn a_head_without_end_is_answered() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    // A frame that is too long, and frames without end that say nothing.
    let long = [1, 0xc0, 0, 0, 1, 0, 0, 0, 0].into_iter().chain(std::iter::repeat_n(0, 3 << 20));
    let many = [0x21, 2, 0, 0].into_iter().cycle().take(3 << 20);
    for message in [long.collect::<Vec<u8>>(), many.collect()] {
        let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
        let sending = async { send.write_all(&message).await.unwrap_err() };
        let told = async { tokio::join!(receive.read_to_end(1 << 16), sending) };
        let (answer, stopped) = within(told).await;
        assert!(is_431(&answer.unwrap()));
        assert!(matches!(stopped, WriteError::Stopped(_)), "{stopped}");
    }

    let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
    send.write_all(&head(b"\x24host\x01a")).await.unwrap();
    send.write_all(&[0, 0x80, 3, 0, 0]).await.unwrap();
    // It may be stopped.
    let _ = send.write_all(&[7; 3 << 16]).await;
    let _ = send.finish();
    let answer = within(receive.read_to_end(1 << 16)).await.unwrap();
    assert_eq!(payload(BytesMut::from(&answer[..])).len(), 10);
    world.end().await;
}

/// Streams that end before they ask cost a connection its life, once there are very many of them.
#[tokio::test]
async fn streams_without_requests_end_their_connection() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let mut sent = 0;
    let ended = within(async {
        loop {
            let Ok((mut send, _receive)) = connection.quic.open_bi().await else { break };
            // Some have begun a head, which is h3's to read.
            if send.write_all(&[1][..sent % 2]).await.is_err()
                || send.reset(0x10c_u32.into()).is_err()
            {
                break;
            }
            sent += 1;
            if sent == FUTILE_MAX / 2 {
                assert_first(&connection.body("/1000").await.unwrap());
            }
        }
        connection.quic.closed().await
    })
    .await;
    assert!(sent >= FUTILE_MAX);
    let ConnectionError::ApplicationClosed(closed) = ended else { panic!("{ended}") };
    assert_eq!(closed.error_code, 0x107_u32.into());
    assert_eq!(world.counter("nearcast_edge_quic_floods_total") as u64, 1);
    world.end().await;
}

/// What one reader takes for one request and another for another is nobody's (RFC 9114 section 4.3).
#[tokio::test]
async fn heads_that_mean_two_things_are_refused() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let name = |name: &[u8]| [&[0x27, (name.len() - 7) as u8][..], name, &[1, b'/']].concat();
    let odd = [
        head(&[0xd4]),
        head(&[0xd7]),
        head(&[0x50, 1, b'b']),
        head(&[0xc1]),
        head(&[0xd9]),
        head(&[0x5f, 0x50, 1, b'u', 0xc1]),
        head(&name(b":authority")),
        [&[0x21, 1, 9][..], &head(&[0xc1])].concat(),
        [&[0x0a, 0][..], &head(&[0xc1])].concat(),
        head(&[0x2a, 0xf3, 0xff, 0, 0x50, 1, b'b']),
    ];
    for message in &odd {
        for cut in [0, 1, 9, message.len()] {
            let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
            send.write_all(&message[..cut]).await.unwrap();
            // By its answer the first piece of the other one has come, too.
            assert_first(&within(connection.body("/10")).await.unwrap());
            // It may be refused already.
            let _ = send.write_all(&message[cut..]).await;
            let _ = send.finish();
            let answer = within(receive.read_to_end(1 << 16)).await;
            let malformed = ReadError::Reset(0x10e_u32.into());
            assert_eq!(answer, Err(ReadToEndError::Read(malformed)), "{message:02x?}");
        }
    }
    world.end().await;
}

/// No service sees what can't be read.
#[tokio::test]
async fn heads_that_cannot_be_read_are_counted() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let counted = || {
        let families = world.registry.gather();
        let family = families.iter().find(|it| it.name() == "nearcast_edge_requests_unread_total");
        let of_h3 = family
            .unwrap()
            .get_metric()
            .iter()
            .filter(|metric| metric.get_label().iter().any(|label| label.value() == "h3"));
        // By the names of the reasons: malformed, too large.
        of_h3.map(|metric| metric.get_counter().get_value()).collect::<Vec<_>>()
    };
    // QPACK (RFC 9204 appendix A and section 4.5): GET, and nothing else.
    let malformed = vec![0, 0, 0xd1];
    // GET, https, /, a host, and a field of 20,000 bytes.
    let mut too_large = vec![0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a', 0x21, b'x', 0x7f];
    let rest = 20_000 - 127;
    too_large.extend([
        (rest & 0x7f) as u8 | 0x80,
        (rest >> 7 & 0x7f) as u8 | 0x80,
        (rest >> 14) as u8,
    ]);
    too_large.resize(too_large.len() + 20_000, b'a');
    for (head, expected) in [(malformed, [1.0, 0.0]), (too_large, [1.0, 1.0])] {
        let (mut send, mut receive) = connection.quic.open_bi().await.unwrap();
        let mut message = vec![1];
        message.extend((u32::try_from(head.len()).unwrap() | 0x8000_0000).to_be_bytes());
        message.extend(head);
        send.write_all(&message).await.unwrap();
        send.finish().unwrap();
        let answer = within(receive.read_to_end(1 << 16)).await;
        match expected[1] {
            0.0 => assert!(matches!(answer, Err(ReadToEndError::Read(ReadError::Reset(_))))),
            _ => assert!(is_431(&answer.unwrap())),
        }
        within(async {
            while counted() != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    world.end().await;
}
