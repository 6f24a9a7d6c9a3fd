//! AAC (ISO/IEC 14496-14, 14496-3): the `esds` box and the AudioSpecificConfig in it.

use super::super::Fault;
use super::super::bytes::{Box, Cursor, find};
use super::{Entry, Media, make, unsupported};

/// Bytes of an audio sample entry (version 0) before its boxes.
pub(super) const HEADER: usize = 28;

/// ISO/IEC 14496-3 table 1.18.
const RATES: [u32; 13] =
    [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];

/// Reads an `mp4a` entry. QuickTime's versions 1 and 2 become version 0.
pub(super) fn aac(entry: Box<'_>, track: u32) -> Result<Entry, Fault> {
    let mut cursor = entry.cursor();
    let header = cursor.take(HEADER)?;
    let mut fields = Cursor::new(&header[8..], entry.kind);
    let version = fields.u16()?;
    fields.skip(6)?;
    let channels = fields.u16()?;
    fields.skip(6)?;
    let rate = fields.u32()? >> 16;
    match version {
        0 => {}
        1 => cursor.skip(16)?,
        2 => cursor.skip(36)?,
        other => return Fault::corrupt(format!("an audio sample entry of version {other}")),
    }
    let esds = match find(cursor.rest(), b"esds")? {
        Some(esds) => esds,
        None => match find(cursor.rest(), b"wave")? {
            Some(wave) => super::need(wave.body, b"esds")?,
            None => return Fault::corrupt("box mp4a has no esds box"),
        },
    };
    let (object_type, config) = descriptors(esds)?;
    let asc = match (object_type, config) {
        (0x40, Some(config)) => Asc::of(config)?,
        (0x40, None) => return Fault::corrupt("AAC without its AudioSpecificConfig"),
        (0x69 | 0x6b, _) => return Err(unsupported(track, &format!("mp4a.{object_type:X} (MP3)"))),
        (other, _) => return Err(unsupported(track, &format!("mp4a.{other:02X}"))),
    };
    if !matches!(asc.object_type, 1..=5 | 29 | 39 | 42) {
        return Err(unsupported(track, &format!("mp4a.40.{}", asc.object_type)));
    }
    let channels = asc.channels.unwrap_or(channels).max(1);
    let sample_rate = if asc.rate > 0 { asc.rate } else { rate };
    let bytes =
        if version == 0 { entry.whole.to_vec() } else { plain(header, channels, rate, esds) };
    Ok(Entry {
        codec: format!("mp4a.40.{}", asc.object_type),
        media: Media::Audio { channels, sample_rate },
        bytes,
    })
}

/// A version 0 entry.
fn plain(header: &[u8], channels: u16, rate: u32, esds: Box<'_>) -> Vec<u8> {
    let mut fixed = header[..8].to_vec();
    fixed.extend_from_slice(&[0; 8]);
    fixed.extend_from_slice(&channels.to_be_bytes());
    fixed.extend_from_slice(&[0, 16, 0, 0, 0, 0]);
    fixed.extend_from_slice(&(rate << 16).to_be_bytes());
    make(*b"mp4a", &[&fixed, esds.whole])
}

/// `objectTypeIndication` and the DecoderSpecificInfo of an `esds`.
fn descriptors(esds: Box<'_>) -> Result<(u8, Option<&[u8]>), Fault> {
    let mut cursor = esds.cursor();
    cursor.version_flags()?;
    let mut stream = descriptor(&mut cursor, 3)?;
    stream.skip(2)?;
    let flags = stream.u8()?;
    if flags & 0x80 != 0 {
        stream.skip(2)?;
    }
    if flags & 0x40 != 0 {
        let url = stream.u8()?;
        stream.skip(url.into())?;
    }
    if flags & 0x20 != 0 {
        stream.skip(2)?;
    }
    let mut decoder = descriptor(&mut stream, 4)?;
    let object_type = decoder.u8()?;
    decoder.skip(12)?;
    if decoder.rest().is_empty() {
        return Ok((object_type, None));
    }
    Ok((object_type, Some(descriptor(&mut decoder, 5)?.rest())))
}

/// The next descriptor, which must have this tag (ISO/IEC 14496-1 section 8.3.3).
fn descriptor<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<Cursor<'a>, Fault> {
    let found = cursor.u8()?;
    if found != tag {
        return Fault::corrupt(format!("box esds has descriptor {found} where {tag} belongs"));
    }
    let mut length = 0;
    for _ in 0..4 {
        let byte = cursor.u8()?;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(Cursor::new(cursor.take(length)?, *b"esds"))
}

/// The head of an AudioSpecificConfig.
struct Asc {
    object_type: u32,
    /// Samples a second of what is heard (with SBR: the doubled rate); 0 if unknown.
    rate: u32,
    /// None where the stream itself says.
    channels: Option<u16>,
}

impl Asc {
    fn of(config: &[u8]) -> Result<Self, Fault> {
        let mut bits = Bits { bytes: config, at: 0 };
        let object_type = bits.object_type()?;
        let mut rate = bits.rate()?;
        let channels = match bits.take(4)? {
            0 => None,
            7 => Some(8),
            count @ 1..=6 => u16::try_from(count).ok(),
            11 => Some(7),
            12 | 14 => Some(8),
            other => return Fault::corrupt(format!("AAC with channel configuration {other}")),
        };
        if matches!(object_type, 5 | 29) {
            rate = bits.rate()?;
        }
        // Parametric stereo makes two channels of one.
        let channels = if object_type == 29 { Some(2) } else { channels };
        Ok(Self { object_type, rate, channels })
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..count {
            let Some(byte) = self.bytes.get(self.at / 8) else {
                return Fault::corrupt("the AudioSpecificConfig is too short");
            };
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    fn object_type(&mut self) -> Result<u32, Fault> {
        match self.take(5)? {
            31 => Ok(32 + self.take(6)?),
            plain => Ok(plain),
        }
    }

    fn rate(&mut self) -> Result<u32, Fault> {
        match self.take(4)? {
            15 => self.take(24),
            index => Ok(RATES.get(index as usize).copied().unwrap_or(0)),
        }
    }
}
