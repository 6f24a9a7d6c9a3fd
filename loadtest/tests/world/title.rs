//! A synthetic title: an index with real byte ranges into files of known bytes.

use bytes::Bytes;
use model::index::{Facts, Kind, Segment, TitleIndex, Track, VideoRange};
use model::route::{self, Resource};
use model::{ByteRange, Version};

/// Segments of each video and audio track.
pub const SEGMENTS: u64 = 6;
const INIT_BYTES: u64 = 700;

/// A title and the bytes of its track files.
pub struct Title {
    pub index: TitleIndex,
    pub version: Version,
    files: Vec<Bytes>,
}

impl Title {
    /// Two renditions, two languages, one text track.
    pub fn new() -> Self {
        let video =
            |w, h| Kind::Video { width: w, height: h, frame_rate: (25, 1), range: VideoRange::Sdr };
        let audio = || Kind::Audio { channels: 2, sample_rate: 48_000 };
        let made = [
            track("v1", video(1280, 720), "avc1.64001f", 12_800, 90_000, None),
            track("v2", video(640, 360), "avc1.64001e", 12_800, 30_000, None),
            track("a-en", audio(), "mp4a.40.2", 48_000, 8_000, Some("en")),
            track("a-de", audio(), "mp4a.40.2", 48_000, 8_000, Some("de")),
            text(),
        ];
        let (tracks, files) = made.into_iter().unzip();
        let index = TitleIndex { segment_target_ms: 4000, tracks };
        let version = Version::of_index(&index.encode());
        Self { index, version, files }
    }

    /// What an edge answers at this path below the token.
    pub fn body(&self, path: &str) -> Option<Bytes> {
        let whole = format!("/~x{path}");
        let route = route::parse(&whole).ok()?;
        let slice = |id: &model::TrackId, range: ByteRange| {
            let n = self.index.tracks.iter().position(|track| track.facts.id == *id)?;
            let (start, end) = (range.start as usize, range.end() as usize);
            Some(self.files[n].slice(start..end))
        };
        let track = |id| self.index.track(id);
        match route.resource {
            Resource::Hls => Some(manifests::hls::multivariant(&self.index).into()),
            Resource::Dash => Some(manifests::dash::mpd(&self.index).into()),
            Resource::MediaPlaylist(id) => Some(manifests::hls::media(track(&id)?).into()),
            Resource::Init(id) => slice(&id, track(&id)?.facts.init),
            Resource::Segment(id, n) => slice(&id, track(&id)?.segments.get(n as usize)?.range),
            Resource::Text(id) | Resource::File(id) => {
                slice(&id, ByteRange::new(0, track(&id)?.facts.file_bytes))
            }
            Resource::Steering => None,
        }
    }
}

fn noise(bytes: u64, mut seed: u64) -> Bytes {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect::<Vec<u8>>().into()
}

fn facts(id: &str, kind: Kind, codec: &str, timescale: u32, file_bytes: u64) -> Facts {
    Facts {
        id: id.parse().unwrap(),
        kind,
        codec: codec.into(),
        language: None,
        label: None,
        timescale,
        file_bytes,
        init: ByteRange::new(0, INIT_BYTES),
        sidx: ByteRange::default(),
        media_start: INIT_BYTES,
        first_decode_time: 0,
        presentation_offset: 0,
        duration: SEGMENTS * 4 * u64::from(timescale),
    }
}

fn track(
    id: &str,
    kind: Kind,
    codec: &str,
    timescale: u32,
    segment_bytes: u64,
    language: Option<&str>,
) -> (Track, Bytes) {
    let mut segments = Vec::new();
    let (mut offset, duration) = (INIT_BYTES, 4 * u64::from(timescale));
    for n in 0..SEGMENTS {
        let bytes = segment_bytes + n * 13;
        let range = ByteRange::new(offset, bytes);
        segments.push(Segment { start: n * duration, duration, range });
        offset += bytes;
    }
    let mut facts = facts(id, kind, codec, timescale, offset);
    facts.language = language.map(str::to_owned);
    (Track { facts, segments, digests: vec![] }, noise(offset, segment_bytes + id.len() as u64))
}

fn text() -> (Track, Bytes) {
    let body = Bytes::from_static(b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n");
    let mut facts = facts("s-en", Kind::Text, "wvtt", 1000, body.len() as u64);
    facts.init = ByteRange::default();
    (Track { facts, segments: vec![], digests: vec![] }, body)
}
