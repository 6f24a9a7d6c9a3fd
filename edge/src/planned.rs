//! The planned tier: the fill plan's track files, as plain files below
//! `{data-dir}/plan/{title}/{version}/`, served as far as they are here.
//!
//! Only a plan evicts them. Every chunk was verified when it arrived and is checked again
//! whenever it is read.

#[cfg(test)]
pub(crate) mod faults;
mod file;
mod pull;
mod stall;

pub use pull::Puller;

use crate::metrics::Metrics;
use crate::title::{Name, Title};
use bytes::Bytes;
use file::{Check, PlannedFile};
use model::FillPlan;
use model::fleet::Holding;
use stall::Disk;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, oneshot};

/// Reads from planned files at a time, each of one chunk; who comes on top asks elsewhere.
const READS_MAX: usize = 32;
/// The longest wait for a thread to read in, and for its disk together.
const THREAD_MAX: Duration = Duration::from_millis(500);

/// Where a planned title's index lies.
pub(crate) fn index_path(plan_dir: &Path, name: &Name) -> PathBuf {
    title_dir(plan_dir, name).join("index")
}

fn title_dir(plan_dir: &Path, name: &Name) -> PathBuf {
    plan_dir.join(name.0.as_str()).join(name.1.to_string())
}

/// The plan's files that are here, whole or in part.
pub struct Planned {
    dir: PathBuf,
    bytes_max: u64,
    titles: RwLock<HashMap<Name, Arc<PlannedTitle>>>,
    plan: Mutex<Option<Accepted>>,
    reads: Arc<Semaphore>,
    disk: Disk,
    read_max: Duration,
    /// Something that was here has been found damaged.
    damaged: Notify,
    metrics: Metrics,
}

/// A title's files, in the order of its index.
struct PlannedTitle {
    title: Arc<Title>,
    files: Vec<Arc<PlannedFile>>,
}

/// The plan in force.
#[derive(Clone)]
struct Accepted {
    plan: FillPlan,
    /// What of it fits the budget, most valuable first, with its bytes.
    wanted: Vec<(Name, u64)>,
    complete: bool,
}

impl Accepted {
    fn new(plan: FillPlan, bytes_max: u64) -> Self {
        let mut left = bytes_max;
        let mut wanted = Vec::new();
        for planned in &plan.titles {
            if planned.bytes <= left {
                left -= planned.bytes;
                wanted.push(((planned.title.clone(), planned.version), planned.bytes));
            }
        }
        if wanted.len() < plan.titles.len() {
            let over = plan.titles.len() - wanted.len();
            tracing::warn!(number = plan.number, over, bytes_max, "the plan exceeds the budget");
        }
        Self { plan, wanted, complete: false }
    }
}

impl Planned {
    /// Opens what an earlier run left: its chunks serve at once.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn open(dir: PathBuf, bytes_max: u64, metrics: Metrics) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let accepted = read_plan(&dir).map(|plan| Accepted::new(plan, bytes_max));
        let planned = Self {
            dir,
            bytes_max,
            titles: RwLock::default(),
            plan: Mutex::new(None),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            disk: Disk::default(),
            read_max: chunks::READ_MAX,
            damaged: Notify::new(),
            metrics,
        };
        if let Some(accepted) = accepted {
            planned.enforce(accepted);
        }
        Ok(planned)
    }

    /// Bytes that the tier may hold.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Puts a plan in force: what it does not name goes.
    fn enforce(&self, accepted: Accepted) {
        let wanted: HashSet<Name> = accepted.wanted.iter().map(|(name, _)| name.clone()).collect();
        self.write_titles(|titles| titles.retain(|name, _| wanted.contains(name)));
        remove_unwanted(&self.dir, &wanted);
        for name in &wanted {
            if !self.is_open(name)
                && let Some(title) = self.read_title(name)
                && let Err(error) = self.open_title(&Arc::new(title))
            {
                tracing::warn!(title = %name.0, %error, "planned files can't be opened");
            }
        }
        let bytes: u64 = accepted.wanted.iter().map(|(_, bytes)| bytes).sum();
        self.metrics.plan_bytes.set(bytes.try_into().unwrap_or(i64::MAX));
        self.metrics.plan_number.set(accepted.plan.number.try_into().unwrap_or(i64::MAX));
        *self.lock_plan() = Some(accepted);
        self.count_present();
    }

    fn lock_plan(&self) -> std::sync::MutexGuard<'_, Option<Accepted>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_titles<T>(
        &self,
        change: impl FnOnce(&mut HashMap<Name, Arc<PlannedTitle>>) -> T,
    ) -> T {
        change(&mut self.titles.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, name: &Name) -> Option<Arc<PlannedTitle>> {
        self.titles.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn is_open(&self, name: &Name) -> bool {
        self.get(name).is_some()
    }

    fn read_title(&self, name: &Name) -> Option<Title> {
        Title::decode(name, &std::fs::read(index_path(&self.dir, name)).ok()?)
    }

    /// Opens a title's files, made if need be. Blocks.
    fn open_title(&self, title: &Arc<Title>) -> std::io::Result<Arc<PlannedTitle>> {
        let name = title.name();
        if let Some(open) = self.get(&name) {
            return Ok(open);
        }
        let dir = title_dir(&self.dir, &name);
        std::fs::create_dir_all(&dir)?;
        let (index, encoded) = (index_path(&self.dir, &name), title.index.encode());
        // One that is damaged, too: without it the next start serves nothing of the title.
        if std::fs::read(&index).ok().as_deref() != Some(&encoded[..]) {
            crate::disk::replace(&index, &encoded)?;
        }
        let open = |track| PlannedFile::open(&dir, track).map(Arc::new);
        let files = title.index.tracks.iter().map(open).collect::<Result<_, _>>()?;
        let opened = Arc::new(PlannedTitle { title: Arc::clone(title), files });
        self.write_titles(|titles| titles.insert(name, Arc::clone(&opened)));
        Ok(opened)
    }

    fn file(&self, title: &Title, track: usize) -> Option<Arc<PlannedFile>> {
        self.get(&title.name())?.files.get(track).cloned()
    }

    /// Whether the chunk is here.
    #[must_use]
    pub fn holds(&self, title: &Title, track: usize, number: u64) -> bool {
        self.file(title, track).is_some_and(|file| file.holds(number))
    }

    /// The chunk, if it is here and still what it was when it arrived. A damaged one is
    /// forgotten, and fetched anew for the plan, too.
    pub async fn read(&self, title: &Title, track: usize, number: u64) -> Option<Bytes> {
        let file = self.file(title, track).filter(|file| file.holds(number))?;
        if self.disk.is_off(Instant::now()) {
            return None;
        }
        let turn = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        let (begun, begins) = oneshot::channel();
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // Who asked may have gone.
            let _ = begun.send(());
            file.read(number)
        });
        // A disk's time is counted from when a thread was free to ask it.
        let read = async {
            let _ = begins.await;
            tokio::time::timeout(self.read_max, read).await
        };
        let read = match tokio::time::timeout(THREAD_MAX, read).await {
            Ok(Ok(read)) => read,
            _ => {
                self.stalled(title);
                return None;
            }
        };
        self.disk.is_well();
        match read.unwrap_or(Check::Absent) {
            Check::Whole(bytes) => Some(bytes),
            Check::Absent => None,
            Check::Damaged(reason) => {
                self.metrics.corrupt("plan");
                let (title, version) = (&title.title, &title.version);
                tracing::error!(%title, %version, track, chunk = number, reason, "planned bytes are damaged");
                if let Some(accepted) = self.lock_plan().as_mut() {
                    accepted.complete = false;
                }
                self.damaged.notify_one();
                None
            }
        }
    }

    /// A read did not end in time: the disk is left alone for a while, and asked again.
    fn stalled(&self, title: &Title) {
        let pause = self.disk.stalled(Instant::now());
        self.metrics.planned_stalls.inc();
        let title = &title.title;
        tracing::warn!(%title, ?pause, "the planned tier's disk stalls: it is passed by");
    }

    /// Track files that are here complete, of the plan in force.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let titles = self.titles.read().unwrap_or_else(PoisonError::into_inner);
        let holding = |title: &PlannedTitle, file: &PlannedFile| Holding {
            title: title.title.title.clone(),
            version: title.title.version,
            file: file.name().to_owned(),
        };
        let mut holdings: Vec<Holding> = titles
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

    /// Number of the plan in force, once every file of it is complete.
    #[must_use]
    pub fn complete(&self) -> Option<u64> {
        self.lock_plan().as_ref().filter(|plan| plan.complete).map(|plan| plan.plan.number)
    }

    fn number(&self) -> Option<u64> {
        self.lock_plan().as_ref().map(|plan| plan.plan.number)
    }

    fn count_present(&self) {
        let titles = self.titles.read().unwrap_or_else(PoisonError::into_inner);
        let files = titles.values().flat_map(|title| &title.files);
        let bytes: u64 = files.map(|file| file.bytes_present()).sum();
        self.metrics.plan_bytes_present.set(bytes.try_into().unwrap_or(i64::MAX));
    }
}

fn read_plan(dir: &Path) -> Option<FillPlan> {
    let path = dir.join("plan.json");
    let bytes = std::fs::read(&path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the stored plan is damaged: ignored");
            None
        }
    }
}

/// Removes the folders of titles that the plan in force does not name.
fn remove_unwanted(dir: &Path, wanted: &HashSet<Name>) {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    for title in folders(dir) {
        for version in folders(&title) {
            let named = name(&title).and_then(|title| title.parse().ok());
            let named = named.zip(name(&version).and_then(|version| version.parse().ok()));
            if named.is_some_and(|named| wanted.contains(&named)) {
                continue;
            }
            match std::fs::remove_dir_all(&version) {
                Ok(()) => tracing::info!(path = %version.display(), "left the plan: removed"),
                Err(error) => {
                    tracing::warn!(path = %version.display(), %error, "can't be removed");
                }
            }
        }
        // Fails while versions of the title are left.
        let _ = std::fs::remove_dir(&title);
    }
}
