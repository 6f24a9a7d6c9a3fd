//! How soon an edge serves after SIGKILL under load: `cargo bench --bench restart`, held against
//! the promise that its listeners are open and the first byte is out within 500 ms.
//!
//! Each round kills an edge that fills from a slow origin for eight clients, starts it over the
//! same data, and asks for something that was stored: without pause, until it answers.
#![allow(clippy::unwrap_used, reason = "a bench that meets an error has failed")]
#![allow(clippy::print_stdout, reason = "this is what a bench is for")]

use nearcast::cluster::Process;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Rounds; one with `-- --test`.
const ROUNDS: usize = 15;
/// Promised from the start of the process to the first byte.
const PROMISED: Duration = Duration::from_millis(500);
/// Stored before each kill, of one MiB each: what a start has to look through.
const STORED: usize = 200;
const BODY: usize = 1 << 20;
const CLIENTS: usize = 8;
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

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what:<28} median {median:>9.1?}   least {least:>9.1?}   most {most:>9.1?}");
}

#[tokio::main]
async fn main() {
    let rounds = if std::env::args().any(|word| word == "--test") { 1 } else { ROUNDS };
    let dir = tempfile::tempdir().unwrap();
    let (origin, slow) = origin();
    let data = dir.path().join("data").display().to_string();
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
