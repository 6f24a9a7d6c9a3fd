//! Pages of the arena are lent to the kernel by `sendfile(2)`: whatever becomes of their block,
//! a peer that reads late gets the bytes that were sent.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arena::{Arena, Pages};
use bytes::Bytes;
use common::{Check, Served, Stream, ask, byte, head, until};
use http::Response;
use http_body_util::Full;
use nearcast_wire::{Levers, Reply, Request, Service};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// One block, which a socket and its peer can hold together.
const BYTES: usize = 128 << 10;

/// Answers with what is there at the time.
struct Now(Mutex<Option<Bytes>>);

impl Service for Now {
    type Body = Full<Bytes>;

    fn whole(_: &mut Full<Bytes>) -> Option<Bytes> {
        None
    }

    fn answer(self: &Arc<Self>, _: Request) -> Reply<Full<Bytes>> {
        Reply::Now(Response::new(Full::new(self.0.lock().unwrap().clone().unwrap())))
    }
}

/// A block of this seed's bytes; `None` while every block is in use.
fn fill(arena: &Arena, seed: usize) -> Option<Bytes> {
    let mut slot = arena.slot(BYTES)?;
    let bytes: Vec<u8> = (0..BYTES).map(|at| byte(seed, at)).collect();
    slot.write(&bytes);
    Some(slot.freeze())
}

async fn rest(stream: &mut Stream, seed: usize) {
    let mut check = Check { seed, at: 0 };
    let mut buf = vec![0; 50_000];
    while check.at < BYTES {
        let most = buf.len().min(BYTES - check.at);
        let got = stream.read(&mut buf[..most]).await.unwrap();
        assert!(got > 0, "cut at byte {}", check.at);
        check.bytes(&buf[..got]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_while_the_block_is_filled_anew_gets_the_old_bytes() {
    let arena = Arena::new(1 << 20).unwrap();
    let service = Arc::new(Now(Mutex::new(None)));
    let served = Served::of(Arc::clone(&service), Levers::default(), arena.clone()).await;
    // All blocks but one are taken, so that each object lies where the last one lay.
    let taken: Vec<Bytes> = (0..7).map(|seed| fill(&arena, seed).unwrap()).collect();
    for seed in 0..40 {
        let mut object = None;
        until("the block is free", || {
            object = fill(&arena, seed);
            object.is_some()
        })
        .await;
        *service.0.lock().unwrap() = object;
        let mut stalled = Vec::new();
        for round in 0..4 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 * BYTES as u32).unwrap();
            let mut stream: Stream = Box::new(socket.connect(served.plain).await.unwrap());
            ask(&mut stream, seed, BYTES).await;
            if round == 0 {
                // Sent for the first time, it is copied; the next ones get pages.
                assert_eq!(head(&mut stream).await, BYTES);
                rest(&mut stream, seed).await;
            } else {
                stalled.push(stream);
            }
        }
        for stream in &mut stalled {
            assert_eq!(head(stream).await, BYTES);
        }
        // Let go: the block comes back once the sockets hold every body.
        *service.0.lock().unwrap() = None;
        let mut next = None;
        until("the block is free", || {
            next = fill(&arena, seed + 1000);
            next.is_some()
        })
        .await;
        for stream in &mut stalled {
            rest(stream, seed).await;
            stream.shutdown().await.unwrap();
        }
    }
    drop(taken);
    until("all is given back", || arena.bytes_used() == 0).await;
}

/// Lending costs a renewal of the pages, so what is sent once is copied, also to a peer that
/// takes it in small parts. What was lent is spent while its huge page is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_sent_before_is_lent() {
    const CHUNK: usize = 1 << 20;
    let arena = Arena::of(Pages::Huge, 64 << 20).unwrap();
    let service = Arc::new(Now(Mutex::new(None)));
    let served = Served::of(Arc::clone(&service), Levers::default(), arena.clone()).await;
    let chunk = |seed: usize| {
        let mut slot = arena.slot(CHUNK).unwrap();
        let bytes: Vec<u8> = (0..CHUNK).map(|at| byte(seed, at)).collect();
        slot.write(&bytes);
        slot.freeze()
    };
    for readers in [1, 2] {
        let object = chunk(readers);
        let beside = chunk(9);
        *service.0.lock().unwrap() = Some(object);
        for _ in 0..readers {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(8 << 10).unwrap();
            let mut stream: Stream = Box::new(socket.connect(served.plain).await.unwrap());
            ask(&mut stream, readers, CHUNK).await;
            assert_eq!(head(&mut stream).await, CHUNK);
            let mut check = Check { seed: readers, at: 0 };
            let mut buf = [0; 3000];
            while check.at < CHUNK {
                let most = buf.len().min(CHUNK - check.at);
                let got = stream.read(&mut buf[..most]).await.unwrap();
                check.bytes(&buf[..got]);
            }
        }
        *service.0.lock().unwrap() = None;
        let spent = (readers - 1) * CHUNK;
        until("the chunk is given back", || {
            (arena.bytes_used(), arena.bytes_spent()) == ((CHUNK + spent) as u64, spent as u64)
        })
        .await;
        drop(beside);
        until("the page is renewed", || arena.bytes_used() == 0).await;
    }
}
