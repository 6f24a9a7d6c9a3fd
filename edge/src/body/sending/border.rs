//! Where what is here of an object ends, before a response over that border begins.

use super::Sending;
use crate::engine::{Got, Progress};
use crate::error::Fault;
use crate::verdict::Verdict;
use model::chunk;

/// Chunks from the first one on in which a missing one is looked for. What is further off is asked
/// for when the response gets there: an answer that came now would not be held open for so long.
const LOOKED_MAX: u64 = 4;

impl Sending {
    /// Asks for the first chunk that is missing, though the response begins with what is here, and
    /// waits until something of it has come: so a new version is met before the old one's head has
    /// left. Where it comes from, if it is missing; that it fails is told when it is its turn.
    ///
    /// # Errors
    /// That the response has to start over.
    pub async fn border(&mut self) -> Result<Option<Verdict>, Fault> {
        let chunks = chunk::covering(self.left);
        let looked = chunks.start..chunks.end.min(chunks.start + LOOKED_MAX);
        let is_here = |number: &u64| self.engine.are_here(&self.object, *number..number + 1);
        let here = looked.clone().take_while(is_here).count() as u64;
        let number = looked.start + here;
        if here == 0 || number == looked.end || self.reading.is_some() {
            return Ok(None);
        }
        let until = self.engine.missing_until(&self.object, number..chunks.end);
        let wanted = (number, chunks.end);
        let Got::Coming(coming) = self.engine.chunk(&self.object, wanted, 0, self.urgency, None)
        else {
            return Ok(None);
        };
        self.reading = coming.reading;
        let mut steps = coming.progress;
        loop {
            let progress = steps.borrow_and_update().clone();
            let source = match progress {
                Progress::Waiting => {
                    // A claim that ends tells its end first; without one there is nothing to wait for.
                    if steps.changed().await.is_err() {
                        return Ok(None);
                    }
                    continue;
                }
                Progress::Failed(fault) if fault.starts_over() => return Err(fault),
                Progress::Failed(_) | Progress::Moved => return Ok(None),
                Progress::Open { source, .. } | Progress::Landed(_, source) => source,
            };
            if coming.is_own {
                self.own = (number..until, source);
                return Ok(Some(source));
            }
            return Ok(Some(Verdict::Filling));
        }
    }
}
