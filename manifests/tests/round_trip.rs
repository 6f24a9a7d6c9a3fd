//! Every codec in every kind of MP4 that ffmpeg writes comes out with the same frames and
//! samples at the same times.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod media;

use media::{Studio, Written, frames};
use model::index::Kind;
use std::path::Path;

const H264: &str = "-c:v libx264 -preset ultrafast -bf 3 -g 50 -keyint_min 50 -sc_threshold 0";
const HEVC: &str = "-c:v libx265 -preset ultrafast -x265-params \
    keyint=50:min-keyint=50:scenecut=0:bframes=3:open-gop=0:log-level=error";
const AV1: &str = "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 50 -keyint_min 50 -b:v 100k";
const AAC: &str = "-c:a aac -b:a 64k";

const LAYOUTS: [(&str, &str); 7] = [
    ("moov-last", ""),
    ("faststart", "-movflags +faststart"),
    ("fragmented", "-movflags +frag_keyframe+empty_moov+delay_moov+default_base_moof"),
    ("short-fragments", "-movflags +empty_moov+delay_moov -frag_duration 700000"),
    ("with-sidx", "-movflags +dash+delay_moov+frag_keyframe"),
    ("global-sidx", "-movflags +dash+global_sidx+delay_moov+frag_keyframe+default_base_moof"),
    ("no-edits", "-movflags +frag_keyframe+empty_moov"),
];

fn video(all: &[Written]) -> &Written {
    all.iter().find(|w| matches!(w.track.facts.kind, Kind::Video { .. })).unwrap()
}

fn audio(all: &[Written]) -> &Written {
    all.iter().find(|w| matches!(w.track.facts.kind, Kind::Audio { .. })).unwrap()
}

/// ffmpeg decodes the track files to the pictures and the sound of the source, at the same
/// times after the first picture. It is told times to a tenth of a millisecond, reads pictures
/// with signed offsets as late by the largest of them, and gives out the priming of
/// fragmented audio, before time zero.
fn same_media(studio: &Studio, source: &Path, picture: &Written, tone: &Written) {
    let at = |frames: Vec<(i64, String)>, zero: i64| -> Vec<(i64, String)> {
        frames.into_iter().map(|(time, digest)| (time - zero, digest)).collect()
    };
    let heard = |frames: Vec<(i64, String)>| -> Vec<(i64, String)> {
        frames.into_iter().filter(|(time, _)| *time >= 0).collect()
    };
    let wanted = frames(source, "0:v");
    let zero = wanted[0].0;
    let found = frames(&studio.save(picture), "0:v");
    let late = found[0].0;
    assert_eq!(at(found, late), at(wanted, zero), "{}", source.display());
    let wanted = heard(at(frames(source, "0:a"), zero));
    let found = heard(frames(&studio.save(tone), "0:a"));
    assert_eq!(found, wanted, "{}", source.display());
}

fn same_through_every_layout(codec: &str, tag: &str, codec_string: &str) {
    let studio = Studio::new();
    let seconds = 9.0;
    studio.clip("made.mp4", seconds, codec, AAC);
    for (name, flags) in LAYOUTS {
        let name = format!("{name}.mp4");
        let source = studio.make(&name, &format!("-i made.mp4 -map 0 -c copy {tag} {flags}"));
        let all = studio.package(&[&name]).unwrap();
        assert_eq!(all.len(), 2, "{name}");
        let (picture, tone) = (video(&all), audio(&all));
        assert!(
            picture.track.facts.codec.starts_with(codec_string),
            "{}",
            picture.track.facts.codec
        );
        assert_eq!(tone.track.facts.codec, "mp4a.40.2");
        assert_eq!(picture.track.segments.len(), 3, "{name}: 4 s, 4 s, 1 s");
        assert_eq!(picture.track.segments[0].start, 0);
        same_media(&studio, &source, picture, tone);
    }
}

#[test]
fn h264_keeps_its_frames() {
    same_through_every_layout(H264, "", "avc1.4d40");
}

#[test]
fn hevc_keeps_its_frames_and_becomes_hvc1() {
    same_through_every_layout(HEVC, "-tag:v hev1", "hvc1.1.6.L");
}

#[test]
fn av1_keeps_its_frames() {
    same_through_every_layout(AV1, "", "av01.0.00M.08");
}
