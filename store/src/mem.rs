//! A store in memory: for tests and for trying things out. It ends with the process.

use crate::backend::{Backend, Entry, Head, Progress, Reading};
use crate::error::{At, Error};
use crate::{LIST_ENTRIES_MAX, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use service::Shutdown;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Bytes that all objects of one store may have together.
const STORE_BYTES_MAX: u64 = 1 << 30;
/// Bytes in a piece of a reading.
const PIECE_BYTES: usize = 256 << 10;

/// The stores that are open by name.
static NAMED: LazyLock<Mutex<HashMap<Arc<str>, Weak<Mem>>>> = LazyLock::new(Mutex::default);

/// The next object's serial number.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Mem {
    url: Arc<str>,
    objects: Mutex<BTreeMap<String, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    /// Differs between any two objects of this process.
    serial: u64,
}

impl Object {
    fn head(&self) -> Head {
        Head { bytes: self.bytes.len() as u64, etag: format!("{:x}", self.serial) }
    }
}

impl Mem {
    pub(crate) fn new(url: Arc<str>) -> Self {
        Self { url, objects: Mutex::default() }
    }

    /// The store of this name: one for all who open it, as long as somebody has it open.
    pub(crate) fn named(url: &Arc<str>) -> Arc<Self> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = named.get(url).and_then(Weak::upgrade) {
            return store;
        }
        let store = Arc::new(Self::new(url.clone()));
        named.insert(url.clone(), Arc::downgrade(&store));
        store
    }

    fn at(&self, key: &str) -> At {
        At::new(&self.url, key)
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str) -> Result<Object> {
        let found = self.objects().get(key).cloned();
        found.ok_or_else(|| Error::NotFound { at: self.at(key) })
    }

    /// Fails with `Full` instead of growing past `STORE_BYTES_MAX`.
    fn insert(&self, key: &str, bytes: Bytes, replace: bool) -> Result<()> {
        let mut objects = self.objects();
        if !replace && objects.contains_key(key) {
            return Err(Error::AlreadyExists { at: self.at(key) });
        }
        let others = objects.iter().filter(|(other, _)| *other != key);
        let held: u64 = others.map(|(_, object)| object.bytes.len() as u64).sum();
        if held + bytes.len() as u64 > STORE_BYTES_MAX {
            return Err(Error::Full { at: self.at(key) });
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        objects.insert(key.to_owned(), Object { bytes, serial });
        Ok(())
    }
}

#[async_trait]
impl Backend for Mem {
    async fn head(&self, key: &str) -> Result<Head> {
        Ok(self.find(key)?.head())
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading> {
        let object = self.find(key)?;
        let (whole, head) = (&object.bytes, object.head());
        let range = range.unwrap_or(0..whole.len() as u64);
        let out_of_range = || Error::OutOfRange { at: self.at(key), range: range.clone() };
        let bounds = |n: u64| usize::try_from(n).map_err(|_| out_of_range());
        let (start, end) = (bounds(range.start)?, bounds(range.end)?);
        if end > whole.len() {
            return Err(out_of_range());
        }
        let mut rest = whole.slice(start..end);
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Ok(Reading { head, stream: futures::stream::iter(pieces).boxed() })
    }

    async fn put_file(
        &self,
        key: &str,
        file: &Path,
        progress: Progress,
        stop: &Shutdown,
    ) -> Result<()> {
        if stop.is_requested() {
            return Err(Error::Stopped { at: self.at(key) });
        }
        let source = |source| Error::Source { path: file.to_owned(), source };
        let bytes = tokio::fs::metadata(file).await.map_err(source)?.len();
        if bytes > STORE_BYTES_MAX {
            return Err(Error::Full { at: self.at(key) });
        }
        let bytes = Bytes::from(tokio::fs::read(file).await.map_err(source)?);
        let stored = bytes.len() as u64;
        self.insert(key, bytes, true)?;
        progress(stored);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.insert(key, bytes, false)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let objects = self.objects();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let entries: Vec<Entry> = found
            .map(|(key, object)| Entry { key: key.clone(), bytes: object.bytes.len() as u64 })
            .take(LIST_ENTRIES_MAX + 1)
            .collect();
        if entries.len() > LIST_ENTRIES_MAX {
            return Err(Error::TooMany { at: self.at(prefix), entries_max: LIST_ENTRIES_MAX });
        }
        Ok(entries)
    }
}
