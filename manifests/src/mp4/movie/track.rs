//! The header of one track: who it is, and how its media lies on the presentation's time line.

use super::super::Fault;
use super::super::bytes::{Box, find, fourcc, need};
use super::super::entry::{self, Entry};
use super::super::fragments::Growing;
use super::SourceTrack;
use crate::package::names;

/// More rows than this in an edit list are refused (most files have one or two).
const EDITS_MAX: usize = 64;

/// An edit list with a time above this is corrupt, in ticks: sums of times must stay below 2^63.
const EDIT_MAX: u64 = 1 << 59;

/// Longest name of a track that is kept, in bytes.
const LABEL_BYTES_MAX: usize = 200;

/// An edit list of at most empty edits and then one media edit, in ticks of the track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// How long nothing is presented at first.
    pub(crate) delay: u64,
    /// Media time that is presented first.
    pub(crate) media_time: u64,
    /// How much of the media is presented; none for all that follows.
    pub(crate) duration: Option<u64>,
    /// One tick of the movie's time scale, in which durations were rounded.
    pub(crate) slack: u64,
}

impl Edit {
    /// Whether the edit list moves nothing.
    pub(crate) fn is_trivial(&self) -> bool {
        self.delay == 0 && self.media_time == 0
    }
}

/// A `trak` but for its samples.
pub(super) struct Header<'a> {
    pub(super) number: u32,
    pub(super) stbl: Box<'a>,
    handler: [u8; 4],
    matrix: [u8; 36],
    shown: [u8; 8],
    code: u16,
    language: Option<String>,
    label: Option<String>,
    timescale: u32,
    edit: Edit,
}

impl<'a> Header<'a> {
    pub(super) fn read(trak: Box<'a>, movie_timescale: u32) -> Result<Self, Fault> {
        let (number, matrix, shown) = tkhd(need(trak.body, b"tkhd")?)?;
        let mdia = need(trak.body, b"mdia")?;
        let (timescale, code) = mdhd(need(mdia.body, b"mdhd")?)?;
        let minf = need(mdia.body, b"minf")?;
        let mut hdlr = need(mdia.body, b"hdlr")?.cursor();
        hdlr.skip(8)?;
        let handler = hdlr.array()?;
        hdlr.skip(12)?;
        let name = label(trak)?.or_else(|| names::handler_label(hdlr.rest()));
        let mut header = Self {
            number,
            stbl: need(minf.body, b"stbl")?,
            handler,
            matrix,
            shown,
            code,
            language: elng(mdia)?.or_else(|| names::language(code)),
            label: name.filter(|name| name.len() <= LABEL_BYTES_MAX),
            timescale,
            edit: Edit::default(),
        };
        if header.is_media() {
            header.edit = header.edits(trak, movie_timescale)?;
            header.own_data(minf)?;
        }
        Ok(header)
    }

    pub(super) fn is_video(&self) -> bool {
        self.handler == *b"vide"
    }

    pub(super) fn is_media(&self) -> bool {
        self.is_video() || self.handler == *b"soun"
    }

    /// What people call a track of this handler.
    pub(super) fn handler_name(&self) -> String {
        let name = match &self.handler {
            b"tmcd" => "timecode",
            b"text" | b"sbtl" | b"subt" | b"clcp" => "text",
            b"meta" | b"mdta" => "metadata",
            b"hint" => "hint",
            _ => "data",
        };
        format!("{name} ({})", fourcc(self.handler))
    }

    /// Puts the track's number before what is wrong with its tables.
    pub(super) fn locate(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Corrupt(what) => Fault::Corrupt(format!("track {}: {what}", self.number)),
            other => other,
        }
    }

    pub(super) fn entry(
        &self,
        first_sample: &dyn Fn() -> Result<Vec<u8>, Fault>,
    ) -> Result<Entry, Fault> {
        let found = entry::read(need(self.stbl.body, b"stsd")?, self.number, first_sample)
            .map_err(|fault| self.locate(fault))?;
        if found.is_video() == self.is_video() {
            return Ok(found);
        }
        Fault::corrupt(format!("track {}: handler and codec contradict each other", self.number))
    }

    pub(super) fn with_samples(self, entry: Entry, found: Growing) -> SourceTrack {
        SourceTrack {
            number: self.number,
            entry,
            matrix: self.matrix,
            shown: self.shown,
            code: self.code,
            language: self.language,
            label: self.label,
            timescale: self.timescale,
            edit: self.edit,
            start: found.start,
            samples: found.samples,
        }
    }

    /// ISO/IEC 14496-12 section 8.6.6.
    fn edits(&self, trak: Box<'_>, movie_timescale: u32) -> Result<Edit, Fault> {
        let Some(edts) = find(trak.body, b"edts")? else { return Ok(Edit::default()) };
        let Some(elst) = find(edts.body, b"elst")? else { return Ok(Edit::default()) };
        let mut cursor = elst.cursor();
        let (version, _) = cursor.version_flags()?;
        let count = cursor.rows(if version == 0 { 12 } else { 20 })?;
        let mut edit = Edit::default();
        let mut media_edits = 0;
        for n in 0..count {
            let duration = cursor.sized(version)?;
            let media_time = match version {
                0 => i64::from(cursor.i32()?),
                _ => cursor.u64()?.cast_signed(),
            };
            let rate = cursor.u32()?;
            let duration = self.ticks(duration, movie_timescale)?;
            match u64::try_from(media_time) {
                Err(_) if media_edits == 0 => edit.delay = edit.delay.saturating_add(duration),
                Ok(media_time) if media_edits == 0 && rate == 0x1_0000 => {
                    media_edits = 1;
                    edit.media_time = media_time;
                    edit.duration = Some(duration).filter(|duration| *duration > 0);
                }
                _ => media_edits = 2,
            }
            if media_edits > 1 || n >= EDITS_MAX {
                return Err(Fault::Unsupported {
                    what: format!("track {}: an edit list of {count} edits", self.number),
                    accepted: "an edit list of one stretch of media at normal speed, with or \
                               without a delay before it",
                });
            }
        }
        if edit.media_time > EDIT_MAX || edit.delay > EDIT_MAX {
            return Fault::corrupt(format!("track {}: edit list out of range", self.number));
        }
        edit.slack = self.ticks(1, movie_timescale)? + 1;
        Ok(edit)
    }

    /// A time of the movie in ticks of the track, to the nearest.
    fn ticks(&self, time: u64, movie_timescale: u32) -> Result<u64, Fault> {
        let scale = u128::from(movie_timescale);
        let ticks = (u128::from(time) * u128::from(self.timescale) + scale / 2) / scale;
        match u64::try_from(ticks) {
            Ok(ticks) => Ok(ticks),
            Err(_) => Fault::corrupt(format!("track {}: a time out of range", self.number)),
        }
    }

    /// Refuses a track whose media lies in another file.
    fn own_data(&self, minf: Box<'_>) -> Result<(), Fault> {
        let Some(dinf) = find(minf.body, b"dinf")? else { return Ok(()) };
        let Some(dref) = find(dinf.body, b"dref")? else { return Ok(()) };
        let mut cursor = dref.cursor();
        cursor.skip(8)?;
        for place in super::super::bytes::boxes(cursor.rest()) {
            let (_, flags) = place?.cursor().version_flags()?;
            if flags & 1 == 0 {
                return Err(Fault::Unsupported {
                    what: format!("track {}: its media is in another file", self.number),
                    accepted: "files that hold their own media",
                });
            }
        }
        Ok(())
    }
}

fn tkhd(found: Box<'_>) -> Result<(u32, [u8; 36], [u8; 8]), Fault> {
    let mut cursor = found.cursor();
    let (version, _) = cursor.version_flags()?;
    cursor.sized(version)?;
    cursor.sized(version)?;
    let number = cursor.u32()?;
    cursor.skip(4)?;
    cursor.sized(version)?;
    cursor.skip(16)?;
    Ok((number, cursor.array()?, cursor.array()?))
}

fn mdhd(found: Box<'_>) -> Result<(u32, u16), Fault> {
    let mut cursor = found.cursor();
    let (version, _) = cursor.version_flags()?;
    cursor.sized(version)?;
    cursor.sized(version)?;
    let timescale = cursor.u32()?;
    cursor.sized(version)?;
    if timescale == 0 {
        return Fault::corrupt("box mdhd has the timescale 0");
    }
    Ok((timescale, cursor.u16()?))
}

/// The extended language tag, where there is one.
fn elng(mdia: Box<'_>) -> Result<Option<String>, Fault> {
    let Some(elng) = find(mdia.body, b"elng")? else { return Ok(None) };
    let mut cursor = elng.cursor();
    cursor.version_flags()?;
    Ok(names::text(cursor.rest()).and_then(|tag| names::tag(&tag)))
}

/// The track's name in its user data.
fn label(trak: Box<'_>) -> Result<Option<String>, Fault> {
    let Some(udta) = find(trak.body, b"udta")? else { return Ok(None) };
    Ok(find(udta.body, b"name")?.and_then(|name| names::text(name.body)))
}
