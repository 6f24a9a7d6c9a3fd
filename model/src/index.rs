//! The title index: every segment's time, size and place, the facts that manifests need, and
//! a BLAKE3 digest of each MiB of each track file.
//!
//! Encoded form (all integers little-endian): the magic `NCTI`, a `u16` format number, then
//! sections `tag [u8; 4] | bytes u32 | payload`. A reader skips a section whose tag starts
//! with a lower-case letter if it does not know it, and refuses one that starts with a
//! capital. The encoding is a pure function of the index: its hash is the title's version.

mod codec;

use crate::tree::Leaves;
use crate::{ByteRange, TrackId, chunk};
use serde::{Deserialize, Serialize};

pub use codec::IndexError;

/// An encoded index larger than this is refused (a 12 h title with 8 tracks takes about 1 MiB).
pub const INDEX_BYTES_MAX: usize = 64 << 20;

/// All that is known of one version of a title, but its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TitleIndex {
    /// The segment length that was aimed at, in milliseconds (a packaging parameter).
    pub segment_target_ms: u32,
    /// Video first, then audio, then text, each in the order of ingest. Ids are unique.
    pub tracks: Vec<Track>,
}

/// One track file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// What manifests say of it.
    pub facts: Facts,
    /// Segments in order; contiguous in time and in the file. Empty for text.
    pub segments: Vec<Segment>,
    /// BLAKE3 of each chunk of the file (`chunk::CHUNK_BYTES`).
    pub digests: Vec<[u8; 32]>,
}

/// The facts of a track, as they stand in the index (JSON; unknown fields are skipped).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Unique within the title.
    pub id: TrackId,
    /// Kind and what goes with it.
    pub kind: Kind,
    /// RFC 6381 codec string, `avc1.64001f`; `wvtt` for WebVTT.
    pub codec: String,
    /// BCP 47 language, where the source named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Name for people in a player's menu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Ticks a second of all times of this track.
    pub timescale: u32,
    /// Size of the track file.
    pub file_bytes: u64,
    /// Where the init segment (`ftyp`, `moov`) lies. Empty for text.
    pub init: ByteRange,
    /// Where the `sidx` box lies. Empty for text.
    pub sidx: ByteRange,
    /// Offset of the first segment's `moof`.
    pub media_start: u64,
    /// `baseMediaDecodeTime` of the first segment, in ticks.
    pub first_decode_time: u64,
    /// Media time, in ticks, of presentation time zero: the `media_time` of the init segment's
    /// edit list, which takes an audio encoder's priming away. Players follow that list, so
    /// manifests give times after it ([`Track::presented`]).
    #[serde(default)]
    pub presentation_offset: u64,
    /// Length of the track's presentation, in ticks.
    pub duration: u64,
}

/// Kind of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A video rendition.
    Video {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Frames a second, as a fraction.
        frame_rate: (u32, u32),
        /// Dynamic range, as HLS names it.
        #[serde(default)]
        range: VideoRange,
    },
    /// An audio track.
    Audio {
        /// Channels.
        channels: u16,
        /// Samples a second.
        sample_rate: u32,
    },
    /// WebVTT subtitles: the track file is one WebVTT document.
    Text,
}

/// Dynamic range of a video, in the words of HLS `VIDEO-RANGE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VideoRange {
    /// BT.709 and the like.
    #[default]
    Sdr,
    /// SMPTE ST 2084.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

/// One segment: a `moof` and its `mdat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `baseMediaDecodeTime`, in ticks of the track.
    pub start: u64,
    /// Length in ticks; segments are gapless: `start + duration` is the next one's start.
    pub duration: u64,
    /// Where it lies in the track file.
    pub range: ByteRange,
}

impl TitleIndex {
    /// The track with this id.
    #[must_use]
    pub fn track(&self, id: &TrackId) -> Option<&Track> {
        self.tracks.iter().find(|track| track.facts.id == *id)
    }

    /// Length of the longest video or audio track in milliseconds, rounded up. A subtitle that
    /// stays on past the last picture does not make the title longer.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.video().chain(self.audio()).map(Track::duration_ms).max().unwrap_or(0)
    }

    /// Bytes of all track files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tracks.iter().map(|track| track.facts.file_bytes).sum()
    }

    /// Video tracks, in order.
    pub fn video(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| matches!(track.facts.kind, Kind::Video { .. }))
    }

    /// Audio tracks, in order.
    pub fn audio(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| matches!(track.facts.kind, Kind::Audio { .. }))
    }

    /// Text tracks, in order.
    pub fn text(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| matches!(track.facts.kind, Kind::Text))
    }
}

impl Track {
    /// Length in milliseconds, rounded up.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        let scale = u128::from(self.facts.timescale.max(1));
        let ms = (u128::from(self.facts.duration) * 1000).div_ceil(scale);
        u64::try_from(ms).unwrap_or(u64::MAX)
    }

    /// Start and duration, in ticks, of what each segment adds to the presentation: as
    /// players see it once the init segment's edit list has taken the priming away.
    pub fn presented(&self) -> impl Iterator<Item = (u64, u64)> {
        let shift = self.facts.presentation_offset;
        self.segments.iter().map(move |segment| {
            let start = segment.start.saturating_sub(shift);
            (start, segment.start.saturating_add(segment.duration).saturating_sub(shift) - start)
        })
    }

    /// File name below `titles/{title}/{version}/`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.facts.id, self.extension())
    }

    /// `mp4`, or `vtt` for text.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        if matches!(self.facts.kind, Kind::Text) { "vtt" } else { "mp4" }
    }

    /// Mean bits a second over the whole track, rounded up.
    #[must_use]
    pub fn average_bandwidth(&self) -> u64 {
        let bytes = self.segments.iter().map(|segment| segment.range.bytes).sum();
        let ticks = self.segments.iter().map(|segment| segment.duration).sum();
        bits_per_second(bytes, ticks, self.facts.timescale)
    }

    /// Bits a second of the segment with the highest rate (HLS `BANDWIDTH` of RFC 8216
    /// section 4.3.4.2, with each segment taken alone), rounded up.
    #[must_use]
    pub fn peak_bandwidth(&self) -> u64 {
        let rate = |s: &Segment| bits_per_second(s.range.bytes, s.duration, self.facts.timescale);
        self.segments.iter().map(rate).max().unwrap_or(0)
    }

    /// The digest that chunk `number` of the file must have.
    #[must_use]
    pub fn digest(&self, number: u64) -> Option<&[u8; 32]> {
        self.digests.get(usize::try_from(number).ok()?)
    }

    /// The leaves of chunk `number` of this track's file, if `encoded`, of a tree file, are these.
    #[must_use]
    pub fn leaves(&self, number: u64, encoded: &[u8]) -> Option<Leaves> {
        let length = chunk::range(number, self.facts.file_bytes).bytes;
        let leaves = Leaves::decode(usize::try_from(length).ok()?, encoded)?;
        (leaves.digest().as_ref() == self.digest(number)).then_some(leaves)
    }

    /// Whether `bytes` are chunk `number` of this track's file.
    #[must_use]
    pub fn chunk_is_whole(&self, number: u64, bytes: &[u8]) -> bool {
        let length = chunk::range(number, self.facts.file_bytes).bytes;
        u64::try_from(bytes.len()) == Ok(length)
            && self.digest(number).is_some_and(|want| blake3::hash(bytes).as_bytes() == want)
    }
}

fn bits_per_second(bytes: u64, ticks: u64, timescale: u32) -> u64 {
    let bits = u128::from(bytes) * 8 * u128::from(timescale);
    u64::try_from(bits.div_ceil(u128::from(ticks.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
