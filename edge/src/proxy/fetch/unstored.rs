//! Why an answer is not stored, for those who wonder about the hit ratio.

use crate::serve::Edge;
use caching::Reason;
use heads::KeyId;

/// Why it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstored {
    /// What it and the request say (RFC 9111 section 3).
    Said(Reason),
    /// It ends with its connection (RFC 9112 section 6.3): nobody can know that all of it came.
    Undelimited,
    /// It is a part, and has no strong validator that others could be joined with it by (RFC 9110
    /// section 15.3.7.3).
    Unvalidated,
    /// It is a part of what does not say how long it is (RFC 9110 section 14.4).
    Unmeasured,
    /// It is longer than anything is kept, or than what is kept whole, as it must be for want of a
    /// strong validator or a length.
    TooLong,
    /// Memory for what is kept whole was used up while it came.
    NoRoom,
}

impl Unstored {
    /// A short token for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Said(reason) => reason.as_str(),
            Self::Undelimited => "undelimited",
            Self::Unvalidated => "unvalidated",
            Self::Unmeasured => "unmeasured",
            Self::TooLong => "too-long",
            Self::NoRoom => "no-room",
        }
    }
}

/// Says so of an answer to a request for this URL.
pub fn tell(edge: &Edge, key: KeyId, url: &str, why: Unstored) {
    let reason = why.as_str();
    edge.metrics.answers_unstored.with_label_values(&[reason]).inc();
    edge.fetches.unstored(key, why);
    tracing::debug!(url, reason, "not stored");
}
