//! What the benches work on. Each bench stands beside the limit that it is held against, so
//! that one run on any machine gives the ratio.

use model::ByteRange;
use model::index::{Facts, Kind, Segment, TitleIndex, Track, VideoRange};

/// A title of `hours` in segments of about 4 s: six renditions, two languages, one text track.
/// Audio segments alternate in length, as they do beside video, so its timeline has no runs.
#[must_use]
pub fn film(hours: u64) -> TitleIndex {
    let count = hours * 900;
    let heights = [2160, 1440, 1080, 720, 480, 270];
    let mut tracks: Vec<Track> = heights
        .iter()
        .map(|height| {
            let kind = Kind::Video {
                width: height * 16 / 9,
                height: *height,
                frame_rate: (24_000, 1001),
                range: VideoRange::Sdr,
            };
            let segments = (0..count).map(|n| (96_096, u64::from(*height) * 1_000 + n % 977));
            track(&format!("v{height}"), kind, "avc1.640033", 24_000, None, segments)
        })
        .collect();
    for language in ["en", "de"] {
        let kind = Kind::Audio { channels: 2, sample_rate: 48_000 };
        let segments = (0..count).map(|n| (191_488 + n % 2 * 1024, 64_000 + n % 499));
        let id = format!("a-{language}");
        tracks.push(track(&id, kind, "mp4a.40.2", 48_000, Some(language), segments));
    }
    let mut text = track("s-en", Kind::Text, "wvtt", 1000, Some("en"), std::iter::empty());
    text.facts.duration = hours * 3_600_000;
    tracks.push(text);
    TitleIndex { segment_target_ms: 4000, tracks }
}

/// A track with these segments (duration in ticks, bytes), without digests.
///
/// # Panics
/// If `id` is not a track's name.
pub fn track(
    id: &str,
    kind: Kind,
    codec: &str,
    timescale: u32,
    language: Option<&str>,
    segments: impl Iterator<Item = (u64, u64)>,
) -> Track {
    let (mut start, mut offset) = (0, 1000);
    let segments: Vec<Segment> = segments
        .map(|(duration, bytes)| {
            let segment = Segment { start, duration, range: ByteRange::new(offset, bytes) };
            start += duration;
            offset += bytes;
            segment
        })
        .collect();
    Track {
        facts: Facts {
            id: id.parse().expect("the caller names a track"),
            kind,
            codec: codec.to_owned(),
            language: language.map(str::to_owned),
            label: None,
            timescale,
            file_bytes: offset,
            init: ByteRange::new(0, 900),
            sidx: ByteRange::new(900, 100),
            media_start: 1000,
            first_decode_time: 0,
            presentation_offset: 0,
            duration: start,
        },
        segments,
        digests: Vec::new(),
    }
}
