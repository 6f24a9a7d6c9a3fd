//! What is known of the store: what is published, which stays so, and sizes, for a moment: an
//! ingest may repair an object that was cut.

use model::{TitleId, Version, store_key};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{Error, Store};

/// Facts kept of each kind; at that many they are forgotten and asked for anew. Some 200 bytes
/// each.
const FACTS_MAX: usize = 65_536;

/// A size is asked for anew after this long.
const SIZE_KEPT: Duration = Duration::from_secs(5);

/// Published versions, and sizes of their files.
pub(super) struct Catalog {
    store: Store,
    published: Mutex<HashSet<(TitleId, Version)>>,
    sizes: Mutex<HashMap<String, (u64, Instant)>>,
}

impl Catalog {
    pub(super) fn new(store: Store) -> Self {
        Self { store, published: Mutex::default(), sizes: Mutex::default() }
    }

    /// Whether a version has its publish record. "No" is asked for anew each time: it may be
    /// published a moment later.
    pub(super) async fn is_published(
        &self,
        title: &TitleId,
        version: &Version,
    ) -> Result<bool, Error> {
        let fact = (title.clone(), *version);
        if locked(&self.published).contains(&fact) {
            return Ok(true);
        }
        match self.store.head(&store_key::publish_record(title, version)).await {
            Ok(_) => {
                let mut published = locked(&self.published);
                if published.len() >= FACTS_MAX {
                    published.clear();
                }
                published.insert(fact);
                Ok(true)
            }
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Size of an object of a published version.
    pub(super) async fn size(&self, key: &str) -> Result<u64, Error> {
        if let Some((bytes, at)) = locked(&self.sizes).get(key)
            && at.elapsed() < SIZE_KEPT
        {
            return Ok(*bytes);
        }
        let bytes = self.store.head(key).await?.bytes;
        let mut sizes = locked(&self.sizes);
        if sizes.len() >= FACTS_MAX {
            sizes.clear();
        }
        sizes.insert(key.to_owned(), (bytes, Instant::now()));
        Ok(bytes)
    }
}

/// Facts are inserted whole, so a panic elsewhere leaves none half written.
fn locked<T>(facts: &Mutex<T>) -> MutexGuard<'_, T> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}
