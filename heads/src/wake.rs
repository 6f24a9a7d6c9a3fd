//! How the writer is told that there is something to do: changes that may gather first, those
//! who wait until what they changed is on disk for good, and the end.

use crate::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Those who wait for the disk at a time; one more is refused. Each has a request of its own.
const WAITING_MAX: usize = 20_000;

/// Whether all that was changed before is on disk for good.
pub(crate) type Written = oneshot::Sender<bool>;

/// Tells the writer that there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    work: AtomicBool,
    asked: Mutex<Asked>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    /// What waits is written once more, and that is all.
    ending: bool,
    /// Nobody writes any more.
    ended: bool,
    flushes: Vec<Written>,
}

impl Wake {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes wait.
    pub(crate) fn work(&self) {
        // The lock is taken for the first of many changes alone.
        if !self.work.swap(true, Ordering::AcqRel) {
            let _held = self.lock();
            self.told.notify_one();
        }
    }

    /// Somebody waits until the changes that were made are on disk. All who ask before the
    /// writer's next batch share it.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Busy`].
    pub(crate) fn flush(&self) -> Result<oneshot::Receiver<bool>, Error> {
        let (tell, told) = oneshot::channel();
        let mut asked = self.lock();
        if asked.ended {
            return Err(Error::Closed);
        }
        if asked.flushes.len() >= WAITING_MAX {
            return Err(Error::Busy { waiting: WAITING_MAX });
        }
        asked.flushes.push(tell);
        self.work.store(true, Ordering::Release);
        self.told.notify_one();
        Ok(told)
    }

    /// What waits is written once more, and that is all.
    pub(crate) fn end(&self) {
        self.lock().ending = true;
        self.told.notify_one();
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.lock().ending
    }

    /// Nobody writes any more: who waits still, waits in vain.
    pub(crate) fn ended(&self) {
        let mut asked = self.lock();
        asked.ended = true;
        asked.flushes.clear();
    }

    /// Those who wait. What they changed is in the batch that is taken after this.
    pub(crate) fn flushes(&self) -> Vec<Written> {
        std::mem::take(&mut self.lock().flushes)
    }

    /// Whether changes wait.
    pub(crate) fn is_work(&self) -> bool {
        self.work.load(Ordering::Acquire)
    }

    /// They are taken.
    pub(crate) fn taken(&self) {
        self.work.store(false, Ordering::Release);
    }

    /// Until there is work, `limit` has passed, or the end.
    pub(crate) fn wait_for_work(&self, limit: Duration) {
        self.wait(limit, |asked| asked.ending || self.is_work());
    }

    /// Until somebody waits for the disk, `limit` has passed, or the end.
    pub(crate) fn wait_for_flush(&self, limit: Duration) {
        self.wait(limit, |asked| asked.ending || !asked.flushes.is_empty());
    }

    /// Until `limit` has passed or the end.
    pub(crate) fn wait_for_end(&self, limit: Duration) {
        self.wait(limit, |asked| asked.ending);
    }

    fn wait(&self, limit: Duration, is_told: impl Fn(&Asked) -> bool) {
        drop(self.told.wait_timeout_while(self.lock(), limit, |asked| !is_told(asked)));
    }
}
