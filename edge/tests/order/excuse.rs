//! Why an answer may be refused or cut for no fault of the edge's, and how many may be.

use super::scene::Mood;
use super::tally::Tally;

/// How an answer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// By a status of a server's failure.
    Refused,
    /// Before its end, or before its head was delivered.
    Cut,
}

/// What is known of one that failed.
#[derive(Debug)]
pub struct Circumstances {
    /// The edge was told to stop, or killed.
    pub is_ending: bool,
    /// The thing can be asked for in parts.
    pub is_strong: bool,
    /// The origin has another version than the oldest that may have answered.
    pub has_changed: bool,
    /// The origin has refused, cut or held back an answer in this history.
    pub origin_failed: bool,
    /// The edge has waited for memory in vain: for a second all of it was lent to who read slowly.
    pub was_full: bool,
    /// It took as long as the least of the edge's own time limits: on a machine that has other
    /// things to do, one of these may have cut it.
    pub is_late: bool,
}

impl Circumstances {
    /// The first excuse that holds. A good origin's things are never refused, and such as can be
    /// had in parts, and did not change, never cut.
    pub fn excuse(&self, failed: Failed) -> Option<&'static str> {
        let is_cut = failed == Failed::Cut;
        let excuses = [
            (self.is_ending, ENDED),
            (is_cut && self.has_changed, CHANGED),
            (is_cut && !self.is_strong, GONE),
            (self.origin_failed, FAILED),
            (self.was_full, FULL),
            (self.is_late, LATE),
        ];
        excuses.into_iter().find_map(|(holds, why)| holds.then_some(why))
    }
}

const ENDED: &str = "the edge ended";
const CHANGED: &str = "another version";
/// What was evicted of such a thing.
const GONE: &str = "a part is gone";
const FAILED: &str = "the origin failed";
const FULL: &str = "memory was full";
const LATE: &str = "late";

/// Of so many answers that are waited for to their end in a mood, one may fail for these, all
/// together. How many are late, find memory full, or are under way when an edge ends, is the
/// machine's affair.
const FAILS_ONE_OF: u64 = 5;
const BOUNDED: [&str; 3] = [CHANGED, GONE, FAILED];

/// The name under which failures of a mood are counted.
pub fn excused(mood: Mood, why: &str) -> String {
    format!("excused in {mood:?}: {why}")
}

/// The name under which all answers of a mood are counted that are waited for to their end.
pub fn awaited(mood: Mood) -> String {
    format!("answers awaited in {mood:?}")
}

/// # Panics
/// If more was excused than may be.
pub fn expect_few(tally: &Tally) {
    for mood in [Mood::Quiet, Mood::Changing, Mood::Wild] {
        let failed: u64 = BOUNDED.iter().map(|why| tally.count(&excused(mood, why))).sum();
        let all = tally.count(&awaited(mood));
        assert!(failed * FAILS_ONE_OF <= all, "{mood:?}: {failed} of {all} failed");
    }
}
