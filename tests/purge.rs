//! `nearcast purge` and `nearcast explain` as an operator runs them, on real edges before a web
//! origin, one of which is killed right after it has acknowledged.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use nearcast::cluster::Process;
use serde_json::Value;
use service::client::Client;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const WAIT: Duration = Duration::from_secs(30);

/// An origin whose every answer is a number more, good for an hour. Returns its URL and the
/// number of the last answer.
fn origin() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&answers);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || answer(stream, &counted));
        }
    });
    (url, answers)
}

fn answer(mut stream: TcpStream, answers: &AtomicU32) {
    let head = BufReader::new(stream.try_clone().unwrap()).lines();
    if head.map_while(Result::ok).find(String::is_empty).is_none() {
        return;
    }
    let body = (answers.fetch_add(1, Ordering::SeqCst) + 1).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nETag: \"v{body}\"\r\nCache-Control: max-age=3600\r\n\
         Surrogate-Key: film\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // An edge that is being killed reads no answer.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

async fn edge(dir: &Path, name: &str, origin: &str) -> Process {
    let data = dir.join(name).display().to_string();
    let arguments = ["edge", "--id", name, "--origin", origin, "--data-dir", &data, "--ssd", "0"];
    let listen = ["--listen", "http://127.0.0.1:0"];
    let arguments = arguments.iter().chain(&listen).map(ToString::to_string).collect();
    Process::start(Path::new(BINARY), dir, name, arguments).await.unwrap()
}

fn nearcast(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn an_operator_purges_edges_and_asks_them_why() {
    let (dir, (origin, _)) = (tempfile::tempdir().unwrap(), origin());
    let client = Client::new(WAIT, None, None).unwrap();
    let mut a = edge(dir.path(), "edge-a", &origin).await;
    let mut b = edge(dir.path(), "edge-b", &origin).await;
    let film = async |edge: &Process| {
        let url = format!("{}/film", edge.url().unwrap());
        client.get_json::<u32>(&url).await.unwrap()
    };
    assert_eq!((film(&a).await, film(&b).await, film(&a).await), (1, 2, 1));
    let (admin_a, admin_b) = (a.announced.admin.clone(), b.announced.admin.clone());

    let url = format!("{}/film", a.url().unwrap());
    let told = nearcast(&["explain", &url, "--admin", &admin_a]);
    let told = text(&told.stdout);
    for wanted in [
        "200, 1 bytes, \"v1\"",
        "fresh for ",
        "by max-age",
        "purges: valid",
        "tags: film",
        "0 memory",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in:\n{told}");
    }

    let purged = nearcast(&["purge", "--tag", "film", "--admin", &admin_a, "--admin", &admin_b]);
    assert!(purged.status.success(), "{}", text(&purged.stderr));
    let lines = text(&purged.stdout);
    assert!(lines.contains(&format!("{admin_a}: purged, as number ")), "{lines}");
    assert!(lines.contains(&format!("{admin_b}: purged, as number ")), "{lines}");

    // Acknowledged is durable: nothing of it is lost with the process.
    a.kill().await.unwrap();
    a.restart().await.unwrap();
    let admin_a = a.announced.admin.clone();
    let told = nearcast(&["explain", &url, "--admin", &admin_a, "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let variants = &told["edges"][0]["explanation"]["variants"];
    let variants = variants.as_array().unwrap_or_else(|| panic!("{told}"));
    // The head itself was written or not, whichever the kill allowed.
    assert!(variants.iter().all(|variant| variant["purge"] == "hard"), "{told}");
    assert_eq!((film(&a).await, film(&b).await), (3, 4));

    // One edge that is down is named, the other has purged all the same.
    b.stop().await.unwrap();
    let both = format!("{admin_a},{admin_b}");
    let half = nearcast(&["purge", "--all", "--soft", "--json", "--admin", &both]);
    assert_eq!(half.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&half.stdout).unwrap();
    assert!(told["edges"][0]["number"].is_u64() && told["edges"][1]["error"].is_string());
    let error = text(&half.stderr);
    assert!(error.contains("1 of 2 edges failed") && error.contains(&admin_b), "{error}");

    let mistaken = nearcast(&["purge", "films.test/a", "--admin", &admin_a]);
    let error = text(&mistaken.stderr);
    assert!(!mistaken.status.success() && error.contains("expected http://"), "{error}");
    // A star stands for itself: nothing was purged, so nothing is told to be.
    let url = format!("{}/fil*", a.url().unwrap());
    let starred = nearcast(&["purge", &url, "--admin", &admin_a]);
    let (told, error) = (text(&starred.stdout), text(&starred.stderr));
    assert!(!starred.status.success() && told.is_empty(), "{told}");
    let beginning = url.trim_end_matches('*');
    assert!(error.contains(&format!("--prefix {beginning:?} for every URL")), "{error}");
    assert_eq!(film(&a).await, 5);
    for (mistaken, advice) in [
        ("*", "or --all"),
        ("https://films.test/a?b*", "--prefix \"https://films.test/a\" for every"),
    ] {
        let starred = nearcast(&["purge", mistaken, "--admin", &admin_a]);
        let error = text(&starred.stderr);
        assert!(!starred.status.success() && error.contains(advice), "{error}");
    }
    let literal = nearcast(&["purge", "--prefix", &url, "--admin", &admin_a]);
    let error = text(&literal.stderr);
    assert!(literal.status.success() && error.contains("only URLs that have this *"), "{error}");
    assert_eq!(film(&a).await, 5);
    // The address that it serves at gives what the origin says.
    let (served, served_url) = (a.url().unwrap(), format!("{}/film", a.url().unwrap()));
    for arguments in [["purge", "--all"], ["explain", &served_url]] {
        let mistaken = nearcast(&[&arguments[..], &["--admin", served]].concat());
        let error = text(&mistaken.stderr);
        assert_eq!(mistaken.status.code(), Some(1));
        assert!(error.contains(&format!("{served}/v1/{}", arguments[0])), "{error}");
        let wanted =
            ["answered 200 OK with something unexpected", "is it an edge's admin address?"];
        assert!(wanted.iter().all(|wanted| error.contains(wanted)), "{error}");
    }
    let unclear = nearcast(&["purge", "--admin", &admin_a]);
    assert_eq!(unclear.status.code(), Some(2));
    a.stop().await.unwrap();
}
