//! What the log says of each request, once it is asked to: bytes by source, and what the player
//! told. An edge as a process, its log as an operator reads it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod lines;

use lines::{field, head};
use loadtest::{Client, Protocol};
use model::chunk::CHUNK_BYTES;
use nearcast::cluster::Process;
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);
const BYTES: u64 = 3 * CHUNK_BYTES;
const CMCD: [(&str, &str); 2] = [("cmcd-request", "bl=2100"), ("cmcd-session", "sid=\"tonight\"")];

/// An origin of one film under every path, that gives the ranges asked for.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

/// A connection, until its end.
fn serve(mut stream: TcpStream) {
    let mut read = BufReader::new(stream.try_clone().unwrap());
    while let Some(head) = head(&mut read) {
        let asked = field(&head, "range").and_then(|range| range.strip_prefix("bytes="));
        let (status, first, end) = match asked.and_then(|range| range.split_once('-')) {
            None => ("200 OK", 0, BYTES),
            Some((first, last)) => {
                let end = last.parse().map_or(BYTES, |last: u64| BYTES.min(last + 1));
                ("206 Partial Content", first.parse().unwrap(), end)
            }
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\netag: \"one\"\r\ncache-control: max-age=3600\r\n\
             content-length: {}\r\ncontent-range: bytes {first}-{}/{BYTES}\r\n\r\n",
            end - first,
            end - 1
        );
        let body = vec![7; usize::try_from(end - first).unwrap()];
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

async fn edge(dir: &Path, level: &str) -> Process {
    let (data, origin) = (dir.join("data").display().to_string(), origin());
    let tiers = ["--data-dir", &data, "--memory", "64MiB", "--ssd", "0"];
    let words = ["edge", "--origin", &origin, "--listen", "http://127.0.0.1:0"];
    let told = ["--log-level", level];
    let words = words.iter().chain(&tiers).chain(&told).map(|word| (*word).to_owned()).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    Process::start(binary, dir, "edge", words).await.unwrap()
}

/// The lines of a log, once there are so many of requests.
async fn requests(log: &Path, count: usize) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["target"] == "access").collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(started.elapsed() < WAIT, "{count} requests in:\n{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Until nothing is on its way into the cache.
async fn is_kept(client: &Client, edge: &Process) {
    let started = Instant::now();
    loop {
        let url = format!("{}/metrics", edge.announced.admin);
        let answer = client.get(&url, &[]).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        if text.lines().any(|line| line == "nearcast_edge_filling_chunks 0") {
            return;
        }
        assert!(started.elapsed() < WAIT, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_bytes_by_source_and_the_players_cmcd_of_each_request() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path(), "info,access=debug").await;
    let client = Client::new(Protocol::H1, &[], WAIT).unwrap();
    let film = format!("{}/film?a=1", edge.url().unwrap());
    let first = format!("bytes=0-{}", CHUNK_BYTES - 1);
    let asked = [
        (vec![("range", &*first)], 206, CHUNK_BYTES, vec![("origin", CHUNK_BYTES)]),
        (vec![("range", &*first)], 206, CHUNK_BYTES, vec![("hit-memory", CHUNK_BYTES)]),
        (vec![], 200, BYTES, vec![("hit-memory", CHUNK_BYTES), ("origin", BYTES - CHUNK_BYTES)]),
    ];
    for (place, (fields, status, bytes, sources)) in asked.into_iter().enumerate() {
        let fields = [fields, CMCD.to_vec()].concat();
        let answer = client.get(&film, &fields).await.unwrap();
        assert_eq!((answer.status, answer.body.len() as u64), (status, bytes));
        is_kept(&client, &edge).await;
        let lines = requests(&edge.log(), place + 1).await;
        let line = &lines[place];
        let told: Vec<_> = sources.iter().map(|(name, sum)| format!("{name}={sum}")).collect();
        let mut expected = json!({
            "timestamp": line["timestamp"], "level": "DEBUG", "target": "access",
            "message": "request", "method": "GET", "site": "*", "path": "/film",
            "protocol": "http/1.1", "status": status, "verdict": sources[sources.len() - 1].0,
            "bytes": bytes, "expected": bytes, "sources": told.join(","),
            "cmcd": "bl=2100,sid=\"tonight\"", "micros": line["micros"],
            "host": film.split('/').nth(2).unwrap(),
        });
        if let Some(("range", range)) = fields.first() {
            expected["range"] = json!(range);
        }
        assert_eq!(line, &expected);
        assert!(line["micros"].as_u64().is_some_and(|micros| micros > 0), "{line}");
    }
    let text = std::fs::read_to_string(edge.log()).unwrap();
    let others = text.lines().filter(|line| line.contains("\"DEBUG\"")).count();
    assert_eq!(others, 3, "nothing else is told at this level:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_who_asked_at_its_finest_level() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path(), "info,access=trace").await;
    let client = Client::new(Protocol::H1, &[], WAIT).unwrap();
    let film = format!("{}/film?key=7", edge.url().unwrap());
    let answer = client.get(&film, &[("user-agent", "player/7")]).await.unwrap();
    assert_eq!(answer.status, 200);
    let line = &requests(&edge.log(), 1).await[0];
    let told = (&line["client"], &line["query"], &line["user_agent"]);
    assert_eq!(told, (&json!("127.0.0.1"), &json!("key=7"), &json!("player/7")));
}

/// An origin of bodies that are not whole, by path. Each waits after half of what it sends, until it
/// is told that the edge has passed that on.
fn bad_origin() -> (String, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, told) = channel();
    let told = Arc::new(Mutex::new(told));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let told = Arc::clone(&told);
            // The edge may leave at any time.
            std::thread::spawn(move || _ = serve_badly(stream, &told));
        }
    });
    (url, go)
}

static HALF: [u8; 50_000] = [7; 50_000];

fn serve_badly(mut stream: TcpStream, told: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    let asked = head(&mut BufReader::new(stream.try_clone()?)).unwrap_or_default();
    let path = asked[0].split(' ').nth(1).unwrap();
    let framing = match path {
        "/chunk" => "transfer-encoding: chunked\r\n\r\n186a1\r\n".to_owned(),
        _ => format!("content-length: {}\r\n\r\n", 2 * HALF.len() + 1),
    };
    let fields = "etag: \"one\"\r\ncache-control: max-age=3600\r\n";
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}{framing}").as_bytes())?;
    stream.write_all(&HALF)?;
    told.lock().unwrap().recv().unwrap();
    match path {
        "/drip" => loop {
            stream.write_all(b"7")?;
            std::thread::sleep(DRIP);
        },
        "/chunk" => stream.write_all(&[&HALF[..], b"7\r\nxyz\r\n"].concat())?,
        _ => stream.write_all(&HALF)?,
    }
    match path {
        "/stall" => _ = stream.read(&mut [0])?,
        "/reset" => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?,
        _ => {}
    }
    Ok(())
}

/// Less than 256 bytes in two times the stall limit, which is long enough for a machine that pauses.
const DRIP: Duration = Duration::from_millis(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_why_an_answer_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (origin, go) = bad_origin();
    let (data, file) = (dir.path().join("data"), dir.path().join("nearcast.toml"));
    let text = format!(
        "[edge]\nlisten = [\"http://127.0.0.1:0\"]\ndata-dir = {data:?}\n\
         memory = \"64MiB\"\nssd = \"0\"\n\
         [edge.sites.\"*\"]\norigins = [\"{origin}\"]\nretries = 0\nhedge = false\n\
         stall-timeout = \"3s\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let words = ["--config", &file.display().to_string(), "edge"].map(str::to_owned).to_vec();
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    let edge = Process::start(binary, dir.path(), "edge", words).await.unwrap();
    let addr = edge.url().unwrap().strip_prefix("http://").unwrap().to_owned();
    let mut faults = Vec::new();
    for (place, (path, name, why)) in [
        ("/short", "http_response_incomplete", "end of file before message length reached"),
        ("/reset", "http_response_incomplete", "Connection reset by peer"),
        ("/stall", "connection_read_timeout", "silent for 3s"),
        ("/chunk", "http_response_transfer_coding", "Invalid chunk size"),
        ("/drip", "connection_read_timeout", "a drip: "),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = TcpStream::connect(&addr).unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
        client.write_all(ask.as_bytes()).unwrap();
        let mut answer = BufReader::new(client);
        assert_eq!(head(&mut answer).unwrap()[0], "http/1.1 200 ok", "{path}");
        go.send(()).unwrap();
        _ = answer.read_to_end(&mut Vec::new());
        let lines = requests(&edge.log(), place + 1).await;
        let line = &lines[place];
        let told = (&line["level"], &line["message"], &line["path"], &line["status"]);
        assert_eq!(told, (&json!("WARN"), &json!("cut"), &json!(path), &json!(200)), "{line}");
        let fault = line["fault"].as_str().unwrap();
        println!("{path}: {fault}");
        let is_told = fault.starts_with(&format!("cut ({name}): ")) && fault.contains(why);
        faults.push(is_told.then_some(path));
    }
    assert!(faults.iter().all(Option::is_some), "{faults:?}");
}
