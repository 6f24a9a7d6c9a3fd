//! What waiting costs: who waits is woken by what happens, not again and again.

use super::*;
use crate::{Ask, Config, Node, Settings, SiteKind, Upstream, hierarchy};
use prometheus::Registry;
use service::value::Span;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a future comes to, and how often it was polled.
async fn polled<T>(future: impl Future<Output = T>) -> (T, usize) {
    let (mut future, mut polls) = (pin!(future), 0);
    let done = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    (done.await, polls)
}

/// One that answers requests so, or not at all.
async fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
            stream.write_all(answer).await.unwrap();
        }
    });
    url
}

/// Another node has longer than one try of an origin may take: also in the time beyond.
#[tokio::test]
async fn who_waits_for_a_node_that_hangs_is_woken_a_few_times() {
    let url = server(b"").await;
    let origin = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let settings = hierarchy::Settings {
        parents: vec![hierarchy::Peer { id: "region-1".into(), url }],
        // It is not asked whether it is there.
        connect_timeout: Some(Span(Duration::from_secs(10))),
        ..hierarchy::Settings::default()
    };
    let levels = hierarchy::Config::check("edge.hierarchy", "edge-1", &settings).unwrap();
    let node = Node::new(levels, None, u64::MAX, &Registry::new()).unwrap();
    let text = format!("origins = [{origin:?}]\nretries = 0\nfirst-byte-timeout = \"1s\"");
    let settings: Settings =
        service::config::parse(std::path::Path::new("test.toml"), &text).unwrap();
    let config = Config::check("edge.sites.test", "test", SiteKind::Proxy, &settings).unwrap();
    let upstream = Upstream::new(config, &node).unwrap();
    let ask = Ask::get("films.example", "/a", [0; 16]);
    let (answer, polls) = polled(send(&upstream.0, ask)).await;
    let answer = answer.unwrap();
    assert_eq!((answer.head.status.as_u16(), answer.hop.as_str()), (204, &*origin));
    assert!(polls < 50, "polled {polls} times");
}
