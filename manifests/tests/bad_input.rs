//! What cannot be packaged is refused with a message that names the file and what to do.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod media;

use media::{Studio, write_all};
use nearcast_manifests::package::{Package, Params, Source};
use proptest::prelude::*;
use std::sync::OnceLock;

const H264: &str = "-c:v libx264 -preset ultrafast -bf 2 -g 25 -keyint_min 25 -sc_threshold 0";
const AAC: &str = "-c:a aac -b:a 32k";

/// The message for these files, each opened alone.
fn refused(studio: &Studio, names: &[&str]) -> String {
    match studio.package(names) {
        Ok(_) => panic!("{names:?} was packaged"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn messages_name_file_and_trouble() {
    let studio = Studio::new();
    let whole = std::fs::read(studio.clip("film.mp4", 4.0, H264, AAC)).unwrap();
    let fast = std::fs::read(studio.make("fast.mp4", "-i film.mp4 -c copy -movflags +faststart"));
    let put = |name: &str, bytes: &[u8]| std::fs::write(studio.path(name), bytes).unwrap();
    put("empty.mp4", b"");
    put("tiny.mp4", b"abc");
    put("text.mp4", b"this is a letter to my aunt, not a film at all");
    put("cut-in-mdat.mp4", &whole[..whole.len() / 2]);
    put("cut-before-moov.mp4", &whole[..find(&whole, b"moov") - 4]);
    put("cut-in-moov.mp4", &whole[..find(&whole, b"stco")]);
    let fast = fast.unwrap();
    put("fast-cut.mp4", &fast[..fast.len() - 1000]);
    put("corrupt-stsz.mp4", &patched(&whole, b"stsz", 8, &u32::MAX.to_be_bytes()));
    put("corrupt-stco.mp4", &patched(&whole, b"stco", 8, &0xf000_0000u32.to_be_bytes()));
    put("corrupt-stsc.mp4", &patched(&whole, b"stsc", 8, &7u32.to_be_bytes()));
    put("no-timescale.mp4", &patched(&whole, b"mdhd", 12, &[0; 4]));
    put("sample-description.mp4", &patched(&whole, b"stsc", 16, &9u32.to_be_bytes()));
    put("encrypted.mp4", &renamed(&whole, b"avc1", b"encv"));
    put("unknown-codec.mp4", &renamed(&whole, b"avc1", b"xyz1"));
    let picture = "-f lavfi -i testsrc2=s=160x90:d=1";
    let tone = "-f lavfi -i sine=d=1";
    studio.make("vp9.mp4", &format!("{picture} -c:v libvpx-vp9 -cpu-used 8 -deadline realtime"));
    studio.make("mpeg4.mp4", &format!("{picture} -c:v mpeg4"));
    studio.make("opus.mp4", &format!("{picture} {tone} {H264} -c:a libopus"));
    studio.make("mp3.mp4", &format!("{picture} {tone} {H264} -c:a libmp3lame"));
    studio.make("ac3.mp4", &format!("{picture} {tone} {H264} -c:a ac3"));
    studio.make("sound.mp4", &format!("{tone} {AAC}"));
    studio.make("film.webm", &format!("{picture} -c:v libvpx -deadline realtime -cpu-used 8"));
    studio.make("film.ts", "-i film.mp4 -c copy");
    studio.make("init.mp4", "-i film.mp4 -c copy -movflags +frag_keyframe+empty_moov+delay_moov");
    let fragmented = std::fs::read(studio.path("init.mp4")).unwrap();
    put("only-init.mp4", &fragmented[..find(&fragmented, b"moof") - 4]);
    put("cut-fragment.mp4", &fragmented[..fragmented.len() * 3 / 4]);
    put("subs.en.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n");
    let names = [
        "empty.mp4",
        "tiny.mp4",
        "text.mp4",
        "cut-in-mdat.mp4",
        "cut-before-moov.mp4",
        "cut-in-moov.mp4",
        "fast-cut.mp4",
        "corrupt-stsz.mp4",
        "corrupt-stco.mp4",
        "corrupt-stsc.mp4",
        "no-timescale.mp4",
        "sample-description.mp4",
        "encrypted.mp4",
        "unknown-codec.mp4",
        "vp9.mp4",
        "mpeg4.mp4",
        "opus.mp4",
        "mp3.mp4",
        "ac3.mp4",
        "sound.mp4",
        "film.webm",
        "film.ts",
        "only-init.mp4",
        "cut-fragment.mp4",
        "subs.en.vtt",
    ];
    let messages: Vec<String> = names.iter().map(|name| refused(&studio, &[name])).collect();
    // Sizes of files depend on the encoder's version.
    let text = messages.join("\n");
    insta::assert_snapshot!(masked(&text));
}

/// Numbers of four digits and more become `N`.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out += if digits.len() > 3 { "N" } else { &digits };
        digits.clear();
        out.push(c);
    }
    out
}

fn find(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).position(|four| four == kind).unwrap()
}

/// Other bytes at some distance after the first box of this kind says its kind.
fn patched(bytes: &[u8], kind: &[u8; 4], after: usize, new: &[u8]) -> Vec<u8> {
    let place = find(bytes, kind) + 4 + after;
    let mut bytes = bytes.to_vec();
    bytes[place..place + new.len()].copy_from_slice(new);
    bytes
}

fn renamed(bytes: &[u8], old: &[u8; 4], new: &[u8; 4]) -> Vec<u8> {
    let place = bytes.windows(4).rposition(|four| four == old).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[place..place + 4].copy_from_slice(new);
    bytes
}

#[test]
fn renditions_that_do_not_align_are_named_with_their_times() {
    let studio = Studio::new();
    let with = |name: &str, seconds: f64, gop: &str| {
        studio.clip(name, seconds, &format!("-c:v libx264 -preset ultrafast {gop}"), "");
    };
    let gop = |n: u32| format!("-g {n} -keyint_min {n} -sc_threshold 0");
    with("two.mp4", 20.0, &gop(50));
    with("three.mp4", 20.0, &gop(75));
    with("odd.mp4", 20.0, "-g 500 -keyint_min 1 -sc_threshold 0 -force_key_frames 3,7.1,11.5,16");
    with("short.mp4", 15.0, &gop(50));
    studio.make("late.mp4", "-i two.mp4 -c copy -output_ts_offset 1");
    let pairs = [["two.mp4", "odd.mp4"], ["two.mp4", "short.mp4"]];
    let messages: Vec<String> = pairs.iter().map(|pair| refused(&studio, pair)).collect();
    insta::assert_snapshot!(messages.join("\n"));
    // Key frames every 2 s and every 3 s are shared every 6 s: that is enough.
    let all = studio.package(&["two.mp4", "three.mp4"]).unwrap();
    let starts = |n: usize| -> Vec<u64> {
        let track = &all[n].track;
        let scale = u64::from(track.facts.timescale);
        track.segments.iter().map(|segment| segment.start / scale).collect()
    };
    assert_eq!(starts(0), [0, 6, 12, 18]);
    assert_eq!(starts(1), starts(0));
}

fn tiny() -> &'static [Vec<u8>; 2] {
    static TINY: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    TINY.get_or_init(|| {
        let studio = Studio::new();
        let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
        let whole = read(studio.sized("a.mp4", "32x32", 10.0, 1.0, H264, AAC));
        let flags = "-i a.mp4 -c copy -movflags +empty_moov+delay_moov -frag_duration 300000";
        [whole, read(studio.make("b.mp4", flags))]
    })
}

/// Packages bytes; whatever comes of it, nothing panics and what is laid out can be written.
fn attempt(bytes: Vec<u8>) {
    let sources = vec![Source::from_bytes("film.mp4", bytes)];
    if let Ok(package) = Package::open(sources, Params::default()) {
        let _ = write_all(&package);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        which in 0usize..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        header_only in any::<bool>(),
    ) {
        let mut bytes = tiny()[which].clone();
        // Most of a file is media, where a change does nothing: aim at the boxes.
        let (from, to) = if header_only {
            let moov = find(&bytes, b"moov");
            (moov, (moov + 1800).min(bytes.len()))
        } else {
            (0, bytes.len())
        };
        for (place, value) in changes {
            bytes[from + place.index(to - from)] = value;
        }
        attempt(bytes);
    }

    #[test]
    fn cut_files_never_panic(which in 0usize..2, at in any::<prop::sample::Index>()) {
        let bytes = &tiny()[which];
        attempt(bytes[..at.index(bytes.len())].to_vec());
    }
}
