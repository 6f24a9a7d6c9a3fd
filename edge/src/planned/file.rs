//! One planned track file: its bytes, and beside it (`{file}.have`) a checksum of each chunk
//! that is here.
//!
//! `.have`: the magic `NCPLAN01`, the file's size (`u64`), then one `u64` a chunk: 0 when it
//! is absent, else its XXH3. All little-endian. A checksum is written only after its chunk is
//! durable, so that a crash at any time leaves no chunk that claims to be here and is not.

use super::watch::Identity;
use bytes::Bytes;
use model::{Track, chunk};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"NCPLAN01";
const HEAD_BYTES: u64 = 16;
const SUM_BYTES: u64 = 8;

/// A planned track file, open.
pub struct PlannedFile {
    name: String,
    path: PathBuf,
    identity: Identity,
    data: File,
    have: File,
    is_readable_only: bool,
    file_bytes: u64,
    sums: Vec<AtomicU64>,
}

/// What a read found.
pub enum Check {
    /// The chunk, as it arrived.
    Whole(Bytes),
    /// It is not here.
    Absent,
    /// It was here and is not what it was: forgotten now.
    Damaged(String),
    /// The disk can't read it.
    Failed(io::Error),
}

/// XXH3, never 0.
fn sum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes).max(1)
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl PlannedFile {
    /// Opens the file of `track` in `dir`, made if need be. Blocks.
    pub fn open(dir: &Path, track: &Track) -> io::Result<Self> {
        let name = track.file_name();
        let path = dir.join(&name);
        let (data, is_data_readable_only) = open(&path)?;
        let is = data.metadata()?;
        let (have, is_have_readable_only) = open(&dir.join(format!("{name}.have")))?;
        let is_readable_only = is_data_readable_only || is_have_readable_only;
        let file_bytes = track.facts.file_bytes;
        let sums = match read_sums(&have, file_bytes)? {
            Some(sums) => sums,
            None => {
                have.set_len(0)?;
                let chunks = chunk::count(file_bytes);
                let mut head = MAGIC.to_vec();
                head.extend_from_slice(&file_bytes.to_le_bytes());
                have.write_all_at(&head, 0)?;
                have.set_len(HEAD_BYTES + chunks * SUM_BYTES)?;
                have.sync_all()?;
                (0..chunks).map(|_| 0).collect()
            }
        };
        let sums = sums.into_iter().map(AtomicU64::new).collect();
        let identity = (is.dev(), is.ino());
        Ok(Self { name, path, identity, data, have, is_readable_only, file_bytes, sums })
    }

    /// Name below the version's folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file was there.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether its filesystem took no writes when it was opened.
    pub fn is_readable_only(&self) -> bool {
        self.is_readable_only
    }

    fn sum_of(&self, number: u64) -> u64 {
        self.sums.get(place(number)).map_or(0, |sum| sum.load(Ordering::Acquire))
    }

    /// Whether the chunk is here.
    pub fn holds(&self, number: u64) -> bool {
        self.sum_of(number) != 0
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> u64 {
        self.sums.len() as u64
    }

    /// Whether every chunk is here.
    pub fn is_complete(&self) -> bool {
        self.sums.iter().all(|sum| sum.load(Ordering::Acquire) != 0)
    }

    /// Bytes that are here.
    pub fn bytes_present(&self) -> u64 {
        let here = (0..self.sums.len() as u64).filter(|number| self.holds(*number));
        here.map(|number| chunk::range(number, self.file_bytes).bytes).sum()
    }

    /// The first run of at most `chunks_max` neighbours that are not here, from `from` on.
    pub fn missing(&self, from: u64, chunks_max: u64) -> Option<Range<u64>> {
        let count = self.sums.len() as u64;
        let first = (from..count).find(|number| !self.holds(*number))?;
        let most = count.min(first + chunks_max);
        let end = (first..most).find(|number| self.holds(*number)).unwrap_or(most);
        Some(first..end)
    }

    /// Of neighbouring chunks, the first ones that fit into so many bytes.
    pub fn fitting(&self, chunks: Range<u64>, bytes_max: u64) -> Range<u64> {
        let (start, mut left) = (chunks.start, bytes_max);
        let fits = |number: &u64| {
            let bytes = chunk::range(*number, self.file_bytes).bytes;
            left.checked_sub(bytes).map(|rest| left = rest).is_some()
        };
        start..start + chunks.take_while(fits).count() as u64
    }

    /// Reads a chunk and checks it. Blocks.
    pub fn read(&self, number: u64) -> Check {
        let expected = self.sum_of(number);
        if expected == 0 {
            return Check::Absent;
        }
        let reason = match self.read_raw(number) {
            Ok(bytes) if sum(&bytes) == expected => return Check::Whole(bytes.into()),
            Ok(_) => "its checksum differs".to_owned(),
            // The file was cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => error.to_string(),
            Err(error) => return Check::Failed(error),
        };
        Check::Damaged(self.forget(number, reason))
    }

    /// Forgets a chunk, for a reason; on disk, too, if the disk takes it: if not, the next start
    /// finds it again. Blocks.
    pub fn forget(&self, number: u64, reason: String) -> String {
        match self.keep_sum(number, 0) {
            Ok(()) => reason,
            Err(error) => format!("{reason}; {error}"),
        }
    }

    fn read_raw(&self, number: u64) -> io::Result<Vec<u8>> {
        let range = chunk::range(number, self.file_bytes);
        let length = usize::try_from(range.bytes).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.data.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    fn keep_sum(&self, number: u64, sum: u64) -> io::Result<()> {
        let Some(slot) = self.sums.get(place(number)) else { return Ok(()) };
        slot.store(sum, Ordering::Release);
        self.have.write_all_at(&sum.to_le_bytes(), HEAD_BYTES + number * SUM_BYTES)
    }

    /// Stores verified chunks: first they, then that they are here. Blocks.
    pub fn store(&self, chunks: &[(u64, Bytes)]) -> io::Result<()> {
        for (number, bytes) in chunks {
            self.data.write_all_at(bytes, chunk::range(*number, self.file_bytes).start)?;
        }
        self.data.sync_data()?;
        for (number, bytes) in chunks {
            self.keep_sum(*number, sum(bytes))?;
        }
        self.have.sync_data()
    }

    /// Takes over chunks that were written before a crash but not yet noted: each is verified
    /// against the index. Blocks.
    pub fn adopt(&self, track: &Track) -> io::Result<u64> {
        let written = self.data.metadata()?.len();
        let mut adopted = 0;
        for number in (0..self.sums.len() as u64).filter(|number| !self.holds(*number)) {
            if chunk::range(number, self.file_bytes).end() > written {
                break;
            }
            // What can't be read is not here: to write it anew is the one way to mend it.
            let Ok(bytes) = self.read_raw(number) else { continue };
            if track.chunk_is_whole(number, &bytes) {
                self.keep_sum(number, sum(&bytes))?;
                adopted += 1;
            }
        }
        if adopted > 0 {
            self.data.sync_data()?;
            self.have.sync_data()?;
        }
        Ok(adopted)
    }
}

/// Opens a file, made if need be; for reading alone, and so said, where the filesystem takes no
/// writes: after an error, Linux remounts it like that.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match file {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Ok((File::open(path)?, true))
        }
        file => Ok((file?, false)),
    }
}

/// The checksums, if they are those of such a file.
fn read_sums(have: &File, file_bytes: u64) -> io::Result<Option<Vec<u64>>> {
    let count = chunk::count(file_bytes);
    let length = HEAD_BYTES + count * SUM_BYTES;
    if have.metadata()?.len() != length {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    have.read_exact_at(&mut bytes, 0)?;
    let (head, sums) = bytes.split_at(HEAD_BYTES as usize);
    if &head[..8] != MAGIC || head[8..] != file_bytes.to_le_bytes() {
        return Ok(None);
    }
    let sums = sums.chunks_exact(8).map(|sum| u64::from_le_bytes(sum.try_into().unwrap_or([0; 8])));
    Ok(Some(sums.collect()))
}
