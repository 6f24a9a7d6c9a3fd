//! The planned tier: the fill plan's track files, as plain files below
//! `{data-dir}/plan/{title}/{version}/`, served as far as they are here.
//!
//! Only a plan evicts them. Every chunk was verified when it arrived and is checked again
//! whenever it is read. While the disk is off, nothing is here: see [`watch`].

#[cfg(test)]
pub(crate) mod faults;
mod file;
mod plan;
mod pull;
mod room;
mod watch;

pub use pull::Puller;
pub use room::Room;
pub use watch::{UNWRITABLE, run};

use crate::metrics::Metrics;
use crate::title::{Name, Title};
use bytes::Bytes;
use chunks::health::{Trouble, UnderWay};
use file::{Check, PlannedFile};
use model::fleet::Holding;
use plan::{Accepted, PLAN_FILE, index_path, read_plan, remove_unwanted, title_dir, write_plan};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch as watching};
use watch::{Identity, Place, Timed, timed};

/// Reads from planned files at a time, each of one chunk; who comes on top asks elsewhere.
const READS_MAX: usize = 32;

/// The plan's files that are here, whole or in part.
pub struct Planned {
    dir: PathBuf,
    bytes_max: u64,
    /// Empty while the disk is off.
    open: RwLock<Open>,
    plan: Mutex<Option<Accepted>>,
    read_max: Duration,
    /// Whether the disk is in use; changed under the lock of `open`.
    up: watching::Sender<bool>,
    /// Whether it took what was written last.
    writable: AtomicBool,
    /// Where the disk is; held by who puts another set of files in place.
    place: Mutex<Place>,
    /// The chunk whose reading switched the disk off.
    suspect: Mutex<Option<Chunk>>,
    /// Something may be missing that was here.
    wanting: Notify,
    metrics: Metrics,
}

/// What of a disk is open, since it came into use.
struct Open {
    titles: HashMap<Name, Arc<PlannedTitle>>,
    turns: Arc<Semaphore>,
    reads: Arc<UnderWay>,
    /// Of the tier's folder.
    root: Identity,
}

impl Default for Open {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(READS_MAX));
        Self { titles: HashMap::new(), turns, reads: Arc::default(), root: Identity::default() }
    }
}

impl Open {
    fn file(&self, name: &Name, track: usize) -> Option<&Arc<PlannedFile>> {
        self.titles.get(name)?.files.get(track)
    }
}

/// A title's files, in the order of its index.
struct PlannedTitle {
    title: Arc<Title>,
    files: Vec<Arc<PlannedFile>>,
}

/// A title, the place of its track, the number of a chunk.
type Chunk = (Name, usize, u64);

impl Planned {
    /// The tier in a folder that [`Planned::attach`] looks for. A read takes at most
    /// `read_max`.
    #[must_use]
    pub fn new(dir: PathBuf, bytes_max: u64, read_max: Duration, metrics: Metrics) -> Self {
        Self {
            dir,
            bytes_max,
            open: RwLock::default(),
            plan: Mutex::default(),
            read_max,
            up: watching::Sender::new(false),
            writable: AtomicBool::new(true),
            place: Mutex::default(),
            suspect: Mutex::default(),
            wanting: Notify::new(),
            metrics,
        }
    }

    /// Bytes that the tier may hold.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Puts a plan in force: what it does not name goes. Blocks.
    fn enforce(&self, accepted: Accepted) {
        let wanted = accepted.names();
        let left = |open: &mut Open| -> Vec<_> {
            open.titles.extract_if(|name, _| !wanted.contains(name)).collect()
        };
        let left = self.change(left);
        // To close a file of a disk that hangs blocks, and all who read would wait for that.
        drop(left);
        remove_unwanted(&self.dir, &wanted);
        for name in wanted.iter().filter(|name| self.get(name).is_none()) {
            let opened = self.open_stored(name);
            let added = opened.and_then(|open| open.map(|open| self.add(open)).transpose());
            if let Err(error) = added {
                tracing::warn!(title = %name.0, %error, "planned files can't be opened");
            }
        }
        self.accepted(accepted);
    }

    /// Writes the plan in force to the disk, if it is not there. Blocks.
    fn store_plan(&self) -> io::Result<()> {
        let _place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(accepted) = self.lock_plan().clone().filter(|plan| !plan.stored) else {
            return Ok(());
        };
        self.is_in_place()?;
        write_plan(&self.dir, &accepted.plan)?;
        let mut plan = self.lock_plan();
        let plan = plan.as_mut().filter(|plan| plan.plan.number == accepted.plan.number);
        plan.into_iter().for_each(|plan| plan.stored = true);
        Ok(())
    }

    fn accepted(&self, accepted: Accepted) {
        let bytes: u64 = accepted.wanted.iter().map(|(_, bytes)| bytes).sum();
        self.metrics.plan_bytes.set(bytes.try_into().unwrap_or(i64::MAX));
        self.metrics.plan_number.set(accepted.plan.number.try_into().unwrap_or(i64::MAX));
        *self.lock_plan() = Some(accepted);
        self.count_present();
    }

    fn lock_plan(&self) -> MutexGuard<'_, Option<Accepted>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_suspect(&self) -> MutexGuard<'_, Option<Chunk>> {
        self.suspect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Open) -> T) -> T {
        change(&mut self.open.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, name: &Name) -> Option<Arc<PlannedTitle>> {
        self.opened().titles.get(name).cloned()
    }

    /// The title, if it is here in part.
    #[must_use]
    pub fn title(&self, name: &Name) -> Option<Arc<Title>> {
        self.opened().titles.get(name).map(|open| Arc::clone(&open.title))
    }

    /// A title's files with the index that lies beside them, if it is there. Blocks.
    fn open_stored(&self, name: &Name) -> io::Result<Option<PlannedTitle>> {
        match std::fs::read(index_path(&self.dir, name)) {
            Ok(index) => {
                let title = Title::decode(name, &index).map(Arc::new);
                title.map(|title| self.open_files(&title)).transpose()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_files(&self, title: &Arc<Title>) -> io::Result<PlannedTitle> {
        let dir = title_dir(&self.dir, &title.name());
        let open = |track| PlannedFile::open(&dir, track).map(Arc::new);
        let files = title.index.tracks.iter().map(open).collect::<Result<_, _>>()?;
        Ok(PlannedTitle { title: Arc::clone(title), files })
    }

    /// Opens a title's files, made if need be. Blocks.
    fn open_title(&self, title: &Arc<Title>) -> io::Result<Arc<PlannedTitle>> {
        let name = title.name();
        if let Some(open) = self.get(&name) {
            return Ok(open);
        }
        std::fs::create_dir_all(title_dir(&self.dir, &name))?;
        let (index, encoded) = (index_path(&self.dir, &name), title.index.encode());
        // One that is damaged, too: without it the next start serves nothing of the title.
        if std::fs::read(&index).ok().as_deref() != Some(&encoded[..]) {
            crate::disk::replace(&index, &encoded)?;
        }
        let added = self.add(self.open_files(title)?)?;
        // Chunks may be there already.
        self.count_present();
        Ok(added)
    }

    /// Puts a title's files among the others, if it is not there and the disk is in use.
    fn add(&self, open: PlannedTitle) -> io::Result<Arc<PlannedTitle>> {
        self.change(|all| {
            if !self.is_up() {
                return Err(io::Error::other("the disk is off"));
            }
            let entry = all.titles.entry(open.title.name());
            Ok(Arc::clone(entry.or_insert_with(|| Arc::new(open))))
        })
    }

    fn file(&self, name: &Name, track: usize) -> Option<Arc<PlannedFile>> {
        self.opened().file(name, track).cloned()
    }

    /// Whether the chunk is here.
    #[must_use]
    pub fn holds(&self, title: &Title, track: usize, number: u64) -> bool {
        // Not cloned: who drops a file last closes it, and may wait for its disk.
        self.opened().file(&title.name(), track).is_some_and(|file| file.holds(number))
    }

    /// The chunk, if it is here and still what it was when it arrived. A damaged one is
    /// forgotten, and fetched anew for the plan, too. One that can't be read switches the disk
    /// off.
    pub async fn read(self: &Arc<Self>, title: &Title, track: usize, number: u64) -> Option<Bytes> {
        let chunk = (title.name(), track, number);
        let (reads, reading) = {
            let open = self.opened();
            let file = open.file(&chunk.0, track).filter(|file| file.holds(number))?;
            let turn = Arc::clone(&open.turns).try_acquire_owned().ok()?;
            let (file, reads) = (Arc::clone(file), Arc::clone(&open.reads));
            let (planned, asked) = (Arc::clone(self), Arc::clone(&reads));
            let read = move || {
                let _turns = (turn, UnderWay::begin(&asked, READS_MAX));
                // Late or not: what is wrong is noted.
                planned.take(file.read(number), &asked, chunk)
            };
            (reads, timed(self.read_max, read))
        };
        match reading.await {
            Timed::Ended(read) => {
                reads.was_quick();
                read
            }
            Timed::Late => {
                reads.was_slow();
                self.metrics.planned_stalls.inc();
                None
            }
            Timed::NoThread => None,
        }
    }

    fn take(&self, read: Check, reads: &Arc<UnderWay>, chunk: Chunk) -> Option<Bytes> {
        match read {
            Check::Whole(bytes) => return Some(bytes),
            Check::Absent => {}
            Check::Damaged(reason) => self.damaged(&chunk, &reason),
            Check::Failed(error) => {
                let trouble = Trouble::Failed(error.to_string());
                // Not if the file was open before the disk came back.
                if self.off(&trouble, |open| Arc::ptr_eq(&open.reads, reads)) {
                    *self.lock_suspect() = Some(chunk);
                }
            }
        }
        None
    }

    /// A chunk was not what it was, and is forgotten.
    fn damaged(&self, ((title, version), track, chunk): &Chunk, reason: &str) {
        self.metrics.corrupt("plan");
        tracing::error!(%title, %version, track, chunk, reason, "planned bytes are damaged");
        if let Some(accepted) = self.lock_plan().as_mut() {
            accepted.complete = false;
        }
        self.wanting.notify_one();
    }

    /// Track files that are here complete, of the plan in force.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let open = self.opened();
        let holding = |title: &PlannedTitle, file: &PlannedFile| Holding {
            title: title.title.title.clone(),
            version: title.title.version,
            file: file.name().to_owned(),
        };
        let mut holdings: Vec<Holding> = open
            .titles
            .values()
            .flat_map(|title| {
                let complete = title.files.iter().filter(|file| file.is_complete());
                complete.map(|file| holding(title, file)).collect::<Vec<_>>()
            })
            .collect();
        holdings
            .sort_by(|a, b| (&a.title, a.version, &a.file).cmp(&(&b.title, b.version, &b.file)));
        holdings
    }

    /// Number of the plan in force, once every file of it is complete and while the disk is in
    /// use.
    #[must_use]
    pub fn complete(&self) -> Option<u64> {
        let plan = self.lock_plan();
        plan.as_ref().filter(|plan| plan.complete && self.is_up()).map(|plan| plan.plan.number)
    }

    fn number(&self) -> Option<u64> {
        self.lock_plan().as_ref().map(|plan| plan.plan.number)
    }

    fn count_present(&self) {
        let open = self.opened();
        let files = open.titles.values().flat_map(|title| &title.files);
        let bytes: u64 = files.map(|file| file.bytes_present()).sum();
        self.metrics.plan_bytes_present.set(bytes.try_into().unwrap_or(i64::MAX));
    }
}
