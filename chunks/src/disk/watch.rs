//! Opens a disk, writes what it is offered, looks whether it is still well, switches it off
//! when it is not, and tries it again.

use super::folder::{bytes_free, first_file};
use super::health::{self, HANG_MAX, LOOK_EVERY, Looks, Trouble, WRITE_MAX};
use super::place::Place;
use super::store::Store;
use super::{Disk, Owner};
use crate::policy::ChunkId;
use crate::value::Key;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// How long a batch waits for more: with every batch foyer writes 16 KiB of index, so many
/// small ones would wear the disk.
const LINGER: Duration = Duration::from_millis(50);

/// Looks after a disk until the task is dropped.
pub(crate) async fn run(disk: Arc<Disk>) {
    // Where the folder was when it was last in use.
    let mut place = None;
    let mut waited = None;
    loop {
        let (trouble, up) = match attach(&disk, &mut place).await {
            Ok((store, first)) => {
                let since = Instant::now();
                let trouble = up(&disk, &store, first).await;
                (trouble, since.elapsed())
            }
            Err(trouble) => (trouble, Duration::ZERO),
        };
        off(&disk, &trouble);
        let wait = health::wait(waited, up);
        waited = Some(wait);
        sleep(wait).await;
    }
}

/// A file's filesystem and number.
type Identity = (u64, u64);

/// Opens what is in the disk's folder, which was at `place` before, and is from then on where it
/// was found.
async fn attach(disk: &Disk, place: &mut Option<Place>) -> Result<(Arc<Store>, Identity), Trouble> {
    let (dir, before, owner) = (disk.dir.clone(), place.clone(), disk.owner.clone());
    let found = blocking(move || find(&dir, before.as_ref(), &owner)).await;
    // Before it is tried: one that is full, or slow, has its share of the filesystem, too.
    disk.folders.found(&disk.dir, found.as_ref().ok().map(Place::device));
    let found = found?;
    let dir = disk.dir.clone();
    // A full disk has its files.
    blocking(move || health::takes_bytes(&dir).map_err(|error| Trouble::Failed(error.to_string())))
        .await?;
    let beside = disk.folders.beside(&disk.dir, found.device()).await;
    let setting = crate::Disk { dir: disk.dir.clone(), bytes: disk.bytes, direct: disk.direct };
    let (owner, memory) = (disk.owner.clone(), disk.memory.clone());
    let store =
        Store::open(setting, (beside, disk.kept.clone()), owner, memory, &disk.metrics).await;
    let store = Arc::new(store.map_err(Trouble::Failed)?);
    let first = look(&disk.dir).await?;
    disk.is_usable(store.bytes());
    disk.device.store(first.0, Ordering::Relaxed);
    *place = Some(found);
    Ok((store, first))
}

/// The disk is in use, until something is wrong.
async fn up(disk: &Disk, store: &Arc<Store>, identity: Identity) -> Trouble {
    let mut troubled = disk.troubled.lock().await;
    // What an earlier store left.
    while troubled.try_recv().is_ok() {}
    *disk.store.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(store));
    disk.metrics.ssd_up.with_label_values(&[disk.name()]).set(1);
    disk.tried.send_replace(true);
    tracing::info!(disk = disk.name, "the disk is in use");
    tokio::select! {
        Some(trouble) = troubled.recv() => trouble,
        trouble = watch(disk, identity) => trouble,
        trouble = write(disk, store) => trouble,
    }
}

fn off(disk: &Disk, trouble: &Trouble) {
    *disk.store.write().unwrap_or_else(PoisonError::into_inner) = None;
    disk.metrics.ssd_up.with_label_values(&[disk.name()]).set(0);
    disk.metrics.ssd_troubles.with_label_values(&[disk.name(), trouble.name()]).inc();
    disk.tried.send_replace(true);
    disk.dropped("off", disk.queue.clear());
    tracing::error!(disk = disk.name, %trouble, "the disk is switched off: serving without it");
}

/// Looks at the disk until something is wrong.
async fn watch(disk: &Disk, identity: Identity) -> Trouble {
    let mut looks = Looks::default();
    disk.reads.forget();
    loop {
        sleep(LOOK_EVERY).await;
        disk.metrics.policy(&disk.policy.stats());
        if let Some(trouble) = looks.at(&disk.reads) {
            return trouble;
        }
        match timeout(HANG_MAX, look(&disk.dir)).await {
            Ok(Ok(now)) if now == identity => {}
            Ok(Ok(_)) => return Trouble::Gone("other files are in their place".into()),
            Ok(Err(trouble)) => return trouble,
            Err(_) => return Trouble::Slow,
        }
    }
}

async fn look(dir: &Path) -> Result<Identity, Trouble> {
    let first = first_file(dir);
    let looked = spawn_blocking(move || std::fs::metadata(first)).await;
    let file = looked.map_err(io::Error::other).flatten();
    file.map(|file| (file.dev(), file.ino())).map_err(|error| Trouble::Gone(error.to_string()))
}

/// Writes what the disk is offered, batch by batch, and with it what is still wanted of the
/// blocks that make room.
async fn write(disk: &Disk, store: &Arc<Store>) -> Trouble {
    let (mut written, mut due) = (0, VecDeque::new());
    loop {
        let fresh = disk.queue.batch(LINGER).await;
        let (owned, policy, mut mine) =
            (Arc::clone(store), Arc::clone(&disk.policy), mem::take(&mut due));
        let keeping = in_time(store, async move {
            mine.extend(owned.due().await);
            let keep = |key: &Key, bytes| policy.keep(ChunkId::new(&key.body, key.number), bytes);
            owned.keep(&mut mine, keep).await.map(|kept| (kept, mine))
        });
        let kept = match keeping.await {
            Ok(Ok((kept, rest))) => {
                due = rest;
                kept
            }
            Ok(Err(error)) => return Trouble::Failed(error),
            Err(trouble) => return trouble,
        };
        let kept_bytes: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        let (owned, batch) = (Arc::clone(store), [fresh.clone(), kept].concat());
        let lost = match in_time(store, async move { owned.write(&batch).await }).await {
            Ok(lost) => lost,
            Err(trouble) => return trouble,
        };
        disk.metrics.ssd_kept_bytes.inc_by(kept_bytes as u64);
        disk.metrics.ssd_written_bytes.inc_by(store.written_bytes().saturating_sub(written));
        written = store.written_bytes();
        disk.queue.done(&fresh);
        if !lost.is_empty() {
            return not_written(disk, lost.len()).await;
        }
    }
}

/// Runs a part of a batch on the store's threads, for [`WRITE_MAX`] at most.
async fn in_time<T: Send + 'static>(
    store: &Store,
    part: impl Future<Output = T> + Send + 'static,
) -> Result<T, Trouble> {
    match timeout(WRITE_MAX, store.spawn(part)).await {
        Ok(done) => done.map_err(|error| Trouble::Failed(error.to_string())),
        Err(_) => Err(Trouble::Slow),
    }
}

async fn not_written(disk: &Disk, lost: usize) -> Trouble {
    disk.dropped("failed", lost);
    let dir = disk.dir.clone();
    let free = spawn_blocking(move || bytes_free(&dir).unwrap_or(0)).await.unwrap_or(0);
    Trouble::Failed(format!("{lost} chunks not written, {free} bytes are free"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Trouble::Failed(error.to_string())))
}

/// Finds the folder.
fn find(dir: &Path, before: Option<&Place>, owner: &Owner) -> Result<Place, Trouble> {
    if std::fs::metadata(dir).is_ok_and(|found| !found.is_dir()) {
        return Err(Trouble::Failed("expected a folder, found a file".into()));
    }
    Place::find(dir, before, owner).map_err(|error| Trouble::Gone(error.to_string()))
}
