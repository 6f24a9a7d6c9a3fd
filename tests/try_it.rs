//! The command that the README and docs/edge.md begin with, as an operator types it: a cache
//! before any HTTP origin, over each protocol, until Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod clients;

use clients::{WAIT, metrics_at_rest, speakers};
use loadtest::{Client, Protocol};
use nearcast::cluster::{Process, Signal};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Some chunks, and a part of one.
const BYTES: usize = (3 << 20) + 17;

/// What the origin has under a path.
fn content(path: &str) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().update(path.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An origin whose paths begin with what it says of them: `/good/` for an hour, `/tagged/` an
/// `ETag` alone, `/bare/` nothing. What is `/slow/` stops in its middle.
struct Origin {
    url: String,
    /// Paths, and whether they were asked for on a condition.
    asked: Mutex<Vec<(String, bool)>>,
    /// Answers that are in their middle.
    halfway: watch::Sender<usize>,
    /// They go on.
    open: watch::Sender<bool>,
}

impl Origin {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: Mutex::default(),
            halfway: watch::channel(0).0,
            open: watch::channel(false).0,
        });
        let shared = Arc::clone(&origin);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let origin = Arc::clone(&shared);
                // Ends with the connection.
                tokio::spawn(async move { origin.serve(stream).await });
            }
        });
        origin
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let head = head.to_lowercase();
            let path = head.split(' ').nth(1).unwrap();
            let on_condition = head.contains("\r\nif-none-match: \"1\"\r\n");
            self.asked.lock().unwrap().push((path.to_owned(), on_condition));
            self.answer(&mut stream, path, on_condition).await?;
        }
    }

    async fn answer(
        &self,
        stream: &mut BufReader<TcpStream>,
        path: &str,
        on_condition: bool,
    ) -> std::io::Result<()> {
        let fields = match path.split('/').nth(1) {
            Some("good" | "slow") => "etag: \"1\"\r\ncache-control: max-age=3600\r\n",
            Some("tagged") => "etag: \"1\"\r\n",
            _ => "",
        };
        if on_condition {
            let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
            return stream.write_all(head.as_bytes()).await;
        }
        let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let body = content(path);
        let (first, second) = body.split_at(BYTES / 2);
        stream.write_all(first).await?;
        if path.starts_with("/slow/") {
            self.halfway.send_modify(|count| *count += 1);
            let _ = self.open.subscribe().wait_for(|open| *open).await;
        }
        stream.write_all(second).await
    }

    /// For each request of a path, whether it was on a condition.
    fn asked(&self, path: &str) -> Vec<bool> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(of, _)| of == path).map(|(_, on_condition)| *on_condition).collect()
    }
}

/// The command, on free ports and in a folder of its own.
async fn edge(origin: &Origin, dir: &Path) -> Process {
    let data = dir.join("data").display().to_string();
    let listen = ["--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"];
    let words = ["edge", "--origin", &origin.url].into_iter().chain(listen);
    let words = words.chain(["--data-dir", &data]).map(str::to_owned).collect();
    Process::start(Path::new(env!("CARGO_BIN_EXE_nearcast")), dir, "edge", words).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_twice_over_any_protocol_hits_and_no_lifetime_is_invented() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    let mut edge = edge(&origin, dir.path()).await;
    for speaker in speakers(&edge, &dir.path().join("data")) {
        let by = speaker.by;
        for (of, verdicts, conditions) in [
            ("good", ["origin", "hit-memory"], &[false][..]),
            ("tagged", ["origin", "revalidated"], &[false, true]),
            ("bare", ["bypass", "bypass"], &[false, false]),
        ] {
            let path = format!("/{of}/{by}");
            for verdict in verdicts {
                let answer = speaker.get(&path, &[]).await;
                assert_eq!((answer.status, &*answer.protocol), (200, by.alpn()), "{path}");
                assert!(answer.body == content(&path), "{path}: other bytes");
                assert_eq!(answer.verdict(), Some(verdict), "{path}");
                let status = answer.header("cache-status").unwrap();
                assert_eq!(status.contains(";hit"), verdict == "hit-memory", "{path}: {status}");
                assert_ne!(status.contains(";fwd="), verdict == "hit-memory", "{path}: {status}");
                let h3 = format!("h3=\":{}\"; ma=86400", speaker.base.rsplit(':').next().unwrap());
                let h3 = (by.scheme() == "https").then_some(&*h3);
                assert_eq!(answer.header("alt-svc"), h3, "{path}");
                metrics_at_rest(&edge).await;
            }
            assert_eq!(origin.asked(&path), conditions, "{path}");
        }
    }
    edge.stop().await.unwrap();
}

/// Waits until its log says so.
async fn says(log: &Path, what: &str) {
    let started = Instant::now();
    while !std::fs::read_to_string(log).unwrap().contains(what) {
        assert!(started.elapsed() < WAIT, "{}", std::fs::read_to_string(log).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_once_the_responses_under_way_are_whole() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    let mut edge = edge(&origin, dir.path()).await;
    let speakers = speakers(&edge, &dir.path().join("data"));
    let count = speakers.len();
    let asking = speakers.into_iter().map(|speaker| {
        tokio::spawn(async move {
            let path = format!("/slow/{}", speaker.by);
            let answer = speaker.get(&path, &[]).await;
            assert!(answer.status == 200 && answer.body == content(&path), "{path}");
        })
    });
    let asking: Vec<_> = asking.collect();
    origin.halfway.subscribe().wait_for(|halfway| *halfway == count).await.unwrap();
    let log = edge.log();
    let goes_on = async {
        // It takes no more requests.
        says(&log, "edge drains").await;
        assert!(asking.iter().all(|client| !client.is_finished()));
        origin.open.send_replace(true);
    };
    let (ended, ()) = tokio::join!(edge.stop_by(Signal::INT), goes_on);
    ended.unwrap();
    for client in asking {
        client.await.unwrap();
    }
}

/// What some send to have a server read its settings anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_without_a_terminal_ends_nothing() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    let mut edge = edge(&origin, dir.path()).await;
    assert!(edge.signal(Signal::HUP));
    says(&edge.log(), "SIGHUP").await;
    let speakers = speakers(&edge, &dir.path().join("data"));
    assert_eq!(speakers[0].get("/good/after", &[]).await.status, 200);
    edge.stop().await.unwrap();
}

/// By RFC 9000 section 10.3, whose key is in the data folder; else each of them would wait for what
/// its own patience is, which is shorter here than what the connection has.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_tells_its_clients_by_http_3_that_it_was_started_anew() {
    const CLIENTS: usize = 50;
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    let mut edge = edge(&origin, dir.path()).await;
    let ca = vec![std::fs::read(dir.path().join("data/tls/cert.pem")).unwrap()];
    let client = |_| Client::new(Protocol::H3, &ca, WAIT / 2).unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let secure = |url: &&String| url.starts_with("https://");
    let url = format!("{}/good/h3", edge.announced.urls.iter().find(secure).unwrap());
    let all = async || {
        let ask = clients.iter().map(async |client| {
            let asked = Instant::now();
            let answer = client.get(&url, &[("range", "bytes=0-9")]).await.unwrap();
            assert!(answer.body == content("/good/h3")[..10]);
            asked.elapsed()
        });
        futures::future::join_all(ask).await
    };
    all().await;
    edge.kill().await.unwrap();
    edge.restart().await.unwrap();
    let mut took = all().await;
    took.sort();
    println!("{CLIENTS} clients: half within {:?}, all {:?}", took[CLIENTS / 2], took[CLIENTS - 1]);
    edge.stop().await.unwrap();
}
