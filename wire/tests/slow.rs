//! A thousand slow readers over TLS: what waits for them is bounded, whether they stopped or go on
//! reading a little.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arena::Arena;
use bytes::Bytes;
use common::{By, Check, Served, Stream, byte, h2_ask, h2_begin, shake, until};
use http::Response;
use http_body_util::Full;
use nearcast_wire::{
    BATCH_BYTES, BEYOND_BYTES_MAX, LARGE_BATCH_BYTES, Levers, Patience, Reply, Request, Service,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Mutex;

const READERS: usize = 400;
const BODY_BYTES: usize = 4 << 20;
/// What a reader's kernel takes for it.
const KERNEL_BYTES: u32 = 16 << 10;
/// As `Served` starts.
const THREADS: usize = 2;
const MOST: usize = READERS * BATCH_BYTES + THREADS * BEYOND_BYTES_MAX;
// Otherwise nothing is shown.
const _: () = assert!(READERS * LARGE_BATCH_BYTES > MOST);

/// What is held is counted for the process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Answers everything with one body.
struct Same(Bytes);

impl Service for Same {
    type Body = Full<Bytes>;

    fn whole(_: &mut Full<Bytes>) -> Option<Bytes> {
        None
    }

    fn answer(self: &Arc<Self>, _: Request) -> Reply<Full<Bytes>> {
        Reply::Now(Response::new(Full::new(self.0.clone())))
    }
}

type Slow = Served<Same>;

async fn start() -> Slow {
    let body = (0..BODY_BYTES).map(|at| byte(1, at)).collect();
    // However slow the machine is.
    let patience = Patience { send: Duration::from_secs(600), ..Patience::default() };
    let arena = Arena::new(1 << 20).unwrap();
    Served::patient(Arc::new(Same(body)), Levers::default(), arena, patience).await
}

fn held(served: &Slow) -> usize {
    served.gauge("nearcast_edge_record_buffers_bytes") as usize
}

/// Asks, and reads nothing.
async fn reader(served: &Slow, by: By) -> Stream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(KERNEL_BYTES).unwrap();
    let tcp = socket.connect(served.tls).await.unwrap();
    let (protocol, said): (&[u8], _) = match by {
        By::H2Tls => {
            let window = 1 << 30;
            (b"h2", [h2_begin(window, window), h2_ask(1, "/")].concat())
        }
        _ => (b"http/1.1", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
    };
    let mut stream = shake(tcp, protocol).await;
    stream.write_all(&said).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_slow_readers_is_bounded() {
    let _alone = ALONE.lock().await;
    let served = start().await;
    // One alone has a large batch.
    let alone = reader(&served, By::H1Tls).await;
    until("a large batch waits", || held(&served) == LARGE_BATCH_BYTES).await;
    drop(alone);
    served.empty().await;

    let mut readers = Vec::new();
    for number in 0..READERS {
        let by = if number % 2 == 0 { By::H1Tls } else { By::H2Tls };
        readers.push(reader(&served, by).await);
        assert!(held(&served) <= MOST);
    }
    let all_wait = || {
        let held = held(&served);
        assert!(held <= MOST, "{held} bytes, of {MOST}");
        held >= READERS * BATCH_BYTES
    };
    until("a batch waits for each", all_wait).await;

    // Steadily, more than a batch in all.
    let mut bite = vec![0; 24_000];
    for _ in 0..2 * LARGE_BATCH_BYTES / bite.len() {
        for reader in &mut readers {
            reader.read_exact(&mut bite).await.unwrap();
            assert!(held(&served) <= MOST);
        }
    }
    until("a batch waits for each", all_wait).await;

    drop(readers);
    served.empty().await;
    assert_eq!(held(&served), 0);
    let mut last = reader(&served, By::H1Tls).await;
    until("a large batch waits", || held(&served) == LARGE_BATCH_BYTES).await;
    assert_eq!(common::head(&mut last).await, BODY_BYTES);
    let mut body = vec![0; BODY_BYTES];
    last.read_exact(&mut body).await.unwrap();
    Check { seed: 1, at: 0 }.bytes(&body);
    drop(last);
    served.empty().await;
}
