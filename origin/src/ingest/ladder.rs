//! `--ladder`: ffmpeg makes H.264 renditions with the same key frames, and AAC, from one file.

use super::Show;
use crate::Error;
use serde::Deserialize;
use service::Shutdown;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// Height and most kilobits a second of each rendition; those above the source are left out.
const RUNGS: [(u32, u32); 3] = [(1080, 5000), (720, 2800), (360, 800)];
/// A key frame this often, in seconds: divides the segment length that is aimed at.
const KEY_FRAME_S: u32 = 2;
const MISSING: &str = "ffmpeg and ffprobe are needed and not found: install them \
                       (Debian: apt-get install ffmpeg), or give renditions without --ladder";
/// Transfer functions of HDR, as ffprobe names them.
const HDR: [&str; 2] = ["smpte2084", "arib-std-b67"];
/// How much of ffmpeg's complaint is shown, in characters.
const COMPLAINT_CHARS_MAX: usize = 500;

/// What ffprobe says.
#[derive(Deserialize)]
struct Probe {
    streams: Vec<Stream>,
    format: Format,
}

#[derive(Deserialize)]
struct Stream {
    codec_type: Option<String>,
    height: Option<u32>,
    color_transfer: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    duration: Option<String>,
}

/// Makes the renditions of the one media file among `files`; `.vtt` files pass through.
pub(super) async fn make(
    files: &[PathBuf],
    dir: &Path,
    shutdown: &Shutdown,
) -> Result<Vec<PathBuf>, Error> {
    let is_text = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "vtt");
    let media: Vec<&PathBuf> = files.iter().filter(|path| !is_text(path)).collect();
    let [source] = media[..] else {
        let count = media.len();
        return Err(Error::Ladder(format!("expected one media file to start from, got {count}")));
    };
    let probe = probe(source).await?;
    let is = |stream: &&Stream, kind| stream.codec_type.as_deref() == Some(kind);
    let video = probe.streams.iter().find(|stream| is(stream, "video"));
    let height = video
        .and_then(|stream| stream.height)
        .ok_or_else(|| Error::Ladder(format!("{}: no video stream", source.display())))?;
    let transfer = video.and_then(|stream| stream.color_transfer.as_deref()).unwrap_or("");
    if HDR.contains(&transfer) {
        let why = format!("{}: HDR video ({transfer}) would lose its range", source.display());
        return Err(Error::Ladder(format!("{why}: give renditions without --ladder")));
    }
    let audio = probe.streams.iter().any(|stream| is(&stream, "audio"));
    let (arguments, mut made) = arguments(source, dir, height, audio);
    if !made.iter().all(|path| path.exists()) {
        // Each is named once it is whole: a run that was killed leaves none that looks so.
        let seconds: f64 = probe.format.duration.and_then(|text| text.parse().ok()).unwrap_or(0.0);
        encode(arguments, (seconds * 1e6) as u64, shutdown).await?;
        for path in &made {
            let renamed = std::fs::rename(partial(path), path);
            renamed.map_err(|error| Error::file(path, error))?;
        }
    }
    made.extend(files.iter().filter(is_text).cloned());
    Ok(made)
}

/// Where a rendition is made.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("partial.mp4")
}

async fn probe(source: &Path) -> Result<Probe, Error> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_streams", "-show_format"])
        .arg(source)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|_| Error::Ladder(MISSING.to_owned()))?;
    let bad = |why: &str| Error::Ladder(format!("{}: {}", source.display(), why.trim()));
    if !output.status.success() {
        return Err(bad(&String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| bad(&error.to_string()))
}

/// ffmpeg's arguments, and the files that it will make.
fn arguments(source: &Path, dir: &Path, height: u32, audio: bool) -> (Vec<OsString>, Vec<PathBuf>) {
    let mut list: Vec<OsString> = Vec::new();
    let mut made = Vec::new();
    let mut add = |words: &str| list.extend(words.split(' ').map(OsString::from));
    add("-nostdin -v error -y -progress pipe:1 -i");
    list.push(source.into());
    for (height, kbps) in rungs(height) {
        let words = format!(
            "-map 0:v:0 -vf scale=-2:{height} -c:v libx264 -preset medium -crf 21 -maxrate {kbps}k \
             -bufsize {}k -pix_fmt yuv420p -sc_threshold 0 -g 9999 \
             -force_key_frames expr:gte(t,n_forced*{KEY_FRAME_S})",
            2 * kbps
        );
        list.extend(words.split(' ').map(OsString::from));
        let path = dir.join(format!("{height}.mp4"));
        list.push(partial(&path).into());
        made.push(path);
    }
    if audio {
        list.extend("-map 0:a -c:a aac -b:a 128k".split(' ').map(OsString::from));
        let path = dir.join("audio.mp4");
        list.push(partial(&path).into());
        made.push(path);
    }
    (list, made)
}

/// The renditions of a source of this height, best first: none is larger than the source, and
/// the best is as large where a rung allows.
fn rungs(height: u32) -> Vec<(u32, u32)> {
    let mut rungs: Vec<(u32, u32)> = Vec::new();
    for (rung, kbps) in RUNGS.into_iter().rev() {
        // Heights of H.264 with 4:2:0 chroma are even.
        let capped = rung.min(height - height % 2).max(2);
        if rungs.last().is_none_or(|(below, _)| *below < capped) {
            rungs.push((capped, kbps));
        }
    }
    rungs.reverse();
    rungs
}

/// Runs ffmpeg with a progress bar over the source's length in microseconds.
async fn encode(
    arguments: Vec<OsString>,
    length_us: u64,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| Error::Ladder(MISSING.to_owned()))?;
    let (out, mut complaints) = (ffmpeg.stdout.take(), ffmpeg.stderr.take());
    let complaint = tokio::spawn(async move {
        let mut text = String::new();
        if let Some(complaints) = &mut complaints {
            // Read to the end, so that ffmpeg never waits for us; ffmpeg -v error says little.
            let _ = complaints.read_to_string(&mut text).await;
        }
        text
    });
    let show = Show::length("Encoding", length_us);
    if let Some(out) = out {
        let mut lines = BufReader::new(out).lines();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line,
                () = shutdown.requested() => return Err(Error::Stopped),
            };
            let Ok(Some(line)) = line else { break };
            let done = line.strip_prefix("out_time_us=").and_then(|us| us.parse().ok());
            done.into_iter().for_each(|us| show.set(us));
        }
    }
    let status = ffmpeg.wait().await.map_err(|error| Error::Ladder(error.to_string()))?;
    show.done();
    if status.success() {
        return Ok(());
    }
    let text: String = complaint.await?.trim().chars().take(COMPLAINT_CHARS_MAX).collect();
    Err(Error::Ladder(format!("ffmpeg ended with {status}: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rendition_is_larger_than_its_source() {
        let heights = |height| rungs(height).into_iter().map(|(h, _)| h).collect::<Vec<_>>();
        assert_eq!(heights(2160), [1080, 720, 360]);
        assert_eq!(heights(1080), [1080, 720, 360]);
        assert_eq!(heights(1079), [1078, 720, 360]);
        assert_eq!(heights(721), [720, 360]);
        assert_eq!(heights(540), [540, 360]);
        assert_eq!(heights(360), [360]);
        assert_eq!(heights(241), [240]);
        assert_eq!(heights(1), [2]);
    }
}
