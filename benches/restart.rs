//! How soon an edge serves after SIGKILL under load: `cargo bench --bench restart`, held against
//! the promise that its listeners are open and the first byte is out within 500 ms.
//!
//! Each round kills an edge that fills from a slow origin for eight clients, starts it over the
//! same data, and asks for something that was stored: without pause, until it answers. What a start
//! has to look through is there from the beginning: a purge log at its limit, and a million heads
//! (some thousands of each with `-- --test`).
#![allow(clippy::unwrap_used, reason = "a bench that meets an error has failed")]
#![allow(clippy::print_stdout, reason = "this is what a bench is for")]

use caching::Stored;
use futures::StreamExt;
use heads::{Head, Heads, KeyId, Limits, PURGES_MAX, Purge, PurgeLog, Read as ReadAt, Seen, What};
use http::{HeaderMap, HeaderValue, StatusCode};
use nearcast::cluster::Process;
use prometheus::Registry;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rounds; one with `-- --test`.
const ROUNDS: usize = 15;
/// Promised from the start of the process to the first byte.
const PROMISED: Duration = Duration::from_millis(500);
/// Stored before each kill, of one MiB each: what a start has to look through.
const STORED: usize = 200;
const BODY: usize = 1 << 20;
/// Heads of other objects in the database.
const HEADS: usize = 1_000_000;
const CLIENTS: usize = 8;
const MB: u64 = 1_000_000;
const WAIT: Duration = Duration::from_secs(60);

/// Gives everybody a MiB under a validator; slowly below `/slow/`.
fn origin() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let slow = Arc::<AtomicUsize>::default();
    let begun = Arc::clone(&slow);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let begun = Arc::clone(&begun);
            std::thread::spawn(move || answer(stream, &begun).unwrap_or_default());
        }
    });
    (url, slow)
}

fn answer(mut stream: TcpStream, begun: &AtomicUsize) -> std::io::Result<()> {
    let (mut head, mut lines) = (String::new(), BufReader::new(stream.try_clone()?));
    while lines.read_line(&mut head)? > 2 {}
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=86400\r\n\
         Content-Length: {BODY}\r\nConnection: close\r\n\r\n"
    )?;
    let is_slow = head.starts_with("GET /slow/");
    begun.fetch_add(usize::from(is_slow), Ordering::SeqCst);
    for _ in 0..16 {
        if is_slow {
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.write_all(&vec![b'x'; BODY / 16])?;
    }
    Ok(())
}

fn ask(url: &str, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

fn get(url: &str, path: &str) -> std::io::Result<usize> {
    let mut answer = Vec::new();
    ask(url, path)?.read_to_end(&mut answer)
}

/// From now on: until a connection is taken, and until the first byte of an answer is here.
fn first_byte(url: &str) -> (Duration, Duration) {
    let began = Instant::now();
    let mut listens = None;
    while began.elapsed() < WAIT {
        if let Ok(mut stream) = ask(url, "/stored/0") {
            listens.get_or_insert(began.elapsed());
            if stream.read_exact(&mut [0]).is_ok() {
                return (listens.unwrap(), began.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no answer within {WAIT:?}");
}

/// Clients that fill until `ends`.
fn load(url: &str, ends: &Arc<AtomicBool>, round: usize) -> Vec<std::thread::JoinHandle<()>> {
    let client = |client: usize| {
        let (url, ends) = (url.to_owned(), Arc::clone(ends));
        std::thread::spawn(move || {
            for number in 0.. {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                // The edge's death ends it.
                let _ = get(&url, &format!("/slow/{round}/{client}/{number}"));
            }
        })
    };
    (0..CLIENTS).map(client).collect()
}

/// The head of an object whose chunks are on no disk here.
fn head(url: &str) -> Arc<Head> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let fields = [
        (http::header::ETAG, HeaderValue::from_static("\"1\"")),
        (http::header::CACHE_CONTROL, HeaderValue::from_static("max-age=86400")),
        (http::header::CONTENT_TYPE, HeaderValue::from_static("video/mp4")),
        (http::header::CONTENT_LENGTH, HeaderValue::from(BODY)),
    ];
    let fields = HeaderMap::from_iter(fields);
    let stored = Stored { status: StatusCode::OK, fields, requested_ms: now, received_ms: now };
    Arc::new(Head {
        site: "films.test".into(),
        url: url.into(),
        selecting: Vec::new(),
        stored,
        body: [7; 16],
        bytes: BODY as u64,
        tags: Vec::new(),
        epoch: u64::MAX,
        asked_ms: now,
        fetched_ms: now,
        seen: Seen::default(),
        read: ReadAt::default(),
    })
}

/// Writes what an edge of long standing has in `data`: so many heads, and so many purges.
async fn long_standing(data: &Path, count: usize, purged: usize) {
    std::fs::create_dir_all(data).unwrap();
    // None is dropped for want of time, or of room before the disk.
    let limits = Limits { memory_bytes: 1 << 20, waiting_bytes: 4 << 30, ..Limits::default() };
    let heads = Heads::open(&data.join("heads.db"), limits, &Registry::new()).unwrap();
    for number in 0..count {
        let url = format!("films.test/season-{}/{number}.m4s", number / 1_000);
        heads.put(KeyId::of("films.test", &url), head(&url));
    }
    heads.close(10 * WAIT).await;
    let log = PurgeLog::open(&data.join("purges.log"), &Registry::new()).unwrap();
    let purges = (0..purged).map(|number| {
        let what = What::Url(format!("films.test/purged/{number}.m4s"));
        log.append(Purge { what, site: None, soft: false, note: String::new() })
    });
    let mut purges = futures::stream::iter(purges).buffer_unordered(512);
    while let Some(purge) = purges.next().await {
        purge.unwrap();
    }
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what:<28} median {median:>9.1?}   least {least:>9.1?}   most {most:>9.1?}");
}

#[tokio::main]
async fn main() {
    let small = std::env::args().any(|word| word == "--test");
    let rounds = if small { 1 } else { ROUNDS };
    let (heads, purges) = if small { (5_000, 5_000) } else { (HEADS, PURGES_MAX) };
    let dir = tempfile::tempdir().unwrap();
    let (origin, slow) = origin();
    let data = dir.path().join("data");
    long_standing(&data, heads, purges).await;
    let files = ["heads.db", "purges.log"].map(|name| data.join(name).metadata().unwrap().len());
    println!("{heads} heads in {} MB, {purges} purges in {} MB", files[0] / MB, files[1] / MB);
    let data = data.display().to_string();
    let words = ["edge", "--origin", &origin, "--data-dir", &data, "--memory", "128MiB"];
    let more = ["--ssd", "1GiB", "--listen", "http://127.0.0.1:0"];
    let words = words.iter().chain(&more).map(ToString::to_string).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_nearcast"));
    let mut edge = Process::start(binary, dir.path(), "edge", words).await.unwrap();
    let url = edge.url().unwrap().to_owned();
    let (mut listens, mut answers) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Twice: the second request for a thing sends it to the SSD.
        for number in (0..STORED).chain(0..STORED) {
            get(&url, &format!("/stored/{number}")).unwrap();
        }
        let ends = Arc::new(AtomicBool::new(false));
        slow.store(0, Ordering::SeqCst);
        let clients = load(&url, &ends, round);
        let began = Instant::now();
        while slow.load(Ordering::SeqCst) < CLIENTS && began.elapsed() < WAIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        edge.kill().await.unwrap();
        ends.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let asking = url.clone();
        let asking = tokio::task::spawn_blocking(move || first_byte(&asking));
        edge.restart().await.unwrap();
        let (listened, answered) = asking.await.unwrap();
        listens.push(listened);
        answers.push(answered);
    }
    let late = answers.iter().filter(|answered| **answered > PROMISED).count();
    println!("{rounds} restarts after SIGKILL, {CLIENTS} fills under way, {STORED} MiB stored");
    told("a connection is taken after", listens);
    told("the first byte is here after", answers);
    let met = if late == 0 { "met" } else { "MISSED" };
    println!("restart: first byte within {PROMISED:?}: {met}, {late} of {rounds} later");
    edge.stop().await.unwrap();
}
