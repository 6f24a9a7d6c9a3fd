//! An edge before a plain origin, as a process: killed (SIGKILL) in the middle of fills under
//! load, ended in order, and what is there when it comes back: what was whole, nothing cut, and
//! nothing that was purged or changed by a POST.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod lines;

use lines::{field, head};
use nearcast::cluster::Process;
use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const MIB: usize = 1 << 20;
const WAIT: Duration = Duration::from_secs(60);
/// How often something is looked at again.
const POLL: Duration = Duration::from_millis(5);
/// Things that are stored before the kill, of some MiB each: more than memory holds.
const THINGS: usize = 24;
/// Of these, the first ones are changed and purged before the kill.
const PURGED: usize = 3;
/// From here on, things are new at the time of the kill, and stop in their middle.
const SLOW: usize = 100;
/// Memory of an edge that is killed: an eighth of it, which chunks on their way to the SSD may
/// have, takes a thing whole.
const LARGE: &str = "48MiB";
/// Memory that a few things fill.
const SMALL: &str = "16MiB";
/// Clients of what stops.
const SLOW_CLIENTS: usize = 4;

fn length(number: usize) -> usize {
    3 * MIB + number * 10_007
}

/// What a version of the origin's `/NUMBER` has, from `start` on.
fn content(number: usize, version: u32, start: usize, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    let mut named = blake3::Hasher::new();
    named.update(&number.to_le_bytes()).update(&version.to_le_bytes());
    let mut reader = named.finalize_xof();
    reader.set_position(start as u64);
    reader.fill(&mut content);
    content
}

/// An origin, a thread a connection. A POST makes another version.
#[derive(Clone, Default)]
struct Origin(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    url: String,
    /// Where it is not 1.
    versions: HashMap<usize, u32>,
    /// Slow answers that wait in their middle.
    slow: usize,
    /// They go on.
    open: bool,
    /// Answers nobody.
    silent: bool,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self::default();
        origin.0.lock().unwrap().url = format!("http://{}", listener.local_addr().unwrap());
        let shared = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let origin = shared.clone();
                // Ends with the connection: the edge's death is no error here.
                std::thread::spawn(move || stream.is_ok_and(|it| origin.serve(it).is_some()));
            }
        });
        origin
    }

    fn version(&self, number: usize) -> u32 {
        self.0.lock().unwrap().versions.get(&number).copied().unwrap_or(1)
    }

    fn change(&self, number: usize) {
        *self.0.lock().unwrap().versions.entry(number).or_insert(1) += 1;
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reading = BufReader::new(stream.try_clone().ok()?);
        while let Some(head) = head(&mut reading) {
            if self.0.lock().unwrap().silent {
                return None;
            }
            let number: usize = head[0].split([' ', '/']).nth(2)?.parse().ok()?;
            if head[0].starts_with("post") {
                self.change(number);
                stream.write_all(b"HTTP/1.1 204 Done\r\n\r\n").ok()?;
            } else {
                self.give(&mut stream, number, field(&head, "range")).ok()?;
            }
        }
        Some(())
    }

    fn give(
        &self,
        stream: &mut TcpStream,
        number: usize,
        range: Option<&str>,
    ) -> std::io::Result<()> {
        let (version, total) = (self.version(number), length(number));
        let range = range.and_then(|range| range.strip_prefix("bytes="));
        let (first, last) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let first: usize = first.parse().unwrap_or(0);
        let end = last.parse().map_or(total, |last: usize| total.min(last + 1));
        let status = match range {
            None => "200 OK".to_owned(),
            Some(_) => format!("206 Part\r\ncontent-range: bytes {first}-{}/{total}", end - 1),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\netag: \"{number}-{version}\"\r\n\
             cache-control: max-age=86400\r\ncontent-length: {}\r\n\r\n",
            end - first
        )?;
        let body = content(number, version, first, end - first);
        let (start, rest) = body.split_at(body.len() / 2);
        stream.write_all(start)?;
        if number >= SLOW {
            self.0.lock().unwrap().slow += 1;
            while !self.0.lock().unwrap().open {
                std::thread::sleep(POLL);
            }
        }
        stream.write_all(rest)
    }
}

/// An answer: `detail` of its `Cache-Status`, and its body; an error if it was cut.
struct Answer {
    verdict: String,
    body: std::io::Result<Vec<u8>>,
}

fn exchange(url: &str, request: &str) -> std::io::Result<Answer> {
    let (addr, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(addr)?;
    let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
    write!(stream, "{line} /{path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{rest}\r\n")?;
    exchange_end(&mut BufReader::new(stream))
}

fn exchange_end(reading: &mut BufReader<TcpStream>) -> std::io::Result<Answer> {
    let cut = || std::io::Error::other("no answer");
    let head = head(reading).ok_or_else(cut)?;
    let verdict = field(&head, "cache-status").and_then(|status| status.split("detail=").nth(1));
    let verdict = verdict.unwrap_or_default().trim_matches('"').to_owned();
    let length: usize = field(&head, "content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let body = reading.read_exact(&mut body).map(|()| body);
    Ok(Answer { verdict, body })
}

/// All of a thing, and its verdict; an error if it was cut.
fn get_any(edge: &str, number: usize) -> std::io::Result<(String, Vec<u8>)> {
    let answer = exchange(&format!("{edge}/{number}"), "GET")?;
    Ok((answer.verdict, answer.body?))
}

/// The verdict of a chunk that is stored, checked; another one if it could not be had.
fn get_chunk(edge: &str, number: usize, chunk: usize) -> String {
    let (start, end) = (chunk * MIB, length(number).min((chunk + 1) * MIB));
    let range = format!("GET\nrange: bytes={start}-{}\r\n", end - 1);
    let answer = exchange(&format!("{edge}/{number}"), &range).unwrap();
    match answer.body {
        Ok(body) if answer.verdict.starts_with("hit-") => {
            assert!(body == content(number, 1, start, end - start), "{number} {chunk}");
            answer.verdict
        }
        Ok(_) => answer.verdict,
        Err(error) => error.to_string(),
    }
}

fn text(url: &str) -> String {
    String::from_utf8(exchange(url, "GET").unwrap().body.unwrap()).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < WAIT, "waited {WAIT:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// The edge, its origin and the folder of both.
struct Stage {
    origin: Origin,
    process: Process,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new(memory: &str) -> Self {
        let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
        let (data, url) = (dir.path().join("data"), origin.0.lock().unwrap().url.clone());
        let data = data.display().to_string();
        let site = ["edge", "--origin", &url, "--listen", "http://127.0.0.1:0"];
        let tiers = ["--data-dir", &data, "--memory", memory, "--ssd", "512MiB"];
        let words = site.into_iter().chain(tiers).map(str::to_owned).collect();
        let process = Process::start(Path::new(BINARY), dir.path(), "edge-a", words).await;
        let stage = Self { origin, process: process.unwrap(), _dir: dir };
        stage.ssd_is_up();
        stage
    }

    fn edge(&self) -> String {
        self.process.url().unwrap().to_owned()
    }

    /// Gets all of a thing as it is now.
    fn get(&self, number: usize) -> String {
        let (verdict, body) = get_any(&self.edge(), number).unwrap();
        let version = self.origin.version(number);
        assert!(body == content(number, version, 0, length(number)), "wrong bytes of {number}");
        verdict
    }

    /// The sum of a metric's lines.
    fn metric(&self, name: &str) -> f64 {
        let text = text(&format!("{}/metrics", self.process.announced.admin));
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn ssd_is_up(&self) {
        until("the SSD", || self.metric("nearcast_edge_ssd_up") == 1.0);
    }

    /// What is stored of a thing, by the edge's own account.
    fn variants(&self, number: usize) -> Vec<serde_json::Value> {
        let (edge, admin) = (self.edge(), &self.process.announced.admin);
        let said = text(&format!("{admin}/v1/explain?url={edge}/{number}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["variants"].as_array().unwrap().clone()
    }

    /// Asks for each thing, and waits until the SSD has it and its head.
    fn fill(&self) {
        let mut bytes = 0;
        for number in 0..THINGS {
            self.get(number);
            bytes += length(number);
            until("the SSD to take it", || {
                self.metric("nearcast_edge_ssd_written_bytes_total") >= bytes as f64
                    && self.metric("nearcast_edge_ssd_queue_bytes") == 0.0
            });
        }
        assert_eq!(self.metric("nearcast_edge_ssd_drops_total"), 0.0);
        until("all heads", || self.metric("nearcast_edge_head_rows") >= THINGS as f64);
    }

    fn purge(&self, number: usize) {
        let named = format!("{}/{number}", self.edge());
        let purge = ["purge", &named, "--admin", &self.process.announced.admin];
        let output = std::process::Command::new(BINARY).args(purge).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Clients of what stops in its middle, and of all else, until the edge is gone. What comes
    /// whole is a version that there is.
    fn load(&self, ends: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
        let client = |client: usize| {
            let (edge, ends) = (self.edge(), Arc::clone(ends));
            let numbers = match client {
                slow if slow < SLOW_CLIENTS => SLOW + slow..SLOW + slow + 1,
                _ => 0..THINGS,
            };
            std::thread::spawn(move || {
                for number in numbers.cycle().skip(client * 5) {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Ok((_, body)) = get_any(&edge, number) {
                        let is = |version| body == content(number, version, 0, length(number));
                        assert!(is(1) || is(2), "wrong bytes of {number}");
                    }
                }
            })
        };
        (0..SLOW_CLIENTS + 2).map(client).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_answers_at_once_and_has_what_was_whole() {
    let mut stage = Stage::new(LARGE).await;
    stage.fill();
    // All chunks of all that was complete, in memory or not, but for what is purged, and for what
    // is asked for at once.
    let chunks = |number| (0..length(number).div_ceil(MIB)).map(move |chunk| (number, chunk));
    let whole: Vec<_> = (PURGED..THINGS - 1).flat_map(chunks).collect();

    let ends = Arc::new(AtomicBool::new(false));
    let clients = stage.load(&ends);
    until("fills under way", || stage.origin.0.lock().unwrap().slow >= SLOW_CLIENTS);
    for number in 0..PURGED {
        stage.origin.change(number);
        stage.purge(number);
    }
    stage.process.kill().await.unwrap();
    ends.store(true, Ordering::SeqCst);
    stage.origin.0.lock().unwrap().open = true;
    clients.into_iter().for_each(|client| client.join().unwrap());

    let began = Instant::now();
    stage.process.restart().await.unwrap();
    // Nothing is waited for but the announcement: from the SSD or not, it is right.
    stage.get(THINGS - 1);
    println!("first answer after {:?}", began.elapsed());
    stage.ssd_is_up();
    println!("SSD in use after {:?}", began.elapsed());
    for number in (0..PURGED).chain(SLOW..SLOW + SLOW_CLIENTS) {
        stage.get(number);
    }
    // From here on the SSD is the only source of a chunk, so that no chunk is a hit that came again.
    // A read that came too late, or found no room, is no loss, but a reason to ask once more.
    stage.origin.0.lock().unwrap().silent = true;
    let (edge, mut missing, mut at_once) = (stage.edge(), whole.clone(), None);
    until("99 % of the chunks that were complete", || {
        missing.retain(|place| !get_chunk(&edge, place.0, place.1).starts_with("hit-"));
        at_once.get_or_insert(whole.len() - missing.len());
        missing.len() * 100 <= whole.len()
    });
    let (hits, all) = (whole.len() - missing.len(), whole.len());
    println!("{hits} of {all} chunks that were complete hit, {} at once", at_once.unwrap());
    stage.process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_post_ended_is_not_back_though_the_edge_is_killed_when_it_is_answered() {
    let mut stage = Stage::new(SMALL).await;
    for number in 0..4 {
        stage.get(number);
        until("its head on disk", || stage.metric("nearcast_edge_head_rows") == 1.0);
        let post = exchange(&format!("{}/{number}", stage.edge()), "POST").unwrap();
        stage.process.kill().await.unwrap();
        assert!(post.body.is_ok_and(|body| body.is_empty()));
        stage.process.restart().await.unwrap();
        assert_eq!(stage.variants(number), Vec::<serde_json::Value>::new());
        assert_eq!((stage.get(number), stage.origin.version(number)), ("origin".to_owned(), 2));
        // Nothing is stored again, for the next round.
        exchange(&format!("{}/{number}", stage.edge()), "POST").unwrap();
        until("its head gone", || stage.metric("nearcast_edge_head_rows") == 0.0);
    }
    stage.process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_ended_in_order_is_warm_again() {
    let mut stage = Stage::new(SMALL).await;
    let hot = 4..7;
    for number in 0..THINGS {
        stage.get(number);
        hot.clone().for_each(|number| drop(stage.get(number)));
    }
    stage.process.stop().await.unwrap();
    stage.process.restart().await.unwrap();
    let edge = stage.edge();
    let chunks: usize = hot.clone().map(|number| length(number).div_ceil(MIB)).sum();
    until("a warm memory", || {
        // Two of three: the rest of memory is for what came last.
        stage.metric("nearcast_edge_memory_kept_bytes") * 3.0 >= (chunks * MIB * 2) as f64
    });
    let places =
        hot.flat_map(|number| (0..length(number).div_ceil(MIB)).map(move |it| (number, it)));
    let hits = places.filter(|place| get_chunk(&edge, place.0, place.1) == "hit-memory").count();
    println!("{hits} of {chunks} hot chunks are in memory");
    assert!(hits * 2 >= chunks, "{hits} of {chunks}");
    stage.process.stop().await.unwrap();
}
