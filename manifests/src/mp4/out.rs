//! CMAF boxes (ISO/IEC 23000-19): the init segment, `sidx`, and one `moof` per segment. Sizes
//! are known before anything is written.

use super::entry::make;
use super::movie::Sample;
use mp4_atom::{Elst, ElstEntry, Encode, FourCC, Ftyp, Hdlr, Mdhd, Mvhd, Trex};

/// The `track_ID` in every track file.
const TRACK: u32 = 1;

/// Flags of a sample that depends on none.
const SYNC: u32 = 0x0200_0000;

/// Flags of a sample that depends on others.
const NON_SYNC: u32 = 0x0101_0000;

/// Bytes of the header of an `mdat` whose segment fits into 31 bits.
pub(crate) const MDAT_HEADER_BYTES: u64 = 8;

/// What the init segment of a track says.
pub(crate) struct Init<'a> {
    pub(crate) video: bool,
    /// The sample entry.
    pub(crate) entry: &'a [u8],
    pub(crate) matrix: &'a [u8; 36],
    pub(crate) shown: &'a [u8; 8],
    /// As `mdhd` packs it.
    pub(crate) language: u16,
    pub(crate) timescale: u32,
    /// Media time that is presented first; 0 for no edit list.
    pub(crate) media_time: u64,
}

fn encoded(atom: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    atom.encode(&mut out).expect("a box of fixed fields always encodes");
    out
}

fn brand(name: &[u8; 4]) -> FourCC {
    FourCC::new(name)
}

/// `ftyp` and `moov`.
pub(crate) fn init(facts: &Init<'_>) -> Vec<u8> {
    let mut brands = vec![brand(b"iso6"), brand(b"cmfc")];
    if facts.video {
        brands.push(brand(b"cmf2"));
    }
    let ftyp = Ftyp { major_brand: brand(b"iso6"), minor_version: 0, compatible_brands: brands };
    let mvhd = Mvhd {
        timescale: facts.timescale,
        rate: 1.into(),
        volume: 1.into(),
        next_track_id: TRACK + 1,
        ..Mvhd::default()
    };
    let trex = Trex {
        track_id: TRACK,
        default_sample_description_index: 1,
        default_sample_duration: 0,
        default_sample_size: 0,
        default_sample_flags: if facts.video { NON_SYNC } else { SYNC },
    };
    let mvex = make(*b"mvex", &[&encoded(&trex)]);
    let mut out = encoded(&ftyp);
    out.extend_from_slice(&make(*b"moov", &[&encoded(&mvhd), &trak(facts), &mvex]));
    out
}

fn trak(facts: &Init<'_>) -> Vec<u8> {
    let mut tkhd = Vec::new();
    // Version 0; enabled, in the movie, in its preview.
    put(&mut tkhd, &[7, 0, 0, TRACK, 0, 0, 0, 0, 0]);
    tkhd.extend_from_slice(&[if facts.video { 0 } else { 1 }, 0, 0, 0]);
    tkhd.extend_from_slice(facts.matrix);
    tkhd.extend_from_slice(facts.shown);
    let tkhd = make(*b"tkhd", &[&tkhd]);
    let edts = if facts.media_time > 0 { edts(facts.media_time) } else { Vec::new() };
    make(*b"trak", &[&tkhd, &edts, &mdia(facts)])
}

fn edts(media_time: u64) -> Vec<u8> {
    let entry =
        ElstEntry { segment_duration: 0, media_time: Some(media_time), media_rate: 1.into() };
    make(*b"edts", &[&encoded(&Elst { entries: vec![entry] })])
}

fn mdia(facts: &Init<'_>) -> Vec<u8> {
    let mut mdhd = encoded(&Mdhd { timescale: facts.timescale, ..Mdhd::default() });
    // The language's place in `mdhd`: the last four bytes begin with it.
    let place = mdhd.len() - 4;
    mdhd[place..place + 2].copy_from_slice(&facts.language.to_be_bytes());
    let (handler, name, media_header) = if facts.video {
        (brand(b"vide"), "VideoHandler", make(*b"vmhd", &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]))
    } else {
        (brand(b"soun"), "SoundHandler", make(*b"smhd", &[&[0; 8]]))
    };
    let hdlr = Hdlr { handler, name: name.to_owned() };
    let here = make(*b"url ", &[&[0, 0, 0, 1]]);
    let dref = make(*b"dref", &[&[0; 4], &[0, 0, 0, 1], &here]);
    let stsd = make(*b"stsd", &[&[0; 4], &[0, 0, 0, 1], facts.entry]);
    let stbl = make(
        *b"stbl",
        &[
            &stsd,
            &make(*b"stts", &[&[0; 8]]),
            &make(*b"stsc", &[&[0; 8]]),
            &make(*b"stsz", &[&[0; 12]]),
            &make(*b"stco", &[&[0; 8]]),
        ],
    );
    let minf = make(*b"minf", &[&media_header, &make(*b"dinf", &[&dref]), &stbl]);
    make(*b"mdia", &[&mdhd, &encoded(&hdlr), &minf])
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
}

/// One line of a `sidx`.
pub(crate) struct Reference {
    /// Size of the segment; below 2^31.
    pub(crate) bytes: u32,
    /// Ticks.
    pub(crate) duration: u32,
    /// Whether its first sample is presented first (SAP type 1).
    pub(crate) first_leads: bool,
}

/// Bytes of a `sidx` of so many segments.
pub(crate) fn sidx_bytes(segments: usize) -> u64 {
    40 + 12 * segments as u64
}

/// `sidx` version 1 (ISO/IEC 14496-12 section 8.16.3), right before the first `moof`. Each
/// segment starts with a sync sample; whether pictures that lead it can be decoded (SAP type 1,
/// 2 or 3) is not said where there are any.
pub(crate) fn sidx(timescale: u32, first_time: u64, references: &[Reference]) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + 12 * references.len());
    put(&mut body, &[0x0100_0000, TRACK, timescale]);
    body.extend_from_slice(&first_time.to_be_bytes());
    body.extend_from_slice(&0u64.to_be_bytes());
    // The number of segments was held against 65,535.
    put(&mut body, &[u32::try_from(references.len()).unwrap_or(0) & 0xffff]);
    for reference in references {
        let access = if reference.first_leads { 0x9000_0000 } else { 0x8000_0000 };
        put(&mut body, &[reference.bytes, reference.duration, access]);
    }
    make(*b"sidx", &[&body])
}

/// Which fields the samples of a segment need of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    durations: bool,
    sizes: bool,
    flags: bool,
    shifts: bool,
}

impl Shape {
    fn of(samples: &[Sample]) -> Self {
        let first = samples[0];
        let uniform = |same: fn(&Sample, &Sample) -> bool| samples.iter().all(|s| same(s, &first));
        Self {
            durations: !uniform(|a, b| a.duration == b.duration),
            sizes: !uniform(|a, b| a.bytes == b.bytes),
            // The first sample's flags stand alone; the others' must be the same.
            flags: samples.windows(2).skip(1).any(|pair| pair[0].sync != pair[1].sync),
            shifts: samples.iter().any(|sample| sample.shift != 0),
        }
    }

    fn row(self) -> usize {
        4 * [self.durations, self.sizes, self.flags, self.shifts].iter().filter(|b| **b).count()
    }

    fn trun_flags(self) -> u32 {
        let first = if self.flags { 0 } else { 4 };
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        0x0100_0000
            | 1
            | first
            | bit(self.durations, 0x100)
            | bit(self.sizes, 0x200)
            | bit(self.flags, 0x400)
            | bit(self.shifts, 0x800)
    }

    /// Bytes of the whole `moof`: headers, `mfhd` (16), `tfhd` (28), `tfdt` (20), `trun`.
    fn moof_bytes(self, samples: usize) -> usize {
        let trun = 20 + if self.flags { 0 } else { 4 } + samples * self.row();
        8 + 16 + 8 + 28 + 20 + trun
    }
}

fn flags(sync: bool) -> u32 {
    if sync { SYNC } else { NON_SYNC }
}

/// Bytes of the `moof` of these samples, of which there is at least one.
pub(crate) fn moof_bytes(samples: &[Sample]) -> u64 {
    Shape::of(samples).moof_bytes(samples.len()) as u64
}

/// A `moof` and the header of the `mdat` that follows it.
pub(crate) fn moof(number: u32, decode_time: u64, samples: &[Sample]) -> Vec<u8> {
    let shape = Shape::of(samples);
    let first = samples[0];
    let media: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
    let bytes = shape.moof_bytes(samples.len());
    // Segments are held below 2^31 bytes when they are laid out.
    let word = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let others = flags(samples.get(1).is_none_or(|second| second.sync));
    let mut out = Vec::with_capacity(bytes + 8);
    put(&mut out, &[word(bytes), tag(b"moof"), 16, tag(b"mfhd"), 0, number]);
    put(&mut out, &[word(bytes - 24), tag(b"traf")]);
    put(&mut out, &[28, tag(b"tfhd"), 0x02_0038, TRACK, first.duration, first.bytes, others]);
    put(&mut out, &[20, tag(b"tfdt"), 0x0100_0000]);
    out.extend_from_slice(&decode_time.to_be_bytes());
    put(&mut out, &[word(bytes - 80), tag(b"trun"), shape.trun_flags()]);
    put(&mut out, &[word(samples.len()), word(bytes) + 8]);
    if !shape.flags {
        put(&mut out, &[flags(first.sync)]);
    }
    for sample in samples {
        let fields = [
            (shape.durations, sample.duration),
            (shape.sizes, sample.bytes),
            (shape.flags, flags(sample.sync)),
            (shape.shifts, sample.shift.cast_unsigned()),
        ];
        fields.iter().filter(|(own, _)| *own).for_each(|(_, field)| put(&mut out, &[*field]));
    }
    put(&mut out, &[u32::try_from(media + MDAT_HEADER_BYTES).unwrap_or(u32::MAX), tag(b"mdat")]);
    out
}

fn tag(kind: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*kind)
}
