//! Sample tables of a `moov` (ISO/IEC 14496-12 section 8.6 and 8.7) as one list of samples.

use super::bytes::{Box, Cursor, find, need};
use super::{Fault, SAMPLES_MAX};

/// One access unit, in decode order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Where it lies in the source.
    pub(crate) offset: u64,
    /// Its size.
    pub(crate) bytes: u32,
    /// Ticks to the next sample's decode time.
    pub(crate) duration: u32,
    /// Ticks from decode to composition time.
    pub(crate) shift: i32,
    /// Whether decoding may start here.
    pub(crate) sync: bool,
}

/// What is left of the limits of one file.
pub(crate) struct Budget {
    /// Size of the file: no track has more samples, or more bytes in them.
    pub(crate) file_bytes: u64,
    /// Samples that may still be listed.
    pub(crate) samples: usize,
}

impl Budget {
    pub(crate) fn new(file_bytes: u64) -> Self {
        Self { file_bytes, samples: SAMPLES_MAX }
    }

    /// Room for `count` more samples, before they are allocated.
    pub(crate) fn samples(&mut self, count: usize) -> Result<(), Fault> {
        if count as u64 > self.file_bytes {
            return Fault::corrupt(format!(
                "{count} samples are announced in a file of {} bytes",
                self.file_bytes
            ));
        }
        match self.samples.checked_sub(count) {
            Some(left) => self.samples = left,
            None => {
                return Err(Fault::TooLarge {
                    what: "number of samples".to_owned(),
                    value: (SAMPLES_MAX - self.samples + count) as u64,
                    limit: SAMPLES_MAX as u64,
                });
            }
        }
        Ok(())
    }
}

/// The samples that an `stbl` lists; none in the header of a fragmented file.
pub(crate) fn samples(stbl: Box<'_>, budget: &mut Budget) -> Result<Vec<Sample>, Fault> {
    let sizes = Sizes::of(stbl)?;
    if sizes.count == 0 {
        return Ok(Vec::new());
    }
    sizes.check(budget.file_bytes)?;
    budget.samples(sizes.count)?;
    let mut samples = Vec::with_capacity(sizes.count);
    for n in 0..sizes.count {
        let bytes = sizes.at(n);
        if bytes == 0 {
            return Fault::corrupt(format!("sample {} is empty", n + 1));
        }
        samples.push(Sample { offset: 0, bytes, duration: 0, shift: 0, sync: true });
    }
    durations(stbl, &mut samples)?;
    shifts(stbl, &mut samples)?;
    sync_flags(stbl, &mut samples)?;
    offsets(stbl, &mut samples)?;
    Ok(samples)
}

/// `stsz` or `stz2`.
struct Sizes<'a> {
    count: usize,
    fixed: u32,
    /// Bits of a row, where sizes are not fixed.
    width: u8,
    rows: &'a [u8],
}

impl<'a> Sizes<'a> {
    fn of(stbl: Box<'a>) -> Result<Self, Fault> {
        let (mut cursor, width, fixed) = if let Some(stsz) = find(stbl.body, b"stsz")? {
            let mut cursor = stsz.cursor();
            cursor.version_flags()?;
            let fixed = cursor.u32()?;
            (cursor, 32, fixed)
        } else {
            let mut cursor = need(stbl.body, b"stz2")?.cursor();
            cursor.version_flags()?;
            let width = (cursor.u32()? & 0xff) as u8;
            (cursor, width, 0)
        };
        if !matches!(width, 4 | 8 | 16 | 32) {
            return Fault::corrupt(format!("box stz2 has fields of {width} bits"));
        }
        let count = cursor.u32()? as usize;
        let rows = cursor.rest();
        if fixed == 0 && (count as u64 * u64::from(width)).div_ceil(8) > rows.len() as u64 {
            return Fault::corrupt(format!("{count} sample sizes do not fit into their box"));
        }
        Ok(Self { count, fixed, width, rows })
    }

    fn check(&self, file_bytes: u64) -> Result<(), Fault> {
        if self.count as u64 * u64::from(self.fixed) > file_bytes {
            return Fault::corrupt("samples are together larger than the file");
        }
        Ok(())
    }

    /// `n` is below `count`, whose rows are known to exist.
    fn at(&self, n: usize) -> u32 {
        if self.fixed != 0 {
            return self.fixed;
        }
        let row = |bytes: usize| &self.rows[n * bytes..][..bytes];
        match self.width {
            4 => u32::from(self.rows[n / 2] >> (if n.is_multiple_of(2) { 4 } else { 0 }) & 15),
            8 => u32::from(self.rows[n]),
            16 => u32::from(u16::from_be_bytes([row(2)[0], row(2)[1]])),
            _ => u32::from_be_bytes([row(4)[0], row(4)[1], row(4)[2], row(4)[3]]),
        }
    }
}

fn durations(stbl: Box<'_>, samples: &mut [Sample]) -> Result<(), Fault> {
    let mut cursor = need(stbl.body, b"stts")?.cursor();
    cursor.version_flags()?;
    let mut left = samples;
    for _ in 0..cursor.rows(8)? {
        let run = (cursor.u32()? as usize).min(left.len());
        let duration = cursor.u32()?;
        if i32::try_from(duration).is_err() {
            return Fault::corrupt(format!("box stts has a sample of {duration} ticks"));
        }
        let (now, later) = left.split_at_mut(run);
        now.iter_mut().for_each(|sample| sample.duration = duration);
        left = later;
    }
    if left.is_empty() {
        return Ok(());
    }
    Fault::corrupt(format!("box stts lacks the durations of the last {} samples", left.len()))
}

/// Offsets are read as signed in version 0 also: writers that need a negative one and know no
/// version 1 write it so, and no honest offset reaches 2^31.
fn shifts(stbl: Box<'_>, samples: &mut [Sample]) -> Result<(), Fault> {
    let Some(ctts) = find(stbl.body, b"ctts")? else { return Ok(()) };
    let mut cursor = ctts.cursor();
    cursor.version_flags()?;
    let mut left = samples;
    for _ in 0..cursor.rows(8)? {
        let run = (cursor.u32()? as usize).min(left.len());
        let shift = cursor.i32()?;
        let (now, later) = left.split_at_mut(run);
        now.iter_mut().for_each(|sample| sample.shift = shift);
        left = later;
    }
    Ok(())
}

fn sync_flags(stbl: Box<'_>, samples: &mut [Sample]) -> Result<(), Fault> {
    let Some(stss) = find(stbl.body, b"stss")? else { return Ok(()) };
    let mut cursor = stss.cursor();
    cursor.version_flags()?;
    samples.iter_mut().for_each(|sample| sample.sync = false);
    for _ in 0..cursor.rows(4)? {
        let number = cursor.u32()? as usize;
        match number.checked_sub(1).and_then(|n| samples.get_mut(n)) {
            Some(sample) => sample.sync = true,
            None => return Fault::corrupt(format!("box stss names sample {number}")),
        }
    }
    Ok(())
}

/// Walks the chunks (`stsc`, `stco` or `co64`) and gives each sample its place.
fn offsets(stbl: Box<'_>, samples: &mut [Sample]) -> Result<(), Fault> {
    let mut chunks = Chunks::of(stbl)?;
    let mut stsc = need(stbl.body, b"stsc")?.cursor();
    stsc.version_flags()?;
    let rows = stsc.rows(12)?;
    let mut run = ChunkRun::of(&mut stsc, rows)?;
    let mut rows_left = rows - 1;
    let mut next = if rows_left > 0 { Some(ChunkRun::of(&mut stsc, rows_left)?) } else { None };
    if run.first != 1 {
        return Fault::corrupt(format!("box stsc starts with chunk {}", run.first));
    }
    let (mut done, mut number) = (0, 0u32);
    while done < samples.len() {
        number += 1;
        if let Some(later) = next.filter(|later| later.first <= number) {
            if later.first < number {
                return Fault::corrupt("box stsc is not in order of chunks");
            }
            run = later;
            rows_left -= 1;
            next = if rows_left > 0 { Some(ChunkRun::of(&mut stsc, rows_left)?) } else { None };
        }
        let Some(mut offset) = chunks.next()? else {
            let left = samples.len() - done;
            return Fault::corrupt(format!("the last {left} samples are in no chunk"));
        };
        let end = done.saturating_add(run.samples as usize).min(samples.len());
        for sample in &mut samples[done..end] {
            sample.offset = offset;
            offset = offset.saturating_add(u64::from(sample.bytes));
        }
        done = end;
    }
    Ok(())
}

/// A row of `stsc`.
#[derive(Clone, Copy)]
struct ChunkRun {
    first: u32,
    samples: u32,
}

impl ChunkRun {
    fn of(cursor: &mut Cursor<'_>, rows_left: usize) -> Result<Self, Fault> {
        if rows_left == 0 {
            return Fault::corrupt("box stsc is empty");
        }
        let (first, samples) = (cursor.u32()?, cursor.u32()?);
        match cursor.u32()? {
            1 => Ok(Self { first, samples }),
            other => Fault::corrupt(format!("box stsc names sample description {other}")),
        }
    }
}

/// Chunk offsets of either width.
struct Chunks<'a> {
    cursor: Cursor<'a>,
    left: usize,
    wide: bool,
}

impl<'a> Chunks<'a> {
    fn of(stbl: Box<'a>) -> Result<Self, Fault> {
        let (found, wide) = match find(stbl.body, b"co64")? {
            Some(found) => (found, true),
            None => (need(stbl.body, b"stco")?, false),
        };
        let mut cursor = found.cursor();
        cursor.version_flags()?;
        let left = cursor.rows(if wide { 8 } else { 4 })?;
        Ok(Self { cursor, left, wide })
    }

    fn next(&mut self) -> Result<Option<u64>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.cursor.sized(u8::from(self.wide)).map(Some)
    }
}

#[cfg(test)]
mod tests;
