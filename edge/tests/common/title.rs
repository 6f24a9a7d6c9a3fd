//! A synthetic title: tracks of pseudo-random bytes, with an index that is true of them.

use bytes::Bytes;
use model::index::{Facts, Kind, Segment};
use model::{ByteRange, TitleIndex, Track, Version, chunk};
use std::collections::HashMap;

/// A title as a store would hold it.
#[derive(Clone)]
pub struct Film {
    pub index: TitleIndex,
    pub encoded: Bytes,
    pub version: Version,
    /// By file name.
    pub files: HashMap<String, Bytes>,
}

impl Film {
    /// The bytes that a segment must have.
    pub fn segment(&self, track: &str, number: usize) -> Bytes {
        let track = self.index.track(&track.parse().unwrap()).unwrap();
        self.part(&track.file_name(), track.segments[number].range)
    }

    pub fn part(&self, file: &str, range: ByteRange) -> Bytes {
        let (start, end) = (range.start as usize, range.end() as usize);
        self.files[file].slice(start..end)
    }
}

fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect::<Vec<u8>>().into()
}

fn track(id: &str, kind: Kind, codec: &str, file: &Bytes, segments: usize) -> Track {
    let bytes = file.len() as u64;
    let media_start = if segments == 0 { 0 } else { 1500 };
    let each = if segments == 0 { 0 } else { (bytes - media_start) / segments as u64 };
    let range = |n: u64| {
        let start = media_start + n * each;
        let end = if n + 1 == segments as u64 { bytes } else { start + each };
        ByteRange::new(start, end - start)
    };
    let segment = |n: u64| Segment { start: n * 4000, duration: 4000, range: range(n) };
    let part = |start, bytes| {
        if segments == 0 { ByteRange::default() } else { ByteRange::new(start, bytes) }
    };
    Track {
        facts: Facts {
            id: id.parse().unwrap(),
            kind,
            codec: codec.to_owned(),
            language: Some("en".into()),
            label: None,
            timescale: 1000,
            file_bytes: bytes,
            init: part(0, 1000),
            sidx: part(1000, 500),
            media_start,
            first_decode_time: 0,
            presentation_offset: 0,
            duration: 4000 * segments.max(1) as u64,
        },
        segments: (0..segments as u64).map(segment).collect(),
        digests: file
            .chunks(chunk::CHUNK_BYTES as usize)
            .map(|chunk| *blake3::hash(chunk).as_bytes())
            .collect(),
    }
}

fn tree(file: &[u8]) -> Bytes {
    let mut hasher = model::tree::Hasher::default();
    hasher.update(file);
    hasher.finish().tree.into()
}

fn moving() -> Kind {
    let range = model::index::VideoRange::Sdr;
    Kind::Video { width: 1280, height: 720, frame_rate: (25, 1), range }
}

/// `v0.mp4` and so on of `bytes` each, and `other.mp4` of as many as are said. There are but a few
/// contents for all of them.
pub fn films(count: usize, bytes: usize, other: usize) -> Film {
    let contents: Vec<Bytes> = (1..6).map(|seed| noise(seed, bytes)).collect();
    let mut named: Vec<(String, Bytes)> =
        (0..count).map(|it| (format!("v{it}"), contents[it % contents.len()].clone())).collect();
    named.push(("other".into(), noise(7, other)));
    let tracks = named.iter().map(|(id, bytes)| track(id, moving(), "avc1.64001f", bytes, 8));
    let index = TitleIndex { segment_target_ms: 4000, tracks: tracks.collect() };
    let encoded: Bytes = index.encode().into();
    let mut files = HashMap::new();
    for (id, bytes) in named {
        files.insert(format!("{id}.tree"), tree(&bytes));
        files.insert(format!("{id}.mp4"), bytes);
    }
    Film { version: Version::of_index(&encoded), index, encoded, files }
}

/// `v1.mp4` of 40 MiB and some bytes in 8 segments (5 MiB each, so six chunks), `a1.mp4` of
/// 600 KB in 8, and `s-en.vtt`; the first has a tree file.
pub fn film() -> Film {
    let video = noise(1, (40 << 20) + 12_345);
    let audio = noise(2, 600_000);
    let text = Bytes::from_static(b"WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n");
    let index = TitleIndex {
        segment_target_ms: 4000,
        tracks: vec![
            track("v1", moving(), "avc1.64001f", &video, 8),
            track("a1", Kind::Audio { channels: 2, sample_rate: 48_000 }, "mp4a.40.2", &audio, 8),
            track("s-en", Kind::Text, "wvtt", &text, 0),
        ],
    };
    let encoded: Bytes = index.encode().into();
    let tree = ("v1.tree", tree(&video));
    let named = [("v1.mp4", video), ("a1.mp4", audio), ("s-en.vtt", text), tree];
    let files = named.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    Film { version: Version::of_index(&encoded), index, encoded, files }
}
