//! Edges as processes, one of which stops (SIGSTOP) while another asks it: the kernel still takes
//! connections for it, and nothing answers. Clients get what they want from elsewhere, whole and
//! right, nobody is sent to it again, and it takes part once it goes on.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod lines;

use lines::{field, head};
use nearcast::cluster::{Process, Signal};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const WAIT: Duration = Duration::from_secs(60);
const SMALL: usize = 100_003;
/// More than sockets and the node below take in before the client reads on.
const LARGE: usize = 48 << 20;
/// From here on, things are large.
const LARGE_FROM: usize = 1_000;
/// Clients at a time. Who owns what follows from names: the other node owns some of it.
const CLIENTS: usize = 16;

fn content(number: usize) -> Vec<u8> {
    let mut content = vec![0; if number < LARGE_FROM { SMALL } else { LARGE }];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

/// An origin of `/NUMBER`, a thread a connection.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Ends with the connection.
            std::thread::spawn(move || stream.is_ok_and(|stream| serve(stream).is_some()));
        }
    });
    url
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let mut reading = BufReader::new(stream.try_clone().ok()?);
    while let Some(head) = head(&mut reading) {
        let number: usize = head[0].split([' ', '/']).nth(2)?.parse().ok()?;
        let body = content(number);
        let range = field(&head, "range").and_then(|range| range.strip_prefix("bytes="));
        let (first, last) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let first: usize = first.parse().unwrap_or(0);
        let end = last.parse().map_or(body.len(), |last: usize| body.len().min(last + 1));
        let status = match range {
            None => "200 OK".to_owned(),
            Some(_) => {
                format!("206 Part\r\ncontent-range: bytes {first}-{}/{}", end - 1, body.len())
            }
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\netag: \"{number}\"\r\ncache-control: max-age=86400\r\n\
             content-length: {}\r\n\r\n",
            end - first
        )
        .ok()?;
        stream.write_all(&body[first..end]).ok()?;
    }
    Some(())
}

/// An answer whose body is still to be read.
struct Opened {
    verdict: String,
    length: usize,
    reading: BufReader<TcpStream>,
}

fn open(base: &str, path: &str) -> Opened {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: films.example\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut reading = BufReader::new(stream);
    let head = head(&mut reading).expect("an answer");
    // Of all nodes that had a part in it.
    let told = head.iter().filter_map(|line| line.strip_prefix("cache-status: "));
    let own = told.flat_map(|told| told.split(',')).find(|told| told.trim().starts_with("node-a"));
    let verdict = own.and_then(|told| told.split("detail=").nth(1)).unwrap_or_default();
    let verdict = verdict.split(';').next().unwrap_or_default().trim_matches('"').to_owned();
    let length = field(&head, "content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    Opened { verdict, length, reading }
}

impl Opened {
    fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        self.reading.read_exact(&mut body).unwrap();
        body
    }
}

/// Two nodes before an origin; the one asks the other.
struct Stage {
    asked: Process,
    asking: Process,
    _dir: TempDir,
}

impl Stage {
    /// `list`: what the node is to the one that asks it.
    async fn new(list: &str) -> Self {
        let (dir, origin) = (tempfile::tempdir().unwrap(), origin());
        let asked = start(dir.path(), "node-b", &origin, "").await;
        let announced = std::fs::read(dir.path().join("node-b.announce")).unwrap();
        let announced: serde_json::Value = serde_json::from_slice(&announced).unwrap();
        let url = announced["peer_urls"][0].as_str().unwrap();
        let table = format!(
            "[edge.hierarchy]\n{list} = [{{ id = \"node-b\", url = \"{url}\" }}]\n\
             connect-timeout = \"1s\"\n"
        );
        let asking = start(dir.path(), "node-a", &origin, &table).await;
        Self { asked, asking, _dir: dir }
    }

    fn signal(&self, signal: Signal) {
        assert!(self.asked.signal(signal));
    }

    fn open(&self, number: usize) -> Opened {
        open(self.asking.url().unwrap(), &number.to_string())
    }

    /// Gets things at the same time, whole and right; their verdicts.
    fn get(&self, numbers: std::ops::Range<usize>) -> Vec<String> {
        std::thread::scope(|scope| {
            let get = |number| {
                scope.spawn(move || {
                    let mut answer = self.open(number);
                    let body = answer.read(answer.length);
                    assert!(body == content(number), "{number}: {} bytes", body.len());
                    answer.verdict
                })
            };
            let clients: Vec<_> = numbers.map(get).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }

    /// The exchanges with the other node that ended so.
    fn ended(&self, outcome: &str) -> f64 {
        self.sum(&["nearcast_edge_upstream_requests_total{", "hop=\"node-b\"", outcome])
    }

    /// The sum of the metrics whose lines hold all these.
    fn sum(&self, parts: &[&str]) -> f64 {
        let mut answer = open(&self.asking.announced.admin, "metrics");
        let text = String::from_utf8(answer.read(answer.length)).unwrap();
        let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

async fn start(dir: &Path, id: &str, origin: &str, hierarchy: &str) -> Process {
    let data = dir.join(id);
    let text = format!(
        "[edge]\nid = \"{id}\"\nlisten = [\"http://127.0.0.1:0\"]\n\
         peer-listen = [\"http://127.0.0.1:0\"]\ndata-dir = {data:?}\n\
         memory = \"128MiB\"\nssd = \"0\"\n\
         [edge.sites.\"films.example\"]\norigins = [\"{origin}\"]\n{hierarchy}"
    );
    let file = dir.join(format!("{id}.toml"));
    std::fs::write(&file, text).unwrap();
    let words = ["--config".to_owned(), file.display().to_string(), "edge".to_owned()];
    Process::start(Path::new(BINARY), dir, id, words.to_vec()).await.unwrap()
}

/// Asks for thing after thing until one comes from the other node.
fn from_the_other(stage: &Stage, first: usize, verdict: &str) -> (usize, Opened) {
    let started = Instant::now();
    for number in first.. {
        let answer = stage.open(number);
        if answer.verdict == verdict {
            return (number, answer);
        }
        assert!(started.elapsed() < WAIT, "none comes from the {verdict}");
    }
    unreachable!("numbers have no end")
}

async fn a_node_stops(list: &str, verdict: &str) {
    let mut stage = Stage::new(list).await;
    assert!(stage.get(0..CLIENTS).iter().any(|given| given == verdict));

    stage.signal(Signal::STOP);
    let verdicts = stage.get(100..100 + CLIENTS);
    assert!(verdicts.iter().all(|verdict| verdict == "origin"), "{verdicts:?}");
    let silent = stage.ended("outcome=\"silent\"");
    assert!(silent > 0.0 && stage.ended("outcome=\"timed-out\"") == 0.0);
    assert_eq!(stage.sum(&["nearcast_edge_upstream_node_up{"]), 0.0);
    // Who comes later is not sent there.
    let asked = stage.ended("");
    stage.get(200..200 + CLIENTS);
    assert_eq!((stage.ended(""), stage.ended("outcome=\"silent\"")), (asked, silent));

    stage.signal(Signal::CONT);
    drop(from_the_other(&stage, 300, verdict));

    // In the middle of a body.
    let (number, mut answer) = from_the_other(&stage, LARGE_FROM, verdict);
    let start = answer.read(1 << 20);
    stage.signal(Signal::STOP);
    let rest = answer.read(LARGE - start.len());
    let whole = content(number);
    assert!(start == whole[..1 << 20] && rest == whole[1 << 20..], "wrong bytes");
    assert!(stage.ended("outcome=\"silent\"") > silent && stage.ended("outcome=\"cut\"") == 0.0);
    stage.signal(Signal::CONT);
    stage.asking.stop().await.unwrap();
    stage.asked.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regional_edge_that_stops_is_passed_over_within_the_request() {
    a_node_stops("parents", "parent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_that_stops_is_passed_over_within_the_request() {
    a_node_stops("siblings", "sibling").await;
}
