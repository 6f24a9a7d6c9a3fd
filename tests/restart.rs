//! An edge that is killed (SIGKILL) in the middle of fills, under load: it serves again at once,
//! what was whole is there, nothing cut is served, and nothing that was purged is back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use nearcast::cluster::Process;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const WAIT: Duration = Duration::from_secs(60);
const OBJECTS: usize = 200;
const PURGED: usize = 10;
const OBJECT_BYTES: usize = 64 << 10;
const SLOW_BYTES: usize = 8 << 20;
/// How often something is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// The bytes of a version of what is at `path`.
fn content(path: &str, version: u32) -> Vec<u8> {
    let bytes = if path.starts_with("/slow/") { SLOW_BYTES } else { OBJECT_BYTES };
    let name = path.bytes().fold(u64::from(version), |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let word = |number: u64| (number ^ name).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..bytes as u64 / 8).flat_map(word).collect()
}

/// An origin of versioned objects, which counts its answers.
#[derive(Clone, Default)]
struct Origin(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Where it is not 1.
    versions: HashMap<String, u32>,
    answers: Vec<String>,
    /// Slow answers that wait in their middle: the kill comes while they do.
    slow: usize,
    /// They go on.
    open: bool,
}

impl Origin {
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let origin = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = origin.clone();
                // A killed edge reads no answer: that is no failure of the origin's.
                std::thread::spawn(move || origin.answer(stream).unwrap_or_default());
            }
        });
        url
    }

    fn version(&self, path: &str) -> u32 {
        self.0.lock().unwrap().versions.get(path).copied().unwrap_or(1)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut lines = BufReader::new(stream.try_clone()?);
        while lines.read_line(&mut head)? > 2 {}
        let Some(path) = head.split(' ').nth(1) else { return Ok(()) };
        self.0.lock().unwrap().answers.push(path.to_owned());
        let version = self.version(path);
        let body = content(path, version);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nETag: \"v{version}\"\r\nCache-Control: max-age=86400\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        if !path.starts_with("/slow/") {
            return stream.write_all(&body);
        }
        let (first, rest) = body.split_at(body.len() / 2);
        stream.write_all(first)?;
        self.0.lock().unwrap().slow += 1;
        while !self.0.lock().unwrap().open {
            std::thread::sleep(POLL);
        }
        stream.write_all(rest)
    }
}

/// A whole answer over a connection of its own: head and body. None if it was cut.
fn get(url: &str, path: &str) -> Option<(String, Vec<u8>)> {
    let addr = url.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(addr).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: films.test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let body = answer.split_off(end);
    let head = String::from_utf8(answer).ok()?;
    let length =
        head.to_ascii_lowercase().split("content-length: ").nth(1)?.split('\r').next()?.parse();
    (length == Ok(body.len())).then_some((head, body))
}

async fn start(dir: &Path, origin: &str) -> Process {
    let data = dir.join("data").display().to_string();
    let arguments = ["edge", "--origin", origin, "--data-dir", &data, "--memory", "64MiB"];
    let more = ["--ssd", "1GiB", "--listen", "http://127.0.0.1:0"];
    let arguments = arguments.iter().chain(&more).map(ToString::to_string).collect();
    Process::start(Path::new(BINARY), dir, "edge", arguments).await.unwrap()
}

/// The sum of a metric's values.
fn metric(edge: &Process, name: &str) -> f64 {
    let (_, body) = get(&edge.announced.admin, "/metrics").unwrap();
    let text = String::from_utf8(body).unwrap();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WAIT, "never came: {what}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_serves_what_was_whole_and_nothing_that_was_purged() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::default());
    let mut edge = start(dir.path(), &origin.start()).await;
    let url = edge.url().unwrap().to_owned();
    let paths: Vec<String> = (0..OBJECTS).map(|number| format!("/film/{number}")).collect();
    until("the SSD", || metric(&edge, "nearcast_edge_ssd_up") > 0.0).await;
    // The second request for a chunk sends it to the SSD.
    for path in paths.iter().cycle().take(3 * OBJECTS) {
        assert!(get(&url, path).unwrap().1 == content(path, 1), "{path}");
    }
    let bytes = (OBJECTS * OBJECT_BYTES) as f64;
    until("all on SSD", || metric(&edge, "nearcast_edge_ssd_written_bytes_total") >= bytes).await;
    until("all heads", || metric(&edge, "nearcast_edge_head_rows") >= OBJECTS as f64).await;

    // Load: fills that are slow, and hits beside them. What ends as though whole must be whole.
    let ending = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..6)
        .map(|worker| {
            let (ending, url, paths) = (Arc::clone(&ending), url.clone(), paths.clone());
            std::thread::spawn(move || {
                let mut hits = paths.iter().cycle().skip(worker * 31);
                while !ending.load(Ordering::Relaxed) {
                    let slow = format!("/slow/{worker}");
                    let path = if worker < 4 { &slow } else { hits.next().unwrap() };
                    if let Some((_, body)) = get(&url, path) {
                        assert!(body == content(path, 1) || body == content(path, 2), "{path}");
                    }
                }
            })
        })
        .collect();
    until("fills", || origin.0.lock().unwrap().slow == 4).await;
    for path in &paths[..PURGED] {
        origin.0.lock().unwrap().versions.insert(path.clone(), 2);
        let named = format!("http://films.test{path}");
        let purge = ["purge", &named, "--admin", &edge.announced.admin];
        assert!(Command::new(BINARY).args(purge).output().unwrap().status.success());
    }
    edge.kill().await.unwrap();
    ending.store(true, Ordering::Relaxed);
    origin.0.lock().unwrap().open = true;
    load.into_iter().for_each(|worker| worker.join().unwrap());

    let restarted = Instant::now();
    edge.restart().await.unwrap();
    assert!(get(&url, &paths[OBJECTS - 1]).is_some());
    eprintln!("first answer {:?} after the start", restarted.elapsed());
    until("the SSD again", || metric(&edge, "nearcast_edge_ssd_up") > 0.0).await;
    origin.0.lock().unwrap().answers.clear();
    for path in &paths {
        let body = get(&url, path).unwrap().1;
        assert!(body == content(path, origin.version(path)), "{path}");
    }
    let asked = std::mem::take(&mut origin.0.lock().unwrap().answers);
    // Of the purged ones, some were fetched anew before the kill.
    let lost = asked.iter().filter(|path| !paths[..PURGED].contains(path)).count();
    assert!(lost * 100 <= OBJECTS - PURGED, "{lost} of {} are lost", OBJECTS - PURGED);
    for worker in 0..4 {
        let path = format!("/slow/{worker}");
        assert!(get(&url, &path).unwrap().1 == content(&path, 1), "{path}");
    }
}
