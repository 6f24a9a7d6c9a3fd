//! A source track on the title's time line: edit lists are resolved here, once and for all.
//!
//! Afterwards the presentation of a file starts at zero, all tracks of the file keep their
//! distance from each other, and only what must be decoded is left of what edits cut off.

use super::time::{self, Nanos};
use crate::mp4::Fault;
use crate::mp4::entry::Entry;
use crate::mp4::movie::{Edit, Sample, SourceTrack};

/// Audio that starts before the first picture by no more than this, in a file without edit
/// lists, is encoder delay (2,112 samples at 22,050 a second are 96 ms).
const PRIMING_MAX: Nanos = 100_000_000;

/// Audio kept before the first sample that is heard, so that a decoder is in step by then.
const PREROLL: Nanos = 100_000_000;

/// A track that ends later than this is refused, in seconds: a week.
pub const SECONDS_MAX: u64 = 7 * 24 * 3600;

/// A track whose times are those of the title.
pub(super) struct Clip {
    /// Which source.
    pub(super) source: usize,
    pub(super) number: u32,
    pub(super) entry: Entry,
    pub(super) matrix: [u8; 36],
    pub(super) shown: [u8; 8],
    pub(super) code: u16,
    pub(super) language: Option<String>,
    pub(super) label: Option<String>,
    pub(super) timescale: u32,
    /// Decode order. Of audio, `shift` is 0.
    pub(super) samples: Vec<Sample>,
    /// Decode time of the first sample on the title's time line, in ticks; the priming of
    /// audio lies before zero.
    pub(super) base: i64,
    /// Ticks at the start of the samples that are decoded and not heard.
    pub(super) hidden: u64,
}

impl Clip {
    /// Decode time of each sample.
    pub(super) fn decode_times(&self) -> impl Iterator<Item = (i64, &Sample)> {
        let mut next = self.base;
        self.samples.iter().map(move |sample| {
            let time = next;
            next += i64::from(sample.duration);
            (time, sample)
        })
    }

    /// Presentation time of each sample, in decode order.
    pub(super) fn times(&self) -> impl Iterator<Item = i64> {
        self.decode_times().map(|(time, sample)| time + i64::from(sample.shift))
    }

    /// When the presentation of the last sample ends, in ticks.
    pub(super) fn end(&self) -> i64 {
        self.decode_times()
            .map(|(time, s)| time + i64::from(s.shift) + i64::from(s.duration))
            .max()
            .unwrap_or(self.base)
    }

    pub(super) fn nanos(&self, ticks: i64) -> Nanos {
        time::nanos(ticks, self.timescale)
    }
}

/// Resolves the edits of all tracks of one file.
pub(super) fn resolve(source: usize, tracks: Vec<SourceTrack>) -> Result<Vec<Clip>, Fault> {
    let delayed = tracks.iter().any(|track| track.edit.delay > 0);
    let edited = tracks.iter().any(|track| !track.edit.is_trivial());
    let mut clips = Vec::new();
    let mut starts = Vec::new();
    for track in tracks {
        let clip = trim(source, track)?;
        let heard = clip.base + clip.hidden.cast_signed();
        let first = if clip.entry.is_video() { first_picture(&clip) } else { heard };
        starts.push((clip.entry.is_video(), clip.nanos(first)));
        clips.push(clip);
    }
    let origin = origin(&starts, edited, delayed);
    for clip in &mut clips {
        clip.base -= time::ticks(origin, clip.timescale);
        // What still lies before zero is not presented.
        if !clip.entry.is_video() && clip.base < 0 {
            clip.hidden = clip.hidden.max(clip.base.unsigned_abs());
        }
        let value = clip.nanos(clip.end()).unsigned_abs() / 1_000_000_000;
        if value > SECONDS_MAX {
            let what = format!("track {}: length in seconds", clip.number);
            return Err(Fault::TooLarge { what, value, limit: SECONDS_MAX });
        }
    }
    Ok(clips)
}

/// What becomes time zero. Where edits say when things start, they are believed. Where there
/// are none, the first picture starts the title, and the little audio before it is priming.
fn origin(starts: &[(bool, Nanos)], edited: bool, delayed: bool) -> Nanos {
    let earliest = |video: Option<bool>| {
        let wanted = starts.iter().filter(|(is_video, _)| video.is_none_or(|v| v == *is_video));
        wanted.map(|(_, start)| *start).min()
    };
    let picture = earliest(Some(true));
    let all = earliest(None).unwrap_or(0);
    if delayed {
        return picture.unwrap_or(0).min(0);
    }
    match picture {
        Some(picture) if !edited && picture - all <= PRIMING_MAX => picture,
        _ => all,
    }
}

fn first_picture(clip: &Clip) -> i64 {
    clip.times().min().unwrap_or(clip.base)
}

/// Takes off what the edit hides and nothing that is shown needs.
fn trim(source: usize, track: SourceTrack) -> Result<Clip, Fault> {
    let edit = track.edit;
    // Both are far below 2^63: the reader saw to it.
    let shift = edit.delay.cast_signed() - edit.media_time.cast_signed();
    let mut clip = Clip {
        source,
        number: track.number,
        entry: track.entry,
        matrix: track.matrix,
        shown: track.shown,
        code: track.code,
        language: track.language,
        label: track.label,
        timescale: track.timescale,
        samples: track.samples,
        base: track.start.cast_signed() + shift,
        hidden: 0,
    };
    if clip.entry.is_video() {
        trim_video(&mut clip, &edit)?;
    } else {
        trim_audio(&mut clip, &edit);
    }
    if clip.samples.is_empty() {
        return Err(Fault::Empty(format!("track {}: its edit list hides it all", clip.number)));
    }
    Ok(clip)
}

/// Starts video with the last key frame that is not after the edit's start. Pictures between
/// the two are shown though the edit hides them: a track without an edit list cannot hide.
fn trim_video(clip: &mut Clip, edit: &Edit) -> Result<(), Fault> {
    let start = edit.delay.cast_signed() + edit.slack.cast_signed();
    let cuts = super::cut::cuts(clip);
    let Some(first) = cuts.iter().rev().find(|cut| cut.time <= start).or(cuts.first()) else {
        return Fault::corrupt(format!("track {}: video without a key frame", clip.number));
    };
    drop_first(clip, first.sample);
    if let Some(duration) = edit.duration {
        let end = i64::try_from(edit.delay.saturating_add(duration)).unwrap_or(i64::MAX);
        drop_from(clip, end.saturating_add(edit.slack.cast_signed()));
    }
    Ok(())
}

/// Takes samples off the end while they start at `end` or after.
fn drop_from(clip: &mut Clip, end: i64) {
    let mut next = clip.base + clip.samples.iter().map(|s| i64::from(s.duration)).sum::<i64>();
    while let Some(last) = clip.samples.last() {
        next -= i64::from(last.duration);
        if next + i64::from(last.shift) < end {
            break;
        }
        clip.samples.pop();
    }
}

fn drop_first(clip: &mut Clip, count: usize) {
    clip.base += clip.samples[..count].iter().map(|s| i64::from(s.duration)).sum::<i64>();
    clip.samples.drain(..count);
}

fn trim_audio(clip: &mut Clip, edit: &Edit) {
    // Audio decodes in the order in which it is heard: a shift only moves it as a whole.
    clip.base += i64::from(clip.samples[0].shift);
    clip.samples.iter_mut().for_each(|sample| sample.shift = 0);
    let start = edit.delay.cast_signed();
    let keep_from = start - time::ticks(PREROLL, clip.timescale);
    let unneeded = clip.decode_times().take_while(|(t, s)| t + i64::from(s.duration) <= keep_from);
    let count = unneeded.count();
    drop_first(clip, count);
    if edit.media_time > 0 {
        clip.hidden = u64::try_from(start - clip.base).unwrap_or(0);
    }
    if let Some(duration) = edit.duration {
        let end = i64::try_from(edit.delay.saturating_add(duration)).unwrap_or(i64::MAX);
        drop_from(clip, end);
    }
}
