//! A source file as tracks: finds `moov` and the fragments, wherever they lie, and puts each
//! track's facts and samples together.

mod track;

use super::bytes::{Box, find, fourcc, need};
use super::entry::Entry;
use super::fragments::{self, Defaults, Growing};
use super::tables::{self, Budget};
use super::{Fault, MOOF_BYTES_MAX, MOOV_BYTES_MAX, TRACKS_MAX};
use crate::package::ReadAt;
use track::Header;

pub(crate) use super::tables::Sample;
pub(crate) use track::Edit;

/// As much of a first sample as is read to find parameter sets, in bytes.
const FIRST_SAMPLE_BYTES_MAX: u32 = 64 << 10;

/// What a source file holds.
pub(crate) struct Movie {
    /// In order of the file. At least one.
    pub(crate) tracks: Vec<SourceTrack>,
    /// `track_ID` and reason of what is not among them.
    pub(crate) left_out: Vec<(u32, String)>,
}

/// A track that can be packaged. It has samples, and they lie within the file.
pub(crate) struct SourceTrack {
    /// `track_ID`.
    pub(crate) number: u32,
    pub(crate) entry: Entry,
    /// As `tkhd` has them: the matrix, then width and height in 16.16.
    pub(crate) matrix: [u8; 36],
    pub(crate) shown: [u8; 8],
    /// The language as `mdhd` packs it.
    pub(crate) code: u16,
    /// BCP 47.
    pub(crate) language: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) timescale: u32,
    pub(crate) edit: Edit,
    /// Decode time of the first sample, in ticks.
    pub(crate) start: u64,
    pub(crate) samples: Vec<Sample>,
}

/// Reads all of a file but its media.
pub(crate) fn read(data: &dyn ReadAt) -> Result<Movie, Fault> {
    let file_bytes = data.bytes();
    if file_bytes == 0 {
        return Err(Fault::Empty("the file has no bytes".to_owned()));
    }
    let top = scan(data)?;
    let Some(moov) = top.moov else {
        return Fault::corrupt("no moov box: not an MP4 file, or one that was never finished");
    };
    let moov = load(data, moov, MOOV_BYTES_MAX)?;
    let moov = Box { kind: *b"moov", body: &moov, whole: &moov };
    let headers = headers(moov)?;
    let mut budget = Budget::new(file_bytes);
    let mut growing = begin(moov, &headers, &mut budget)?;
    for place in &top.moofs {
        let bytes = load(data, *place, MOOF_BYTES_MAX)?;
        let moof = Box { kind: *b"moof", body: &bytes, whole: &bytes };
        fragments::read(moof, place.start, &mut growing, &mut budget)?;
    }
    let mut movie = finish(data, headers, growing)?;
    if !top.moofs.is_empty() {
        // The header was written before its writer knew how long the media would be.
        movie.tracks.iter_mut().for_each(|track| track.edit.duration = None);
    }
    Ok(movie)
}

/// Where a box lies: its first byte, its body's, its end.
#[derive(Clone, Copy)]
struct Place {
    kind: [u8; 4],
    start: u64,
    body: u64,
    end: u64,
}

struct Top {
    moov: Option<Place>,
    moofs: Vec<Place>,
}

/// Walks the boxes of the file itself.
fn scan(data: &dyn ReadAt) -> Result<Top, Fault> {
    let mut top = Top { moov: None, moofs: Vec::new() };
    let mut at = 0;
    while at < data.bytes() {
        let Some(place) = place(data, at)? else { break };
        if at == 0 && !is_top_level(place.kind) {
            return Err(not_mp4(data));
        }
        if place.end > data.bytes() {
            let (what, has) = (format!("box {}", fourcc(place.kind)), data.bytes());
            return Err(Fault::Truncated { what, needs: place.end, has });
        }
        match &place.kind {
            b"moov" if top.moov.is_none() => top.moov = Some(place),
            b"moof" => top.moofs.push(place),
            _ => {}
        }
        at = place.end;
    }
    Ok(top)
}

/// The box at `at`; none where padding of zeros starts.
fn place(data: &dyn ReadAt, at: u64) -> Result<Option<Place>, Fault> {
    let has = data.bytes();
    let header = |bytes: u64| match at.checked_add(bytes) {
        Some(end) if end <= has => Ok(end),
        _ if at == 0 => Err(not_mp4(data)),
        _ => {
            let needs = at.saturating_add(bytes);
            Err(Fault::Truncated { what: "a box header".to_owned(), needs, has })
        }
    };
    let mut body = header(8)?;
    let mut word = [0; 8];
    data.read_exact_at(at, &mut word).map_err(Fault::Read)?;
    if word == [0; 8] {
        return Ok(None);
    }
    let [a, b, c, d, kind @ ..] = word;
    let end = match u32::from_be_bytes([a, b, c, d]) {
        0 => has,
        1 => {
            body = header(16)?;
            data.read_exact_at(at + 8, &mut word).map_err(Fault::Read)?;
            at.saturating_add(u64::from_be_bytes(word))
        }
        size => at.saturating_add(size.into()),
    };
    if end < body {
        if at == 0 {
            return Err(not_mp4(data));
        }
        return Fault::corrupt(format!("box {} at byte {at} is too short", fourcc(kind)));
    }
    Ok(Some(Place { kind, start: at, body, end }))
}

fn is_top_level(kind: [u8; 4]) -> bool {
    [
        b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"pdin",
        b"meta", b"uuid", b"pnot", b"emsg", b"prft",
    ]
    .contains(&&kind)
}

fn not_mp4(data: &dyn ReadAt) -> Fault {
    let mut head = [0; 4];
    let known = data.read_exact_at(0, &mut head).is_ok();
    let looks = match head {
        [0x1a, 0x45, 0xdf, 0xa3] => ": it looks like Matroska or WebM",
        [b'R', b'I', b'F', b'F'] => ": it looks like RIFF (AVI or WAV)",
        [0x47, ..] if known => ": it looks like an MPEG transport stream",
        [b'I', b'D', b'3', _] => ": it looks like MP3",
        [b'O', b'g', b'g', b'S'] => ": it looks like Ogg",
        [b'f', b'L', b'a', b'C'] => ": it looks like FLAC",
        _ => "",
    };
    Fault::Unsupported {
        what: format!("not an MP4 (ISO base media) file{looks}"),
        accepted: "MP4 files, progressive or fragmented, and WebVTT files named *.vtt",
    }
}

/// The body of a box.
fn load(data: &dyn ReadAt, place: Place, bytes_max: u64) -> Result<Vec<u8>, Fault> {
    let bytes = place.end - place.body;
    if bytes > bytes_max {
        let what = format!("box {} in bytes", fourcc(place.kind));
        return Err(Fault::TooLarge { what, value: bytes, limit: bytes_max });
    }
    // Below a limit that fits into any usize.
    let mut body = vec![0; usize::try_from(bytes).unwrap_or(0)];
    data.read_exact_at(place.body, &mut body).map_err(Fault::Read)?;
    Ok(body)
}

/// Every `trak`, read but for its sample tables.
fn headers(moov: Box<'_>) -> Result<Vec<Header<'_>>, Fault> {
    let movie_timescale = movie_timescale(moov)?;
    let mut headers: Vec<Header<'_>> = Vec::new();
    for trak in moov.boxes() {
        let trak = trak?;
        if trak.kind != *b"trak" {
            continue;
        }
        if headers.len() == TRACKS_MAX {
            let (value, limit) = (TRACKS_MAX as u64 + 1, TRACKS_MAX as u64);
            return Err(Fault::TooLarge { what: "number of tracks".to_owned(), value, limit });
        }
        let header = Header::read(trak, movie_timescale)?;
        if headers.iter().any(|known| known.number == header.number) {
            return Fault::corrupt(format!("two tracks have the number {}", header.number));
        }
        headers.push(header);
    }
    Ok(headers)
}

fn movie_timescale(moov: Box<'_>) -> Result<u32, Fault> {
    let mut mvhd = need(moov.body, b"mvhd")?.cursor();
    let (version, _) = mvhd.version_flags()?;
    mvhd.sized(version)?;
    mvhd.sized(version)?;
    match mvhd.u32()? {
        0 => Fault::corrupt("box mvhd has the timescale 0"),
        timescale => Ok(timescale),
    }
}

/// The samples that `moov` lists, for the tracks that are kept.
fn begin(
    moov: Box<'_>,
    headers: &[Header<'_>],
    budget: &mut Budget,
) -> Result<Vec<Growing>, Fault> {
    let mut defaults = Vec::new();
    if let Some(mvex) = find(moov.body, b"mvex")? {
        for trex in mvex.boxes() {
            let trex = trex?;
            if trex.kind == *b"trex" && defaults.len() < TRACKS_MAX {
                defaults.push(Defaults::of(trex)?);
            }
        }
    }
    let mut growing = Vec::new();
    for header in headers.iter().filter(|header| header.is_media()) {
        let samples = tables::samples(header.stbl, budget).map_err(|fault| header.locate(fault))?;
        let end = samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let own = defaults.iter().find(|defaults| defaults.track == header.number);
        let defaults = own.copied().unwrap_or(Defaults::none(header.number));
        growing.push(Growing { defaults, samples, start: 0, end, video: header.is_video() });
    }
    Ok(growing)
}

/// Checks the samples against the file, reads the sample entries and parts what is kept from
/// what is not.
fn finish(
    data: &dyn ReadAt,
    headers: Vec<Header<'_>>,
    growing: Vec<Growing>,
) -> Result<Movie, Fault> {
    let mut movie = Movie { tracks: Vec::new(), left_out: Vec::new() };
    let mut growing = growing.into_iter();
    for header in headers {
        if !header.is_media() {
            movie.left_out.push((header.number, format!("{} track", header.handler_name())));
            continue;
        }
        let Some(found) = growing.next() else { break };
        if found.samples.is_empty() {
            movie.left_out.push((header.number, "no samples".to_owned()));
            continue;
        }
        check_places(&header, &found.samples, data.bytes())?;
        let first = found.samples[0];
        let first_sample = || {
            let mut bytes = vec![0; first.bytes.min(FIRST_SAMPLE_BYTES_MAX) as usize];
            data.read_exact_at(first.offset, &mut bytes).map_err(Fault::Read)?;
            Ok(bytes)
        };
        let entry = header.entry(&first_sample)?;
        movie.tracks.push(header.with_samples(entry, found));
    }
    if movie.tracks.is_empty() {
        return Err(Fault::Empty("no video or audio track with samples".to_owned()));
    }
    Ok(movie)
}

fn check_places(header: &Header<'_>, samples: &[Sample], file_bytes: u64) -> Result<(), Fault> {
    let mut sum = 0u64;
    for (n, sample) in samples.iter().enumerate() {
        let needs = sample.offset.saturating_add(sample.bytes.into());
        if needs > file_bytes {
            let what = format!("track {}: sample {}", header.number, n + 1);
            return Err(Fault::Truncated { what, needs, has: file_bytes });
        }
        sum += u64::from(sample.bytes);
    }
    if sum > file_bytes {
        return Fault::corrupt(format!("track {}: samples overlap", header.number));
    }
    Ok(())
}
