//! Answers to a request for bytes of a stored object that may not be kept with it: they are for the
//! one who asked, and all others ask for themselves.
//!
//! Invariant: nobody but the request on whose behalf the origin was asked gets anything of them, and
//! none is held open for longer than [`KEPT_MAX`].

use crate::object::Web;
use crate::proxy::Wanted;
use http::StatusCode;
use model::ByteRange;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use upstream::Answer;

/// Who has not sent a head yet takes such an answer at once. Who has can't use it, and is not told
/// before its client takes more: it is not to hold a place at the origin for so long.
const KEPT_MAX: Duration = Duration::from_secs(1);

/// Such an answer, until the one who asked takes it, or [`KEPT_MAX`] has passed.
pub struct Apart {
    /// The origin's status.
    pub status: StatusCode,
    /// What is stored ends with it.
    pub ends: bool,
    asked_by: Arc<Wanted>,
    answer: Mutex<Option<Box<Given>>>,
}

/// The answer, and what it is to.
pub struct Given {
    /// It.
    pub answer: Answer,
    /// What is stored, and was asked for more of.
    pub web: Web,
    /// These bytes.
    pub missing: ByteRange,
    /// When it was asked for, in milliseconds since 1970 UTC.
    pub requested_ms: i64,
}

impl Apart {
    /// This answer; `ends` what is stored. `work` is where its time runs.
    pub fn new(given: Given, ends: bool, work: &Handle) -> Arc<Self> {
        let (status, asked_by) = (given.answer.head.status, Arc::clone(&given.web.wanted));
        let answer = Mutex::new(Some(Box::new(given)));
        let apart = Arc::new(Self { status, ends, asked_by, answer });
        let kept = Arc::downgrade(&apart);
        work.spawn(async move {
            tokio::time::sleep(KEPT_MAX).await;
            drop(kept.upgrade().and_then(|apart| apart.lock().take()));
        });
        apart
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Given>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, for the one who asked.
    pub fn take(&self, wanted: &Arc<Wanted>) -> Option<Box<Given>> {
        let is_own = Arc::ptr_eq(wanted, &self.asked_by);
        self.lock().take_if(|_| is_own)
    }

    /// The origin has failed, or has too much to do: were all who wait to ask for themselves, that
    /// would make it worse.
    pub fn is_failure(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apart").field("status", &self.status).finish_non_exhaustive()
    }
}
