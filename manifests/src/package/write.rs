//! One pass over a track file: bytes out, digests of its chunks on the way.

use super::layout::Layout;
use super::{Error, ReadAt};
use crate::mp4::movie::Sample;
use crate::mp4::out;
use model::index::Segment;
use model::tree::{Hashed, Hasher};
use std::io::{self, Write};

/// Media is read in pieces of at most this, in bytes.
const READ_BYTES_MAX: usize = 1 << 20;

/// A sink that takes the digest of each chunk as it passes.
pub(super) struct Digesting<'a> {
    out: &'a mut dyn Write,
    progress: &'a mut dyn FnMut(u64),
    hasher: Hasher,
}

impl<'a> Digesting<'a> {
    pub(super) fn new(out: &'a mut dyn Write, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { out, progress, hasher: Hasher::default() }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        (self.progress)(bytes.len() as u64);
        Ok(())
    }

    /// The digests of all chunks, the last one short, and of their leaves.
    pub(super) fn finish(self) -> io::Result<Hashed> {
        self.out.flush()?;
        Ok(self.hasher.finish())
    }
}

/// Who failed: the source or the sink.
pub(super) enum Failed {
    Read(io::Error),
    Write(io::Error),
}

impl Failed {
    pub(super) fn error(self, track: &str, file: &str) -> Error {
        match self {
            Self::Read(source) => Error::Read { file: file.to_owned(), source },
            Self::Write(source) => Error::Write { track: track.to_owned(), source },
        }
    }
}

/// Writes a whole track file.
pub(super) fn track(
    layout: &Layout,
    segments: &[Segment],
    data: &dyn ReadAt,
    out: &mut Digesting<'_>,
) -> Result<(), Failed> {
    out.put(&layout.init).map_err(Failed::Write)?;
    out.put(&layout.sidx).map_err(Failed::Write)?;
    let mut buffer = vec![0; READ_BYTES_MAX];
    for (n, segment) in segments.iter().enumerate() {
        let samples = layout.samples(n);
        // There are fewer segments than 2^16.
        let number = u32::try_from(n + 1).unwrap_or(u32::MAX);
        out.put(&out::moof(number, segment.start, samples)).map_err(Failed::Write)?;
        media(samples, data, out, &mut buffer)?;
    }
    Ok(())
}

/// Copies samples, joined where they lie one after another in the source.
fn media(
    samples: &[Sample],
    data: &dyn ReadAt,
    out: &mut Digesting<'_>,
    buffer: &mut [u8],
) -> Result<(), Failed> {
    let mut samples = samples.iter().peekable();
    while let Some(first) = samples.next() {
        let (mut at, mut end) = (first.offset, first.offset + u64::from(first.bytes));
        while let Some(next) = samples.next_if(|next| next.offset == end) {
            end += u64::from(next.bytes);
        }
        while at < end {
            let piece = (end - at).min(buffer.len() as u64);
            // At most the length of the buffer.
            let part = &mut buffer[..usize::try_from(piece).unwrap_or(0)];
            data.read_exact_at(at, part).map_err(Failed::Read)?;
            out.put(part).map_err(Failed::Write)?;
            at += piece;
        }
    }
    Ok(())
}
