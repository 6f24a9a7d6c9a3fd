//! A title of tracks of 64 MiB and more, and kills in the middle of its ingest, its fill and
//! its play: nothing is lost, no byte is wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use loadtest::{Format, PlayOptions, Protocol, SegmentReport};
use model::api::{Event, EventBatch, EventKind};
use model::route;
use nearcast::cluster::{self, Cluster, Options, Signal, StoredTitle, Verdict};
use rustix::process::Pid;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
const MIB: u64 = 1 << 20;
const WAIT: Duration = Duration::from_secs(60);

/// Two renditions of noise (nothing compresses it) and a tone: each video is 64 MiB or more.
fn big_media(dir: &Path) -> Vec<PathBuf> {
    let make = |name: &str, args: &str| {
        let path = dir.join(name);
        let status = std::process::Command::new("ffmpeg")
            .args(["-nostdin", "-loglevel", "error", "-y"])
            .args(args.split(' '))
            .arg(&path)
            .status()
            .expect("ffmpeg is installed");
        assert!(status.success(), "ffmpeg {args}");
        path
    };
    let noise = |size: &str, qp: u32| {
        format!(
            "-f lavfi -i nullsrc=s={size}:r=24:d=12,noise=alls=100:allf=t+u -c:v libx264 \
             -preset ultrafast -qp {qp} -g 48 -keyint_min 48 -sc_threshold 0 -pix_fmt yuv420p"
        )
    };
    let files = vec![
        make("720.mp4", &noise("1280x720", 25)),
        make("718.mp4", &noise("1276x718", 25)),
        make("tone.mp4", "-f lavfi -i sine=d=12:r=48000 -c:a aac -b:a 64k"),
    ];
    for video in &files[..2] {
        assert!(video.metadata().unwrap().len() >= 64 * MIB, "{} is small", video.display());
    }
    files
}

fn find(dir: &Path, accept: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, accept) {
                return Some(found);
            }
        } else if accept(&path) {
            return Some(path);
        }
    }
    None
}

/// Looks again until `condition` gives something.
async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < WAIT, "waited {WAIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn ingest_args(store: &Path, work: &Path, files: &[PathBuf]) -> Vec<String> {
    let store = format!("dir:{}", store.display());
    let work = work.display().to_string();
    let words = ["ingest", "--store", &store, "--title", "big", "--name", "Big", "--json"];
    let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    words.extend(["--work-dir".to_owned(), work]);
    words.extend(files.iter().map(|file| file.display().to_string()));
    words
}

/// Kills an ingest once its first track file is in the store, and ingests again.
async fn killed_ingest(dir: &Path, files: &[PathBuf]) {
    let store = dir.join("store");
    let arguments = ingest_args(&store, &dir.join("work"), files);
    let mut first = tokio::process::Command::new(BINARY).args(&arguments).spawn().unwrap();
    let is_track = |path: &Path| path.extension().is_some_and(|extension| extension == "mp4");
    until("the first track file", || find(&store.join("titles"), &is_track)).await;
    // Stopped where it stands, so that what is looked at is what the kill leaves.
    let pid = Pid::from_raw(i32::try_from(first.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let published = find(&store.join("published"), &|_| true);
    first.kill().await.unwrap();
    assert!(published.is_none(), "it was through before it could be killed");

    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = cluster::run(Path::new(BINARY), &words).await.unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let uploaded = |file: &&serde_json::Value| file["uploaded"] == true;
    let files = report["files"].as_array().unwrap();
    let again = files.iter().filter(uploaded).count();
    assert!(again < files.len(), "everything was uploaded twice: {report}");
    assert!(find(&store.join("published"), &|_| true).is_some());
}

/// Reports plays of the title, so that a plan has something to go by.
async fn demand(cluster: &Cluster) {
    let playback = cluster.operator.playback("big").await.unwrap();
    let now = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    let event = |seq, kind| Event {
        seq,
        kind,
        at_ms: now,
        position_ms: playback.duration_ms,
        watched_ms: playback.duration_ms,
        bytes: 64 * MIB,
        waited_ms: None,
        edge: None,
    };
    let batch = EventBatch {
        token: playback.token,
        events: vec![event(0, EventKind::Start), event(1, EventKind::Stop)],
    };
    cluster.operator.post("/v1/events", &batch).await.unwrap();
}

/// Kills an edge while it fills, and lets it resume.
async fn killed_fill(cluster: &mut Cluster) {
    demand(cluster).await;
    let tomorrow = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().tomorrow();
    let date = tomorrow.unwrap().to_string();
    let credential = cluster.operator_file().display().to_string();
    let url = cluster.operator.url().to_owned();
    let words = ["plan", "run", "--date", &date, "--control-plane", &url, "--credential-file"];
    cluster.command(&[&words[..], &[&credential]].concat()).await.unwrap();
    let planned = cluster.dir().join("edge-a/plan");
    until("a chunk to be filled", || find(&planned, &has_a_chunk)).await;
    cluster.edges[0].kill().await.unwrap();
    cluster.edges[0].restart().await.unwrap();
    let complete = cluster
        .wait("the fill to end", async |overview| {
            overview.edges.iter().all(|edge| edge.plan_complete.is_some())
        })
        .await
        .unwrap();
    assert!(complete.edges.iter().all(|edge| edge.planned_files == 3), "{complete:?}");
    // What was here before the kill was not fetched again.
    let (all, fetched) = (complete.titles[0].record.bytes(), complete.edges[0].counters);
    assert!(fetched.origin_bytes < all, "{} of {all} bytes were fetched", fetched.origin_bytes);
}

/// Whether this is the record of a planned file with at least one chunk here: behind its head
/// of 16 bytes, a checksum for each chunk that is.
fn has_a_chunk(path: &Path) -> bool {
    let is_record = path.extension().is_some_and(|extension| extension == "have");
    let sums = || std::fs::read(path).unwrap_or_default();
    is_record && sums().get(16..).is_some_and(|sums| sums.iter().any(|byte| *byte != 0))
}

/// Kills the serving edge in the middle of a play: the play goes on, every byte is right.
async fn killed_play(cluster: &mut Cluster) {
    let playback = cluster.operator.playback("big").await.unwrap();
    let store = cluster.dir().join("store");
    let truth = StoredTitle::read(&store, &playback.title, &playback.version).unwrap();
    let options =
        PlayOptions::new(playback, Format::Dash, Protocol::H2, cluster.certificates().unwrap());
    let (mut segments, mut right) = (0, 0);
    let mut killed = false;
    let mut on_segment = |segment: &SegmentReport, body: &bytes::Bytes| {
        let path = format!("/~{}", segment.path);
        let resource = route::parse(&path).unwrap().resource;
        match truth.compare(&resource, body) {
            Verdict::Right => right += 1,
            Verdict::Rendered => {}
            Verdict::Wrong(bytes) => panic!("{}: {bytes} wrong bytes", segment.path),
        }
        segments += 1;
        if segments == 4 {
            killed = cluster.edge_at(&segment.edge).unwrap().signal(Signal::KILL);
        }
    };
    let report = loadtest::play(options, &mut on_segment).await.unwrap();
    assert!(killed && report.ended);
    assert_eq!(report.failed_segments, 0);
    let wanted: usize = truth.index.tracks.iter().map(|track| track.segments.len() + 1).sum();
    assert_eq!(right, wanted, "init segments and segments");
    assert!(!report.failovers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_title_survives_kills_in_ingest_fill_and_play() {
    let dir = tempfile::tempdir().unwrap();
    let files = big_media(dir.path());
    killed_ingest(dir.path(), &files).await;
    let options = Options::new(Path::new(BINARY), dir.path());
    let options = Options { planned: "512MiB".to_owned(), ..options };
    let mut cluster = Cluster::start(options).await.unwrap();
    killed_fill(&mut cluster).await;
    killed_play(&mut cluster).await;
}
