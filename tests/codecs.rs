//! Ordinary files in every codec, ingested, served and played: ffmpeg decodes what was played
//! to the same pictures and samples as the source.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use loadtest::{Format, PlayOptions, Protocol, SegmentReport};
use model::TrackId;
use model::route::{self, Resource};
use nearcast::cluster::{self, Cluster, Options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_nearcast");
/// Title, encoder (with B-frames where it has them), container flags.
const FILMS: [(&str, &str, &str); 3] = [
    ("avc", "-c:v libx264 -preset fast -bf 3 -g 50", "-movflags +faststart"),
    ("hevc", "-c:v libx265 -preset ultrafast -x265-params keyint=50:log-level=none", ""),
    ("av1", "-c:v libsvtav1 -preset 12 -g 50", "-movflags +frag_keyframe+empty_moov"),
];

fn ffmpeg(arguments: &str, file: &Path) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    for word in arguments.split_whitespace() {
        if word == "FILE" {
            command.arg(file)
        } else {
            command.arg(word)
        };
    }
    let output = command.env("SVT_LOG", "0").output().expect("ffmpeg is installed");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ffmpeg {arguments}: {complaint}");
    output.stdout
}

fn film(dir: &Path, (name, codec, flags): (&str, &str, &str)) -> PathBuf {
    let path = dir.join(format!("{name}.mp4"));
    let picture = "-f lavfi -i testsrc2=s=192x108:r=25:d=9";
    let tone = "-f lavfi -i aevalsrc=sin(440*t*(1+t/8)*6):s=48000:d=9";
    let common = "-pix_fmt yuv420p -c:a aac -b:a 64k -shortest";
    ffmpeg(&format!("{picture} {tone} {codec} {common} {flags} FILE"), &path);
    path
}

/// Digests of the decoded frames of a stream, in order; those before time zero (an encoder's
/// priming, which a player does not play) are left out.
fn decoded(file: &Path, stream: &str) -> Vec<String> {
    let words = format!("-copyts -i FILE -map {stream} -fps_mode passthrough -f framemd5 -");
    let text = String::from_utf8(ffmpeg(&words, file)).unwrap();
    let frame = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let time: i64 = fields[2].parse().unwrap();
        (time >= 0).then(|| fields[5].to_owned())
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(frame).collect()
}

/// Plays a title whole and joins what came of each track.
async fn played(cluster: &Cluster, title: &str) -> BTreeMap<TrackId, Vec<u8>> {
    let options = PlayOptions::new(
        cluster.operator.playback(title).await.unwrap(),
        Format::Dash,
        Protocol::H2,
        cluster.certificates().unwrap(),
    );
    let mut tracks: BTreeMap<TrackId, Vec<u8>> = BTreeMap::new();
    let mut on_segment = |segment: &SegmentReport, body: &bytes::Bytes| {
        let path = format!("/~{}", segment.path);
        if let Resource::Init(track) | Resource::Segment(track, _) =
            route::parse(&path).unwrap().resource
        {
            tracks.entry(track).or_default().extend_from_slice(body);
        }
    };
    let report = loadtest::play(options, &mut on_segment).await.unwrap();
    assert_eq!(report.failed_segments, 0);
    tracks
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_played_decodes_to_what_was_ingested() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(Path::new(BINARY), dir.path());
    let store = options.store_url();
    let mut sources = Vec::new();
    for kind in FILMS {
        let source = film(dir.path(), kind);
        let file = source.display().to_string();
        let words = ["ingest", "--store", &store, "--title", kind.0, "--name", kind.0, &file];
        cluster::run(Path::new(BINARY), &words).await.unwrap();
        sources.push((kind.0, source));
    }
    let cluster = Cluster::start(options).await.unwrap();
    for (title, source) in sources {
        let tracks = played(&cluster, title).await;
        assert_eq!(tracks.len(), 2, "{title}: one picture, one tone");
        for (id, bytes) in tracks {
            let stream = if id.as_str().starts_with('v') { "0:v" } else { "0:a" };
            let file = dir.path().join("played.mp4");
            std::fs::write(&file, bytes).unwrap();
            let (wanted, got) = (decoded(&source, stream), decoded(&file, stream));
            assert!(wanted.len() > 200, "{title} {id}: {} frames", wanted.len());
            assert!(wanted == got, "{title} {id}: decoded otherwise than the source");
        }
    }
    cluster.stop().await.unwrap();
}
