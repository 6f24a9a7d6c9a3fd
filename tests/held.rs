//! What slow readers make an edge hold, as a process, by each protocol: its resident memory is
//! no more than docs/edge.md says ("How much memory a box needs").
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use futures::FutureExt;
use loadtest::load::{Plan, Report, Target, Until, run_until};
use loadtest::{Client, Protocol};
use nearcast::cluster::Process;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Each reads a film that nobody else asks for.
const READERS: usize = 300;
const FILM: u64 = 12 * MIB;
const MEMORY: u64 = 64 * MIB;
/// The fixed part, without what texts take that are being compressed: there are none here.
const FIXED: u64 = (350 - 110) * MIB;
/// What a reader takes in a second: a client on a thin line.
const BYTES_PER_S: u64 = 64 * KIB;
/// All of them are under way, and what is before them is full, long before.
const WAIT: Duration = Duration::from_secs(60);
/// Until what is before them is full: at that rate, and 300 handshakes.
const FULL_MAX: Duration = Duration::from_secs(110);

/// What the document says of each response under way (b, with what goes past memory) and its
/// connection; of its request at an origin of HTTP/1.1 (f); and of a connection by itself.
fn reader_bytes(by: Protocol) -> u64 {
    let response = match by {
        Protocol::H1 => 128 + 128,
        Protocol::H1Tls => 128 + 128 + 134,
        Protocol::H2 => 320 + 134,
        Protocol::H3 => 2 * 1024,
    };
    (response + 128 + 32) * KIB
}

/// An origin of films, each of the same zeros under a validator of its own.
async fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The edge may leave at any time.
            tokio::spawn(async move { serve(stream).await.unwrap_or_default() });
        }
    });
    url
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let zeros = vec![0; 64 << 10];
    loop {
        let (mut path, mut first, mut end, mut part) = (String::new(), 0, FILM, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if let Some(range) = line.to_lowercase().trim().strip_prefix("range: bytes=") {
                let (from, to) = range.split_once('-').unwrap();
                part = true;
                first = from.parse().unwrap();
                end = to.parse().map_or(FILM, |last: u64| FILM.min(last + 1));
            }
            if line == "\r\n" {
                break;
            }
        }
        let status = match part {
            true => format!("206 Part\r\nContent-Range: bytes {first}-{}/{FILM}", end - 1),
            false => "200 OK".to_owned(),
        };
        let fields = format!("ETag: \"{path}\"\r\nCache-Control: max-age=3600");
        let head =
            format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {}\r\n\r\n", end - first);
        stream.write_all(head.as_bytes()).await?;
        while first < end {
            let piece = (end - first).min(zeros.len() as u64);
            stream.write_all(&zeros[..piece as usize]).await?;
            first += piece;
        }
    }
}

async fn edge(dir: &Path, origin: &str, scheme: &str) -> Process {
    let listen = format!("{scheme}://127.0.0.1:0");
    let (data, memory) = (dir.join("data").display().to_string(), MEMORY.to_string());
    let words = [
        ("--origin", origin.to_owned()),
        ("--listen", listen),
        ("--memory", memory),
        ("--ssd", "0".to_owned()),
        ("--data-dir", data),
    ];
    let words = words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    let words = std::iter::once("edge".to_owned()).chain(words).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    Process::start(binary, dir, "edge", words).await.unwrap()
}

/// What the edge counts under this name.
async fn counted(edge: &Process, name: &str) -> f64 {
    let asks = Client::new(Protocol::H1, &[], WAIT).unwrap();
    let url = format!("{}/metrics", edge.announced.admin);
    let text = asks.get(&url, &[]).await.unwrap().body;
    let text = String::from_utf8(text.to_vec()).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Waits until each of the readers is under way and half as much again as it may hold has come for
/// it: some of that it has taken. False if that never comes.
async fn is_full(edge: &Process, by: Protocol) -> bool {
    let bytes = (READERS as u64 * reader_bytes(by) / 2 * 3) as f64;
    let is_full = async {
        while counted(edge, "nearcast_edge_responses ").await < READERS as f64
            || counted(edge, "nearcast_edge_origin_bytes_total").await < bytes
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(FULL_MAX, is_full).await.is_ok()
}

/// Runs the readers until what is before them is full.
async fn read_slowly(edge: &Process, by: Protocol, ca_pem: Vec<Vec<u8>>) -> Report {
    let targets = vec![Target::new("/{n}")];
    let mut plan = Plan::new(by, edge.url().unwrap().parse().unwrap(), targets);
    plan.connections = 0;
    plan.slow = READERS;
    plan.slow_bytes_per_s = BYTES_PER_S;
    plan.warm_up = Duration::ZERO;
    plan.until = Until::Elapsed(2 * WAIT);
    plan.server_pids = vec![edge.pid().unwrap()];
    plan.ca_pem = ca_pem;
    let (full, told) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::task::spawn_blocking(move || run_until(&plan, told.map(drop)).unwrap());
    assert!(is_full(edge, by).await, "{by}: not all are under way");
    drop(full);
    load.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_make_it_hold_no_more_than_is_written() {
    let origin = origin().await;
    // As many as the edge takes by itself.
    let shards = std::thread::available_parallelism().unwrap().get() as u64;
    for by in Protocol::ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut edge = edge(dir.path(), &origin, by.scheme()).await;
        let ca = std::fs::read(dir.path().join("data/tls/cert.pem"));
        let report = read_slowly(&edge, by, ca.into_iter().collect()).await;
        let server = report.server.unwrap();
        let (before, most) = (server.rss_before_bytes, server.rss_max_bytes);
        let bound = MEMORY + FIXED + shards * 24 * MIB + READERS as u64 * reader_bytes(by);
        println!(
            "{by}: {READERS} slow readers, {} MiB of memory: RSS {} MiB, {} before the first; at \
             most {} by the sum",
            MEMORY / MIB,
            most / MIB,
            before / MIB,
            bound / MIB
        );
        assert_eq!((report.failures, report.wrong), (0, 0), "{by}: {:?}", report.texts);
        assert!(most <= bound, "{by}: RSS {most}, {bound} by the sum");
        edge.stop().await.unwrap();
    }
}
