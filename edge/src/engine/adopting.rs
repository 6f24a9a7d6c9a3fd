//! Taking an answer that somebody else has asked for, and the right to bring what is missing.

use super::inflight::Claim;
use super::readers::Readers;
use super::run::{Arriving, Run};
use super::{Engine, RUN_BYTES_MAX, Reading};
use crate::object::Object;
use model::chunk::CHUNK_BYTES;
use std::sync::Arc;
use upstream::Urgency;

impl Engine {
    /// Takes an answer that is on its way: its bytes become chunks, and who asks for them
    /// follows. Returns once its chunks can be joined, with the interest of who asked for it;
    /// none if there is nothing in it that is missing.
    pub fn adopt(
        self: &Arc<Self>,
        object: &Object,
        arriving: Arriving,
        urgency: &Urgency,
    ) -> Option<Reading> {
        let first = arriving.range.start / CHUNK_BYTES;
        let (readers, reading) = Readers::begin(arriving.wanted.start / CHUNK_BYTES, urgency);
        let mut run = Run::new(self, object.clone(), Arc::clone(&readers));
        run.wants_until(arriving.wanted.end.div_ceil(CHUNK_BYTES));
        if arriving.is_unranged {
            run.take_all(self, arriving.reach());
            // Another one that brings all may be past what is wanted, and memory not keep it.
            let number = arriving.wanted.start / CHUNK_BYTES;
            if run.is_empty()
                && let Some(claim) = self.claim_missing(object, number, &readers)
            {
                run.begin(claim);
                run.claim_all(self, arriving.reach());
            }
        } else {
            run.begin(self.inflight.claim(object.key(first)?, &readers)?);
            let begun = |number: &u64| object.chunk(*number).start < arriving.reach();
            let end = object.chunks().min(first + RUN_BYTES_MAX / CHUNK_BYTES);
            let last = (first + 1..end).take_while(begun).last().unwrap_or(first);
            run.claim_neighbours(self, first + 1..last + 1);
            if arriving.may_be_unranged {
                run.may_bring_all(self, arriving.reach());
            }
        }
        if run.is_empty() {
            return None;
        }
        let engine = Arc::clone(self);
        let adopting = async move { run.adopt(&engine, arriving).await };
        self.work.spawn(self.metrics.guarded(adopting));
        Some(reading)
    }

    /// A claim for a chunk that nobody has or fetches.
    pub(super) fn claim_missing(
        &self,
        object: &Object,
        number: u64,
        readers: &Arc<Readers>,
    ) -> Option<Claim> {
        if self.is_here(object, number) {
            return None;
        }
        let claim = self.inflight.claim(object.key(number)?, readers)?;
        // Another fetch may have landed it between the look and the claim.
        if self.is_here(object, number) {
            claim.hand_over();
            return None;
        }
        Some(claim)
    }
}
