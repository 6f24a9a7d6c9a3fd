//! What the renderers write: snapshots, and a round trip through parsers that are not ours.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use model::index::{Facts, Kind, Segment, TitleIndex, Track, VideoRange};
use model::{ByteRange, TrackId};
use nearcast_manifests::{dash, hls};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn track(id: &str, kind: Kind, codec: &str, timescale: u32, segments: &[(u64, u64)]) -> Track {
    let mut list = Vec::new();
    let (mut start, mut offset) = (0, 900);
    for (duration, bytes) in segments {
        list.push(Segment { start, duration: *duration, range: ByteRange::new(offset, *bytes) });
        start += duration;
        offset += bytes;
    }
    Track {
        facts: Facts {
            id: id.parse().unwrap(),
            kind,
            codec: codec.into(),
            language: None,
            label: None,
            timescale,
            file_bytes: offset,
            init: ByteRange::new(0, 800),
            sidx: ByteRange::new(800, 100),
            media_start: 900,
            first_decode_time: 0,
            presentation_offset: 0,
            duration: start,
        },
        segments: list,
        digests: vec![],
    }
}

fn video(width: u32, height: u32, rate: (u32, u32)) -> Kind {
    Kind::Video { width, height, frame_rate: rate, range: VideoRange::Sdr }
}

fn spoken(mut track: Track, language: &str, label: &str) -> Track {
    track.facts.language = Some(language.into());
    track.facts.label = Some(label.into());
    track
}

fn text(id: &str, duration_ms: u64) -> Track {
    let mut track = track(id, Kind::Text, "wvtt", 1000, &[]);
    track.facts.duration = duration_ms;
    track.facts.file_bytes = 500;
    track
}

/// 23.976 frames a second cut at 96 frames, audio cut beside it, names that need care.
fn film() -> TitleIndex {
    let shots: Vec<(u64, u64)> =
        (0..5).map(|n| (if n == 4 { 48_048 } else { 96_096 }, 200_000 + n * 7_001)).collect();
    let small: Vec<(u64, u64)> = shots.iter().map(|(d, b)| (*d, b / 4)).collect();
    let sound: Vec<(u64, u64)> =
        [192_512, 191_488, 192_512, 191_488, 96_256].map(|d| (d, d / 3)).to_vec();
    let aac = Kind::Audio { channels: 2, sample_rate: 48_000 };
    let mut english =
        spoken(track("a-en", aac.clone(), "mp4a.40.2", 48_000, &sound), "en", "English");
    english.facts.presentation_offset = 1024;
    let mut german = spoken(track("a-de", aac, "mp4a.40.2", 48_000, &sound), "de", "Deutsch");
    german.facts.presentation_offset = 1024;
    TitleIndex {
        segment_target_ms: 4000,
        tracks: vec![
            track("v1", video(1280, 720, (24_000, 1001)), "avc1.64001f", 24_000, &shots),
            track("v2", video(640, 360, (24_000, 1001)), "avc1.64001e", 24_000, &small),
            english,
            german,
            spoken(text("s-en", 18_018), "en", "English \"SDH\" <&>"),
        ],
    }
}

/// HDR beside SDR, a second audio codec, a timeline of its own, two tracks with one name.
fn odd() -> TitleIndex {
    let mut index = film();
    let mut hdr =
        track("v3", video(1920, 1080, (50, 1)), "hvc1.2.4.L123.b0", 50, &[(200, 9), (201, 8)]);
    if let Kind::Video { range, .. } = &mut hdr.facts.kind {
        *range = VideoRange::Pq;
    }
    index.tracks.push(hdr);
    index.tracks.push(track(
        "v4",
        video(854, 480, (25, 1)),
        "avc1.64001f",
        25,
        &[(100, 9), (100, 8)],
    ));
    let surround = Kind::Audio { channels: 6, sample_rate: 48_000 };
    let ac3 = track("a3", surround.clone(), "ac-3", 48_000, &[(192_000, 9), (192_000, 8)]);
    index.tracks.push(spoken(ac3.clone(), "en", "English"));
    let mut other = spoken(ac3, "en", "English");
    other.facts.id = "a4".parse().unwrap();
    index.tracks.push(other);
    index
}

#[test]
fn snapshots() {
    let film = film();
    insta::assert_snapshot!("film_multivariant", hls::multivariant(&film));
    insta::assert_snapshot!("film_media_video", hls::media(&film.tracks[0]));
    insta::assert_snapshot!("film_media_audio", hls::media(&film.tracks[2]));
    insta::assert_snapshot!("film_media_text", hls::media(&film.tracks[4]));
    insta::assert_snapshot!("film_mpd", dash::mpd(&film));
    insta::assert_snapshot!("odd_multivariant", hls::multivariant(&odd()));
    insta::assert_snapshot!("odd_mpd", dash::mpd(&odd()));
}

#[test]
fn titles_with_audio_alone_or_video_alone_have_variants() {
    let only = |keep: fn(&Kind) -> bool| {
        let mut index = film();
        index.tracks.retain(|track| keep(&track.facts.kind));
        hls::multivariant(&index)
    };
    insta::assert_snapshot!("audio_alone", only(|kind| matches!(kind, Kind::Audio { .. })));
    insta::assert_snapshot!("video_alone", only(|kind| matches!(kind, Kind::Video { .. })));
}

#[test]
fn m3u8_rs_reads_what_was_meant() {
    let index = film();
    let text = hls::multivariant(&index);
    let playlist = m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap();
    assert!(playlist.independent_segments);
    assert_eq!(playlist.variants.len(), 2);
    assert_eq!(playlist.alternatives.len(), 3);
    let (variant, video, audio) = (&playlist.variants[0], &index.tracks[0], &index.tracks[2]);
    assert_eq!(variant.uri, "v1.m3u8");
    assert_eq!(variant.bandwidth, video.peak_bandwidth() + audio.peak_bandwidth());
    assert_eq!(
        variant.average_bandwidth,
        Some(video.average_bandwidth() + audio.average_bandwidth())
    );
    assert_eq!(variant.codecs.as_deref(), Some("avc1.64001f,mp4a.40.2"));
    let size = variant.resolution.unwrap();
    assert_eq!((size.width, size.height), (1280, 720));
    assert_eq!(variant.frame_rate, Some(23.976));
    assert_eq!(variant.audio.as_deref(), Some("audio-0"));
    assert_eq!(variant.subtitles.as_deref(), Some("text"));
    let defaults: Vec<bool> = playlist.alternatives.iter().map(|media| media.default).collect();
    assert_eq!(defaults, [true, false, false]);
    assert_eq!(playlist.alternatives[1].language.as_deref(), Some("de"));
    assert_eq!(playlist.alternatives[0].channels.as_deref(), Some("2"));

    let media = m3u8_rs::parse_media_playlist_res(hls::media(video).as_bytes()).unwrap();
    assert!(media.end_list && media.target_duration == 4 && media.segments.len() == 5);
    assert_eq!(media.segments[0].map.as_ref().unwrap().uri, "v1/init.mp4");
    assert_eq!(media.segments[4].uri, "v1/4.m4s");
    let text = m3u8_rs::parse_media_playlist_res(hls::media(&index.tracks[4]).as_bytes()).unwrap();
    assert_eq!((text.segments.len(), text.target_duration), (1, 19));
    assert_eq!(text.segments[0].uri, "s-en.vtt");
}

#[test]
fn dash_mpd_core_reads_what_was_meant() {
    let index = odd();
    let mpd = dash_mpd_core::parse(&dash::mpd(&index)).unwrap();
    assert_eq!(mpd.mpdtype.as_deref(), Some("static"));
    assert_eq!(mpd.mediaPresentationDuration, Some(Duration::from_millis(index.duration_ms())));
    assert_eq!(mpd.base_url[0].serviceLocation.as_deref(), Some("."));
    let steering = &mpd.ServiceDescription[0].ContentSteering[0];
    assert_eq!(steering.defaultServiceLocation.as_deref(), Some("."));
    let sets = &mpd.periods[0].adaptations;
    let ids: Vec<Vec<&str>> = sets
        .iter()
        .map(|set| set.representations.iter().filter_map(|r| r.id.as_deref()).collect())
        .collect();
    let want: [&[&str]; 7] =
        [&["v1", "v2"], &["v3"], &["v4"], &["a-en"], &["a-de"], &["a3", "a4"], &["s-en"]];
    assert_eq!(ids, want);
    let text = sets[6].Label[0].content.as_str();
    assert_eq!(text, "English \"SDH\" <&>");
    assert_eq!(sets[6].representations[0].BaseURL[0].base, "s-en.vtt");
}

/// Start and duration of every segment of a representation, as dash-mpd-core reads them.
fn timeline(mpd: &str, id: &TrackId) -> Vec<(u64, u64)> {
    let mpd = dash_mpd_core::parse(mpd).unwrap();
    let sets = &mpd.periods[0].adaptations;
    let (set, representation) = sets
        .iter()
        .flat_map(|set| set.representations.iter().map(move |r| (set, r)))
        .find(|(_, r)| r.id.as_deref() == Some(id.as_str()))
        .unwrap();
    let template =
        representation.SegmentTemplate.as_ref().or(set.SegmentTemplate.as_ref()).unwrap();
    assert_eq!(template.startNumber, Some(0));
    let (mut segments, mut time) = (Vec::new(), 0);
    for run in &template.SegmentTimeline.as_ref().unwrap().segments {
        time = run.t.unwrap_or(time);
        for _ in 0..=run.r.unwrap_or(0) {
            segments.push((time, run.d));
            time += run.d;
        }
    }
    assert_eq!(template.presentationTimeOffset, None);
    segments
}

/// `EXTINF` values in microseconds, read without floating point.
fn extinf(playlist: &str) -> Vec<u64> {
    let value = |line: &str| {
        let (whole, part) = line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.split_once('.')?;
        assert_eq!(part.len(), 6);
        Some(whole.parse::<u64>().unwrap() * 1_000_000 + part.parse::<u64>().unwrap())
    };
    playlist.lines().filter_map(value).collect()
}

proptest! {
    #[test]
    fn times_equal_the_ticks(
        timescale in 1u32..200_000,
        first in 0u64..1 << 40,
        offset in 0u64..5000,
        seconds in proptest::collection::vec((1u64..10_000_000, 1u64..1 << 24), 1..200),
    ) {
        // Durations of about 1 ms to 10 s, whatever the timescale.
        let scaled = |millionths: u64| (millionths * u64::from(timescale)).div_ceil(1_000_000);
        let segments: Vec<(u64, u64)> = seconds.iter().map(|(d, b)| (scaled(*d), *b)).collect();
        let mut track = track("v1", video(16, 16, (25, 1)), "avc1.64001e", timescale, &segments);
        track.facts.first_decode_time = first;
        // Priming is shorter than the first segment.
        let offset = offset % segments[0].0;
        track.facts.presentation_offset = offset;
        track.segments.iter_mut().for_each(|segment| segment.start += first);
        let index = TitleIndex { segment_target_ms: 4000, tracks: vec![track] };
        let track = &index.tracks[0];

        let read = timeline(&dash::mpd(&index), &track.facts.id);
        let want: Vec<(u64, u64)> = track.presented().collect();
        let all: u64 = want.iter().map(|(_, duration)| duration).sum();
        let end = track.segments.last().map_or(0, |s| s.start + s.duration);
        prop_assert_eq!(all, end - offset.max(first));
        prop_assert_eq!(read, want);

        let playlist = hls::media(track);
        let (mut micros, mut ticks) = (0u128, 0u128);
        let read = extinf(&playlist);
        prop_assert_eq!(read.len(), track.segments.len());
        for (extinf, (_, duration)) in read.iter().zip(track.presented()) {
            micros += u128::from(*extinf);
            ticks += u128::from(duration);
            // Off by half a microsecond at most, however many segments went before.
            let exact = ticks * 2_000_000;
            let off = exact.abs_diff(micros * 2 * u128::from(timescale));
            prop_assert!(off <= u128::from(timescale), "{micros} µs for {ticks} ticks");
        }
        let target: u64 = playlist
            .lines()
            .find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")?.parse().ok())
            .unwrap();
        prop_assert!(read.iter().all(|micros| (micros + 500_000) / 1_000_000 <= target));
    }

    #[test]
    fn no_name_breaks_out_of_its_quotes(label in "\\PC{0,20}|[\"<&\r\n,#]{1,10}", language in "[a-z\"<\n]{0,6}") {
        let mut index = film();
        index.tracks[2].facts.label = Some(label.clone());
        index.tracks[2].facts.language = Some(language);
        let lines = hls::multivariant(&film()).lines().count();
        prop_assert_eq!(hls::multivariant(&index).lines().count(), lines);
        prop_assert!(dash_mpd_core::parse(&dash::mpd(&index)).is_ok());
        prop_assert!(m3u8_rs::parse_master_playlist_res(hls::multivariant(&index).as_bytes()).is_ok());
    }
}

#[test]
fn twelve_hours_with_eight_tracks_render_at_once() {
    let aac = Kind::Audio { channels: 2, sample_rate: 48_000 };
    // Durations that never repeat: the longest timeline there can be.
    let segments: Vec<(u64, u64)> =
        (0..10_800).map(|n| (192_000 + n % 2 * 1024, 500_000 + n)).collect();
    let tracks = (0..8)
        .map(|n| {
            let (kind, codec) = match n {
                0..6 => (video(1280, 720, (60, 1)), "avc1.64001f"),
                _ => (aac.clone(), "mp4a.40.2"),
            };
            track(&format!("t{n}"), kind, codec, 48_000, &segments)
        })
        .collect();
    let index = TitleIndex { segment_target_ms: 4000, tracks };
    let started = Instant::now();
    let mpd = dash::mpd(&index);
    let playlists: usize = index.tracks.iter().map(|track| hls::media(track).len()).sum();
    let bytes = mpd.len() + playlists + hls::multivariant(&index).len();
    // Unoptimised on a busy machine; benches measure it.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(bytes > 2_000_000);
    assert_eq!(mpd, dash::mpd(&index));
}
