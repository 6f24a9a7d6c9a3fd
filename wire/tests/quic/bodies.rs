//! Bodies arrive byte for byte, or visibly not whole.

use crate::world::{Connection, World, assert_first, payload, within};
use bytes::BytesMut;
use nearcast_wire::quic::{ResetKey, bind};
use nearcast_wire::{Levers, Patience};
use quinn::{ReadError, VarInt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

async fn random_sizes(levers: Levers) {
    let world = World::start(2, levers);
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..8 {
        let connection = world.connect().await;
        let sizes: Vec<usize> = (0..8).map(|_| 1 << rng.random_range(0..21)).collect();
        let sizes = sizes.iter().map(|&size| rng.random_range(0..=size)).collect::<Vec<_>>();
        let paths: Vec<_> = sizes.iter().map(|size| format!("/{size}")).collect();
        let bodies = futures::future::join_all(paths.iter().map(|path| connection.body(path)));
        for (body, size) in bodies.await.into_iter().zip(sizes) {
            let body = body.unwrap();
            assert_eq!(body.len(), size);
            assert_first(&body);
        }
    }
    let merged = world.counter("nearcast_edge_quic_merged_sends_total");
    assert_eq!(merged > 0.0, levers.merge, "{merged} merged sends");
    world.end().await;
}

#[tokio::test]
async fn many_at_once_of_random_sizes() {
    random_sizes(Levers::default()).await;
}

#[tokio::test]
async fn without_merged_sends_too() {
    random_sizes(Levers { merge: false, ..Levers::default() }).await;
}

/// A socket whose large sends the kernel refuses: it does not segment what has no checksum.
fn without_segmentation() -> UdpSocket {
    let socket = bind(([127, 0, 0, 1], 0).into(), 1).unwrap().remove(0);
    // SO_NO_CHECK, which no safe function sets.
    let script = "setsockopt(STDIN, 1, 11, pack('i', 1)) or die $!";
    let mut perl = Command::new("perl");
    let shared = OwnedFd::from(socket.try_clone().unwrap());
    assert!(perl.args(["-e", script]).stdin(shared).status().unwrap().success());
    socket
}

#[tokio::test]
async fn where_the_system_refuses_large_sends_they_stay_small() {
    let sockets = vec![without_segmentation()];
    let world = World::on(sockets, Levers::default(), &ResetKey::random());
    let connection = world.connect().await;
    let body = connection.body("/3000000").await.unwrap();
    assert_eq!(body.len(), 3_000_000);
    assert_first(&body);
    assert_eq!(world.counter("nearcast_edge_quic_merging_stopped_total") as u64, 1);
    world.end().await;
}

/// Reads a while, lets all windows fill, reads on.
#[tokio::test]
async fn a_reader_that_pauses_gets_all() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    let mut stream = connection.get("/6000000").await;
    let mut all = BytesMut::new();
    let mut sent = 0;
    while let Some(chunk) = within(stream.read_chunk(300_000, true)).await.unwrap() {
        all.extend_from_slice(&chunk.bytes);
        // Until nothing more comes for a while, which is all that a full window shows.
        while std::mem::replace(&mut sent, connection.quic.stats().udp_rx.bytes) != sent {
            let round = connection.quic.rtt().max(Duration::from_millis(2));
            tokio::time::sleep(round).await;
        }
        if all.len() > 3_000_000 {
            break;
        }
    }
    while let Some(chunk) = within(stream.read_chunk(usize::MAX, true)).await.unwrap() {
        all.extend_from_slice(&chunk.bytes);
    }
    let body = payload(all);
    assert_eq!(body.len(), 6_000_000);
    assert_first(&body);
    world.end().await;
}

/// The client lets no more come, of bodies long and short: the service learns of each.
#[tokio::test]
async fn a_body_that_is_not_taken_is_reset_and_told_of() {
    let sockets = bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let patience = Patience { send: Duration::from_millis(200), ..Patience::default() };
    let world = World::patient(sockets, Levers::default(), &ResetKey::random(), patience);
    let connection = world.connect().await;
    for (number, path) in ["/9000000", "/now/9000000", "/known/9000000"].into_iter().enumerate() {
        let mut stream = connection.get(path).await;
        let code = within(stream.received_reset()).await.unwrap();
        assert_eq!(code, Some(VarInt::from_u32(0x102)), "{path}");
        assert_eq!(world.shared.service.untaken.load(SeqCst), number + 1, "{path}");
    }
    assert_eq!(connection.body("/1000").await.unwrap().len(), 1000);
    assert_eq!(world.shared.service.untaken.load(SeqCst), 3);
    world.end().await;
}

/// The client stops one body; another one on the same connection is whole.
#[tokio::test]
async fn a_body_that_is_stopped_disturbs_no_other() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    for _ in 0..10 {
        let mut stopped = connection.get("/50000000").await;
        within(stopped.read_chunk(1000, true)).await.unwrap();
        stopped.stop(VarInt::from_u32(0x10c)).unwrap();
        let body = connection.body("/400000").await.unwrap();
        assert_eq!(body.len(), 400_000);
        assert_first(&body);
    }
    world.end().await;
}

#[tokio::test]
async fn a_body_that_breaks_never_looks_whole() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    for size in [0, 1, 1000, 100_000, 3_000_000] {
        let broken = connection.body(&format!("/{size}/cut")).await;
        assert!(matches!(broken, Err(ReadError::Reset(_))), "{size}: {broken:?}");
    }
    world.end().await;
}

async fn moving(world: &World) {
    let connection = world.connect().await;
    let mut stream = connection.get("/8000000").await;
    let mut all = BytesMut::new();
    let mut moves = 0;
    while let Some(chunk) = within(stream.read_chunk(usize::MAX, true)).await.unwrap() {
        all.extend_from_slice(&chunk.bytes);
        if all.len() > 2_000_000 * (moves + 1) && moves < 3 {
            connection.moves();
            moves += 1;
        }
    }
    let body = payload(all);
    assert_eq!((body.len(), moves), (8_000_000, 3));
    assert_first(&body);
}

/// The client's address changes in mid-body: with several sockets on the port the kernel must
/// go by the connection id.
#[tokio::test]
async fn a_client_that_moves_gets_all() {
    for shards in [1, 4] {
        let world = World::start(shards, Levers::default());
        for _ in 0..6 {
            moving(&world).await;
        }
        world.end().await;
    }
}

/// A drain lets what is under way end, and takes no more.
#[tokio::test]
async fn a_drain_ends_bodies_whole() {
    let world = World::start(2, Levers::default());
    let connections: Vec<Connection> =
        futures::future::join_all((0..6).map(|_| world.connect())).await;
    let mut streams = Vec::new();
    for connection in &connections {
        let mut stream = connection.get("/5000000").await;
        let first = within(stream.read_chunk(10_000, true)).await.unwrap().unwrap();
        streams.push((stream, BytesMut::from(&first.bytes[..])));
    }
    let reading = async {
        for (stream, all) in &mut streams {
            while let Some(chunk) = within(stream.read_chunk(usize::MAX, true)).await.unwrap() {
                all.extend_from_slice(&chunk.bytes);
            }
            let body = payload(std::mem::take(all));
            assert_eq!(body.len(), 5_000_000);
            assert_first(&body);
        }
    };
    tokio::join!(world.end(), reading);
}
