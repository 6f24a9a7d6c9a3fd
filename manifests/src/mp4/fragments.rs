//! Movie fragments (ISO/IEC 14496-12 section 8.8): one `moof` at a time, onto the lists of
//! samples that the `moov` began.

use super::Fault;
use super::bytes::{Box, need};
use super::tables::{Budget, Sample};

/// `sample_is_non_sync_sample` in a sample's flags.
const NON_SYNC: u32 = 0x1_0000;

/// A decode time above this is corrupt, in ticks: sums of times must stay below 2^63.
const TIME_MAX: u64 = 1 << 59;

/// Defaults of a track's samples (`trex`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defaults {
    pub(crate) track: u32,
    duration: u32,
    bytes: u32,
    flags: u32,
}

impl Defaults {
    /// For a track without `trex`.
    pub(crate) fn none(track: u32) -> Self {
        Self { track, ..Self::default() }
    }

    pub(crate) fn of(trex: Box<'_>) -> Result<Self, Fault> {
        let mut cursor = trex.cursor();
        cursor.version_flags()?;
        let track = cursor.u32()?;
        cursor.skip(4)?;
        Ok(Self { track, duration: cursor.u32()?, bytes: cursor.u32()?, flags: cursor.u32()? })
    }
}

/// A track to which fragments add.
pub(crate) struct Growing {
    pub(crate) defaults: Defaults,
    pub(crate) samples: Vec<Sample>,
    /// Decode time of the first sample.
    pub(crate) start: u64,
    /// Decode time after the last sample.
    pub(crate) end: u64,
    /// Whether each sample's own flags say if it is a sync sample (all of an audio track's
    /// are, whatever their flags say).
    pub(crate) video: bool,
}

/// Adds the samples of a `moof` whose first byte is `start` in the file.
pub(crate) fn read(
    moof: Box<'_>,
    start: u64,
    tracks: &mut [Growing],
    budget: &mut Budget,
) -> Result<(), Fault> {
    let mut previous_end = start;
    for traf in moof.boxes() {
        let traf = traf?;
        if traf.kind != *b"traf" {
            continue;
        }
        let head = Head::of(need(traf.body, b"tfhd")?, tracks)?;
        let base = match (head.base, head.base_is_moof) {
            (Some(base), _) => base,
            (None, true) => start,
            (None, false) => previous_end,
        };
        let mut place = base;
        let mut first = true;
        for part in traf.boxes() {
            let part = part?;
            match (&part.kind, tracks.get_mut(head.track)) {
                (b"tfdt", Some(track)) if first => decode_time(part, track)?,
                (b"trun", track) => {
                    first = false;
                    place = run(part, &head, base, place, track, budget)?;
                }
                _ => {}
            }
        }
        previous_end = place;
    }
    Ok(())
}

/// A `tfhd`.
struct Head {
    /// Place among the tracks that are read; past the end for others.
    track: usize,
    base: Option<u64>,
    base_is_moof: bool,
    defaults: Defaults,
}

impl Head {
    fn of(tfhd: Box<'_>, tracks: &[Growing]) -> Result<Self, Fault> {
        let mut cursor = tfhd.cursor();
        let (_, flags) = cursor.version_flags()?;
        let number = cursor.u32()?;
        let track = tracks.iter().position(|track| track.defaults.track == number);
        let track = track.unwrap_or(tracks.len());
        let mut defaults = tracks.get(track).map(|track| track.defaults).unwrap_or_default();
        let base = if flags & 1 != 0 { Some(cursor.u64()?) } else { None };
        if flags & 2 != 0 {
            cursor.skip(4)?;
        }
        if flags & 8 != 0 {
            defaults.duration = cursor.u32()?;
        }
        if flags & 0x10 != 0 {
            defaults.bytes = cursor.u32()?;
        }
        if flags & 0x20 != 0 {
            defaults.flags = cursor.u32()?;
        }
        Ok(Self { track, base, base_is_moof: flags & 0x2_0000 != 0, defaults })
    }
}

/// Joins a fragment to what came before: a gap lengthens the last sample, an overlap shortens
/// it, so that the track has one decode time line.
fn decode_time(tfdt: Box<'_>, track: &mut Growing) -> Result<(), Fault> {
    let mut cursor = tfdt.cursor();
    let (version, _) = cursor.version_flags()?;
    let time = cursor.sized(version)?;
    if time > TIME_MAX {
        return Fault::corrupt(format!("box tfdt has the time {time}"));
    }
    let Some(last) = track.samples.last_mut() else {
        track.start = time;
        track.end = time;
        return Ok(());
    };
    let last_start = track.end - u64::from(last.duration);
    let length = time.checked_sub(last_start).and_then(|ticks| i32::try_from(ticks).ok());
    let Some(length) = length.and_then(|ticks| u32::try_from(ticks).ok()) else {
        return Fault::corrupt(format!(
            "a fragment starts at tick {time}, the one before ends at {}",
            track.end
        ));
    };
    last.duration = length;
    track.end = time;
    Ok(())
}

/// A `trun`; answers where the next one's data starts, if it does not say.
fn run(
    trun: Box<'_>,
    head: &Head,
    base: u64,
    place: u64,
    track: Option<&mut Growing>,
    budget: &mut Budget,
) -> Result<u64, Fault> {
    let mut cursor = trun.cursor();
    let (_, flags) = cursor.version_flags()?;
    let count = cursor.u32()? as usize;
    let mut place = place;
    if flags & 1 != 0 {
        let offset = i64::from(cursor.i32()?);
        let Some(start) = base.checked_add_signed(offset) else {
            return Fault::corrupt("box trun has data before the file's start");
        };
        place = start;
    }
    let first_flags = if flags & 4 != 0 { Some(cursor.u32()?) } else { None };
    let row = 4 * (flags >> 8 & 0xf).count_ones() as usize;
    if row > 0 && count > cursor.rest().len() / row {
        return Fault::corrupt(format!("box trun announces {count} samples it has no room for"));
    }
    let default = head.defaults;
    if flags & 0x200 == 0 && count as u64 * u64::from(default.bytes) > budget.file_bytes {
        return Fault::corrupt("samples are together larger than the file");
    }
    budget.samples(count)?;
    let mut track = track;
    for n in 0..count {
        let duration = if flags & 0x100 != 0 { cursor.u32()? } else { default.duration };
        let bytes = if flags & 0x200 != 0 { cursor.u32()? } else { default.bytes };
        let own = if flags & 0x400 != 0 { cursor.u32()? } else { default.flags };
        let shift = if flags & 0x800 != 0 { cursor.i32()? } else { 0 };
        let own = if n == 0 { first_flags.unwrap_or(own) } else { own };
        if let Some(track) = track.as_mut() {
            if bytes == 0 || i32::try_from(duration).is_err() {
                return Fault::corrupt(format!(
                    "box trun has a sample of {bytes} bytes and {duration} ticks"
                ));
            }
            let sync = !track.video || own & NON_SYNC == 0;
            track.samples.push(Sample { offset: place, bytes, duration, shift, sync });
            track.end += u64::from(duration);
        }
        place = place.saturating_add(u64::from(bytes));
    }
    Ok(place)
}
