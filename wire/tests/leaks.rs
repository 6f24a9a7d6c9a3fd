//! Thousands of connections, one after the other: no descriptor, task or memory is left.
//!
//! `NEARCAST_WIRE_CONNECTIONS` makes it more of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{ALL, Served, ask, head, once};
use futures::StreamExt;
use nearcast_wire::Levers;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// At a time.
const PEERS: usize = 50;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_leave_nothing_behind() {
    let connections = std::env::var("NEARCAST_WIRE_CONNECTIONS");
    let connections = connections.map_or(10_000, |count| count.parse().unwrap());
    let served = Arc::new(Served::start(Levers::default(), 64 << 20).await);
    // What is opened once and kept.
    for by in ALL {
        once(&served, by, 1, 100_000).await;
    }
    served.empty().await;
    let before = descriptors();
    let peers = futures::stream::iter(0..connections).map(|number: usize| {
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            // Mostly plain, for the sake of time; some leave in mid-body.
            let by = ALL[if number % 10 < 8 { 0 } else { number % 10 - 7 }];
            if !number.is_multiple_of(4) || by == ALL[2] {
                return once(&served, by, number, number % 9000).await;
            }
            let mut stream = served.connect(by).await;
            ask(&mut stream, number, 300_000).await;
            assert_eq!(head(&mut stream).await, 300_000);
            stream.read_exact(&mut [0; 1000]).await.unwrap();
        })
    });
    peers.buffer_unordered(PEERS).for_each(async |ended| ended.unwrap()).await;
    served.empty().await;
    common::until("all descriptors are closed", || descriptors() <= before).await;
}
