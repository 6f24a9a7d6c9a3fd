//! Clients that ask for nothing, or slowly, over QUIC: when their connections are given up.

use super::*;
use crate::quic::{Shaking, connection};
use crate::stalls::{Stage, holds_the_clock, soon};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Waits, while the clock goes on as packets that are sent apart need it to.
async fn apart<T>(step: impl Future<Output = T>) -> T {
    let mut step = pin!(step);
    soon(async {
        loop {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut step) {
                return done;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// A client that asks now and then whether the server is there, and the server's side.
async fn connect(stage: &Stage) -> (Endpoint, quinn::Connection, JoinHandle<()>) {
    let (client, quic, serving, _) = connect_by_way(stage).await;
    (client, quic, serving)
}

/// The same, and what shuts its way back.
async fn connect_by_way(
    stage: &Stage,
) -> (Endpoint, quinn::Connection, JoinHandle<()>, Arc<AtomicBool>) {
    let (tls, mut client) = stage.tls(&[b"h3"]);
    client.alpn_protocols = vec![b"h3".to_vec()];
    let any = ([127, 0, 0, 1], 0).into();
    // Only what is looked at here ends it.
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5))).max_idle_timeout(None);
    let transport = Arc::new(transport);
    let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    let mut config = ServerConfig::with_crypto(crypto);
    let mut lasting = quinn::TransportConfig::default();
    lasting.max_idle_timeout(None);
    config.transport_config(Arc::new(lasting));
    let server = Endpoint::server(config, any).unwrap();
    let (at, is_shut) = way(server.local_addr().unwrap()).await;
    let shared = Shared::clone(&stage.shared);
    let serving = tokio::spawn(async move {
        let incoming = server.accept().await.unwrap();
        let via = Arc::new(Via::new("https", None));
        // How it ended is counted.
        let _ = connection(incoming, Shaking::of(&Arc::default()), via, shared).await;
    });
    let crypto = Arc::new(QuicClientConfig::try_from(client).unwrap());
    let client = Endpoint::client(any).unwrap();
    let mut config = ClientConfig::new(crypto);
    config.transport_config(transport);
    let connecting = client.connect_with(config, at, "localhost").unwrap();
    let quic = apart(connecting).await.unwrap();
    (client, quic, serving, is_shut)
}

/// Asks, and reads how the answer begins.
async fn ask(quic: &quinn::Connection) {
    let (mut send, mut answer) = quic.open_bi().await.unwrap();
    send.write_all(&[1, 8, 0, 0, 0xd1, 0xd7, 0x50, 1, b'a', 0xc1]).await.unwrap();
    answer.read_chunk(1, true).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_nothing_more_is_given_up_though_it_answers_pings() {
    holds_the_clock();
    for asks in [false, true] {
        let stage = Stage::new(REQUEST_MAX);
        let (_client, quic, serving) = connect(&stage).await;
        if asks {
            apart(ask(&quic)).await;
        }
        let limit = stage.shared.patience.head;
        let mut seconds = 0;
        while !serving.is_finished() && seconds < 2 * limit.as_secs() {
            stage.later(Duration::from_secs(1)).await;
            seconds += 1;
        }
        assert!(serving.is_finished(), "after {seconds} s");
        let given_up = ["head", "idle"].map(|wait| stage.given_up(wait));
        assert_eq!(given_up, [u64::from(!asks), u64::from(asks)]);
    }
}

/// A way to a server on which nothing comes back while it is shut.
async fn way(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (here, is_shut) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let shut = Arc::clone(&is_shut);
    tokio::spawn(async move {
        let (mut client, mut packet) = (None, [0; 2048]);
        while let Ok((bytes, from)) = socket.recv_from(&mut packet).await {
            let is_back = from == server;
            client = if is_back { client } else { Some(from) };
            let to = if is_back { client.filter(|_| !shut.load(Relaxed)) } else { Some(server) };
            if let Some(to) = to {
                socket.send_to(&packet[..bytes], to).await.unwrap();
            }
        }
    });
    (here, is_shut)
}

/// Nothing is left to do for its answer once that is handed over, and it has not left by then.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_that_is_leaving_is_not_given_up_as_idle() {
    holds_the_clock();
    let stage = Stage::new(REQUEST_MAX);
    let (client, quic, serving, is_shut) = connect_by_way(&stage).await;
    let (mut send, _answer) = quic.open_bi().await.unwrap();
    is_shut.store(true, Relaxed);
    let head = b"\x01\x0f\0\0\xd1\xd7\x50\x01a\x51\x06/60000";
    send.write_all(head).await.unwrap();
    send.finish().unwrap();
    let limit = stage.shared.patience.head;
    for _ in 0..limit.as_secs() * 5 / 4 + 1 {
        stage.later(Duration::from_secs(1)).await;
    }
    assert!(!serving.is_finished());
    assert_eq!(["head", "idle", "send"].map(|wait| stage.given_up(wait)), [0; 3]);
    drop(client);
}

/// A head whose first byte comes late has no more time for the rest than one that comes in time.
#[tokio::test(start_paused = true)]
async fn a_head_has_one_limit_from_its_first_byte_to_its_last() {
    holds_the_clock();
    let stage = Stage::new(REQUEST_MAX);
    let (_client, quic, _serving) = connect(&stage).await;
    let (mut send, _answer) = quic.open_bi().await.unwrap();
    // By its answer the stream before it is known.
    apart(ask(&quic)).await;
    stage.later(REQUEST_MAX * 3 / 4).await;
    send.write_all(&[1]).await.unwrap();
    apart(ask(&quic)).await;
    assert_eq!(stage.given_up("head"), 0);
    stage.later(REQUEST_MAX / 4).await;
    assert_eq!(stage.given_up("head"), 1);
}
