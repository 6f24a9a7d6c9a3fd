//! Which chunks a run brings: the neighbours of its first, or whatever is missing of the object where
//! all of it comes.

use super::{CLAIMS_MAX, Run, number};
use crate::engine::unranged::Whole;
use crate::engine::{Engine, RUN_BYTES_MAX};
use model::chunk::CHUNK_BYTES;
use std::ops::Range;

impl Run {
    /// Claims the next neighbours that nobody has or fetches, up to a run's length.
    pub fn claim_neighbours(&mut self, engine: &Engine, numbers: Range<u64>) {
        let most = numbers.start + RUN_BYTES_MAX / CHUNK_BYTES - 1;
        for number in numbers.start..numbers.end.min(most) {
            match engine.claim_missing(&self.object, number, &self.readers) {
                Some(claim) => self.claims.push_back(claim),
                None => return,
            }
        }
    }

    /// Claims whatever is missing of the object up to byte `reach`, before and after what is
    /// wanted: the origin will send all of it.
    pub fn claim_all(&mut self, engine: &Engine, reach: u64) {
        self.is_unranged = true;
        let (wanted, front) = (self.readers.wanted(), self.front());
        let mut own = std::mem::take(&mut self.claims);
        let until = self.object.chunks().min(wanted + CLAIMS_MAX);
        for next in wanted.saturating_sub(CLAIMS_MAX)..until {
            if own.front().is_some_and(|claim| number(claim) == next) {
                self.claims.extend(own.pop_front());
            } else if self.object.chunk(next).end() <= reach {
                self.claims.extend(engine.claim_missing(&self.object, next, &self.readers));
            }
        }
        self.claims.extend(own);
        self.claimed_until = until;
        if self.front() != front {
            // It will come again, from its first byte on.
            self.begun = None;
        }
    }

    /// All of the object is coming. Another answer that brings it is left what it has still to
    /// bring; else this is the one, and whatever is missing up to byte `reach` is claimed.
    pub fn take_all(&mut self, engine: &Engine, reach: u64) {
        let body = self.object.body;
        engine.unranged.set(body);
        let _claiming = engine.unranged.claiming(&body);
        if let Some(listed) = &self.listed {
            listed.begin(reach);
        } else if let Some(listed) = engine.unranged.list(body, &self.readers, reach) {
            self.listed = Some(listed);
        } else if let Some(whole) = engine.unranged.whole(&body) {
            self.leave_to(engine, &whole);
            if self.claims.is_empty() {
                return;
            }
        }
        self.claim_all(engine, reach);
    }

    /// All of the object is coming up to byte `reach`, and it may be that no part of it can be had: if
    /// another answer shows that, this one brings what that was for.
    pub fn may_bring_all(&mut self, engine: &Engine, reach: u64) {
        self.listed = engine.unranged.list(self.object.body, &self.readers, reach);
    }

    /// What it asks for next may be a part.
    pub(super) fn unlisted(mut self) -> Self {
        if !self.is_unranged {
            self.listed = None;
        }
        self
    }

    /// Leaves to another answer what that one has still to bring.
    fn leave_to(&mut self, engine: &Engine, whole: &Whole) {
        let front = self.front();
        let claims = std::mem::take(&mut self.claims).into_iter();
        let (left, own): (Vec<_>, _) = claims.partition(|claim| whole.brings(number(claim)));
        self.claims = own.into();
        if self.front() != front {
            self.begun = None;
        }
        for claim in left {
            let number = number(&claim);
            // Who waits for it asks anew, and joins the other.
            claim.hand_over();
            whole.join(number, |readers| engine.claim_missing(&self.object, number, readers));
        }
    }

    /// Takes what others want of the answer, which has got to byte `at`.
    pub(super) fn join(&mut self, engine: &Engine, at: u64) {
        let Some(listed) = &self.listed else { return };
        let joined = listed.at(at);
        if !joined.is_empty() && !self.is_unranged {
            // It is the one that brings all, and so for all who want of it.
            let reach = listed.reach();
            (self.is_unranged, self.is_passable) = (true, false);
            self.unpace();
            self.extend(engine, at, reach);
        }
        for claim in joined {
            // What is before it does not come any more: who waits for that asks anew.
            if self.object.chunk(number(&claim)).start >= at {
                let place = self.claims.partition_point(|it| number(it) < number(&claim));
                if place == 0 {
                    // The front will come again, from its first byte on.
                    self.begun = None;
                }
                self.claims.insert(place, claim);
            } else {
                claim.hand_over();
            }
        }
    }
}
