//! What an idle connection costs an edge, as a process: resident memory with two thousand of
//! them, each after one request.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use loadtest::{Client, Protocol};
use nearcast::cluster::Process;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const CONNECTIONS: usize = 2000;
/// Connections that are being made at a time.
const AT_A_TIME: usize = 32;
/// Before those that count: what is made once, and kept.
const WARM_UP: usize = 200;
/// The most that an idle connection may take, of HTTP/1.1 and 2 over TLS.
const IDLE_BYTES_MAX: u64 = 32 << 10;
const WAIT: Duration = Duration::from_secs(30);

/// An origin of one small answer.
async fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await.unwrap();
            let body = "a".repeat(2000);
            let fields = "Cache-Control: max-age=3600\r\nContent-Length: 2000\r\nConnection: close";
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

async fn edge(dir: &Path, origin: &str) -> Process {
    let arguments = [
        "edge",
        "--origin",
        origin,
        "--listen",
        "https://127.0.0.1:0",
        "--memory",
        "64MiB",
        "--ssd",
        "0",
        "--data-dir",
    ];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(dir.join("data").display().to_string());
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    Process::start(binary, dir, "edge", arguments).await.unwrap()
}

fn resident_bytes(edge: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", edge.pid().unwrap())).unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

async fn open_now(edge: &Process) -> usize {
    let client = Client::new(Protocol::H1, &[], WAIT).unwrap();
    let answer = client.get(&format!("{}/metrics", edge.announced.admin), &[]).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("nearcast_edge_connections "));
    line.unwrap().parse::<f64>().unwrap() as usize
}

/// So many connections, each idle after one answer.
async fn connect(url: &str, by: Protocol, ca: &[Vec<u8>], count: usize) -> Vec<Client> {
    let mut made = Vec::new();
    let places = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let client = Client::new(by, ca, WAIT).unwrap();
        let url = url.to_owned();
        tasks.spawn(async move {
            let answer = client.get(&url, &[]).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 2000));
            drop(place);
            client
        });
    }
    while let Some(client) = tasks.join_next().await {
        made.push(client.unwrap());
    }
    made
}

#[tokio::test]
async fn an_idle_connection_takes_little_memory() {
    let _ = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.map(|most| {
        let all = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, all)
    });
    let origin = origin().await;
    for by in [Protocol::H1Tls, Protocol::H2] {
        let dir = tempfile::tempdir().unwrap();
        let mut edge = edge(dir.path(), &origin).await;
        let ca = vec![std::fs::read(dir.path().join("data/tls/cert.pem")).unwrap()];
        let url = format!("{}/a", edge.url().unwrap());
        let kept = connect(&url, by, &ca, WARM_UP).await;
        let before = resident_bytes(&edge);
        let more = connect(&url, by, &ca, CONNECTIONS).await;
        assert_eq!(open_now(&edge).await, WARM_UP + CONNECTIONS);
        let each = (resident_bytes(&edge) - before) / CONNECTIONS as u64;
        println!("{by}: {each} bytes each");
        assert!(each <= IDLE_BYTES_MAX, "{by}: an idle connection takes {each} bytes");
        drop((kept, more));
        edge.stop().await.unwrap();
    }
}
