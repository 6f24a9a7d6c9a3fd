//! The catalog: read from the store's publish records, held as an immutable snapshot.
//!
//! Invariant: a snapshot is swapped whole. If the store can't be read, the last one stays.

use crate::accounts::{self, Window};
use crate::db::Db;
use crate::{Clock, Error};
use arc_swap::ArcSwapOption;
use model::publish::PublishRecord;
use model::{TitleId, store_key};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::Store;
use tokio::sync::Mutex;

/// A larger publish record is not taken, in bytes.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Publish records read at the same time.
const READS_MAX: usize = 16;

/// What decisions know of titles.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Titles by id.
    pub titles: BTreeMap<TitleId, Title>,
    /// When the store was last read, milliseconds since 1970 UTC.
    pub read_at_ms: u64,
}

/// A title.
#[derive(Debug, Clone)]
pub struct Title {
    /// The version that plays: the newest.
    pub record: PublishRecord,
    /// Bytes of its largest version: no play can receive more at once.
    pub bytes_max: u64,
    /// Where and when it may play; none: everywhere, always.
    pub windows: Vec<Window>,
}

/// The current snapshot, and what it is made of.
pub(crate) struct Catalog {
    store: Store,
    db: Db,
    clock: Clock,
    current: ArcSwapOption<Snapshot>,
    /// Publish records by key: they never change. None: known to be bad.
    records: Mutex<HashMap<String, Option<PublishRecord>>>,
}

impl Catalog {
    pub(crate) fn new(store: Store, db: Db, clock: Clock) -> Self {
        let (current, records) = (ArcSwapOption::empty(), Mutex::default());
        Self { store, db, clock, current, records }
    }

    /// None until the store was read once.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Reads what is new in the store, then swaps the snapshot.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        // Held for the whole refresh: of two, the later one wins.
        let mut records = self.records.lock().await;
        let read_at_ms = self.clock.now_ms();
        load(&self.store, &mut records).await?;
        self.swap(&records, read_at_ms).await
    }

    /// Swaps the snapshot after a change of windows, without asking the store.
    pub(crate) async fn windows_changed(&self) -> Result<(), Error> {
        let records = self.records.lock().await;
        match self.snapshot() {
            Some(before) => self.swap(&records, before.read_at_ms).await,
            None => Ok(()),
        }
    }

    async fn swap(
        &self,
        records: &HashMap<String, Option<PublishRecord>>,
        read_at_ms: u64,
    ) -> Result<(), Error> {
        let windows = accounts::windows(&self.db).await?;
        let titles = titles(records.values().flatten(), windows);
        self.current.store(Some(Arc::new(Snapshot { titles, read_at_ms })));
        Ok(())
    }
}

/// Brings `records` up to date with the store: reads records that are new, drops those gone.
async fn load(
    store: &Store,
    records: &mut HashMap<String, Option<PublishRecord>>,
) -> Result<(), Error> {
    let listed = store.list(store_key::PUBLISHED).await?;
    let keys: std::collections::HashSet<&str> = listed.iter().map(|entry| &*entry.key).collect();
    records.retain(|key, _| keys.contains(key.as_str()));
    let new = keys.into_iter().filter(|key| !records.contains_key(*key)).map(str::to_owned);
    let new: Vec<String> = new.collect();
    for group in new.chunks(READS_MAX) {
        let reads = group.iter().map(|key| store.get(key, RECORD_BYTES_MAX));
        let read = futures::future::join_all(reads).await;
        for (key, bytes) in group.iter().zip(read) {
            match bytes {
                Ok(bytes) => drop(records.insert(key.clone(), parse(key, &bytes))),
                Err(store::Error::NotFound { .. }) => {}
                Err(error @ store::Error::TooLarge { .. }) => {
                    tracing::error!(%error, "a publish record is left out");
                    records.insert(key.clone(), None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// A bad record is left out, and said so once: it must not hide the other titles.
fn parse(key: &str, bytes: &[u8]) -> Option<PublishRecord> {
    let record: Result<PublishRecord, _> = serde_json::from_slice(bytes);
    match record {
        Ok(record) if store_key::is_publish_record(key, &record.title, &record.version) => {
            tracing::info!(title = %record.title, version = %record.version, "title published");
            Some(record)
        }
        Ok(record) => {
            tracing::error!(key, title = %record.title, "a publish record lies in the wrong place");
            None
        }
        Err(error) => {
            tracing::error!(key, %error, "a publish record is left out");
            None
        }
    }
}

/// The newest version of each title plays.
fn titles<'a>(
    records: impl Iterator<Item = &'a PublishRecord>,
    mut windows: HashMap<TitleId, Vec<Window>>,
) -> BTreeMap<TitleId, Title> {
    let mut titles: BTreeMap<TitleId, Title> = BTreeMap::new();
    let age = |record: &PublishRecord| (record.published_at_ms, record.version);
    for record in records {
        let bytes = record.bytes();
        let title = titles.entry(record.title.clone()).or_insert_with(|| Title {
            record: record.clone(),
            bytes_max: bytes,
            windows: windows.remove(&record.title).unwrap_or_default(),
        });
        title.bytes_max = title.bytes_max.max(bytes);
        if age(record) > age(&title.record) {
            title.record = record.clone();
        }
    }
    titles
}
