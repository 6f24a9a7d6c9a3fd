//! Habits of real files: odd key frames, delays, cuts without encoding, several tracks,
//! colour, names. And an independent reader of the sample tables.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod media;

use media::{Studio, Written, frames, probe, write_all};
use model::index::{Kind, VideoRange};
use nearcast_manifests::package::{Package, Params, Source};
use std::io::BufReader;

const H264: &str = "-c:v libx264 -preset ultrafast -bf 3 -g 50 -keyint_min 50 -sc_threshold 0";
// Without noise substitution: a decoder's noise depends on how much it decoded before.
const AAC: &str = "-c:a aac -b:a 48k -aac_pns 0";

fn ids(all: &[Written]) -> Vec<&str> {
    all.iter().map(|written| written.track.facts.id.as_str()).collect()
}

fn seconds(written: &Written) -> Vec<f64> {
    let scale = f64::from(written.track.facts.timescale);
    written.track.segments.iter().map(|segment| segment.start as f64 / scale).collect()
}

#[test]
fn odd_key_frames_cut_where_they_are_and_every_segment_decodes_alone() {
    let studio = Studio::new();
    let odd = "-c:v libx264 -preset veryfast -bf 3 -g 500 -keyint_min 1 -sc_threshold 0 \
        -force_key_frames 1.2,3.4,5,8.64,9,13.6,16.4,16.8";
    let source = studio.clip("odd.mp4", 18.0, odd, AAC);
    let all = studio.package(&["odd.mp4"]).unwrap();
    assert_eq!(ids(&all), ["v90", "a1"]);
    assert_eq!(seconds(&all[0]), [0.0, 3.4, 8.64, 13.6, 16.4]);
    let mut count = 0;
    for n in 0..all[0].track.segments.len() {
        let path = studio.path("alone.mp4");
        std::fs::write(&path, all[0].alone(n)).unwrap();
        count += frames(&path, "0:v").len();
        assert!(probe(&path, "packet=flags").starts_with('K'));
    }
    assert_eq!(count, frames(&source, "0:v").len());
    // Sound is cut within half a frame of it (1,024 samples) of the pictures.
    for (sound, picture) in seconds(&all[1]).iter().zip(seconds(&all[0])).skip(1) {
        assert!((sound - 1024.0 / 44100.0 - picture).abs() <= 512.5 / 44100.0, "{sound} {picture}");
    }
}

#[test]
fn open_groups_of_pictures_keep_their_frames() {
    let studio = Studio::new();
    let open = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params \
        keyint=50:min-keyint=50:scenecut=0:bframes=3:open-gop=1:log-level=error";
    let source = studio.clip("open.mp4", 10.0, open, "");
    let all = studio.package(&["open.mp4"]).unwrap();
    assert!(all[0].track.segments.len() > 1);
    let digests = |frames: Vec<(i64, String)>| -> Vec<String> {
        frames.into_iter().map(|(_, digest)| digest).collect()
    };
    let found = digests(frames(&studio.save(&all[0]), "0:v"));
    assert_eq!(found, digests(frames(&source, "0:v")));
}

#[test]
fn a_package_of_a_package_is_the_same() {
    let studio = Studio::new();
    studio.clip("film.mp4", 10.0, H264, AAC);
    let once = studio.package(&["film.mp4"]).unwrap();
    once.iter().for_each(|written| drop(studio.save(written)));
    let twice = studio.package(&["out-v90.mp4", "out-a1.mp4"]).unwrap();
    for (a, b) in once.iter().zip(&twice) {
        assert_eq!(a.track, b.track);
        assert!(a.bytes == b.bytes);
    }
}

#[test]
fn sample_tables_are_read_as_another_reader_reads_them() {
    let studio = Studio::new();
    let path = studio.clip("film.mp4", 5.0, H264, AAC);
    let all = studio.package(&["film.mp4"]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    let mut reader = mp4::Mp4Reader::read_header(BufReader::new(file), bytes).unwrap();
    for (number, written) in [1u32, 2].into_iter().zip(&all) {
        let (mut media, mut duration) = (Vec::new(), 0);
        for n in 1..=reader.sample_count(number).unwrap() {
            let sample = reader.read_sample(number, n).unwrap().unwrap();
            media.extend_from_slice(&sample.bytes);
            duration += u64::from(sample.duration);
        }
        let written_media: Vec<u8> = written
            .track
            .segments
            .iter()
            .flat_map(|segment| {
                let part = written.part(segment.range);
                let moof = u32::from_be_bytes(part[..4].try_into().unwrap()) as usize;
                part[moof + 8..].to_vec()
            })
            .collect();
        assert!(media == written_media, "track {number}");
        let ticks: u64 = written.track.segments.iter().map(|segment| segment.duration).sum();
        assert_eq!(ticks, duration, "track {number}");
    }
}

#[test]
fn delays_stay() {
    let studio = Studio::new();
    studio.clip("film.mp4", 6.0, H264, AAC);
    let late = |name: &str, first: &str, second: &str| {
        studio.make(
            name,
            &format!("{first} -i film.mp4 {second} -i film.mp4 -map 0:v -map 1:a -c copy"),
        );
        studio.package(&[name]).unwrap()
    };
    let sound = late("sound-late.mp4", "", "-itsoffset 0.5");
    assert_eq!(sound[0].track.facts.first_decode_time, 0);
    // The first sample that is heard follows 1,024 of priming, which ffmpeg no longer declares
    // once they lie after time zero. The movie's time scale is a thousandth of a second.
    let facts = &sound[1].track.facts;
    let heard = facts.first_decode_time + 1024 - facts.presentation_offset;
    assert!(heard.abs_diff(22050) <= 44, "{heard}");
    let picture = late("picture-late.mp4", "-itsoffset 0.5", "");
    assert_eq!(picture[0].track.facts.first_decode_time, 6400);
    assert_eq!(picture[1].track.facts.first_decode_time, 0);
    assert_eq!(picture[1].track.facts.presentation_offset, 1024);
}

#[test]
fn a_cut_without_encoding_starts_at_its_key_frame_and_stays_in_step() {
    let studio = Studio::new();
    studio.clip("film.mp4", 10.0, H264, AAC);
    // The cut lies 0.6 s behind a key frame: an edit list hides what is between them.
    let source = studio.make("cut.mp4", "-ss 2.6 -i film.mp4 -c copy");
    let all = studio.package(&["cut.mp4"]).unwrap();
    let hidden = 0.6;
    let pictures = frames(&source, "0:v");
    let found = frames(&studio.save(&all[0]), "0:v");
    assert_eq!(all[0].track.segments[0].start, 0);
    assert_eq!(found.len(), pictures.len() + (hidden * 25.0) as usize);
    assert_eq!(found.last().unwrap().1, pictures.last().unwrap().1);
    // A sound that the source has at some time comes as much later as the pictures do.
    let sounds = frames(&source, "0:a");
    let (at, digest) = &sounds[40];
    let heard = frames(&studio.save(&all[1]), "0:a");
    let (now, _) = heard.iter().find(|(_, found)| found == digest).unwrap();
    let shift = (now - at) as f64 / 10_000.0 - hidden;
    assert!(shift.abs() < 0.03, "{shift}");
}

#[test]
fn a_ladder_with_languages_gets_names_and_loses_copies() {
    let studio = Studio::new();
    let make = |name: &str, size: &str, extra: &str| {
        studio.make(
            name,
            &format!(
                "-f lavfi -i testsrc2=s={size}:r=25:d=4 -f lavfi -i sine=d=4 \
                 -f lavfi -i sine=f=880:d=4 -map 0 -map 1 -map 2 -pix_fmt yuv420p {H264} {AAC} \
                 -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger \
                 -metadata:s:a:1 title=Kommentar {extra}"
            ),
        )
    };
    make("film-90.mp4", "160x90", "-timecode 01:00:00:00");
    make("film-180.mp4", "320x180", "");
    studio.make("film-180-b.mp4", &format!("-i film-180.mp4 -an {H264} -b:v 30k"));
    let vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n";
    std::fs::write(studio.path("film.pt-BR.vtt"), vtt).unwrap();
    std::fs::write(studio.path("film.en.SDH.vtt"), vtt).unwrap();
    let names =
        ["film-90.mp4", "film-180.mp4", "film-180-b.mp4", "film.pt-BR.vtt", "film.en.SDH.vtt"];
    let sources = names.iter().map(|name| Source::open(&studio.path(name)).unwrap()).collect();
    let package = Package::open(sources, Params::default()).unwrap();
    let all = write_all(&package).unwrap();
    assert_eq!(ids(&all), ["v90", "v180", "v180-2", "a-en", "a-de", "s-pt-br", "s-en"]);
    let lines: Vec<String> = package
        .skipped()
        .iter()
        .map(|skipped| format!("{} track {}: {}", skipped.source, skipped.track, skipped.why))
        .chain(package.tracks().iter().map(|plan| {
            let facts = &plan.facts;
            format!("{} {:?} {:?} {:?}", facts.id, facts.kind, facts.language, facts.label)
        }))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn colour_decides_the_range() {
    let studio = Studio::new();
    let hevc = "-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -tag:v hvc1 \
        -color_primaries bt2020 -colorspace bt2020nc";
    let with = |name: &str, transfer: &str, code: &str| {
        let args = format!(
            "{hevc} -color_trc {transfer} -x265-params \
             log-level=error:colorprim=bt2020:transfer={code}:colormatrix=bt2020nc"
        );
        studio.make(name, &format!("-f lavfi -i testsrc2=s=160x90:d=1 {args}"));
        studio.package(&[name]).unwrap().remove(0).track.facts
    };
    let range = |kind: &Kind| match kind {
        Kind::Video { range, .. } => *range,
        _ => panic!("not video"),
    };
    let pq = with("pq.mp4", "smpte2084", "smpte2084");
    assert_eq!(range(&pq.kind), VideoRange::Pq);
    assert!(pq.codec.starts_with("hvc1.2.4.L"), "{}", pq.codec);
    assert_eq!(range(&with("hlg.mp4", "arib-std-b67", "arib-std-b67").kind), VideoRange::Hlg);
    assert_eq!(range(&with("sdr.mp4", "bt709", "bt709").kind), VideoRange::Sdr);
}

#[test]
fn frame_rates_are_exact_and_files_hold_what_ffprobe_expects() {
    let studio = Studio::new();
    for (fps, given) in
        [("24000/1001", (24000, 1001)), ("30", (30, 1)), ("60000/1001", (60000, 1001))]
    {
        studio.make(
            "film.mp4",
            &format!("-f lavfi -i testsrc2=s=160x90:r={fps}:d=5 -pix_fmt yuv420p {H264}"),
        );
        let all = studio.package(&["film.mp4"]).unwrap();
        let Kind::Video { frame_rate, width: 160, height: 90, .. } = all[0].track.facts.kind else {
            panic!("not the video that was made");
        };
        assert_eq!(frame_rate, given);
        let path = studio.save(&all[0]);
        let stream = "stream=codec_name,codec_tag_string,width,height,r_frame_rate";
        let wanted = format!("h264,avc1,160,90,{}/{}", given.0, given.1);
        assert_eq!(probe(&path, stream), wanted);
    }
}

#[test]
fn an_uneven_frame_rate_keeps_every_time() {
    let studio = Studio::new();
    studio.make(
        "uneven.mp4",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=9 -vf select='not(eq(mod(n\\,7)\\,3))' \
             -fps_mode vfr -pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 3 -g 40 \
             -keyint_min 40 -sc_threshold 0 -video_track_timescale 90000",
    );
    let all = studio.package(&["uneven.mp4"]).unwrap();
    let found = frames(&studio.save(&all[0]), "0:v");
    let late = found[0].0;
    let found: Vec<_> = found.into_iter().map(|(time, digest)| (time - late, digest)).collect();
    assert_eq!(found, frames(&studio.path("uneven.mp4"), "0:v"));
}
