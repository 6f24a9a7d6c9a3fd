//! Which of the tier's folders lie on one filesystem and share what that has.
//!
//! Each is looked at for its own disk alone, which tells the others: a filesystem may hang, and those
//! of others are not to hang with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long those are waited for that were not found yet: to stat a folder.
const FOUND_MAX: Duration = Duration::from_secs(1);

/// All folders of the tier. Clones share what is known of them.
#[derive(Clone)]
pub(crate) struct Folders(Arc<[Folder]>);

struct Folder {
    disk: crate::Disk,
    /// The number of its filesystem, if it was there. None: not looked for yet.
    found: watch::Sender<Option<Option<u64>>>,
}

impl Folders {
    pub(crate) fn new(disks: &[crate::Disk]) -> Self {
        let folder =
            |disk: &crate::Disk| Folder { disk: disk.clone(), found: watch::Sender::default() };
        Self(disks.iter().map(folder).collect())
    }

    /// A folder was found on this filesystem, or not at all.
    pub(super) fn found(&self, dir: &Path, device: Option<u64>) {
        for folder in self.0.iter().filter(|folder| folder.disk.dir == dir) {
            folder.found.send_replace(Some(device));
        }
    }

    /// The others on this filesystem. All are looked for as the tier starts: what has not been found
    /// by then is on one that hangs.
    pub(super) async fn beside(&self, dir: &Path, device: u64) -> Vec<crate::Disk> {
        let (until, mut beside) = (Instant::now() + FOUND_MAX, Vec::new());
        for Folder { disk, found } in self.0.iter().filter(|folder| folder.disk.dir != dir) {
            let mut found = found.subscribe();
            let known = timeout_at(until, found.wait_for(Option::is_some)).await;
            if known.is_ok_and(|known| known.is_ok_and(|known| *known == Some(Some(device)))) {
                beside.push(disk.clone());
            }
        }
        beside
    }
}
