//! What becomes of an answer that everybody has left: it is taken to its end, or to that of the chunk
//! that has begun, or no further.

use super::taking::{AHEAD_CHUNKS, PAUSE_MAX};
use super::{Begun, Run};
use crate::engine::{Engine, RUN_BYTES_MAX};
use crate::error::Fault;
use crate::metrics::FillEnd;
use model::chunk::CHUNK_BYTES;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// With this much or less to come, an answer that everybody left is taken to its end: as much as it
/// may be ahead, and as the origin has most likely sent by then.
pub const LEFT_BYTES_MAX: u64 = AHEAD_CHUNKS * CHUNK_BYTES;
/// The same where the origin knows no ranges: what one request may bring elsewhere, or as much as
/// has come already and would have to come again, but not a whole film for nobody.
const UNRANGED_REST_BYTES_MIN: u64 = RUN_BYTES_MAX;
const UNRANGED_REST_BYTES_MAX: u64 = 4 * RUN_BYTES_MAX;

/// Where more than that is to come, a chunk that has begun has this long to come whole, since what has
/// come of it would have to come again; or [`PAUSE_MAX`] where others wait for its place or its turn. A
/// chunk in that time is 52 kB/s.
pub(super) const LEFT_CHUNK_MAX: Duration = Duration::from_secs(20);

impl Run {
    pub(super) fn is_finished(&self, rest: u64) -> bool {
        let taken = self.object.bytes.saturating_sub(rest);
        let most = match self.is_unranged {
            true => taken.clamp(UNRANGED_REST_BYTES_MIN, UNRANGED_REST_BYTES_MAX),
            false => LEFT_BYTES_MAX,
        };
        self.is_told_by_end || rest <= most
    }

    /// Everybody has left an answer that is not taken to its end for nobody. Where the origin knows no
    /// ranges, what is arriving is completed.
    pub(super) fn is_left_with(&self, rest: u64) -> bool {
        !self.is_unranged && !self.is_finished(rest) && self.readers.is_left()
    }

    /// When the answer is given up: once everybody has left, and what has begun is whole or late.
    pub(super) fn left_until(&mut self, rest: u64, others_wait: bool) -> Option<Instant> {
        let now = Instant::now();
        let is_left = self.is_left_with(rest);
        self.left = is_left.then(|| self.left.unwrap_or(now));
        let chunk = match &self.begun {
            Some(Begun::Kept(_)) if others_wait => PAUSE_MAX,
            Some(Begun::Kept(_)) => LEFT_CHUNK_MAX,
            _ => Duration::ZERO,
        };
        self.left.map(|left| left + chunk)
    }

    /// What was still to come of a chunk that everybody left has failed: it is not asked for again.
    pub(super) fn is_for_nobody(&self) -> bool {
        self.left.is_some() && self.readers.give_up()
    }

    /// Nobody reads any more. What has come is nobody's if only the end would have told whose it is.
    pub(super) fn leave(self, engine: &Engine) {
        if self.is_told_by_end {
            engine.failed(&self.object, &Fault::Changed);
        }
        engine.metrics.filled(FillEnd::Left, self.began.elapsed());
    }
}

/// Waits until then, or for as long as others who come meanwhile are let wait.
pub(super) async fn look_again(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.min(Instant::now() + PAUSE_MAX)).await,
        None => std::future::pending().await,
    }
}
