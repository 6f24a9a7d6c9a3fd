//! H.264, HEVC and AV1 (ISO/IEC 14496-15, AV1 in ISOBMFF): configurations, codec strings and
//! colour.

use super::super::Fault;
use super::super::bytes::{Box, Cursor, boxes, find, need};
use super::{Entry, Media, make};
use model::index::VideoRange;
use mp4_atom::{Atom, Encode, HvcCArray, Hvcc};

/// Bytes of a visual sample entry before its boxes.
pub(super) const HEADER: usize = 78;

/// NAL unit types of HEVC parameter sets: VPS, SPS, PPS.
const PARAMETER_SETS: [u8; 3] = [32, 33, 34];

/// Width, height and the boxes of a visual sample entry.
fn visual(entry: Box<'_>) -> Result<(u32, u32, &[u8]), Fault> {
    let mut cursor = entry.cursor();
    let header = cursor.take(HEADER)?;
    let mut cursor = Cursor::new(&header[24..], entry.kind);
    let (width, height) = (cursor.u16()?.into(), cursor.u16()?.into());
    if width == 0 || height == 0 {
        return Fault::corrupt(format!("a video track of {width}x{height} pixels"));
    }
    Ok((width, height, &entry.body[HEADER..]))
}

/// `avc1.PPCCLL` (RFC 6381 section 3.3).
pub(super) fn h264(entry: Box<'_>) -> Result<Entry, Fault> {
    let (width, height, children) = visual(entry)?;
    let mut avcc = need(children, b"avcC")?.cursor();
    avcc.skip(1)?;
    let [profile, constraints, level] = avcc.array()?;
    let kind = super::fourcc(entry.kind);
    Ok(Entry {
        codec: format!("{kind}.{profile:02x}{constraints:02x}{level:02x}"),
        media: Media::Video { width, height, range: Colour::of(children)?.range() },
        bytes: entry.whole.to_vec(),
    })
}

/// HEVC as `hvc1`, with its parameter sets in `hvcC` and nowhere else needed: `hev1` is not
/// played by Safari.
pub(super) fn hevc(
    entry: Box<'_>,
    first_sample: &dyn Fn() -> Result<Vec<u8>, Fault>,
) -> Result<Entry, Fault> {
    let (width, height, children) = visual(entry)?;
    let config = need(children, b"hvcC")?;
    let mut body = config.body;
    let Ok(mut hvcc) = Hvcc::decode_body(&mut body) else {
        return Fault::corrupt("box hvcC cannot be read");
    };
    let complete = holds_parameter_sets(&hvcc);
    if !complete {
        hvcc.arrays = parameter_sets(&first_sample()?, usize::from(hvcc.length_size_minus_one) + 1);
        if !holds_parameter_sets(&hvcc) {
            return Fault::corrupt("HEVC without parameter sets in hvcC or in the first sample");
        }
    }
    let mut bytes = entry.whole.to_vec();
    if entry.kind != *b"hvc1" || !complete {
        hvcc.arrays.iter_mut().for_each(|array| array.completeness = true);
        let mut config = Vec::new();
        if hvcc.encode(&mut config).is_err() {
            return Fault::corrupt("box hvcC cannot be written anew");
        }
        let mut parts = vec![&entry.body[..HEADER]];
        for child in boxes(children) {
            let child = child?;
            parts.push(if child.kind == *b"hvcC" { &config } else { child.whole });
        }
        bytes = make(*b"hvc1", &parts);
    }
    Ok(Entry {
        codec: hevc_codec(&hvcc),
        media: Media::Video { width, height, range: Colour::of(children)?.range() },
        bytes,
    })
}

fn holds_parameter_sets(hvcc: &Hvcc) -> bool {
    PARAMETER_SETS.iter().all(|kind| {
        hvcc.arrays.iter().any(|array| array.nal_unit_type == *kind && !array.nalus.is_empty())
    })
}

/// The parameter sets at the head of a sample whose NAL units have lengths of `width` bytes.
/// The sample may be cut off.
fn parameter_sets(sample: &[u8], width: usize) -> Vec<HvcCArray> {
    let mut arrays = PARAMETER_SETS.map(|kind| HvcCArray {
        completeness: true,
        nal_unit_type: kind,
        nalus: Vec::new(),
    });
    let mut rest = sample;
    while let Some((length, after)) = rest.split_at_checked(width) {
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let Some((unit, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let kind = unit.first().map(|byte| byte >> 1 & 0x3f);
        let array = arrays.iter_mut().find(|array| Some(array.nal_unit_type) == kind);
        if let Some(array) = array.filter(|_| length <= usize::from(u16::MAX)) {
            array.nalus.push(unit.to_vec());
        }
    }
    arrays.into()
}

/// ISO/IEC 14496-15 annex E.3.
fn hevc_codec(hvcc: &Hvcc) -> String {
    let space = ["", "A", "B", "C"][usize::from(hvcc.general_profile_space & 3)];
    let compatible = u32::from_be_bytes(hvcc.general_profile_compatibility_flags).reverse_bits();
    let tier = if hvcc.general_tier_flag { 'H' } else { 'L' };
    let (profile, level) = (hvcc.general_profile_idc, hvcc.general_level_idc);
    let mut codec = format!("hvc1.{space}{profile}.{compatible:X}.{tier}{level}");
    let constraints = hvcc.general_constraint_indicator_flags;
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        codec += &format!(".{byte:X}");
    }
    codec
}

/// `av01.P.LLT.DD`, and with colour that is not BT.709 the long form (AV1 in ISOBMFF
/// section 5).
pub(super) fn av1(entry: Box<'_>) -> Result<Entry, Fault> {
    let (width, height, children) = visual(entry)?;
    let [_, first, second, _] = need(children, b"av1C")?.cursor().array()?;
    let (profile, level) = (first >> 5, first & 0x1f);
    let tier = if second & 0x80 != 0 { 'H' } else { 'M' };
    let depth = match (second & 0x40 != 0, profile == 2 && second & 0x20 != 0) {
        (true, true) => 12,
        (true, false) => 10,
        (false, _) => 8,
    };
    let mut codec = format!("av01.{profile}.{level:02}{tier}.{depth:02}");
    let colour = Colour::of(children)?;
    if let Some(Colour { primaries, transfer, matrix, full }) = colour.0.filter(|c| !c.is_709()) {
        let mono = second >> 4 & 1;
        let (x, y, position) = (second >> 3 & 1, second >> 2 & 1, second & 3);
        codec += &format!(".{mono}.{x}{y}{position}");
        codec += &format!(".{primaries:02}.{transfer:02}.{matrix:02}.{}", u8::from(full));
    }
    Ok(Entry {
        codec,
        media: Media::Video { width, height, range: colour.range() },
        bytes: entry.whole.to_vec(),
    })
}

/// A `colr` box of coded points (ISO/IEC 23091-2).
#[derive(Clone, Copy)]
struct Colour {
    primaries: u16,
    transfer: u16,
    matrix: u16,
    full: bool,
}

struct MaybeColour(Option<Colour>);

impl Colour {
    fn of(children: &[u8]) -> Result<MaybeColour, Fault> {
        let Some(colr) = find(children, b"colr")? else { return Ok(MaybeColour(None)) };
        let mut cursor = colr.cursor();
        let kind: [u8; 4] = cursor.array()?;
        if !matches!(&kind, b"nclx" | b"nclc") {
            return Ok(MaybeColour(None));
        }
        let (primaries, transfer, matrix) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
        let full = kind == *b"nclx" && cursor.u8()? & 0x80 != 0;
        Ok(MaybeColour(Some(Self { primaries, transfer, matrix, full })))
    }

    /// BT.709, or not said (2).
    fn is_709(&self) -> bool {
        let plain = |point| matches!(point, 1 | 2);
        plain(self.primaries) && plain(self.transfer) && plain(self.matrix) && !self.full
    }
}

impl MaybeColour {
    fn range(&self) -> VideoRange {
        match self.0.map(|colour| colour.transfer) {
            Some(16) => VideoRange::Pq,
            Some(18) => VideoRange::Hlg,
            _ => VideoRange::Sdr,
        }
    }
}
