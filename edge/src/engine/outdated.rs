//! Since when what other nodes have of a URL may be old: one of them was found to have another
//! version than the next, or an unsafe request has changed it by way of some of them alone.
//!
//! Those that are asked from then on are told, as after a purge. It is kept as purges are, in a log
//! of its own, so that clients who change things push no operator's purge out of that.
//!
//! Invariant: nothing is forgotten but what the disk refused, and that at the next start. Where there
//! are too many URLs, the oldest become one of every URL of their site.

use super::Engine;
use super::told::Told;
use crate::proxy::now_ms;
use futures::future::{OptionFuture, join_all};
use heads::{Error, KeyId, Last, Purge, PurgeLog, What, Words};
use lru::LruCache;
use prometheus::{IntCounter, Registry};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use upstream::Purges;

/// URLs that are known one by one, some 16 MB.
const OUTDATED_MAX: usize = 65_536;
/// URLs that the disk has not taken yet, or refuses to.
const UNWRITTEN_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// Its name in the data folder.
const LOG: &str = "changed.log";
const WORDS: Words = Words {
    log: "the log of changes that other nodes may not know of",
    lost: "other nodes are asked about all that they have from before now once more",
    refused: "a restart forgets changes, and other nodes' old versions may be taken then",
    folded: "too many changes are kept: the oldest became one of all of their site, about which \
             other nodes are asked once more",
};
/// Who has changed something is answered by then, whatever the disk does.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// The last moment for each URL.
pub struct Outdated {
    log: PurgeLog,
    /// In milliseconds since 1970 UTC.
    unwritten: Mutex<LruCache<KeyId, i64>>,
    /// When the last of those was changed of which there were too many.
    pushed_out_ms: AtomicI64,
    refused: IntCounter,
    /// Hard purges that other nodes know of.
    told: Told,
}

impl Outdated {
    /// Reads the log in the data folder `dir`, or begins one. One that is damaged says of every URL that it was
    /// changed before the start. `refused` counts what the disk would not take.
    ///
    /// # Errors
    /// [`Error::Start`], never for the disk's sake.
    pub fn open(dir: &Path, refused: IntCounter) -> Result<Arc<Self>, Error> {
        // It is no purge that operators see: what they count is not to have these among it.
        let log = PurgeLog::open_for(&dir.join(LOG), &Registry::new(), OUTDATED_MAX, WORDS)?;
        let unwritten = Mutex::new(LruCache::new(UNWRITTEN_MAX));
        let (pushed_out_ms, told) = (AtomicI64::new(i64::MIN), Told::default());
        Ok(Arc::new(Self { log, unwritten, pushed_out_ms, refused, told }))
    }

    fn unwritten(&self) -> MutexGuard<'_, LruCache<KeyId, i64>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What other nodes have from now or before may be old: at once, and after a restart as well if
    /// the future ends without an error, which it does within [`WRITTEN_WITHIN`]. What ends in one is
    /// counted, once.
    fn note(
        self: &Arc<Self>,
        key: KeyId,
        site: &str,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let (own, at_ms) = (Arc::clone(self), now_ms());
        let out = own.unwritten().push(key, at_ms).filter(|(other, _)| *other != key);
        if let Some((_, at_ms)) = out {
            own.pushed_out_ms.fetch_max(at_ms, Ordering::AcqRel);
        }
        let site = Some(site.to_owned());
        async move {
            let purge = Purge { what: of(&key), site, soft: true, note: String::new() };
            let not_written = |reason| Error::NotWritten { path: LOG.into(), reason };
            let written = tokio::time::timeout(WRITTEN_WITHIN, own.log.append(purge)).await;
            let written = match written {
                Err(_) => Err(not_written("the disk is too slow")),
                // Why is in the log's own line.
                Ok(Err(Error::NotDurable { .. })) => Err(not_written("the disk refuses it")),
                Ok(written) => written,
            };
            if let Err(error) = written {
                own.refused.inc();
                return Err(error);
            }
            let mut unwritten = own.unwritten();
            if unwritten.peek(&key) == Some(&at_ms) {
                unwritten.pop(&key);
            }
            Ok(())
        }
    }

    /// The same of several.
    fn note_all(
        self: &Arc<Self>,
        keys: &[KeyId],
        site: &str,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let noted: Vec<_> = keys.iter().map(|key| self.note(*key, site)).collect();
        async { join_all(noted).await.into_iter().collect() }
    }

    /// What was noted last of a URL, in milliseconds since 1970 UTC.
    fn last(&self, key: &KeyId, site: &str) -> Option<i64> {
        let unwritten = self.unwritten().peek(key).copied();
        let pushed_out = Some(self.pushed_out_ms.load(Ordering::Acquire));
        let unwritten = unwritten.max(pushed_out.filter(|at_ms| *at_ms > i64::MIN));
        self.log.last(site, of(key).text(), &[]).any_ms.max(unwritten)
    }
}

impl Engine {
    /// What other nodes have of these URLs from now or before may be old. They are told from now on,
    /// also after a restart if the future ends without an error, which it does within
    /// [`WRITTEN_WITHIN`].
    pub fn others_are_outdated(
        &self,
        keys: &[KeyId],
        site: &str,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let noted = self.outdated.as_ref().map(|outdated| outdated.note_all(keys, site));
        async { OptionFuture::from(noted).await.unwrap_or(Ok(())) }
    }

    /// Another node, which is `beside` this one or not, knows of a hard purge at `hard_ms`: from now on
    /// no node is asked for what is from before that, whoever wants it. What is stored here stays.
    pub fn told_of_purge(&self, key: &KeyId, hard_ms: i64, beside: bool) {
        if let Some(outdated) = &self.outdated {
            outdated.told.note(*key, hard_ms, beside, now_ms());
        }
    }

    /// Of which hard purges of a URL other nodes have told.
    pub(super) fn told_of(&self, key: &KeyId) -> Purges {
        self.outdated.as_ref().map_or_else(Purges::default, |own| own.told.of(key, now_ms()))
    }

    /// When a URL of a site, with these tags, was purged last as far as this node knows, also from
    /// other nodes if that was a hard purge, or was found to be another than other nodes have: what
    /// they have from before that is not taken.
    pub fn purges_of(&self, key: &KeyId, (site, url): (&str, &str), tags: &[Box<str>]) -> Purges {
        let Last { any_ms, hard_ms } = self.purges.last(site, url, tags);
        let outdated_ms = self.outdated.as_ref().and_then(|outdated| outdated.last(key, site));
        let own = Purges { last_ms: any_ms.max(outdated_ms), hard_ms, beside_ms: None };
        own.max(self.told_of(key))
    }
}

/// A URL by its site and its rules is a key, and that is shorter.
fn of(key: &KeyId) -> What {
    What::Url(key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than may wait for a disk at a time: some are refused at once, and the time of the others is
    /// over before the disk has had any.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_counted_once_whatever_keeps_it_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let refused = IntCounter::new("refused", "changes").unwrap();
        let outdated = Outdated::open(dir.path(), refused.clone()).unwrap();
        let keys: Vec<_> = (0..5_000u128).map(|key| KeyId(key.to_le_bytes())).collect();
        let mut noted = Box::pin(outdated.note_all(&keys, "a.test"));
        assert!(futures::poll!(&mut noted).is_pending());
        tokio::time::advance(WRITTEN_WITHIN * 2).await;
        noted.await.unwrap_err();
        assert!((1..=5_000).contains(&refused.get()), "{} of 5,000", refused.get());
        assert!(keys.iter().all(|key| outdated.last(key, "a.test").is_some()));
    }
}
