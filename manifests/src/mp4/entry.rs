//! Sample entries: which codec, its RFC 6381 string, and the entry as it will stand in an init
//! segment. Boxes that are not understood are kept as they are.

mod audio;
mod video;

use super::Fault;
use super::bytes::{Box, fourcc, need};
use model::index::VideoRange;

/// What is packaged, as messages say it.
pub(crate) const ACCEPTED: &str =
    "video in H.264 (avc1, avc3), HEVC (hvc1, hev1) or AV1 (av01), audio in AAC (mp4a)";

/// A track's sample entry, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// RFC 6381.
    pub(crate) codec: String,
    pub(crate) media: Media,
    /// The box for the init segment.
    pub(crate) bytes: Vec<u8>,
}

/// Figures of a sample entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Video { width: u32, height: u32, range: VideoRange },
    Audio { channels: u16, sample_rate: u32 },
}

impl Entry {
    pub(crate) fn is_video(&self) -> bool {
        matches!(self.media, Media::Video { .. })
    }
}

/// Reads the one entry of an `stsd`. `first_sample` is asked for the first bytes of the
/// track's first sample, where parameter sets are in the samples alone.
pub(crate) fn read(
    stsd: Box<'_>,
    track: u32,
    first_sample: &dyn Fn() -> Result<Vec<u8>, Fault>,
) -> Result<Entry, Fault> {
    let mut cursor = stsd.cursor();
    cursor.version_flags()?;
    let count = cursor.rows(8)?;
    let mut entries = super::bytes::boxes(cursor.rest());
    let Some(entry) = entries.next().transpose()? else {
        return Fault::corrupt(format!("track {track} has no sample description"));
    };
    if count != 1 {
        return Err(Fault::Unsupported {
            what: format!("track {track}: {count} sample descriptions in one track"),
            accepted: "one codec configuration for a whole track",
        });
    }
    match &entry.kind {
        b"avc1" | b"avc3" => video::h264(entry),
        b"hvc1" | b"hev1" => video::hevc(entry, first_sample),
        b"av01" => video::av1(entry),
        b"mp4a" => audio::aac(entry, track),
        b"encv" | b"enca" => Err(encrypted(entry, track)),
        other => Err(unsupported(track, &described(*other))),
    }
}

fn unsupported(track: u32, codec: &str) -> Fault {
    Fault::Unsupported { what: format!("track {track}: codec {codec}"), accepted: ACCEPTED }
}

fn encrypted(entry: Box<'_>, track: u32) -> Fault {
    let children = if entry.kind == *b"encv" { video::HEADER } else { audio::HEADER };
    let frma = entry.body.get(children..).and_then(|children| {
        let sinf = need(children, b"sinf").ok()?;
        need(sinf.body, b"frma").ok()?.cursor().array::<4>().ok()
    });
    let original = frma.map_or_else(|| "an unknown codec".to_owned(), described);
    Fault::Unsupported {
        what: format!("track {track}: encrypted ({} of {original})", fourcc(entry.kind)),
        accepted: "tracks in the clear",
    }
}

/// A codec's four characters, and its name where people know it by another.
fn described(kind: [u8; 4]) -> String {
    let name = match &kind {
        b"vp08" => " (VP8)",
        b"vp09" => " (VP9)",
        b"mp4v" => " (MPEG-4 Visual)",
        b"avc1" => " (H.264)",
        b"hvc1" | b"hev1" => " (HEVC)",
        b"dvh1" | b"dvhe" => " (Dolby Vision without a compatible base)",
        b"ac-3" => " (Dolby Digital)",
        b"ec-3" => " (Dolby Digital Plus)",
        b"fLaC" => " (FLAC)",
        b".mp3" => " (MP3)",
        b"jpeg" | b"mjpa" | b"mjpb" => " (Motion JPEG)",
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" => " (ProRes)",
        b"mp4a" => " (AAC)",
        _ => "",
    };
    fourcc(kind) + name
}

/// A box of these parts.
pub(super) fn make(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let bytes = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(bytes);
    // A box made here is smaller than the moov that its parts came from.
    out.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&kind);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;
