//! The purge log's file: a header, then records, each behind its length and checksums.
//!
//! Reading tells two ways of not being whole apart. A *torn* end is what a crash leaves of
//! records that were never acknowledged: it is cut off. Anything else is *damage*: purges that
//! were acknowledged may be lost, so the caller ends everything. Each record ends with a byte
//! that is not zero, as a file that was made longer but not written ends with zeros.

use super::{Purge, Purged, What};
use crate::wire::{Reader, Writer};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"NCPURGE1";
/// Magic, number, floor, checksum.
pub(super) const HEADER_BYTES: u64 = 32;
/// Length, its checksum, the body's checksum.
const PREFIX_BYTES: usize = 16;
/// Above what a purge with all its fields at their limits takes.
const BODY_BYTES_MAX: u32 = 16 << 10;
const END: u8 = b'\n';
const SOFT: u8 = 0x80;

/// A file as found.
#[derive(Debug)]
pub(super) struct Found {
    /// The highest number that may have been given, in the records that could be read.
    pub(super) number: u64,
    /// Bytes that are whole.
    pub(super) bytes: u64,
    pub(super) state: State,
}

/// How far a file is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Whole,
    /// So many bytes at its end were never acknowledged.
    Torn(u64),
    /// Acknowledged purges may be lost.
    Damaged(String),
}

/// What starts a file: all below `floor` ended; numbers up to `number` were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) floor: u64,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut header = Writer::default();
        header.0.extend(MAGIC);
        header.u64(self.number);
        header.u64(self.floor);
        let sum = xxh3_64(&header.0);
        header.u64(sum);
        header.0
    }

    fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Option<Self> {
        let mut header = Reader(bytes);
        let magic: [u8; 8] = header.array()?;
        let (number, floor, sum) = (header.u64()?, header.u64()?, header.u64()?);
        let whole = magic == *MAGIC && xxh3_64(&bytes[..HEADER_BYTES as usize - 8]) == sum;
        whole.then_some(Self { number, floor })
    }
}

/// Bytes that `purged` takes in a file.
pub(super) fn record_bytes(purged: &Purged) -> u64 {
    let purge = &purged.purge;
    let site = purge.site.as_ref().map_or(0, |site| 4 + site.len());
    (PREFIX_BYTES + 8 + 8 + 1 + 1 + site + 4 + purge.what.text().len() + 4 + purge.note.len() + 1)
        as u64
}

/// `purged` as a record.
pub(super) fn encode(purged: &Purged) -> Vec<u8> {
    let purge = &purged.purge;
    let mut body = Writer::default();
    body.u64(purged.number);
    body.i64(purged.unix_ms);
    let kind = match purge.what {
        What::Url(_) => 1,
        What::Prefix(_) => 2,
        What::Tag(_) => 3,
        What::All => 4,
    };
    body.u8(kind | if purge.soft { SOFT } else { 0 });
    body.maybe(purge.site.as_deref().map(str::as_bytes));
    body.bytes(purge.what.text().as_bytes());
    body.bytes(purge.note.as_bytes());
    body.u8(END);
    let mut record = Writer::default();
    record.count(body.0.len());
    let sum = length_sum(&record.0);
    record.u32(sum);
    record.u64(xxh3_64(&body.0));
    record.0.extend(body.0);
    record.0
}

/// A length has a checksum of its own: were it wrong, what follows would look torn.
fn length_sum(length: &[u8]) -> u32 {
    (xxh3_64(length) >> 32) as u32
}

fn decode(body: &[u8]) -> Option<Purged> {
    let mut body = Reader(body);
    let (number, unix_ms, kind) = (body.u64()?, body.i64()?, body.u8()?);
    let site = body.maybe_text()?.map(str::to_owned);
    let text = body.text()?.to_owned();
    let note = body.text()?.to_owned();
    let what = match kind & !SOFT {
        1 => What::Url(text),
        2 => What::Prefix(text),
        3 => What::Tag(text),
        4 => What::All,
        _ => return None,
    };
    let whole = body.u8()? == END && body.0.is_empty();
    let purge = Purge { what, site, soft: kind & SOFT != 0, note };
    whole.then_some(Purged { number, unix_ms, purge })
}

/// Reads a file: `start` gets its header, `each` its purges in rising order.
pub(super) fn read(
    file: &File,
    start: impl FnOnce(Header),
    mut each: impl FnMut(Purged),
) -> std::io::Result<Found> {
    let bytes = file.metadata()?.len();
    let mut from = BufReader::with_capacity(1 << 16, file);
    from.seek(SeekFrom::Start(0))?;
    let mut header = [0; HEADER_BYTES as usize];
    let damaged = |number, bytes, reason: &str| {
        let state = State::Damaged(format!("{reason}, from byte {bytes}"));
        Ok(Found { number, bytes, state })
    };
    if bytes < HEADER_BYTES {
        return damaged(0, 0, "no header");
    }
    from.read_exact(&mut header)?;
    let Some(header) = Header::decode(&header) else {
        return damaged(0, 0, "a header that is none");
    };
    start(header);
    let (mut number, mut at) = (header.number, HEADER_BYTES);
    // A purge of everything is the floor, and kept as well.
    let (mut last, mut body) = (header.floor.saturating_sub(1), Vec::new());
    loop {
        let left = bytes - at;
        let (state, taken) = match record(&mut from, left, &mut body)? {
            Record::End => (State::Whole, 0),
            Record::Torn => (State::Torn(left), 0),
            // Zeros at the end: the file grew, its content never came.
            Record::Bad if ends_with_zero(file)? => (State::Torn(left), 0),
            Record::Bad => return damaged(number, at, "a record whose checksum is wrong"),
            Record::Whole(purged, _) if purged.number <= last => {
                return damaged(number, at, "a record out of order");
            }
            Record::Whole(purged, taken) => {
                last = purged.number;
                number = number.max(last);
                each(purged);
                (State::Whole, taken)
            }
        };
        if taken == 0 {
            return Ok(Found { number, bytes: at, state });
        }
        at += taken;
    }
}

enum Record {
    Whole(Purged, u64),
    End,
    Torn,
    Bad,
}

/// The next record, of at most `left` bytes; its body goes through `body`.
fn record(from: &mut impl Read, left: u64, body: &mut Vec<u8>) -> std::io::Result<Record> {
    if left == 0 {
        return Ok(Record::End);
    }
    if left < PREFIX_BYTES as u64 {
        return Ok(Record::Torn);
    }
    let mut prefix = [0; PREFIX_BYTES];
    from.read_exact(&mut prefix)?;
    let mut fields = Reader(&prefix);
    let (Some(length), Some(sum), Some(body_sum)) = (fields.u32(), fields.u32(), fields.u64())
    else {
        return Ok(Record::Bad);
    };
    if length_sum(&length.to_le_bytes()) != sum || length > BODY_BYTES_MAX {
        return Ok(Record::Bad);
    }
    let taken = PREFIX_BYTES as u64 + u64::from(length);
    if taken > left {
        return Ok(Record::Torn);
    }
    body.resize(length as usize, 0);
    from.read_exact(body)?;
    let purged = (xxh3_64(body) == body_sum).then(|| decode(body)).flatten();
    Ok(purged.map_or(Record::Bad, |purged| Record::Whole(purged, taken)))
}

fn ends_with_zero(mut file: &File) -> std::io::Result<bool> {
    let mut last = [1];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == [0])
}

/// Opens the file that is there.
pub(super) fn open(path: &Path) -> std::io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a whole new file in place of `path`, durable when it returns. Returns it, open at its
/// end, and its bytes.
pub(super) fn replace<'a>(
    path: &Path,
    header: Header,
    purges: impl Iterator<Item = &'a Purged>,
) -> std::io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let file = File::create(&new)?;
    let mut to = BufWriter::with_capacity(1 << 16, file);
    let mut bytes = HEADER_BYTES;
    to.write_all(&header.encode())?;
    for purged in purges {
        let record = encode(purged);
        bytes += record.len() as u64;
        to.write_all(&record)?;
    }
    let file = to.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_folder(path)?;
    Ok((file, bytes))
}

/// A rename is durable once the folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
