//! A line between a client and a server over QUIC that can be shut.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries datagrams. While it is shut, those to the client are kept back.
pub struct Line {
    /// Where the client finds it.
    pub addr: SocketAddr,
    pub shut: watch::Sender<bool>,
    /// How many are kept back.
    pub kept: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Line {
    /// One to `server` that brings the client so many datagrams until it has said something more.
    pub async fn to(server: SocketAddr, at_once: usize) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let addr = front.local_addr().unwrap();
        let ((shut, mut is_shut), (keeps, kept)) = (watch::channel(false), watch::channel(0));
        let task = tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let (mut client, mut waiting, mut sent) = (addr, VecDeque::new(), 0);
            loop {
                tokio::select! {
                    Ok((bytes, from)) = front.recv_from(&mut up) => {
                        (client, sent) = (from, 0);
                        back.send(&up[..bytes]).await.unwrap();
                    }
                    Ok(bytes) = back.recv(&mut down) => waiting.push_back(down[..bytes].to_vec()),
                    Ok(()) = is_shut.changed() => {}
                }
                while sent < at_once && !*is_shut.borrow() {
                    let Some(datagram) = waiting.pop_front() else { break };
                    front.send_to(&datagram, client).await.unwrap();
                    sent += 1;
                }
                keeps.send_replace(waiting.len());
            }
        });
        Self { addr, shut, kept, task }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}
