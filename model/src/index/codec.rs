//! Index to bytes and back. Decoding bytes from outside takes memory in proportion to them.

use super::{Facts, INDEX_BYTES_MAX, Segment, TitleIndex, Track};
use crate::{ByteRange, chunk};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

const MAGIC: &[u8; 4] = b"NCTI";
const FORMAT: u16 = 1;
/// JSON: packaging parameters and the facts of each track.
const HEAD: &[u8; 4] = b"HEAD";
/// For each track a varint count, then a varint duration and a varint size per segment.
const SEGMENTS: &[u8; 4] = b"SEGS";
/// For each track the digests of its chunks, 32 bytes each.
const DIGESTS: &[u8; 4] = b"DIGS";

/// Why bytes are not an index that this reader can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Cut short, inconsistent, or not an index at all.
    #[error("the title index is corrupt: {0}")]
    Corrupt(String),
    /// Written by a later release in a way that this one can't read.
    #[error("the title index needs a newer nearcast: {0}")]
    TooNew(String),
}

fn corrupt(what: impl Into<String>) -> IndexError {
    IndexError::Corrupt(what.into())
}

#[derive(Serialize, Deserialize)]
struct Head {
    segment_target_ms: u32,
    tracks: Vec<Facts>,
}

impl TitleIndex {
    /// The canonical bytes of this index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            segment_target_ms: self.segment_target_ms,
            tracks: self.tracks.iter().map(|track| track.facts.clone()).collect(),
        };
        let head = serde_json::to_vec(&head).expect("plain data always serialises");
        let mut segments = Vec::new();
        let mut digests = Vec::new();
        for track in &self.tracks {
            put_varint(&mut segments, track.segments.len() as u64);
            for segment in &track.segments {
                put_varint(&mut segments, segment.duration);
                put_varint(&mut segments, segment.range.bytes);
            }
            digests.extend(track.digests.iter().flatten());
        }
        let mut out = Vec::with_capacity(64 + head.len() + segments.len() + digests.len());
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        for (tag, payload) in [(HEAD, head), (SEGMENTS, segments), (DIGESTS, digests)] {
            out.extend(tag);
            out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(payload);
        }
        out
    }

    /// Reads an encoded index and checks that it is consistent: ids unique, segments within
    /// their files, a digest for each chunk.
    ///
    /// # Errors
    /// [`IndexError`] names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(corrupt(format!("{} bytes; at most {INDEX_BYTES_MAX}", bytes.len())));
        }
        let (head, mut segments, mut digests) = sections(bytes)?;
        let head: Head =
            serde_json::from_slice(head).map_err(|error| corrupt(format!("head: {error}")))?;
        let mut ids = HashSet::new();
        let mut tracks = Vec::with_capacity(head.tracks.len());
        for facts in head.tracks {
            if !ids.insert(facts.id.clone()) {
                return Err(corrupt(format!("two tracks are named {}", facts.id)));
            }
            tracks.push(decode_track(facts, &mut segments, &mut digests)?);
        }
        if !segments.is_empty() || !digests.is_empty() {
            return Err(corrupt("bytes are left over after the last track"));
        }
        Ok(Self { segment_target_ms: head.segment_target_ms, tracks })
    }
}

type Sections<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn sections(bytes: &[u8]) -> Result<Sections<'_>, IndexError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not start with NCTI"))?;
    let (format, mut rest) = rest.split_first_chunk().ok_or_else(|| corrupt("it is cut short"))?;
    let format = u16::from_le_bytes(*format);
    if format != FORMAT {
        return Err(IndexError::TooNew(format!("format {format}, this release reads {FORMAT}")));
    }
    let (mut head, mut segments, mut digests) = (None, None, None);
    while !rest.is_empty() {
        let (tag, after) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("section tag"))?;
        let (length, after) =
            after.split_first_chunk::<4>().ok_or_else(|| corrupt("section length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = after.get(..length).ok_or_else(|| corrupt("a section is cut short"))?;
        rest = &after[length..];
        let slot = match tag {
            HEAD => &mut head,
            SEGMENTS => &mut segments,
            DIGESTS => &mut digests,
            [b'a'..=b'z', ..] => continue,
            _ => {
                let tag = String::from_utf8_lossy(tag).into_owned();
                return Err(IndexError::TooNew(format!("section {tag:?}")));
            }
        };
        if slot.replace(payload).is_some() {
            return Err(corrupt("a section stands twice"));
        }
    }
    match (head, segments, digests) {
        (Some(head), Some(segments), Some(digests)) => Ok((head, segments, digests)),
        _ => Err(corrupt("a section is missing")),
    }
}

fn decode_track(
    facts: Facts,
    segments: &mut &[u8],
    digests: &mut &[u8],
) -> Result<Track, IndexError> {
    let broken = |what: &str| corrupt(format!("track {}: {what}", facts.id));
    if facts.timescale == 0 {
        return Err(broken("timescale 0"));
    }
    if !facts.init.fits(facts.file_bytes) || !facts.sidx.fits(facts.file_bytes) {
        return Err(broken("a range past the end of its file"));
    }
    let count = take_varint(segments).ok_or_else(|| broken("segment count"))?;
    // Two bytes is the least that a segment takes: the count can't outgrow the input.
    if count > (segments.len() / 2) as u64 {
        return Err(broken("more segments than bytes"));
    }
    let mut list = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let (mut start, mut offset) = (facts.first_decode_time, facts.media_start);
    for _ in 0..count {
        let duration = take_varint(segments).ok_or_else(|| broken("segment"))?;
        let bytes = take_varint(segments).ok_or_else(|| broken("segment"))?;
        let range = ByteRange::new(offset, bytes);
        if duration == 0 || bytes == 0 || !range.fits(facts.file_bytes) {
            return Err(broken("an empty segment, or one past the end of its file"));
        }
        list.push(Segment { start, duration, range });
        offset = range.end();
        start = start.checked_add(duration).ok_or_else(|| broken("time overflows"))?;
    }
    let chunks = chunk::count(facts.file_bytes);
    let length = usize::try_from(chunks).ok().and_then(|chunks| chunks.checked_mul(32));
    let (mine, rest) = length
        .and_then(|length| digests.split_at_checked(length))
        .ok_or_else(|| broken("digests are missing"))?;
    *digests = rest;
    let digests = mine.as_chunks().0.to_vec();
    Ok(Track { facts, segments: list, digests })
}

/// LEB128.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
