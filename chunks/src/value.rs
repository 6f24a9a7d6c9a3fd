//! What the tiers keep: a chunk with its key, how often it was asked for, and how both look
//! on disk.
//!
//! On disk (integers little-endian): `u32` length, 20 bytes of key, the bytes, `u64` XXH3 of
//! all that. foyer checks an entry as a whole and compares its key; this checksum is made and
//! checked on this side of foyer, over the key as well, so that nothing that happens in
//! between can pass off one chunk as another.

use crate::memory::Memory;
use arena::Slot;
use bytes::Bytes;
use foyer::{Code, Error, ErrorKind};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a key.
const KEY_BYTES: usize = 20;
/// Bytes that a chunk takes on disk beside its own.
const FRAME_BYTES: usize = 4 + KEY_BYTES + 8;
/// What a decoder takes over at a time: small enough to stay in the core's own cache for the
/// checksum.
const PIECE_BYTES: usize = 16 << 10;

tokio::task_local! {
    /// Where a chunk that is being read from disk goes, for a decoder that foyer gives no
    /// context.
    pub(crate) static READING: Memory;
}

/// Identity of a chunk: nothing under one key ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Names immutable bytes: a track of a title's version, or one stored representation.
    pub body: [u8; 16],
    /// The chunk's place in them.
    pub number: u32,
}

impl Key {
    /// The key's bytes: the body, then the number (little-endian).
    pub(crate) fn encoded(&self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..16].copy_from_slice(&self.body);
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    pub(crate) fn decoded(bytes: &[u8; KEY_BYTES]) -> Self {
        let (mut body, mut number) = ([0; 16], [0; 4]);
        body.copy_from_slice(&bytes[..16]);
        number.copy_from_slice(&bytes[16..]);
        Self { body, number: u32::from_le_bytes(number) }
    }

    /// The same for every run and every machine.
    pub(crate) fn hash(&self) -> u64 {
        xxh3_64(&self.encoded())
    }
}

/// What is known of a chunk's copy on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Copy {
    /// It may get one.
    None,
    /// It has one, or is on its way to one.
    Kept,
    /// It shall have none: it was derived, or lies on a disk already, by other means.
    Never,
}

/// A chunk's bytes with their key.
#[derive(Debug)]
pub(crate) struct Chunk {
    key: Key,
    bytes: Bytes,
    uses: AtomicU32,
    copy: AtomicU8,
    /// Of a ballast only; see [`Chunk::ballast`].
    ballast: usize,
}

impl Chunk {
    pub(crate) fn new(key: Key, bytes: Bytes, copy: Copy) -> Self {
        let (uses, copy) = (AtomicU32::new(0), AtomicU8::new(copy as u8));
        Self { key, bytes, uses, copy, ballast: 0 }
    }

    /// Nothing, but heavy: makes foyer evict others.
    pub(crate) fn ballast(weight: usize) -> Self {
        // No chunk has this number: no body has 2^32 chunks of 1 MiB.
        let key = Key { body: [0xff; 16], number: u32::MAX };
        Self { ballast: weight, ..Self::new(key, Bytes::new(), Copy::Never) }
    }

    pub(crate) fn is_ballast(&self) -> bool {
        self.ballast > 0
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    /// The same chunk, and what is known of it, with its bytes elsewhere.
    pub(crate) fn moved_to(&self, bytes: Bytes) -> Self {
        let (uses, copy) = (self.uses().into(), self.copy.load(Ordering::Relaxed).into());
        Self { key: self.key, bytes, uses, copy, ballast: self.ballast }
    }

    /// Bytes of the arena that it takes.
    pub(crate) fn block_bytes(&self) -> usize {
        arena::block_bytes(self.bytes.len()).unwrap_or(self.bytes.len())
    }

    pub(crate) fn weight(&self) -> usize {
        self.ballast.max(self.block_bytes())
    }

    /// Counts a use, and says how many there were before.
    pub(crate) fn count_use(&self) -> u32 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    pub(crate) fn copy(&self) -> Copy {
        match self.copy.load(Ordering::Relaxed) {
            0 => Copy::None,
            1 => Copy::Kept,
            _ => Copy::Never,
        }
    }

    /// Marks it as on its way to a disk; `true` for the one caller who is to bring it there.
    pub(crate) fn keep(&self) -> bool {
        let (none, kept) = (Copy::None as u8, Copy::Kept as u8);
        self.copy.compare_exchange(none, kept, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes the mark back: it did not get there, or is not there any more.
    pub(crate) fn unkeep(&self) {
        let (none, kept) = (Copy::None as u8, Copy::Kept as u8);
        let _ = self.copy.compare_exchange(kept, none, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Code for Key {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        writer.write_all(&self.encoded()).map_err(Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        reader.read_exact(&mut bytes).map_err(Error::io_error)?;
        Ok(Self::decoded(&bytes))
    }

    fn estimated_size(&self) -> usize {
        KEY_BYTES
    }
}

impl Code for Chunk {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let length = u32::try_from(self.bytes.len())
            .map_err(|error| Error::new(ErrorKind::OutOfRange, error.to_string()))?;
        let mut sum = Xxh3::new();
        for part in [&length.to_le_bytes()[..], &self.key.encoded(), &self.bytes] {
            sum.update(part);
            writer.write_all(part).map_err(Error::io_error)?;
        }
        writer.write_all(&sum.digest().to_le_bytes()).map_err(Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let read = READING
            .try_with(|memory| decode(reader, |bytes| memory.slot(bytes).ok_or_else(no_room)));
        read.map_err(|error| Error::new(ErrorKind::External, error.to_string()))?
    }

    fn estimated_size(&self) -> usize {
        FRAME_BYTES + self.bytes.len()
    }
}

fn no_room() -> Error {
    Error::new(ErrorKind::External, "no room in memory for a chunk from disk")
}

/// Damage, in the words in which foyer takes it: a miss, and the entry is forgotten.
fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::ChecksumMismatch, what)
}

fn decode(
    reader: &mut impl Read,
    slot: impl FnOnce(usize) -> foyer::Result<Slot>,
) -> foyer::Result<Chunk> {
    let mut sum = Xxh3::new();
    let mut head = [0; 4 + KEY_BYTES];
    reader.read_exact(&mut head).map_err(|_| damaged("a chunk's head is cut off"))?;
    sum.update(&head);
    let (length, key) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().expect("split at its size")) as usize;
    let key = Key::decoded(key.try_into().expect("the rest of the head"));
    if length > arena::BLOCK_BYTES_MAX {
        return Err(damaged("a chunk's length is none"));
    }

    let mut slot = slot(length)?;
    let mut piece = [0; PIECE_BYTES];
    while slot.filled() < length {
        let piece = &mut piece[..PIECE_BYTES.min(length - slot.filled())];
        reader.read_exact(piece).map_err(|_| damaged("a chunk is cut off"))?;
        sum.update(piece);
        slot.write(piece);
    }
    let mut expected = [0; 8];
    reader.read_exact(&mut expected).map_err(|_| damaged("a chunk's checksum is cut off"))?;
    if sum.digest() != u64::from_le_bytes(expected) {
        return Err(damaged("a chunk's bytes are not what was written"));
    }
    Ok(Chunk::new(key, slot.freeze(), Copy::Kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arena::Arena;
    use proptest::prelude::*;

    fn encoded(value: &impl Code) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), value.estimated_size());
        bytes
    }

    fn from(mut bytes: &[u8]) -> foyer::Result<Chunk> {
        let arena = Arena::new(2 << 20).unwrap();
        decode(&mut bytes, |length| arena.slot(length).ok_or_else(no_room))
    }

    fn key(body: u8, number: u32) -> Key {
        Key { body: [body; 16], number }
    }

    #[test]
    fn a_key_survives_the_disk() {
        let key = key(7, 0x0102_0304);
        assert_eq!(Key::decode(&mut encoded(&key).as_slice()).unwrap(), key);
        assert_ne!(key.hash(), self::key(7, 0x0102_0305).hash());
    }

    proptest! {
        #[test]
        fn a_chunk_survives_the_disk_and_no_change_of_it_does(
            number: u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            at: prop::sample::Index,
            flip in 1..=u8::MAX,
            cut: prop::sample::Index,
        ) {
            let chunk = Chunk::new(key(1, number), bytes.clone().into(), Copy::None);
            let mut stored = encoded(&chunk);
            let read = from(&stored).unwrap();
            prop_assert_eq!(read.key(), chunk.key());
            prop_assert_eq!(read.bytes(), &bytes);
            prop_assert!(from(&stored[..cut.index(stored.len())]).is_err());
            let at = at.index(stored.len());
            stored[at] ^= flip;
            prop_assert_eq!(from(&stored).unwrap_err().kind(), ErrorKind::ChecksumMismatch);
        }
    }

    #[test]
    fn one_caller_brings_a_chunk_to_disk() {
        let chunk = Chunk::new(key(1, 2), Bytes::from_static(b"media"), Copy::None);
        assert!(chunk.keep() && !chunk.keep());
        chunk.unkeep();
        assert!(chunk.keep());
        let derived = Chunk::new(key(1, 2), Bytes::from_static(b"media"), Copy::Never);
        assert!(!derived.keep());
    }
}
