//! A store in a folder: one file an object.
//!
//! A file is written below `.incoming`, synced, then renamed (or linked) into its place, and
//! the folder is synced: after a crash an object is there whole or not at all. A writer holds
//! a lock on its unfinished file, so that the next one can tell and remove what a crash left.

use crate::backend::{Backend, Entry, Head, Progress, Reading};
use crate::error::{At, Error};
use crate::{LIST_ENTRIES_MAX, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use service::Shutdown;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Unfinished files lie here, out of every listing.
const INCOMING: &str = ".incoming";
/// An unfinished file younger than this is let alone: its writer may not have locked it yet.
const LEFTOVER_AGE_MIN: Duration = Duration::from_secs(10);
/// Bytes in a piece of a reading or of a copy.
const PIECE_BYTES: usize = 256 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Dir {
    url: Arc<str>,
    root: Arc<Path>,
}

impl Dir {
    pub(crate) fn new(url: Arc<str>, root: PathBuf) -> Self {
        Self { url, root: root.into() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn at(&self, key: &str) -> At {
        At::new(&self.url, key)
    }

    /// What an error at `key` means. A missing folder is a store that is gone (a disk not
    /// mounted), which must not look like an object that never was.
    fn failed(&self, key: &str, error: &io::Error) -> Error {
        let gone = error.kind() == ErrorKind::NotFound && !self.root.is_dir();
        // A folder of this name, or a file where a folder would be, is no object.
        let no_object = matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::NotADirectory);
        match () {
            () if gone => Error::Unavailable {
                at: self.at(key),
                why: format!("there is no folder {}", self.root.display()),
            },
            () if no_object && self.root.is_dir() => Error::NotFound { at: self.at(key) },
            () => Error::from_io(self.at(key), error),
        }
    }

    /// What an error while writing means: here a missing or misplaced folder is no "not found".
    fn not_written(&self, key: &str, error: &io::Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                let why =
                    format!("{} is no folder that can be written: {error}", self.root.display());
                Error::Unavailable { at: self.at(key), why }
            }
            _ => Error::from_io(self.at(key), error),
        }
    }

    fn open(&self, key: &str) -> Result<(File, Head)> {
        let failed = |error| self.failed(key, &error);
        let file = File::open(self.path(key)).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(Error::NotFound { at: self.at(key) });
        }
        let etag = format!("{:x}-{:x}.{:x}", facts.ino(), facts.mtime(), facts.mtime_nsec());
        Ok((file, Head { bytes: facts.len(), etag }))
    }

    /// Fills an unfinished file and gives it its name: replacing, or only if absent.
    fn put(
        &self,
        key: &str,
        replace: bool,
        fill: &mut dyn FnMut(&mut File) -> Result<()>,
    ) -> Result<()> {
        let failed = |error| self.not_written(key, &error);
        let target = self.path(key);
        create_folders(&self.root.join(INCOMING)).map_err(failed)?;
        remove_leftovers(&self.root.join(INCOMING));
        let mut partial = Partial::create(&self.root.join(INCOMING)).map_err(failed)?;
        fill(&mut partial.file)?;
        partial.file.sync_all().map_err(failed)?;
        let folder = target.parent().unwrap_or(&self.root);
        create_folders(folder).map_err(failed)?;
        if replace {
            fs::rename(&partial.path, &target).map_err(failed)?;
        } else {
            fs::hard_link(&partial.path, &target).map_err(failed)?;
        }
        sync_folder(folder).map_err(failed)
    }

    fn copy_in(
        &self,
        key: &str,
        source: &Path,
        progress: &Progress,
        stop: &Shutdown,
    ) -> Result<()> {
        let unreadable = |error| Error::Source { path: source.to_owned(), source: error };
        let mut from = File::open(source).map_err(unreadable)?;
        let mut piece = vec![0; PIECE_BYTES];
        self.put(key, true, &mut |to| {
            loop {
                if stop.is_requested() {
                    return Err(Error::Stopped { at: self.at(key) });
                }
                let read = from.read(&mut piece).map_err(unreadable)?;
                if read == 0 {
                    return Ok(());
                }
                to.write_all(&piece[..read]).map_err(|error| self.not_written(key, &error))?;
                progress(read as u64);
            }
        })
    }

    fn walk(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut folders = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let listing = match fs::read_dir(self.path(&folder)) {
                Ok(listing) => listing,
                Err(error) => match self.failed(&folder, &error) {
                    Error::NotFound { .. } => continue,
                    error => return Err(error),
                },
            };
            for file in listing {
                let failed = |error| self.failed(&folder, &error);
                let file = file.map_err(failed)?;
                // A name that no key can have was not put here by a store.
                let Some(name) = file.file_name().to_str().map(str::to_owned) else { continue };
                let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if !crate::key::is_valid(&key) {
                    continue;
                }
                let facts = file.metadata().map_err(failed)?;
                if facts.is_dir() {
                    folders.push(key);
                } else if facts.is_file() {
                    entries.push(Entry { key, bytes: facts.len() });
                }
                if entries.len() > LIST_ENTRIES_MAX {
                    let at = self.at(prefix);
                    return Err(Error::TooMany { at, entries_max: LIST_ENTRIES_MAX });
                }
            }
        }
        Ok(entries)
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (dir, key) = (self.clone(), key.to_owned());
        let at = self.at(&key);
        let done = tokio::task::spawn_blocking(move || work(&dir, &key)).await;
        done.unwrap_or_else(|error| Err(Error::Unavailable { at, why: error.to_string() }))
    }
}

/// An unfinished file: gone when this is dropped, however that comes.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn create(folder: &Path) -> io::Result<Self> {
        // Random, since writers in two containers may share the folder and the process id.
        let name = RandomState::new().hash_one(std::process::id());
        let path = folder.join(format!("{name:016x}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let partial = Self { path, file };
        partial.file.lock()?;
        Ok(partial)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; a file that stays is removed by the next
        // writer.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes unfinished files whose writers have died. What can't be removed is tried again by
/// the next writer.
fn remove_leftovers(folder: &Path) {
    let Ok(listing) = fs::read_dir(folder) else { return };
    for entry in listing.flatten() {
        let age = entry.metadata().and_then(|facts| facts.modified()).map(|at| at.elapsed());
        let old = matches!(age, Ok(Ok(age)) if age > LEFTOVER_AGE_MIN);
        if old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates a folder and those above it, each synced into the one that holds it.
fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_folders(above)?;
    }
    match fs::create_dir(folder) {
        // Never "exists already": that would be said of the object.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !folder.is_dir() => {
            Err(ErrorKind::NotADirectory.into())
        }
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(above.unwrap_or(Path::new("."))),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What is left of a reading.
struct Rest {
    dir: Dir,
    key: String,
    file: Arc<File>,
    range: Range<u64>,
}

impl Rest {
    /// The next piece and what is left then; nothing at the end.
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        let left = self.range.end - self.range.start;
        if left == 0 {
            return None;
        }
        let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let (file, start) = (self.file.clone(), self.range.start);
        let read = self.dir.blocking(&self.key, move |dir, key| {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, start)
                .map_err(|error| Error::from_io(dir.at(key), &error))?;
            Ok(Bytes::from(piece))
        });
        let read = read.await;
        self.range.start = if read.is_ok() { start + length as u64 } else { self.range.end };
        Some((read, self))
    }
}

#[async_trait]
impl Backend for Dir {
    async fn create(&self) -> Result<()> {
        match tokio::fs::create_dir(&self.root).await {
            Ok(()) => Ok(()),
            Err(_) if self.root.is_dir() => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(self.not_written("", &ErrorKind::NotADirectory.into()))
            }
            Err(error) => Err(self.not_written("", &error)),
        }
    }

    async fn head(&self, key: &str) -> Result<Head> {
        self.blocking(key, |dir, key| Ok(dir.open(key)?.1)).await
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading> {
        let (file, head) = self.blocking(key, Self::open).await?;
        let range = range.unwrap_or(0..head.bytes);
        if range.end > head.bytes {
            return Err(Error::OutOfRange { at: self.at(key), range });
        }
        let rest = Rest { dir: self.clone(), key: key.to_owned(), file: Arc::new(file), range };
        Ok(Reading { head, stream: futures::stream::unfold(rest, Rest::next).boxed() })
    }

    async fn put_file(
        &self,
        key: &str,
        file: &Path,
        progress: Progress,
        stop: &Shutdown,
    ) -> Result<()> {
        let (file, stop) = (file.to_owned(), stop.clone());
        self.blocking(key, move |dir, key| dir.copy_in(key, &file, &progress, &stop)).await
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<()> {
        let put = move |dir: &Self, key: &str| {
            dir.put(key, false, &mut |file| {
                file.write_all(&bytes).map_err(|error| dir.not_written(key, &error))
            })
        };
        self.blocking(key, put).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.blocking(prefix, Self::walk).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &Path) -> Dir {
        Dir::new("dir:test".into(), root.to_owned())
    }

    #[tokio::test]
    async fn what_a_crash_left_is_removed_but_not_what_another_writer_writes() {
        let root = tempfile::tempdir().unwrap();
        let incoming = root.path().join(INCOMING);
        fs::create_dir(&incoming).unwrap();
        let old = std::time::SystemTime::now() - LEFTOVER_AGE_MIN * 2;
        let file = |name: &str| {
            let file = File::create(incoming.join(name)).unwrap();
            file.set_modified(old).unwrap();
            file
        };
        drop(file("crashed"));
        let written = file("written");
        written.lock().unwrap();
        store(root.path()).put_if_absent("a", Bytes::from_static(b"x")).await.unwrap();
        let left: Vec<_> =
            fs::read_dir(&incoming).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(left, ["written"]);
    }

    #[tokio::test]
    async fn a_store_that_is_gone_is_not_an_object_that_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let gone = store(&root.path().join("gone"));
        assert!(matches!(gone.head("a").await, Err(Error::Unavailable { .. })));
        assert!(matches!(gone.list("").await, Err(Error::Unavailable { .. })));
        assert!(matches!(store(root.path()).head("a").await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_file_where_the_folder_should_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let put = store(file.path()).put_if_absent("a", Bytes::new()).await;
        assert!(matches!(put, Err(Error::Unavailable { .. })), "{put:?}");
        let create = store(file.path()).create().await;
        assert!(matches!(create, Err(Error::Unavailable { .. })), "{create:?}");
        let head = store(file.path()).head("a").await;
        assert!(matches!(head, Err(Error::Unavailable { .. })), "{head:?}");
    }

    #[tokio::test]
    async fn a_file_cut_while_it_is_read_ends_with_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, vec![7; 3 * PIECE_BYTES]).unwrap();
        let mut reading = store(root.path()).read("a", None).await.unwrap();
        reading.stream.next().await.unwrap().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
        let next = reading.stream.next().await.unwrap();
        assert!(matches!(next, Err(Error::Corrupt { .. })), "{next:?}");
        assert!(reading.stream.next().await.is_none());
    }
}
