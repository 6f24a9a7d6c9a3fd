//! Following an answer for nobody, so that what it brings is kept: that of a renewal behind a stale
//! answer, which was for those who come next (RFC 5861 section 3).
//!
//! Invariant: nothing is asked for here.

use super::inflight::Progress;
use super::left::{KEPT_MAX, LEFT_MAX};
use super::readers::Reading;
use super::{Engine, RUN_BYTES_MAX};
use crate::object::Object;
use model::ByteRange;
use model::chunk::{self, CHUNK_BYTES};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// As much is taken for nobody as one fetch brings: who asked may have wanted no more, and a film's
/// new version may be watched by nobody.
const FOLLOWED_CHUNKS_MAX: u64 = RUN_BYTES_MAX / CHUNK_BYTES;

impl Engine {
    /// Follows the fetch that was joined by `reading` through `range`, or as much of that as is
    /// taken for nobody. Ends where the fetch does.
    pub async fn follow(&self, object: &Object, range: ByteRange, reading: Reading) {
        let chunks = chunk::covering(range);
        for number in chunks.start..chunks.end.min(chunks.start + FOLLOWED_CHUNKS_MAX) {
            reading.want(number);
            // Nobody is slow here: what comes is kept.
            reading.took(u64::MAX);
            if self.kept_in_time(self.comes(object, number)).await != Some(true) {
                return;
            }
        }
    }

    /// Waits for a MiB that comes only to be kept, for [`KEPT_MAX`], or [`LEFT_MAX`] where others wait
    /// for their turn.
    async fn kept_in_time<T>(&self, comes: impl Future<Output = T>) -> Option<T> {
        let (began, mut comes) = (Instant::now(), pin!(comes));
        loop {
            match timeout(LEFT_MAX, &mut comes).await {
                Ok(come) => return Some(come),
                Err(_) if self.kept_each() <= began.elapsed() => return None,
                Err(_) => {}
            }
        }
    }

    /// How long each MiB may take that comes only to be kept.
    pub fn kept_each(&self) -> Duration {
        if self.turns.are_wanted() { LEFT_MAX } else { KEPT_MAX }
    }

    /// Waits for a chunk that is on its way. False: it will not come.
    async fn comes(&self, object: &Object, number: u64) -> bool {
        let Some(key) = object.key(number) else { return false };
        // Again where one fetch leaves it to another: that one holds it by then, or nobody does.
        while let Some(mut coming) = self.inflight.follow(&key) {
            let is_over = |progress: &Progress| {
                !matches!(progress, Progress::Waiting | Progress::Open { .. })
            };
            match coming.progress.wait_for(is_over).await.map(|progress| progress.clone()) {
                Ok(Progress::Landed(..)) => return true,
                Ok(Progress::Moved) => {}
                _ => return false,
            }
        }
        self.is_here(object, number)
    }
}
