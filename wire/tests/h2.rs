//! HTTP/2's DATA frames as they leave: each one TLS record with its head at most, and never more
//! than the peer's windows allow, however those are opened.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{By, Check, Random, Served, Stream, h2_ask, h2_begin, h2_window};
use nearcast_wire::Levers;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEAD_BYTES: usize = 9;
/// Plaintext of a TLS record.
const RECORD_BYTES: usize = 16 << 10;

/// Kinds of frames, and the flag of the last one of a stream (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// One answer as it comes.
struct Body {
    check: Check,
    bytes: usize,
    window: usize,
    has_ended: bool,
}

async fn frame(stream: &mut Stream) -> (u8, u8, u32, Vec<u8>) {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], head[4], id, payload)
}

async fn say(stream: &mut Stream, said: &[u8]) {
    stream.write_all(said).await.unwrap();
    stream.flush().await.unwrap();
}

/// Asks for bodies of these sizes at once, and opens windows by bits of random sizes whenever one
/// is shut. How many DATA frames were full.
async fn read_by_windows(sizes: &[usize], at_start: usize, seed: u64) -> usize {
    let served = Served::start(Levers::default(), 64 << 20).await;
    let mut stream = served.connect(By::H2Tls).await;
    let mut random = Random(seed);
    let mut window = 65_535 + random.below(300_000);
    let mut said = h2_begin(at_start as u32, window as u32);
    let mut bodies = BTreeMap::new();
    for (number, &bytes) in sizes.iter().enumerate() {
        let id = 1 + 2 * number as u32;
        said.extend(h2_ask(id, &format!("/{number}/{bytes}")));
        let check = Check { seed: number, at: 0 };
        bodies.insert(id, Body { check, bytes, window: at_start, has_ended: false });
    }
    say(&mut stream, &said).await;
    let mut full = 0;
    while bodies.values().any(|body| !body.has_ended) {
        let (kind, flags, id, payload) = frame(&mut stream).await;
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "cut: {payload:?}");
        if kind == HEADERS && flags & END_STREAM != 0 {
            assert_eq!(bodies[&id].bytes, 0);
            bodies.remove(&id);
        }
        if kind != DATA {
            continue;
        }
        assert!(HEAD_BYTES + payload.len() <= RECORD_BYTES);
        full += usize::from(HEAD_BYTES + payload.len() == RECORD_BYTES);
        let body = bodies.get_mut(&id).unwrap();
        assert!(!body.has_ended, "more of stream {id} after its end");
        window = window.checked_sub(payload.len()).expect("within the connection's window");
        body.window = body.window.checked_sub(payload.len()).expect("within the stream's window");
        body.check.bytes(&payload);
        body.has_ended = flags & END_STREAM != 0;
        assert!(!body.has_ended || body.check.at == body.bytes, "ended early");
        // Windows of a few bytes, too; when they shut, or before.
        let most = [3, 5_000, 100_000, 400_000][random.below(4)];
        let more = 1 + random.below(most);
        if body.window == 0 || (!body.has_ended && random.below(4) == 0) {
            body.window += more;
            say(&mut stream, &h2_window(id, more as u32)).await;
        }
        if window == 0 || random.below(4) == 0 {
            window += more;
            say(&mut stream, &h2_window(0, more as u32)).await;
        }
    }
    drop(stream);
    served.empty().await;
    full
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_fit_the_windows_and_a_record() {
    let sizes = [0, 1, 255, 256, 16_374, 16_375, 16_376, 65_536, 262_000, 1 << 20];
    for (seed, at_start) in [1, 100, 16_384, 65_535, 1 << 20].into_iter().enumerate() {
        // Alone, and among others.
        for sizes in [&[65_536][..], &[700_000], &sizes] {
            let full = read_by_windows(sizes, at_start, seed as u64).await;
            assert!(at_start < 1 << 20 || full > 0, "no frame was full");
        }
    }
}
