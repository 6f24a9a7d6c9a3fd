//! What an unsafe method may have changed is not served as it was, also where nobody was told that
//! it has (RFC 9111 section 4.4).

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "common/bytes.rs"]
mod bytes;
mod common;

use bytes::{address, answers, exchange};
use common::WebMisdeed as Misdeed;
use common::{Hold, Item, Proxy, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const FILM: &str = "/film.mp4";

/// A request for the film, with a body.
fn request(method: &str, body: &str) -> String {
    let length = body.len();
    let fields = format!("Host: a\r\nConnection: close\r\nContent-Length: {length}");
    format!("{method} {FILM} HTTP/1.1\r\n{fields}\r\n\r\n{body}")
}

/// The status of the answer.
async fn send(proxy: &Proxy, method: &str, body: &str) -> u16 {
    let read = exchange(&address(&proxy.edge), request(method, body).as_bytes(), false).await;
    answers(&read)[0].0
}

async fn get(proxy: &Proxy) -> common::Answer {
    proxy.get_with(FILM, &[("host", "a")]).await
}

/// An origin whose film is stored.
async fn stored() -> Proxy {
    let proxy = Proxy::new().await;
    proxy.web.put(FILM, Item::of(3000));
    get(&proxy).await;
    proxy
}

#[tokio::test]
async fn what_may_have_been_carried_out_ends_what_is_stored() {
    // The connection is lost with the answer; to what is sent anew there is nothing left to do.
    let (lost, always) = (Misdeed::Mute, [Misdeed::Mute, Misdeed::Mute]);
    let cases: [(&str, &str, &[Misdeed], u16, bool); 9] = [
        ("DELETE", "", &[lost], 404, true),
        ("PUT", "x", &[lost, Misdeed::Status(412)], 412, true),
        ("PUT", "x", &always, 502, true),
        ("POST", "", &[lost], 502, true),
        ("PUT", "x", &[Misdeed::Garbage], 502, true),
        // Whoever says so knows no more.
        ("PUT", "x", &[Misdeed::Status(504)], 504, true),
        // The origin says that it has not, or that it failed.
        ("PUT", "x", &[Misdeed::Status(403)], 403, false),
        ("PUT", "x", &[Misdeed::Status(500)], 500, false),
        ("DELETE", "", &[Misdeed::Status(404)], 404, false),
    ];
    for (method, body, misdeeds, status, ends) in cases {
        let what = format!("{method} {misdeeds:?}");
        let proxy = stored().await;
        if method == "DELETE" {
            proxy.web.remove(FILM);
        } else {
            proxy.web.change(FILM);
        }
        proxy.web.misbehave(misdeeds);
        assert_eq!(send(&proxy, method, body).await, status, "{what}");
        let asked = proxy.web.count(FILM);
        get(&proxy).await;
        assert_eq!(proxy.web.count(FILM) > asked, ends, "{what}");
    }
}

#[tokio::test]
async fn what_could_not_be_sent_ends_nothing() {
    let mut proxy = stored().await;
    proxy.web.stop().await;
    assert_eq!(send(&proxy, "POST", "x").await, 502);
    assert_eq!(get(&proxy).await.verdict(), "hit-memory");
}

/// Nothing is carried out of a request that has not come whole.
#[tokio::test]
async fn who_sends_no_whole_body_ends_nothing() {
    let proxy = stored().await;
    let mut stream = TcpStream::connect(address(&proxy.edge)).await.unwrap();
    let cut = request("PUT", "x").replace("Content-Length: 1", "Content-Length: 9");
    stream.write_all(cut.as_bytes()).await.unwrap();
    drop(stream);
    is_alone(&proxy).await;
    assert_eq!(get(&proxy).await.verdict(), "hit-memory");
}

/// Whoever asked has left.
async fn is_alone(proxy: &Proxy) {
    until("no connection", || async {
        (proxy.edge.metric("nearcast_edge_connections ").await == 0.0).then_some(())
    })
    .await;
}

/// Who leaves does not keep the origin from doing what was asked.
#[tokio::test]
async fn who_leaves_before_the_answer_ends_what_is_stored_all_the_same() {
    let proxy = stored().await;
    proxy.web.change(FILM);
    proxy.web.hold(Hold::Head);
    let mut stream = TcpStream::connect(address(&proxy.edge)).await.unwrap();
    stream.write_all(request("POST", "x").as_bytes()).await.unwrap();
    until("the origin has it", || async { (proxy.web.held() == 1).then_some(()) }).await;
    drop(stream);
    is_alone(&proxy).await;
    proxy.web.release();
    let new = proxy.web.whole(FILM);
    until("the new version", || async { (get(&proxy).await.bytes() == &new).then_some(()) }).await;
}
