//! What the log of an edge says, at its default level, of origins that can't be asked: which
//! site, which origin and why, the first at once, and not a line for each request.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use nearcast::cluster::Process;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const WAIT: Duration = Duration::from_secs(60);
/// More than a breaker bears.
const REQUESTS: usize = 60;

/// An origin that answers each request with these bytes, or never.
fn origin(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            match answer {
                Some(answer) => {
                    _ = stream.read(&mut [0; 4096]);
                    _ = stream.write_all(answer);
                }
                None => silent.push(stream),
            }
        }
    });
    url
}

async fn edge(dir: &Path, name: &str, words: &[&str]) -> Process {
    let data = dir.join(name).display().to_string();
    let all = ["edge", "--data-dir", &data, "--memory", "64MiB", "--ssd", "0"];
    let words = all.iter().chain(words).map(|word| (*word).to_owned()).collect();
    Process::start(Path::new(BINARY), dir, name, words).await.unwrap()
}

/// Asks for a path of a site; its status.
fn status(edge: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(edge.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[9..12]).into_owned()
}

/// Lines of a log that have all of these words.
fn lines(log: &Path, words: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text.lines().map(str::to_owned);
    lines.filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

fn line(log: &Path, words: &[&str]) -> String {
    let started = Instant::now();
    loop {
        if let Some(line) = lines(log, words).pop() {
            return line;
        }
        let all = || std::fs::read_to_string(log).unwrap();
        assert!(started.elapsed() < WAIT, "no line with {words:?} in:\n{}", all());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_cant_be_asked_is_in_the_log_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    // Its certificate is its own.
    let words = ["--origin", "http://127.0.0.1:9", "--listen", "https://127.0.0.1:0"];
    let tls = edge(dir.path(), "tls", &words).await;
    let cases = [
        ("refused.test", "http://127.0.0.1:9".to_owned(), "502", "Connection refused"),
        (
            "tls.test",
            tls.url().unwrap().to_owned(),
            "502",
            "is not signed by one of the authorities",
        ),
        ("garbage.test", origin(Some(b"SSH-2.0-it\r\n\r\n")), "502", "invalid HTTP version"),
        ("silent.test", origin(None), "504", "no answer within"),
        (
            "short.test",
            origin(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nabc")),
            "200",
            "end of file before message length reached",
        ),
    ];
    let mut file = String::new();
    for (host, url, ..) in &cases {
        file += &format!("[edge.sites.{host:?}]\norigins = [{url:?}]\nretries = 0\n");
        if *host == "silent.test" {
            file += "first-byte-timeout = \"50ms\"\n";
        }
    }
    let config = dir.path().join("edge.toml");
    std::fs::write(&config, file).unwrap();
    let data = dir.path().join("data").display().to_string();
    let config = config.display().to_string();
    let words = ["--config", &config, "edge", "--listen", "http://127.0.0.1:0"];
    let tiers = ["--data-dir", &data, "--memory", "64MiB", "--ssd", "0"];
    let words = words.iter().chain(&tiers).map(|word| (*word).to_owned()).collect();
    let edge = Process::start(Path::new(BINARY), dir.path(), "edge", words).await.unwrap();
    let log = edge.log();
    let url = edge.url().unwrap().to_owned();

    for (host, origin, expected, why) in &cases {
        assert_eq!(status(&url, host, "/0"), *expected, "{host}");
        let site = format!("\"site\":{host:?}");
        let line = line(&log, &["WARN", "no good answer", &site, why]);
        assert!(line.contains(origin) && line.contains("\"failures\":1,"), "{line}");
    }

    let started = Instant::now();
    for number in 1..REQUESTS {
        status(&url, "refused.test", &format!("/{number}"));
    }
    let site = "\"site\":\"refused.test\"";
    let breaker = line(&log, &["WARN", "breaker", "Closed", "Open", site]);
    assert!(breaker.contains("127.0.0.1:9") && breaker.contains("Connection refused"), "{breaker}");
    let told = lines(&log, &["no good answer", "refused.test"]).len() as u64;
    let may = 2 + started.elapsed().as_secs() / 10;
    assert!(told <= may, "{told} lines of {REQUESTS} requests");
}
