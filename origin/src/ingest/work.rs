//! The work folder: where a title is packaged before it is uploaded.
//!
//! Its name follows from the sources, so that a run which was killed leaves its files where
//! the next run of the same command writes over them.

use super::{Config, track_path, tree_path};
use crate::Error;
use manifests::package::{self, Written};
use service::Shutdown;
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// A work folder that no other process uses.
pub(super) struct Work {
    dir: PathBuf,
    /// Held while the ingest runs: the lock goes with it.
    _lock: File,
}

impl Work {
    /// Opens the work folder for these sources.
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let base = config.work_dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = base.join(format!("nearcast-ingest-{}", fingerprint(config)?));
        std::fs::create_dir_all(&dir).map_err(|error| Error::file(&dir, error))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(|error| Error::file(&path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: dir }),
            Err(TryLockError::Error(error)) => Err(Error::file(path, error)),
        }
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a track's file, and its tree file, through `write`; ends early once `shutdown` is
    /// requested.
    pub(super) fn write(
        &self,
        id: &str,
        shutdown: &Shutdown,
        write: impl FnOnce(&mut dyn Write) -> Result<Written, package::Error>,
    ) -> Result<Written, Error> {
        let path = track_path(&self.dir, id);
        let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
        let mut out = Stoppable { out: BufWriter::with_capacity(BUFFER_BYTES, file), shutdown };
        match write(&mut out) {
            Err(_) if shutdown.is_requested() => Err(Error::Stopped),
            Err(error) => Err(error.into()),
            Ok(written) => {
                out.flush().map_err(|error| Error::file(path, error))?;
                let path = tree_path(&self.dir, id);
                std::fs::write(&path, &written.tree).map_err(|error| Error::file(path, error))?;
                Ok(written)
            }
        }
    }

    /// Removes the folder when the next run has no use for it. What can't be removed costs room, not correctness.
    pub(super) fn finish(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "the work folder is left behind");
        }
    }
}

/// Names what is ingested, how and where to: a hash of paths, sizes and times of change, of
/// parameters, store and title.
fn fingerprint(config: &Config) -> Result<String, Error> {
    let mut hash = blake3::Hasher::new();
    hash.update(format!("{}\n{}\n", config.store, config.title).as_bytes());
    for path in &config.files {
        let whole = path.canonicalize().map_err(|error| Error::file(path, error))?;
        let facts = whole.metadata().map_err(|error| Error::file(path, error))?;
        hash.update(whole.as_os_str().as_encoded_bytes());
        for number in [facts.len(), facts.mtime().unsigned_abs()] {
            hash.update(&number.to_le_bytes());
        }
    }
    hash.update(&config.segment_target_ms.to_le_bytes());
    hash.update(&[u8::from(config.ladder)]);
    Ok(hash.finalize().to_hex()[..16].to_owned())
}

/// Fails to write once shutdown is requested.
struct Stoppable<'a, W> {
    out: W,
    shutdown: &'a Shutdown,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.shutdown.is_requested() {
            return Err(std::io::Error::other("stopped"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
