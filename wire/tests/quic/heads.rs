//! Heads of answers, as an h3 client reads them.

use crate::world::{World, fields, within};
use bytes::Bytes;
use h3::client::SendRequest;
use http::Request;
use nearcast_wire::Levers;

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
