//! What becomes of an answer that everybody has left: it is taken to its end, or to that of the chunk
//! that has begun, or no further; and for so long, so that an origin that drips holds no place for
//! nobody.

use super::taking::{AHEAD_CHUNKS, PAUSE_MAX};
use super::{Begun, Run};
use crate::engine::left::{LEFT_MAX, wait_until};
use crate::engine::{Engine, RUN_BYTES_MAX};
use crate::error::Fault;
use crate::metrics::FillEnd;
use model::chunk::CHUNK_BYTES;
use std::time::Duration;
use tokio::time::Instant;

/// With this much or less to come, an answer that everybody left is taken to its end: as much as it
/// may be ahead, and as the origin has most likely sent by then.
pub const LEFT_BYTES_MAX: u64 = AHEAD_CHUNKS * CHUNK_BYTES;
/// The same where the origin knows no ranges: what one request may bring elsewhere, or as much as
/// has come already and would have to come again, but not a whole film for nobody.
const UNRANGED_REST_BYTES_MIN: u64 = RUN_BYTES_MAX;
const UNRANGED_REST_BYTES_MAX: u64 = 4 * RUN_BYTES_MAX;

impl Run {
    pub(super) fn is_finished(&self, rest: u64) -> bool {
        let taken = self.object.bytes.saturating_sub(rest);
        let most = match self.is_unranged {
            true => taken.clamp(UNRANGED_REST_BYTES_MIN, UNRANGED_REST_BYTES_MAX),
            false => LEFT_BYTES_MAX,
        };
        self.is_told_by_end || rest <= most
    }

    /// Whether it goes on behind the chunk that it is at though everybody has left. Where the origin
    /// knows no ranges, what is arriving is completed.
    fn is_taken_on(&self, rest: u64) -> bool {
        self.is_unranged || self.is_finished(rest)
    }

    /// Everybody has left an answer that is not.
    pub(super) fn is_left_with(&self, rest: u64) -> bool {
        !self.is_taken_on(rest) && self.readers.is_left()
    }

    /// Whether everybody has left what more than a little is to come of, and others wait for its turn,
    /// or for its place: `may_wait` says whether they don't. That takes one of the places for answers
    /// that are held, so it is asked of none that is read.
    pub(super) fn others_wait(&self, rest: u64, may_wait: impl FnOnce() -> bool) -> bool {
        self.is_left_with(rest) && (self.turns.are_wanted_of(self.owner) || !may_wait())
    }

    /// When the answer is given up: once everybody has left, and what is taken all the same is whole
    /// or late. The rest of a chunk is late sooner where others wait.
    pub(super) fn left_until(&mut self, rest: u64, others_wait: bool) -> Option<Instant> {
        let each = match &self.begun {
            // Nothing of it would be kept.
            Some(Begun::Passed(_)) => Duration::ZERO,
            _ if self.is_taken_on(rest) => LEFT_MAX,
            Some(Begun::Kept(_)) if others_wait => PAUSE_MAX,
            Some(Begun::Kept(_)) => LEFT_MAX,
            _ => Duration::ZERO,
        };
        let at = self.object.bytes.saturating_sub(rest);
        self.left.until(self.readers.is_left(), at, each)
    }

    /// Waits until everybody has left an answer that is not taken to its end, and gives it up.
    pub(super) async fn left_with(&self, rest: u64) {
        while !(self.is_left_with(rest) && self.readers.give_up()) {
            self.readers.changed().await;
        }
    }

    /// What was still to come when everybody had left has failed: it is not asked for again.
    pub(super) fn is_for_nobody(&self) -> bool {
        self.readers.give_up()
    }

    /// The same, of what failed, which may tell something of the object.
    pub(super) fn leave_failed(self, engine: &Engine, fault: &Fault) {
        engine.failed(&self.object, fault);
        self.leave(engine);
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
    wait_until(until.map(|until| until.min(Instant::now() + PAUSE_MAX))).await;
}
