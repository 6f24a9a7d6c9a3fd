//! The object store: a folder (`dir:PATH`), memory (`mem:`) or S3 (`s3://bucket/prefix`).
//!
//! An object appears whole or not at all, also across a crash. Names of objects are checked
//! here, once, and are safe in a path and in a URL from then on.

mod backend;
mod dir;
mod error;
mod http_pool;
mod key;
mod mem;
mod s3;

use backend::Backend;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use service::Shutdown;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use backend::{Entry, Head, Progress, Reading};
pub use error::{At, Error};
pub use s3::S3Settings;

/// A listing of more objects than this is refused: it would take the memory of the asker.
pub const LIST_ENTRIES_MAX: usize = 1_000_000;
/// What `put_if_absent` takes at most, in bytes.
pub const SMALL_BYTES_MAX: usize = 1 << 20;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An object store. Cheap to clone; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    url: Arc<str>,
    backend: Arc<dyn Backend>,
}

impl Store {
    /// Opens the store that `url` names: `dir:PATH`, `mem:` (a new one), `mem:NAME` (the same
    /// one for every opener in this process) or `s3://bucket/prefix`, the latter with the
    /// usual AWS variables ([`S3Settings::from_env`]). Touches nothing yet: a store that can't
    /// be reached says so at its first use.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn open(url: &str) -> Result<Self> {
        if url.starts_with("s3:") {
            return Self::open_s3(url, &S3Settings::from_env());
        }
        let shared: Arc<str> = url.into();
        let backend: Arc<dyn Backend> = match url.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => {
                Arc::new(dir::Dir::new(shared.clone(), PathBuf::from(path)))
            }
            Some(("mem", "")) => Arc::new(mem::Mem::new(shared.clone())),
            Some(("mem", _)) => mem::Mem::named(&shared),
            _ => return Err(Error::bad_url(url, error::URL_FORMS)),
        };
        Ok(Self { url: shared, backend })
    }

    /// Opens an S3 store with these settings instead of the environment's.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn open_s3(url: &str, settings: &S3Settings) -> Result<Self> {
        let shared: Arc<str> = url.into();
        let backend = Arc::new(s3::S3::open(shared.clone(), settings)?);
        Ok(Self { url: shared, backend })
    }

    /// The URL that it was opened by. It holds no credential.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes room for a new store where there is none: the folder of a `dir:` store, if its
    /// parent exists. A store that is there is left as it is. Only who writes the first
    /// object calls this: for everybody else a missing folder is a disk that is not mounted.
    ///
    /// # Errors
    /// Those of a store that can't be written.
    pub async fn create(&self) -> Result<()> {
        self.backend.create().await
    }

    /// Size and validator of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of a store that can't be read.
    pub async fn head(&self, key: &str) -> Result<Head> {
        self.backend.head(self.checked(key)?).await
    }

    /// Opens an object, or the bytes `range` of it, for reading as a stream. The stream ends
    /// with an error, never early, if the store gives fewer bytes than were asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OutOfRange`], and those of a store that can't be read.
    pub async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading> {
        let key = self.checked(key)?;
        if let Some(range) = range.as_ref().filter(|range| range.start >= range.end) {
            return Err(Error::OutOfRange { at: self.at(key), range: range.clone() });
        }
        self.backend.read(key, range).await
    }

    /// A whole object, of `bytes_max` at most.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and those of [`Store::read`].
    pub async fn get(&self, key: &str, bytes_max: usize) -> Result<Bytes> {
        let reading = self.read(key, None).await?;
        let bytes = reading.head.bytes;
        if usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max) {
            return Err(Error::TooLarge { at: self.at(key), bytes, bytes_max });
        }
        collect(reading, bytes).await
    }

    /// The bytes `range` of an object, in memory.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let bytes = range.end.saturating_sub(range.start);
        collect(self.read(key, Some(range)).await?, bytes).await
    }

    /// Stores a local file as an object. It appears whole or not at all, and is on the store's
    /// disk when this returns; an object of this name is replaced whole. `progress` hears
    /// numbers of bytes as they are stored. Once `stop` is requested, what is half stored is
    /// removed.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Source`] for the local file, and those of a store that
    /// can't be written.
    pub async fn put_file(
        &self,
        key: &str,
        file: &Path,
        progress: Progress,
        stop: &Shutdown,
    ) -> Result<()> {
        self.backend.put_file(self.checked(key)?, file, progress, stop).await
    }

    /// Stores a small object (`SMALL_BYTES_MAX`) unless one of this name is there. Of several
    /// callers one succeeds. Over a network, a caller whose success was lost on the way and
    /// tried again may also see [`Error::AlreadyExists`].
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::TooLarge`], and those of a store that can't be
    /// written.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<()> {
        let key = self.checked(key)?;
        if bytes.len() > SMALL_BYTES_MAX {
            return Err(Error::TooLarge {
                at: self.at(key),
                bytes: bytes.len() as u64,
                bytes_max: SMALL_BYTES_MAX,
            });
        }
        self.backend.put_if_absent(key, bytes).await
    }

    /// The objects below `prefix` (empty, or ending in `/`), sorted by key. Unfinished uploads
    /// are not among them.
    ///
    /// # Errors
    /// [`Error::TooMany`], and those of a store that can't be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        if !prefix.is_empty() {
            let folder = prefix.strip_suffix('/').unwrap_or("");
            self.checked(folder)?;
        }
        let mut entries = self.backend.list(prefix).await?;
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn at(&self, key: &str) -> At {
        At::new(&self.url, key)
    }

    fn checked<'k>(&self, key: &'k str) -> Result<&'k str> {
        if key::is_valid(key) { Ok(key) } else { Err(Error::BadKey { at: self.at(key) }) }
    }
}

/// All of a reading of `bytes`.
async fn collect(mut reading: Reading, bytes: u64) -> Result<Bytes> {
    let first = match reading.stream.next().await {
        None => return Ok(Bytes::new()),
        Some(piece) => piece?,
    };
    if first.len() as u64 == bytes {
        return Ok(first);
    }
    // Grows as bytes arrive: a store's word about a size is no reason to take memory.
    let mut all = BytesMut::from(&first[..]);
    while let Some(piece) = reading.stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.freeze())
}
