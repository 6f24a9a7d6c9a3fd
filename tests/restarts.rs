//! An edge before a plain origin, as a process: killed in the middle of fills under load, ended
//! in order, and what is there when it comes back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use nearcast::cluster::Process;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const WAIT: Duration = Duration::from_secs(60);
/// Things that are stored before the kill, of some MiB each: several times the memory.
const THINGS: usize = 24;
/// Of these, the first ones are purged before the kill.
const PURGED: usize = 3;
/// From here on, things are new at the time of the kill, and come slowly.
const SLOW: usize = 100;

fn length(number: usize) -> usize {
    3 * MIB + number * 10_007
}

/// What the origin has under `/NUMBER`, from `start` on.
fn content(number: usize, start: usize, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    let mut reader = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    reader.set_position(start as u64);
    reader.fill(&mut content);
    content
}

/// A request's or an answer's first line and fields, in lower case; none at the end.
fn head(stream: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_lowercase()),
        }
    }
}

fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// An origin, a thread a connection. `slow`: how many chunks of slow things it has begun.
struct Origin {
    url: String,
    slow: Arc<AtomicUsize>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let slow = Arc::<AtomicUsize>::default();
        let shared = Arc::clone(&slow);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let slow = Arc::clone(&shared);
                // Ends with the connection: the edge's death is no error here.
                std::thread::spawn(move || stream.is_ok_and(|it| serve(it, &slow).is_some()));
            }
        });
        Self { url, slow }
    }
}

fn serve(stream: TcpStream, slow: &AtomicUsize) -> Option<()> {
    let mut reading = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    while let Some(head) = head(&mut reading) {
        let number: usize = head[0].split([' ', '/']).nth(2)?.parse().ok()?;
        let total = length(number);
        let range = field(&head, "range").and_then(|range| range.strip_prefix("bytes="));
        let (first, last) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let first: usize = first.parse().ok()?;
        let end = last.parse().map_or(total, |last: usize| total.min(last + 1));
        let status = match range {
            None => "200 OK".to_owned(),
            Some(_) => format!("206 Part\r\ncontent-range: bytes {first}-{}/{total}", end - 1),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\netag: \"{number}\"\r\ncache-control: max-age=3600\r\n\
             content-length: {}\r\n\r\n",
            end - first
        )
        .ok()?;
        for at in (first..end).step_by(64 << 10) {
            if number >= SLOW {
                slow.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
            stream.write_all(&content(number, at, (64 << 10).min(end - at))).ok()?;
        }
    }
    Some(())
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

/// Gets all of a thing; what comes whole is right.
fn get(edge: &str, number: usize) -> std::io::Result<String> {
    let answer = exchange(&format!("{edge}/{number}"), "GET")?;
    assert!(answer.body? == content(number, 0, length(number)), "wrong bytes of {number}");
    Ok(answer.verdict)
}

fn get_chunk(edge: &str, number: usize, chunk: usize) -> String {
    let (start, end) = (chunk * MIB, length(number).min((chunk + 1) * MIB));
    let range = format!("GET\nrange: bytes={start}-{}\r\n", end - 1);
    let answer = exchange(&format!("{edge}/{number}"), &range).unwrap();
    assert!(answer.body.unwrap() == content(number, start, end - start), "{number} {chunk}");
    answer.verdict
}

fn text(url: &str) -> String {
    String::from_utf8(exchange(url, "GET").unwrap().body.unwrap()).unwrap()
}

/// The sum of a metric's lines.
fn metric(admin: &str, name: &str) -> f64 {
    let text = text(&format!("{admin}/metrics"));
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < WAIT, "waited {WAIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The chunks of stored things that are on disk, whole, by the edge's own account.
fn on_disk(process: &Process) -> HashSet<(usize, usize)> {
    let (edge, admin) = (process.url().unwrap(), &process.announced.admin);
    let mut found = HashSet::new();
    for number in 0..THINGS {
        let said = text(&format!("{admin}/v1/explain?url={edge}/{number}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        for runs in said["variants"].as_array().unwrap().iter().map(|variant| &variant["chunks"]) {
            for run in runs.as_array().unwrap().iter().filter(|run| run["place"] == "disk") {
                let number_of = |name: &str| usize::try_from(run[name].as_u64().unwrap()).unwrap();
                let chunks = number_of("first")..=number_of("last");
                found.extend(chunks.map(|chunk| (number, chunk)));
            }
        }
    }
    found
}

/// Asks for all things until nearly all of their chunks are on disk.
fn fill(process: &Process) {
    let edge = process.url().unwrap();
    let all: usize = (0..THINGS).map(|number| length(number).div_ceil(MIB)).sum();
    until("the SSD to take what is asked for again and again", || {
        (0..THINGS).for_each(|number| drop(get(edge, number).unwrap()));
        on_disk(process).len() * 10 > all * 7
    });
}

fn purge(process: &Process, number: usize) {
    let body = format!("{{\"url\":\"{}/{number}\"}}", process.url().unwrap());
    let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let url = format!("{}/v1/purge", process.announced.admin);
    let answer = exchange(&url, &format!("POST\n{fields}\r\n{body}")).unwrap();
    let said = String::from_utf8(answer.body.unwrap()).unwrap();
    assert!(said.contains("number"), "{said}");
}

/// Asks for slow things that nobody has until the edge is gone; none comes wrong.
fn load(edge: &str, ends: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
    let one = |first: usize| {
        let (edge, ends) = (edge.to_owned(), Arc::clone(ends));
        std::thread::spawn(move || {
            for number in (first..).step_by(8) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let _ = get(&edge, number);
            }
        })
    };
    (SLOW..SLOW + 8).map(one).collect()
}

async fn start(dir: &Path, origin: &Origin) -> Process {
    let data = dir.join("data").display().to_string();
    let site = ["edge", "--origin", &origin.url, "--listen", "http://127.0.0.1:0"];
    let tiers = ["--data-dir", &data, "--memory", "16MiB", "--ssd", "512MiB"];
    let words = site.into_iter().chain(tiers).map(str::to_owned).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    Process::start(binary, dir, "edge-a", words).await.unwrap()
}

fn ssd_is_up(process: &Process) {
    until("the SSD", || metric(&process.announced.admin, "nearcast_edge_ssd_up{") == 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_answers_at_once_and_has_what_was_whole() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start();
    let mut process = start(dir.path(), &origin).await;
    ssd_is_up(&process);
    fill(&process);
    (0..PURGED).for_each(|number| purge(&process, number));
    let whole = on_disk(&process);
    let whole: Vec<_> = whole.into_iter().filter(|(number, _)| *number >= PURGED).collect();

    let ends = Arc::new(AtomicBool::new(false));
    let clients = load(process.url().unwrap(), &ends);
    until("fills under way", || origin.slow.load(Ordering::SeqCst) > 200);
    process.kill().await.unwrap();
    ends.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());

    let began = Instant::now();
    process.restart().await.unwrap();
    let edge = process.url().unwrap().to_owned();
    // Nothing is waited for but the announcement: from the SSD or not, it is right.
    get(&edge, THINGS - 1).unwrap();
    println!("first answer after {:?}", began.elapsed());
    ssd_is_up(&process);
    println!("SSD in use after {:?}", began.elapsed());
    for number in 0..PURGED {
        let verdict = get(&edge, number).unwrap();
        assert_eq!(verdict, "origin", "a purged thing is back");
    }
    let is_hit = |place: &&(usize, usize)| get_chunk(&edge, place.0, place.1).starts_with("hit-");
    let hits = whole.iter().filter(is_hit).count();
    println!("{hits} of {} chunks that were on disk hit", whole.len());
    assert!(hits * 100 >= whole.len() * 99, "{hits} of {}", whole.len());
    for number in SLOW..SLOW + 8 {
        get(&edge, number).unwrap();
    }
    process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_ended_in_order_is_warm_again() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start();
    let mut process = start(dir.path(), &origin).await;
    ssd_is_up(&process);
    let edge = process.url().unwrap().to_owned();
    let hot = 4..7;
    for number in 0..THINGS {
        get(&edge, number).unwrap();
        hot.clone().for_each(|number| drop(get(&edge, number).unwrap()));
    }
    process.stop().await.unwrap();
    process.restart().await.unwrap();
    let edge = process.url().unwrap().to_owned();
    let chunks: usize = hot.clone().map(|number| length(number).div_ceil(MIB)).sum();
    until("a warm memory", || {
        let kept = metric(&process.announced.admin, "nearcast_edge_memory_kept_bytes");
        // Two of three: the rest of memory is for what came last.
        kept * 3.0 >= (chunks * MIB * 2) as f64
    });
    let places =
        hot.flat_map(|number| (0..length(number).div_ceil(MIB)).map(move |it| (number, it)));
    let hits = places.filter(|place| get_chunk(&edge, place.0, place.1) == "hit-memory").count();
    println!("{hits} of {chunks} hot chunks are in memory");
    assert!(hits * 2 >= chunks, "{hits} of {chunks}");
    process.stop().await.unwrap();
}
