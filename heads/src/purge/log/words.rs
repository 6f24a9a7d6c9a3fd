//! What the lines about a log's file call it, and what they say its troubles mean.

/// Parts of sentences, without a full stop.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// What it is: "{log} is damaged".
    pub log: &'static str,
    /// What comes of it where what it had may be lost.
    pub lost: &'static str,
    /// What comes of it where it takes no more.
    pub refused: &'static str,
    /// What comes of it where the oldest had to be given up for want of room.
    pub folded: &'static str,
}

impl Words {
    /// Of the log of purges.
    pub(super) const PURGES: Self = Self {
        log: "the purge log",
        lost: "all from before now counts as purged",
        refused: "purges are refused",
        folded: "too many purges are kept: the oldest became one of all",
    };
}
