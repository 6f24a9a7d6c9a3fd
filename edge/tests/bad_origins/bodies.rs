//! Bodies that break: cut for the client, named in the log, and kept by nobody.

use crate::common::{Item, Proxy, Validator, WebMisdeed as Misdeed, log};
use crate::{BYTES, PAGE, is_good_again, named, stage};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_body_that_is_not_whole_is_cut_and_never_kept() {
    let (incomplete, silent) = ("http_response_incomplete", "connection_read_timeout");
    let misdeeds = [
        (Misdeed::Short(10), incomplete),
        (Misdeed::Cut(50_000), incomplete),
        (Misdeed::Reset(50_000), incomplete),
        (Misdeed::Stall(50_000), silent),
        (Misdeed::BadChunk(50_000), "http_response_transfer_coding"),
        (Misdeed::Drip(Duration::from_millis(30)), silent),
    ];
    log::start();
    for validator in [Validator::Strong, Validator::Weak, Validator::None] {
        for (misdeed, error) in misdeeds {
            let proxy = stage(Item::of(BYTES).validator(validator)).await;
            proxy.web.always(Some(misdeed));
            let why = format!("{misdeed:?} {validator:?}");
            let answer = proxy.get(PAGE).await;
            let cut = answer.body.is_err() || answer.status.is_server_error();
            assert!(cut, "{why}: {}", answer.status);
            // Named to the client, or, once the head is out, in the log.
            match answer.status.is_server_error() {
                true => assert_eq!(named(&answer).3, error, "{why}"),
                false => log::told(&format!("cut ({error}): {}", proxy.web.url), &why).await,
            }
            let cut = proxy.edge.metric("nearcast_edge_bodies_cut_total").await;
            assert_eq!(cut, f64::from(u8::from(answer.status == 200)), "{why}");
            is_good_again(&proxy, &why).await;
        }
    }
}

#[tokio::test]
async fn a_chunked_body_that_is_not_whole_is_cut_and_never_kept() {
    let bad = [
        (Misdeed::Cut(50_000), "http_response_incomplete"),
        (Misdeed::Reset(50_000), "http_response_incomplete"),
        (Misdeed::BadChunk(50_000), "http_response_transfer_coding"),
    ];
    log::start();
    for (misdeed, error) in bad {
        let proxy = stage(Item::of(BYTES).chunked()).await;
        proxy.web.always(Some(misdeed));
        assert!(proxy.get(PAGE).await.body.is_err(), "{misdeed:?}");
        log::told(&format!("cut ({error}): {}", proxy.web.url), &format!("{misdeed:?}")).await;
        is_good_again(&proxy, &format!("{misdeed:?}")).await;
    }
}

/// All that a client of HTTP/1.0 reads, and whether the end came in peace.
async fn by_http_1_0(proxy: &Proxy) -> (Vec<u8>, std::io::Result<usize>) {
    let address = proxy.edge.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {PAGE} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let ended = stream.read_to_end(&mut read).await;
    (read, ended)
}

/// nginx asks in HTTP/1.0 unless told otherwise: there, only the connection tells the end.
#[tokio::test]
async fn an_answer_to_http_1_0_that_is_not_whole_is_reset() {
    for misdeed in [Misdeed::Cut(50_000), Misdeed::Reset(50_000), Misdeed::BadChunk(50_000)] {
        let proxy = stage(Item::of(BYTES).chunked()).await;
        proxy.web.always(Some(misdeed));
        let (read, ended) = by_http_1_0(&proxy).await;
        let ended = ended.map_err(|error| error.kind());
        assert!(read.starts_with(b"HTTP/1.0 200 "), "{misdeed:?}");
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset), "{misdeed:?}");
        proxy.web.always(None);
        let (read, ended) = by_http_1_0(&proxy).await;
        assert!(ended.is_ok() && read.ends_with(&proxy.web.whole(PAGE)), "{misdeed:?}");
    }
}
