//! Ingest, origin, edge and a play over a real S3 server: `scripts/with-s3` starts one and
//! sets the AWS variables.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use loadtest::{Format, PlayOptions, Protocol, SegmentReport};
use model::route;
use nearcast::cluster::{Cluster, Options, Process, StoredTitle, Verdict, run};
use std::path::Path;
use std::time::Duration;

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

/// A whole object and a range of it, twice each, from an edge before the bucket alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_an_edge_gives_its_bytes_whole_and_in_ranges() {
    let bucket = std::env::var("NEARCAST_TEST_S3_BUCKET").expect("run by scripts/with-s3");
    let dir = tempfile::tempdir().unwrap();
    let local = format!("dir:{}", dir.path().join("store").display());
    let published = ingest(&local).await;
    let version = published["version"].as_str().unwrap();
    ingest(&format!("s3://{bucket}/behind")).await;
    let folder = dir.path().join(format!("store/titles/tide/{version}"));
    let names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let name = names.iter().find(|name| name.ends_with(".mp4")).expect("a track file").clone();
    let truth = std::fs::read(folder.join(&name)).unwrap();

    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut arguments = words("edge --listen http://127.0.0.1:0 --ssd 0");
    let data = dir.path().join("edge").display().to_string();
    arguments.extend([
        "--origin".into(),
        format!("s3://{bucket}/behind"),
        "--data-dir".into(),
        data,
    ]);
    let mut edge = Process::start(Path::new(BINARY), dir.path(), "edge", arguments).await.unwrap();
    let url = format!("{}/titles/tide/{version}/{name}", edge.url().unwrap());
    let client = loadtest::Client::new(Protocol::H1, &[], Duration::from_secs(20)).unwrap();
    for _ in 0..2 {
        let whole = client.get(&url, &[]).await.unwrap();
        assert_eq!((whole.status, &whole.body[..]), (200, &truth[..]));
        let part = client.get(&url, &[("range", "bytes=1000-70000")]).await.unwrap();
        assert_eq!((part.status, &part.body[..]), (206, &truth[1000..=70_000]));
    }
    let absent = client.get(&format!("{}/no/such/key", edge.url().unwrap()), &[]).await.unwrap();
    assert_eq!(absent.status, 404);
    edge.stop().await.unwrap();
}
