//! The threads that read heads from disk: what the database says of a key, corrected by the
//! changes on their way to it.

use crate::db;
use crate::head::{KeyId, Variants};
use crate::heads::{Shared, hour_now};
use rusqlite::Connection;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

/// How often a key is read again since a batch came in between.
const READ_TRIES: usize = 4;

impl Shared {
    /// A reader's life: one key after another, until nobody can ask any more.
    pub(crate) fn read_all(&self, asked: &Receiver<KeyId>) {
        let mut open = None;
        for key in asked {
            let variants = self.read(&mut open, &key);
            self.stalled.store(false, Ordering::Release);
            let mut shard = self.shard(&key);
            let variants = variants.unwrap_or_else(|| shard.known(&key));
            for waiter in shard.reading.remove(&key).unwrap_or_default() {
                // Whoever gave up waiting has had its answer.
                let _ = waiter.send(variants.clone());
            }
        }
    }

    /// What memory and disk have of `key`; `None` when the disk does not say.
    fn read(&self, open: &mut Option<(u64, Connection)>, key: &KeyId) -> Option<Variants> {
        for _ in 0..READ_TRIES {
            let batches = self.shard(key).batches;
            let generation = self.generation.load(Ordering::Acquire);
            if self.is_off() {
                return None;
            }
            let outcome = self.read_disk(open, generation, key);
            let (variants, used) = match outcome {
                Ok(found) => found,
                Err(error) => {
                    self.read_failed(generation, &error);
                    *open = None;
                    return None;
                }
            };
            let learnt = self.shard(key).learn(key, variants, batches, (used, hour_now()));
            if let Some((variants, evicted)) = learnt {
                self.metrics.evicted.with_label_values(&["memory"]).inc_by(evicted);
                return Some(variants);
            }
        }
        None
    }

    fn read_disk(
        &self,
        open: &mut Option<(u64, Connection)>,
        generation: u64,
        key: &KeyId,
    ) -> Result<(Variants, u32), rusqlite::Error> {
        if !matches!(open, Some((of, _)) if *of == generation) {
            *open = Some((generation, db::open_reader(&self.path)?));
        }
        match open {
            Some((_, connection)) => db::read(connection, key, &self.metrics),
            None => Ok((Variants::default(), 0)),
        }
    }

    fn read_failed(&self, generation: u64, error: &rusqlite::Error) {
        self.metrics.failures.with_label_values(&["read"]).inc();
        tracing::error!(path = %self.path.display(), %error, "a head can't be read");
        if db::is_damage(error) {
            self.damaged.store(generation, Ordering::Release);
            self.wake.work();
        }
    }
}
