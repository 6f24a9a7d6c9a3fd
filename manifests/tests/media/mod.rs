//! Real media, made by ffmpeg when the test runs, and what ffmpeg decodes from it.
#![allow(dead_code, reason = "each test file uses its part")]

use model::Track;
use model::tree::Leaves;
use nearcast_manifests::package::{Error, Package, Params, Source};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of clips that ends with the test.
pub struct Studio {
    dir: tempfile::TempDir,
}

impl Studio {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `ffmpeg ARGS NAME`; `args` are split at blanks.
    pub fn make(&self, name: &str, args: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y"]).current_dir(self.dir.path());
        command.args(args.split_whitespace()).arg(&path);
        let out = command.output().expect("ffmpeg is installed");
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        path
    }

    /// A moving picture and, where `audio` names an encoder's options, a tone that changes.
    pub fn clip(&self, name: &str, seconds: f64, video: &str, audio: &str) -> PathBuf {
        self.sized(name, "160x90", 25.0, seconds, video, audio)
    }

    pub fn sized(
        &self,
        name: &str,
        size: &str,
        fps: f64,
        seconds: f64,
        video: &str,
        audio: &str,
    ) -> PathBuf {
        let picture = format!("-f lavfi -i testsrc2=s={size}:r={fps}:d={seconds}");
        let sound = format!("-f lavfi -i aevalsrc=sin(440*t*(1+t/8)*6):s=44100:d={seconds}");
        let args = match audio {
            "" => format!("{picture} -pix_fmt yuv420p {video}"),
            audio => format!("{picture} {sound} -pix_fmt yuv420p {video} {audio}"),
        };
        self.make(name, &args)
    }

    /// Packages files of this directory.
    pub fn package(&self, names: &[&str]) -> Result<Vec<Written>, Error> {
        let sources = names.iter().map(|name| Source::open(&self.path(name)).unwrap()).collect();
        write_all(&Package::open(sources, Params::default())?)
    }

    /// A track file on disk, for ffmpeg.
    pub fn save(&self, written: &Written) -> PathBuf {
        let path = self.path(&format!("out-{}", written.track.file_name()));
        std::fs::write(&path, &written.bytes).unwrap();
        path
    }
}

/// A track file and what the index says of it.
pub struct Written {
    pub track: Track,
    pub bytes: Vec<u8>,
}

impl Written {
    pub fn part(&self, range: model::ByteRange) -> &[u8] {
        &self.bytes[range.start as usize..range.end() as usize]
    }

    /// The init segment and segment `n`, as a player would have them.
    pub fn alone(&self, n: usize) -> Vec<u8> {
        [self.part(self.track.facts.init), self.part(self.track.segments[n].range)].concat()
    }
}

/// Writes all tracks and holds each against its plan.
pub fn write_all(package: &Package) -> Result<Vec<Written>, Error> {
    let mut all = Vec::new();
    for (n, plan) in package.tracks().iter().enumerate() {
        let (mut bytes, mut counted) = (Vec::new(), 0);
        let written = package.write_track(n, &mut bytes, &mut |more| counted += more)?;
        let (track, mut tree) = (written.track, &written.tree[..]);
        assert_eq!(track.facts, plan.facts);
        assert_eq!(track.segments, plan.segments);
        assert_eq!(counted, bytes.len() as u64);
        assert_eq!(track.facts.file_bytes, bytes.len() as u64);
        for (n, chunk) in bytes.chunks(model::chunk::CHUNK_BYTES as usize).enumerate() {
            assert!(track.chunk_is_whole(n as u64, chunk));
            let (own, rest) = tree.split_at(model::tree::bytes(chunk.len() as u64) as usize);
            assert_eq!(track.leaves(n as u64, own), Some(Leaves::of(chunk)));
            tree = rest;
        }
        assert!(tree.is_empty());
        gapless(&track);
        all.push(Written { track, bytes });
    }
    Ok(all)
}

/// Segments follow each other in time and in the file, from the first to the last byte.
fn gapless(track: &Track) {
    let mut time = track.facts.first_decode_time;
    let mut place = track.facts.media_start;
    for segment in &track.segments {
        assert_eq!((segment.start, segment.range.start), (time, place));
        assert!(segment.duration > 0 && segment.range.bytes > 0);
        (time, place) = (segment.start + segment.duration, segment.range.end());
    }
    if !track.segments.is_empty() {
        assert_eq!(place, track.facts.file_bytes);
    }
}

/// Decoded frames: seconds (rounded to a tenth of a millisecond) and digest of each.
pub fn frames(path: &Path, stream: &str) -> Vec<(i64, String)> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-copyts", "-i"]).arg(path);
    command.args(["-map", stream, "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let out = command.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && errors.is_empty(), "{}: {errors}", path.display());
    let text = String::from_utf8(out.stdout).unwrap();
    let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: ")).expect("a time base");
    let (num, den) = base.split_once('/').unwrap();
    let (num, den): (i64, i64) = (num.parse().unwrap(), den.parse().unwrap());
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        let pts: i64 = fields[2].parse().unwrap();
        ((pts * num * 10_000 + den / 2).div_euclid(den), fields[5].to_owned())
    })
    .collect()
}

/// Decoded sound as 16-bit samples.
pub fn sound(path: &Path, stream: &str) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(path);
    command.args(["-map", stream, "-f", "s16le", "-"]);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// `ffprobe -show_entries WANTED -of csv` of a file.
pub fn probe(path: &Path, wanted: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", wanted, "-of", "csv=p=0"]).arg(path);
    let out = command.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && errors.is_empty(), "{}: {errors}", path.display());
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
