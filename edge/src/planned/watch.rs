//! Looks after the planned tier's disk: switches it off when it fails, does not answer or is
//! gone, and takes it back, its files opened anew, once it can be read again.
//!
//! A disk that takes no writes is still read from; see [`Planned::not_written`].

use super::file::{Check, PlannedFile};
use super::{Accepted, Chunk, Open, PLAN_FILE, Planned, PlannedTitle, read_plan, title_dir};
use crate::title::Name;
use chunks::health::{self, HANG_MAX, LOOK_EVERY, Looks, Trouble};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// The longest wait for a thread that asks the disk.
const THREAD_MAX: Duration = Duration::from_millis(500);
/// A start waits this long for the disk: a sound one is in use before the first request.
const START_MAX: Duration = Duration::from_millis(200);
/// Chunks that are read to tell a disk that works from one that does not.
const OTHERS_MAX: usize = 8;
/// The label of a disk that takes no writes, beside [`Trouble::NAMES`].
pub const UNWRITABLE: &str = "unwritable";

/// A file's or folder's filesystem and number.
pub type Identity = (u64, u64);

/// Of what is at `path` now. Blocks.
pub fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// How a question to a disk ended.
pub enum Timed<T> {
    /// With this answer.
    Ended(T),
    /// Not in time.
    Late,
    /// Before it was asked.
    NoThread,
}

/// Asks the disk in a thread. Its time is counted from when a thread was free to ask it.
pub async fn timed<T: Send + 'static>(
    limit: Duration,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Timed<T> {
    let (begun, begins) = oneshot::channel();
    let asking = spawn_blocking(move || {
        // Who asked may have gone.
        let _ = begun.send(());
        ask()
    });
    if timeout(THREAD_MAX, begins).await.is_err() {
        return Timed::NoThread;
    }
    match timeout(limit, asking).await {
        Ok(Ok(answer)) => Timed::Ended(answer),
        Ok(Err(_)) => Timed::NoThread,
        Err(_) => Timed::Late,
    }
}

/// Looks after the disk until the task is dropped.
pub async fn run(planned: Arc<Planned>) {
    let mut waited = None;
    loop {
        let since = Instant::now();
        planned.watch().await;
        let wait = health::wait(waited, since.elapsed());
        waited = Some(wait);
        sleep(wait).await;
        let attaching = Arc::clone(&planned);
        // However long it takes: a disk that hangs is off until it answers.
        if let Ok(Err(trouble)) = spawn_blocking(move || attaching.attach()).await {
            tracing::debug!(%trouble, "the planned tier's disk stays off");
        }
    }
}

/// Where the tier's folder was when it was last in use.
#[derive(Default)]
pub struct Place {
    device: Option<u64>,
}

impl Place {
    /// Finds the folder. It is made if need be, but only on the filesystem where it was: a disk
    /// that is not mounted must not fill the one below. On another filesystem it is the tier's
    /// if a plan is there.
    fn find(&self, dir: &Path) -> io::Result<Identity> {
        let Some(device) = self.device else {
            std::fs::create_dir_all(dir)?;
            return identity(dir);
        };
        let is_same = |path: &Path| identity(path).is_ok_and(|found| found.0 == device);
        if !dir.try_exists()? && dir.parent().is_some_and(is_same) {
            std::fs::create_dir(dir)?;
        }
        let found = identity(dir)?;
        if found.0 != device && !dir.join(PLAN_FILE).try_exists()? {
            return Err(io::Error::other("its disk is not mounted"));
        }
        Ok(found)
    }
}

impl Planned {
    /// Whether the disk is in use.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Takes the disk into use, in a thread: one that hangs does not hold up the start.
    pub fn start(self: &Arc<Self>) {
        let (planned, (ended, end)) = (Arc::clone(self), mpsc::channel());
        std::thread::spawn(move || {
            if let Err(trouble) = planned.attach() {
                planned.tell_off(&trouble);
            }
            // Who starts may have gone on.
            let _ = ended.send(());
        });
        if end.recv_timeout(START_MAX).is_err() {
            tracing::warn!("the planned tier's disk takes long: serving without it");
        }
    }

    /// Takes the disk into use, with what is there of the plan. Blocks.
    ///
    /// # Errors
    /// What is wrong with the disk.
    pub fn attach(&self) -> Result<(), Trouble> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_up() {
            return Ok(());
        }
        let root = place.find(&self.dir).map_err(|error| Trouble::Gone(error.to_string()))?;
        place.device.get_or_insert(root.0);
        let there = read_plan(&self.dir);
        let known = self.lock_plan().clone();
        let accepted = if let Some(known) = known {
            let there = there.ok().flatten();
            let stored = there.is_some_and(|there| there.number == known.plan.number);
            Some(Accepted { complete: false, stored, ..known })
        } else {
            let there = there.map_err(|error| Trouble::Failed(error.to_string()))?;
            there.map(|plan| Accepted { stored: true, ..Accepted::new(plan, self.bytes_max) })
        };
        let titles = accepted.as_ref().map_or(Ok(HashMap::new()), |plan| self.open_all(plan))?;
        self.try_suspect(&titles)?;
        // Another filesystem, perhaps.
        place.device = Some(root.0);
        self.change(|open| {
            *open = Open { titles, root, ..Open::default() };
            self.up.send_replace(true);
        });
        self.metrics.planned_up.set(1);
        tracing::info!(dir = %self.dir.display(), "the planned tier's disk is in use");
        match accepted {
            Some(accepted) => self.enforce(accepted),
            None => self.count_present(),
        }
        self.wanting.notify_one();
        Ok(())
    }

    /// Opens what is there of a plan; an error when nothing is that could be opened.
    fn open_all(&self, plan: &Accepted) -> Result<HashMap<Name, Arc<PlannedTitle>>, Trouble> {
        let (mut titles, mut failed) = (HashMap::new(), Vec::new());
        for name in plan.names() {
            match self.open_stored(&name) {
                Ok(Some(open)) => drop(titles.insert(name, Arc::new(open))),
                Ok(None) => {}
                Err(error) => failed.push((name, error)),
            }
        }
        match failed.first() {
            Some((_, error)) if titles.is_empty() => Err(Trouble::Failed(error.to_string())),
            _ => Ok(titles),
        }
    }

    /// Reads what could not be read. If that fails on a disk that else works, the chunk is
    /// damaged, not the disk: written anew, it will lie elsewhere.
    fn try_suspect(&self, titles: &HashMap<Name, Arc<PlannedTitle>>) -> Result<(), Trouble> {
        let Some(chunk) = self.lock_suspect().clone() else { return Ok(()) };
        let (name, track, number) = &chunk;
        if let Some(file) = titles.get(name).and_then(|title| title.files.get(*track)) {
            match file.read(*number) {
                Check::Whole(_) | Check::Absent => {}
                Check::Damaged(reason) => self.damaged(&chunk, &reason),
                Check::Failed(error) => {
                    if !self.works_but_for(&chunk, titles) {
                        return Err(Trouble::Failed(error.to_string()));
                    }
                    self.damaged(&chunk, &file.forget(*number, error.to_string()));
                }
            }
        }
        *self.lock_suspect() = None;
        Ok(())
    }

    /// Whether the disk takes bytes and gives them back; of one that takes none, whether it gives
    /// another chunk than this.
    fn works_but_for(
        &self,
        (name, track, number): &Chunk,
        titles: &HashMap<Name, Arc<PlannedTitle>>,
    ) -> bool {
        match health::takes_bytes(&title_dir(&self.dir, name)) {
            Ok(()) => return true,
            Err(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem => {}
                _ => return false,
            },
        }
        let others = titles.iter().flat_map(|(of, title)| {
            title.files.iter().enumerate().filter_map(move |(at, file)| {
                let is_it = |other: u64| of == name && at == *track && other == *number;
                let other = (0..file.chunks()).find(|other| file.holds(*other) && !is_it(*other));
                other.map(|other| (file, other))
            })
        });
        let mut others = others.take(OTHERS_MAX);
        others.any(|(file, other)| matches!(file.read(other), Check::Whole(_)))
    }

    /// Whether the disk is in use, and the one in its place. The place is locked. Blocks.
    pub(super) fn is_in_place(&self) -> io::Result<()> {
        let root = self.opened().root;
        if !self.is_up() || identity(&self.dir)? != root {
            return Err(io::Error::other("the disk is not in its place"));
        }
        Ok(())
    }

    /// A file that was opened for reading alone, on a disk that takes writes again, has to be
    /// opened anew, as all are. Blocks.
    pub(super) fn reopen_if_writable(&self, file: &PlannedFile) -> io::Result<()> {
        // What is complete needs no writing.
        if !file.is_readable_only() || file.is_complete() {
            return Ok(());
        }
        let reads = Arc::clone(&self.opened().reads);
        health::takes_bytes(file.path().parent().unwrap_or(&self.dir))?;
        let trouble = Trouble::Gone("it took no writes, and does again".to_owned());
        // Not if it is open anew already.
        self.off(&trouble, |open| Arc::ptr_eq(&open.reads, &reads));
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Stops using the disk, if it is in use and `is_it`; says whether that was so.
    pub(super) fn off(&self, trouble: &Trouble, is_it: impl FnOnce(&Open) -> bool) -> bool {
        let open = self.change(|open| {
            let is_it = self.is_up() && is_it(open);
            is_it.then(|| {
                self.up.send_replace(false);
                std::mem::take(open)
            })
        });
        let Some(open) = open else { return false };
        // To close a file of a disk that hangs blocks.
        spawn_blocking(move || drop(open));
        self.tell_off(trouble);
        true
    }

    fn tell_off(&self, trouble: &Trouble) {
        self.metrics.planned_up.set(0);
        self.metrics.planned_troubles.with_label_values(&[trouble.name()]).inc();
        self.count_present();
        let dir = self.dir.display();
        tracing::error!(%dir, %trouble, "the planned tier's disk is switched off");
    }

    /// Looks at the disk for as long as it is in use.
    async fn watch(self: &Arc<Self>) {
        let (mut up, mut looks) = (self.up.subscribe(), Looks::default());
        for turn in 0.. {
            tokio::select! {
                // Its sender is here.
                _ = up.wait_for(|up| !up) => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let reads = Arc::clone(&self.opened().reads);
            if let Some(trouble) = looks.at(&reads).or(self.look(turn).await) {
                self.off(&trouble, |open| Arc::ptr_eq(&open.reads, &reads));
            }
        }
    }

    async fn look(self: &Arc<Self>, turn: usize) -> Option<Trouble> {
        let planned = Arc::clone(self);
        match timed(HANG_MAX, move || planned.look_at(turn)).await {
            Timed::Ended(Err(error)) => Some(Trouble::Gone(error.to_string())),
            Timed::Ended(Ok(())) | Timed::NoThread => None,
            Timed::Late => Some(Trouble::Slow),
        }
    }

    /// Whether the folder, and the files of one title in turn, are those that are open.
    fn look_at(&self, turn: usize) -> io::Result<()> {
        let (root, title) = {
            let open = self.opened();
            let place = turn.checked_rem(open.titles.len()).unwrap_or(0);
            (open.root, open.titles.values().nth(place).cloned())
        };
        let others = || io::Error::other("others are in their place");
        let is_there = |path: &Path, expected: Identity| {
            (identity(path)? == expected).then_some(()).ok_or_else(others)
        };
        if self.is_up() {
            is_there(&self.dir, root)?;
        }
        let Some(title) = title else { return Ok(()) };
        let mut files = title.files.iter();
        let looked = files.try_for_each(|file| is_there(file.path(), file.identity()));
        // A newer plan may have removed it.
        let current = self.get(&title.title.name());
        if current.is_some_and(|current| Arc::ptr_eq(&current, &title)) { looked } else { Ok(()) }
    }

    /// The disk did not take what was to be written: the origin is asked for nothing more until
    /// it does. What is there is still read.
    pub(super) fn not_written(&self, error: &io::Error) {
        if self.writable.swap(false, Ordering::Relaxed) {
            self.metrics.planned_writable.set(0);
            self.metrics.planned_troubles.with_label_values(&[UNWRITABLE]).inc();
            let dir = self.dir.display();
            tracing::error!(%dir, %error, "the planned tier's disk takes no writes: filling waits");
        }
    }

    /// It took all that there was to write.
    pub(super) fn written(&self) {
        if !self.writable.swap(true, Ordering::Relaxed) {
            self.metrics.planned_writable.set(1);
            tracing::info!(dir = %self.dir.display(), "filling of the planned tier goes on");
        }
    }
}
