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
        let want = self.want(number);
        let until = self.engine.missing_until(&self.object, number..want.until);
        let Got::Coming(mut coming) = self.engine.chunk(&self.object, want, 0, self.urgency, None)
        else {
            return Ok(None);
        };
        self.reading = coming.reading;
        // A claim ends with a step of its own, if it comes to nothing: there is an end of this.
        let has_begun = |step: &Progress| !matches!(step, Progress::Waiting);
        match coming.progress.wait_for(has_begun).await.map(|step| step.clone()) {
            Ok(Progress::Open { source, .. } | Progress::Landed(_, source)) if coming.is_own => {
                self.own = (number..until, source);
                Ok(Some(source))
            }
            Ok(Progress::Open { .. } | Progress::Landed(..)) => Ok(Some(Verdict::Filling)),
            Ok(Progress::Failed(fault)) if fault.starts_over() => Err(fault),
            _ => Ok(None),
        }
    }
}
