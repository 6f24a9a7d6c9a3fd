//! Clients that connect and say nothing, to an edge as a process that may open few files.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use nearcast::cluster::Process;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Nothing takes this long.
const WAIT: Duration = Duration::from_secs(60);
/// The hard limit; the soft one is half of it.
const FILES: usize = 512;
/// Half of the files are for clients.
const CONNECTIONS: usize = FILES / 2;

async fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
            socket.write_all(format!("{head}ok").as_bytes()).await.unwrap();
        }
    });
    url
}

async fn edge(dir: &Path) -> Process {
    let limit = format!("--nofile={}:{FILES}", FILES / 2);
    let data = dir.join("data").display().to_string();
    let (binary, origin) = (env!("CARGO_BIN_EXE_nearcast"), origin().await);
    let edge = [&limit, binary, "edge", "--origin", &origin, "--listen", "http://127.0.0.1:0"];
    let few = ["--memory", "64MiB", "--ssd", "0", "--shards", "1", "--data-dir", &data];
    let arguments = edge.into_iter().chain(few).map(str::to_owned).collect();
    Process::start(Path::new("prlimit"), dir, "edge", arguments).await.unwrap()
}

/// What comes, until the other side ends it or `until` has come.
async fn read(client: &mut TcpStream, until: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(until.as_bytes()) || until.is_empty() {
            match client.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    timeout(WAIT, reading).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn clients_that_say_nothing_leave_the_files_that_others_need() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path()).await;
    let host = edge.url().unwrap().strip_prefix("http://").unwrap();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS + 100 {
        clients.push(TcpStream::connect(host).await.unwrap());
    }
    // Who was let in gets what is at the origin, who was not knows at once.
    for beyond in &mut clients[CONNECTIONS..] {
        assert_eq!(read(beyond, "").await, "");
    }
    for (n, client) in clients[..CONNECTIONS].iter_mut().enumerate() {
        let asked = format!("GET /{n} HTTP/1.1\r\nHost: films.example\r\n\r\n");
        client.write_all(asked.as_bytes()).await.unwrap();
        let answer = read(client, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{n}: {answer}");
    }
    let log = std::fs::read_to_string(dir.path().join("edge.log")).unwrap();
    let told: Vec<_> = log.lines().filter(|line| line.contains("limit of open files")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("edge.connections-max = 20000"), "{told:?}");
    assert!(!log.contains("accepting a connection failed"), "{log}");
}
