//! A client on a thin line: what is handed over for it follows what the line takes.

use crate::world::{Connection, World, assert_first, whole, within};
use nearcast_wire::Levers;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a connection may have under way at its start (`wire/src/quic/window.rs`), and what waits
/// before it: a piece of the body, a DATA frame and the next one.
const AT_FIRST: usize = 256 << 10;
const BESIDE: usize = 300_000;
/// Datagrams that come while none is acknowledged: the first window, and probes after it.
const UNTIL_PROBED: usize = 14;

/// Carries datagrams. While it is shut, those to the client are kept back.
struct Line {
    addr: SocketAddr,
    shut: watch::Sender<bool>,
    /// How many are kept back.
    kept: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Line {
    async fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let addr = front.local_addr().unwrap();
        let ((shut, mut is_shut), (keeps, kept)) = (watch::channel(false), watch::channel(0));
        let task = tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let (mut client, mut waiting) = (addr, VecDeque::new());
            loop {
                tokio::select! {
                    Ok((bytes, from)) = front.recv_from(&mut up) => {
                        client = from;
                        back.send(&up[..bytes]).await.unwrap();
                    }
                    Ok(bytes) = back.recv(&mut down) => waiting.push_back(down[..bytes].to_vec()),
                    Ok(()) = is_shut.changed() => {}
                }
                while !*is_shut.borrow() {
                    let Some(datagram) = waiting.pop_front() else { break };
                    front.send_to(&datagram, client).await.unwrap();
                }
                keeps.send_replace(waiting.len());
            }
        });
        Self { addr, shut, kept, task }
    }
}

#[tokio::test]
async fn what_is_handed_over_follows_the_line() {
    let world = World::start(1, Levers::default());
    let mut line = Line::to(world.addr).await;
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
    line.task.abort();
}
