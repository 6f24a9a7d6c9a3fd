//! Ingest, origin, edge and a play over a real S3 server: `scripts/with-s3` starts one and
//! sets the AWS variables.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

mod clients;

use clients::{metrics_at_rest, speakers};
use loadtest::{Format, PlayOptions, Protocol, SegmentReport};
use model::route;
use nearcast::cluster::{Cluster, Options, Process, StoredTitle, Verdict, run};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");

async fn ingest(store: &str) -> serde_json::Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/tide");
    let names = ["270p.mp4", "360p.mp4", "540p.mp4", "eng.mp4", "fra.mp4", "subs.en.vtt"];
    let files = names.map(|name| folder.join(name).display().to_string());
    let mut words = vec!["ingest", "--store", store, "--title", "tide", "--name", "Tide", "--json"];
    words.extend(files.iter().map(String::as_str));
    serde_json::from_str(&run(Path::new(BINARY), &words).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_is_ingested_into_s3_and_played_from_it() {
    let bucket = std::env::var("NEARCAST_TEST_S3_BUCKET").expect("run by scripts/with-s3");
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(Path::new(BINARY), dir.path());
    let local = options.store_url();
    options.store = Some(format!("s3://{bucket}/story"));

    let published = ingest(&options.store_url()).await;
    let again = ingest(&options.store_url()).await;
    let uploaded = again["files"].as_array().unwrap().iter().any(|file| file["uploaded"] == true);
    assert!(!uploaded, "the same input was uploaded twice: {again}");
    // The same input has the same version in any store: the folder holds the truth.
    assert_eq!(ingest(&local).await["version"], published["version"]);

    let cluster = Cluster::start(options).await.unwrap();
    let playback = cluster.operator.playback("tide").await.unwrap();
    let store = dir.path().join("store");
    let truth = StoredTitle::read(&store, &playback.title, &playback.version).unwrap();
    let options =
        PlayOptions::new(playback, Format::Hls, Protocol::H2, cluster.certificates().unwrap());
    let mut right = 0;
    let mut on_segment = |segment: &SegmentReport, body: &bytes::Bytes| {
        let path = format!("/~{}", segment.path);
        match truth.compare(&route::parse(&path).unwrap().resource, body) {
            Verdict::Right => right += 1,
            Verdict::Rendered => {}
            Verdict::Wrong(bytes) => panic!("{}: {bytes} wrong bytes", segment.path),
        }
    };
    let report = loadtest::play(options, &mut on_segment).await.unwrap();
    assert_eq!(report.failed_segments, 0);
    assert!(right > 40, "only {right} files were played");
    cluster.stop().await.unwrap();
}

/// Track files whose age the heuristic of RFC 9111 (section 4.2.2) makes good for an hour.
const AGE: Duration = Duration::from_secs(10 * 3600);

/// A whole object and a range of it, twice each and over each protocol, from an edge before the
/// bucket alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_an_edge_gives_its_bytes_whole_and_in_ranges() {
    let bucket = std::env::var("NEARCAST_TEST_S3_BUCKET").expect("run by scripts/with-s3");
    let stored = std::env::var("NEARCAST_TEST_S3_DIR").expect("run by scripts/with-s3");
    let dir = tempfile::tempdir().unwrap();
    let local = format!("dir:{}", dir.path().join("store").display());
    let version = ingest(&local).await["version"].as_str().unwrap().to_owned();
    ingest(&format!("s3://{bucket}/behind")).await;
    let title = format!("titles/tide/{version}");
    let stored = Path::new(&stored).join(&bucket).join("behind").join(&title);
    let truth = |name: &str| std::fs::read(dir.path().join("store").join(&title).join(name));
    let is_video = |name: &String| name.ends_with(".mp4");
    let names = std::fs::read_dir(&stored).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = names.filter(is_video).collect();

    let words = "edge --listen http://127.0.0.1:0 --listen https://127.0.0.1:0 --ssd 0 --origin";
    let mut arguments: Vec<_> = words.split(' ').map(str::to_owned).collect();
    let data = dir.path().join("edge");
    arguments.extend([format!("s3://{bucket}/behind"), "--data-dir".into()]);
    arguments.push(data.display().to_string());
    let mut edge = Process::start(Path::new(BINARY), dir.path(), "edge", arguments).await.unwrap();
    let speakers = speakers(&edge, &data);
    assert!(names.len() > speakers.len(), "{names:?}");
    // The last one was changed after it was asked for, by its clock: nobody can know how long it stays
    // as it is.
    let speaking = speakers.iter().chain([&speakers[0]]).enumerate();
    let mut bytes = 0;
    for ((place, speaker), name) in speaking.zip(&names) {
        let (path, truth) = (format!("/{title}/{name}"), truth(name).unwrap());
        let is_old = place < speakers.len();
        let file = std::fs::File::options().write(true).open(stored.join(name)).unwrap();
        let now = SystemTime::now();
        file.set_modified(if is_old { now - AGE } else { now + AGE }).unwrap();
        let again = if is_old { "hit-memory" } else { "revalidated" };
        for verdict in ["origin", again] {
            let told = format!("{verdict} by {}", speaker.by);
            let whole = speaker.get(&path, &[]).await;
            assert_eq!((whole.status, whole.verdict()), (200, Some(verdict)), "{told}");
            assert!(whole.body == truth, "{told}: other bytes");
            metrics_at_rest(&edge).await;
            let part = speaker.get(&path, &[("range", "bytes=1000-70000")]).await;
            assert_eq!((part.status, &part.body[..]), (206, &truth[1000..=70_000]), "{told}");
            assert_eq!(part.verdict(), Some(again), "{told}");
        }
        bytes += truth.len();
    }
    let absent = speakers[0].get("/no/such/key", &[]).await;
    assert_eq!(absent.status, 404);
    // The bucket gave each object once.
    let text = metrics_at_rest(&edge).await;
    let fetched =
        text.lines().find_map(|line| line.strip_prefix("nearcast_edge_origin_bytes_total "));
    let fetched = fetched.unwrap().parse::<f64>().unwrap() as usize;
    assert!((bytes..=bytes + absent.body.len()).contains(&fetched), "{fetched} of {bytes}");
    edge.stop().await.unwrap();
}

/// The status of an edge's answer.
fn status(edge: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(edge.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[9..12]).into_owned()
}

/// A key that the server does not know, one with a wrong secret, and then the right ones.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_bucket_refuses_are_told_of_once_and_read_again() {
    let endpoint = std::env::var("NEARCAST_TEST_S3_ENDPOINT").expect("run by scripts/with-s3");
    let dir = tempfile::tempdir().unwrap();
    let (keys, config) = (dir.path().join("keys"), dir.path().join("edge.toml"));
    let write = |id: &str, secret: &str| {
        let part = dir.path().join("part");
        let text = format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        std::fs::write(&part, format!("[default]\n{text}")).unwrap();
        std::fs::rename(part, &keys).unwrap();
    };
    let s3 = format!("endpoint = {endpoint:?}\ncredentials-file = {keys:?}");
    let site = format!("[edge.sites.\"*\"]\norigins = [\"s3://nearcast-one\"]");
    std::fs::write(&config, format!("{site}\n[edge.sites.\"*\".s3]\n{s3}\n")).unwrap();
    write("nobody", "secret-one");
    let data = dir.path().join("data").display().to_string();
    let words = ["--config", config.to_str().unwrap(), "edge", "--data-dir", &data, "--ssd", "0"];
    let words = words.iter().chain(&["--listen", "http://127.0.0.1:0"]);
    let words = words.map(|word| (*word).to_owned()).collect();
    let mut edge = Process::start(Path::new(BINARY), dir.path(), "edge", words).await.unwrap();
    let url = edge.url().unwrap().to_owned();
    let path = edge.log();
    let log = || std::fs::read_to_string(&path).unwrap();
    let told = |what: &str| log().lines().filter(|line| line.contains(what)).count();
    let file = format!("keys of {}", keys.display());

    // As many requests as there are, of as many objects.
    let asked = |number: usize| status(&url, &format!("/none/{number}"));
    assert!((0..20).all(|number| asked(number) == "403"));
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for (secret, expected, lines) in [("wrong", "403", 2), ("secret-one", "404", 2)] {
        let id = "one";
        write(id, secret);
        let mut is_read = async || {
            for number in 0.. {
                pace.tick().await;
                let status = asked(100 + number);
                let is_told = told("the bucket refuses the keys") == lines;
                if status == expected && is_told {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_read()).await.expect("they are not read");
    }
    assert_eq!(told("the bucket takes the keys again"), 1, "{}", log());
    for why in ["the server knows no such key", "the secret is not that of the key"] {
        let is_it = |line: &&str| line.contains("WARN") && line.contains(&file);
        let lines = log().lines().filter(is_it).filter(|line| line.contains(why)).count();
        assert_eq!(lines, 1, "{why}: {}", log());
    }
    assert_eq!(told("secret-one"), 0);
    edge.stop().await.unwrap();
}
