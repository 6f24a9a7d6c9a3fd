//! A log that takes no lines, or none for now, is no reason not to serve.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod lines;

use lines::{field, head};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);
/// Each is a line of the log of more than 100 bytes: more of them than a pipe holds.
const REQUESTS: usize = 1000;

/// An origin that knows nothing.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut read = BufReader::new(stream.try_clone().unwrap());
            while head(&mut read).is_some() {
                let answer = b"HTTP/1.1 404 Not Found\r\ncache-control: max-age=60\r\n\
                               content-length: 0\r\n\r\n";
                stream.write_all(answer).unwrap();
            }
        }
    });
    url
}

/// An edge whose log goes there, and where it serves.
struct Edge {
    child: Child,
    traffic: String,
    admin: String,
}

impl Edge {
    fn start(dir: &Path, log: Stdio) -> Self {
        let announce = dir.join("announced");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearcast"));
        command.args(["--log-level", "info,access=debug", "edge", "--origin", &origin()]);
        command.args(["--listen", "http://127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--memory", "64MiB", "--ssd", "0"]);
        command.arg("--data-dir").arg(dir.join("data")).arg("--announce").arg(&announce);
        let mut child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let began = Instant::now();
        let text = loop {
            match std::fs::read(&announce) {
                Ok(text) => break text,
                Err(_) => assert!(child.try_wait().unwrap().is_none(), "it has ended"),
            }
            assert!(began.elapsed() < WAIT, "it does not start");
            std::thread::sleep(Duration::from_millis(2));
        };
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let addr =
            |url: &serde_json::Value| url.as_str().unwrap().split("//").nth(1).unwrap().to_owned();
        let (traffic, admin) = (addr(&told["urls"][0]), addr(&told["admin"]));
        Self { child, traffic, admin }
    }

    fn serves(&self) {
        let mut stream = TcpStream::connect(&self.traffic).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut read = BufReader::new(stream.try_clone().unwrap());
        for number in 0..REQUESTS {
            let request = format!("GET /{number} HTTP/1.1\r\nhost: {}\r\n\r\n", self.traffic);
            stream.write_all(request.as_bytes()).unwrap();
            let head = head(&mut read).expect("an answer");
            assert!(head[0].contains(" 404 "), "{number}: {head:?}");
            assert_eq!(field(&head, "content-length"), Some("0"));
        }
    }

    fn lines_lost(&self) -> u64 {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("nearcast_edge_log_lines_lost_total "));
        line.expect(&text).parse().unwrap()
    }

    /// As an operator ends it.
    fn ends(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < WAIT, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_edge_serves_and_ends_though_its_log_goes_to_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let edge = Edge::start(dir.path(), full.into());
    edge.serves();
    assert!(edge.lines_lost() > 0);
    edge.ends();
}

#[test]
fn an_edge_serves_and_ends_though_nobody_has_its_log_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let edge = Edge::start(dir.path(), writer.into());
    edge.serves();
    assert!(edge.lines_lost() > 0);
    edge.ends();
}

#[test]
fn an_edge_serves_and_ends_though_nobody_reads_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let edge = Edge::start(dir.path(), writer.into());
    edge.serves();
    assert_eq!(edge.lines_lost(), 0, "4 MiB of lines may wait");
    edge.ends();
}
