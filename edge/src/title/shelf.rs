//! Title indexes on disk, so that an edge that restarts without its origin still knows what
//! its disks hold. Best effort: a file that is missing or wrong costs a fetch.

use super::{Name, Title};
use crate::planned::Planned;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Index files kept; the oldest go first.
const FILES_MAX: usize = 4096;
/// The folder is looked over after this many writes.
const SWEEP_EVERY: usize = 256;

/// The folder of indexes: one file a version, `{title}.{version}`. Those of planned titles lie
/// beside their files and are never swept; they are in memory while these are open.
pub struct Shelf {
    dir: PathBuf,
    planned: Arc<Planned>,
    writes: AtomicUsize,
}

impl Shelf {
    /// The folder `dir`, made if need be; `planned` has the planned titles.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(dir: PathBuf, planned: Arc<Planned>) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        sweep(&dir);
        Ok(Self { dir, planned, writes: AtomicUsize::new(1) })
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{}.{}", name.0, name.1))
    }

    /// The title, if its index is here and whole.
    pub(super) async fn read(&self, name: &Name) -> Option<Arc<Title>> {
        if let Some(title) = self.planned.title(name) {
            return Some(title);
        }
        let path = self.path(name);
        let title = Title::decode(name, &tokio::fs::read(&path).await.ok()?).map(Arc::new);
        if title.is_none() {
            tracing::warn!(path = %path.display(), "a stored index is damaged");
        }
        title
    }

    /// Keeps a checked index.
    pub(super) async fn write(&self, name: &Name, bytes: Bytes) {
        let path = self.path(name);
        let shown = path.display().to_string();
        let sweeps = self.writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY);
        let dir = sweeps.then(|| self.dir.clone());
        let write = move || {
            if let Some(dir) = dir {
                sweep(&dir);
            }
            crate::disk::replace(&path, &bytes)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(path = shown, %error, "an index can't be kept on disk");
        }
    }
}

/// Removes the oldest files above the bound.
fn sweep(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let aged = |entry: std::fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry));
    let mut files: Vec<_> = entries.filter_map(Result::ok).filter_map(aged).collect();
    if files.len() <= FILES_MAX {
        return;
    }
    files.sort_by_key(|(age, _)| *age);
    let above = files.len() - FILES_MAX;
    for (_, entry) in files.drain(..above) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "an old index can't be removed");
        }
    }
}
