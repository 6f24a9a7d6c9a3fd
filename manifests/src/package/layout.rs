//! A track file to the byte, before any media is read: `ftyp moov sidx (moof mdat)*`.

use super::clip::Clip;
use super::{Error, time};
use crate::mp4::entry::Media;
use crate::mp4::movie::Sample;
use crate::mp4::{Fault, out};
use model::index::{Facts, Kind, Segment};
use model::{ByteRange, TrackId};

/// More segments than a `sidx` can count are refused.
pub const SEGMENTS_MAX: usize = 65_535;

/// A segment must be smaller than this, in bytes: a `sidx` has 31 bits for it.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// All that is written but the media itself.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Which source holds the media.
    pub(super) source: usize,
    pub(super) init: Vec<u8>,
    pub(super) sidx: Vec<u8>,
    /// Decode order, with the times of the track file.
    pub(super) samples: Vec<Sample>,
    /// First sample of each segment.
    pub(super) starts: Vec<usize>,
}

impl Layout {
    /// The samples of segment `n`.
    pub(super) fn samples(&self, n: usize) -> &[Sample] {
        let end = self.starts.get(n + 1).copied().unwrap_or(self.samples.len());
        &self.samples[self.starts[n]..end]
    }
}

/// Lays a track out.
///
/// # Errors
/// `TooLarge` for a segment or their number, `Corrupt` for times out of range.
pub(super) fn track(
    id: TrackId,
    file: &str,
    clip: Clip,
    starts: Vec<usize>,
    frame_rate: (u32, u32),
) -> Result<(Facts, Vec<Segment>, Layout), Error> {
    let named = |fault: Fault| fault.of_file(file);
    if starts.len() > SEGMENTS_MAX {
        let what = format!("track {}: number of segments", clip.number);
        let (value, limit) = (starts.len() as u64, SEGMENTS_MAX as u64);
        return Err(named(Fault::TooLarge { what, value, limit }));
    }
    let end = clip.end();
    let hidden = clip.hidden;
    let mut clip = clip;
    // Of video the base is not before zero; what audio has before zero is hidden.
    let first_decode_time = if clip.entry.is_video() {
        retime(&mut clip, &starts).map_err(named)?
    } else {
        u64::try_from(clip.base + hidden.cast_signed()).unwrap_or(0)
    };
    let init = out::init(&out::Init {
        video: clip.entry.is_video(),
        entry: &clip.entry.bytes,
        matrix: &clip.matrix,
        shown: &clip.shown,
        language: clip.code,
        timescale: clip.timescale,
        media_time: hidden,
    });
    let (source, samples) = (clip.source, clip.samples);
    let mut layout = Layout { source, init, sidx: Vec::new(), samples, starts };
    let init_range = ByteRange::new(0, layout.init.len() as u64);
    let sidx_range = ByteRange::new(init_range.end(), out::sidx_bytes(layout.starts.len()));
    let segments =
        segments(&layout, first_decode_time, sidx_range.end(), clip.number).map_err(named)?;
    layout.sidx = sidx(&layout, &segments, clip.timescale);
    let facts = Facts {
        id,
        kind: kind(clip.entry.media, frame_rate),
        codec: clip.entry.codec,
        language: clip.language,
        label: clip.label,
        timescale: clip.timescale,
        file_bytes: segments.last().map_or(sidx_range.end(), |last| last.range.end()),
        init: init_range,
        sidx: sidx_range,
        media_start: sidx_range.end(),
        first_decode_time,
        presentation_offset: hidden,
        duration: u64::try_from(end).unwrap_or(0),
    };
    Ok((facts, segments, layout))
}

fn kind(media: Media, frame_rate: (u32, u32)) -> Kind {
    match media {
        Media::Video { width, height, range } => Kind::Video { width, height, frame_rate, range },
        Media::Audio { channels, sample_rate } => Kind::Audio { channels, sample_rate },
    }
}

/// Gives video new decode times: within a segment the n-th sample in decode order is decoded
/// when the n-th picture is presented. So a segment's decode time is its presentation time,
/// without an edit list, whatever the source's frame rate does; offsets become signed. Answers
/// the first decode time.
fn retime(clip: &mut Clip, starts: &[usize]) -> Result<u64, Fault> {
    let times: Vec<i64> = clip.times().collect();
    let end = clip.end();
    let mut first = 0;
    for (n, start) in starts.iter().enumerate() {
        let stop = starts.get(n + 1).copied().unwrap_or(times.len());
        let mut shown = times[*start..stop].to_vec();
        shown.sort_unstable();
        if n == 0 {
            first = shown[0];
        }
        let next_start = match starts.get(n + 1) {
            Some(next) => {
                let after = starts.get(n + 2).copied().unwrap_or(times.len());
                times[*next..after].iter().copied().min().unwrap_or(end)
            }
            None => end.max(shown[shown.len() - 1] + 1),
        };
        shown.push(next_start);
        for (k, sample) in clip.samples[*start..stop].iter_mut().enumerate() {
            let (Ok(duration), Ok(shift)) = (
                u32::try_from(shown[k + 1] - shown[k]),
                i32::try_from(times[start + k] - shown[k]),
            ) else {
                let at = time::shown(time::nanos(shown[k], clip.timescale));
                return Fault::corrupt(format!("track {}: a gap at {at}", clip.number));
            };
            (sample.duration, sample.shift) = (duration, shift);
        }
    }
    match u64::try_from(first) {
        Ok(first) => Ok(first),
        Err(_) => Fault::corrupt(format!("track {}: pictures before the start", clip.number)),
    }
}

fn segments(
    layout: &Layout,
    first_decode_time: u64,
    media_start: u64,
    number: u32,
) -> Result<Vec<Segment>, Fault> {
    let (mut start, mut place) = (first_decode_time, media_start);
    let mut segments = Vec::with_capacity(layout.starts.len());
    for n in 0..layout.starts.len() {
        let samples = layout.samples(n);
        let media: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
        let bytes = out::moof_bytes(samples) + out::MDAT_HEADER_BYTES + media;
        let duration = samples.iter().map(|sample| u64::from(sample.duration)).sum();
        if bytes >= SEGMENT_BYTES_MAX || u32::try_from(duration).is_err() {
            let what = format!("track {number}: segment {n} in bytes");
            return Err(Fault::TooLarge { what, value: bytes, limit: SEGMENT_BYTES_MAX - 1 });
        }
        segments.push(Segment { start, duration, range: ByteRange::new(place, bytes) });
        start += duration;
        place += bytes;
    }
    Ok(segments)
}

fn sidx(layout: &Layout, segments: &[Segment], timescale: u32) -> Vec<u8> {
    let references: Vec<_> = segments
        .iter()
        .enumerate()
        .map(|(n, segment)| out::Reference {
            // Both were held below 2^31 and 2^32.
            bytes: u32::try_from(segment.range.bytes).unwrap_or(u32::MAX),
            duration: u32::try_from(segment.duration).unwrap_or(u32::MAX),
            first_leads: layout.samples(n)[0].shift == 0,
        })
        .collect();
    let first = segments.first().map_or(0, |segment| segment.start);
    out::sidx(timescale, first, &references)
}
