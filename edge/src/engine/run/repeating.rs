//! Whether what an answer did not bring is asked for again.
//!
//! Invariant: what comes again is paid for, by the site's `retries` and their budget, unless it was
//! another node itself that failed; and that node's origin is sent no more for a node that asks for
//! another one.

use super::Run;
use crate::engine::Engine;
use crate::engine::readers::Failed;
use crate::error::Fault;
use crate::verdict::Verdict;
use upstream::HopId;

/// What another node broke off is asked for again so often in a row for free: others are asked.
const FREE_REPEATS_MAX: u32 = 2;

impl Run {
    /// Whether what an answer did not bring is asked for again. What has come since chunk `front`
    /// was missing need not come anew: to go on behind it is no more work for the origin, and free.
    /// Only a chunk is progress: an origin may stall after a few bytes each time. `by`: who
    /// answered, and how it failed.
    pub(super) async fn may_repeat(
        &mut self,
        engine: &Engine,
        front: Option<u64>,
        by: Option<(&HopId, &Fault)>,
    ) -> bool {
        let is_behind_it = match by {
            Some((hop, fault)) if self.front() == front && self.is_of_a_node() => {
                fault.is_cut() && engine.is_there(&self.object, hop).await
            }
            _ => false,
        };
        self.counts_repeat(engine, front, is_behind_it)
    }

    /// Whether it begins, on behalf of somebody whom another fetch has failed: as one more try of
    /// that one.
    pub fn may_go_on(&mut self, engine: &Engine, failed: &Failed) -> bool {
        (self.source, self.repeats) = (failed.source, failed.repeats);
        self.is_last = failed.is_last;
        let is_told = failed.fault.starts_over() || matches!(failed.fault, Fault::Apart(_));
        let is_behind_it = self.is_of_a_node() && failed.fault.is_cut();
        !is_told && self.counts_repeat(engine, self.front(), is_behind_it)
    }

    fn is_of_a_node(&self) -> bool {
        self.source != Verdict::Origin
    }

    /// `is_behind_it`: the node that broke it off has its own tries behind it, in vain. Then the node
    /// that a client asked, and no other, asks the origin itself, once.
    fn counts_repeat(&mut self, engine: &Engine, front: Option<u64>, is_behind_it: bool) -> bool {
        if self.front() != front {
            (self.repeats, self.is_last, self.is_repeat) = (0, false, true);
            return true;
        }
        let was_last = self.is_last;
        self.repeats += 1;
        self.is_last |= is_behind_it;
        let free = if self.is_of_a_node() { FREE_REPEATS_MAX } else { 0 };
        self.is_repeat = match self.is_last {
            true => !was_last && !self.object.is_for_peer() && engine.pays_repeat(&self.object, 1),
            false => self.repeats <= free || engine.pays_repeat(&self.object, self.repeats),
        };
        self.is_repeat
    }
}
