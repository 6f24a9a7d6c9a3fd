//! `Nearcast-Answer-Within`: how long a node waits for what it asks another one. Pure: the time is
//! passed in.
//!
//! Did nodes that wait for one another all give up at once, each would ask the origin itself. So the
//! one below tells how many milliseconds the one above has, less than it has itself, and that one
//! answers within them, if only with what it tried. A duration, not a time of day: the clocks of two
//! nodes need not agree.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, Instant};

const ANSWER_WITHIN: HeaderName = HeaderName::from_static("nearcast-answer-within");

/// The node that a client asked keeps one part in so many of its time, twice the `first-byte-timeout`,
/// for an origin, should another node leave it without any answer.
const KEPT_FIRST: u32 = 4;
/// One that another node asked keeps this part: what is above it, four nodes with their siblings, has
/// more than one `first-byte-timeout` of the first node left.
const KEPT_BETWEEN: u32 = 12;

/// When another node wants its answer. No number, or several: it says nothing.
#[must_use]
pub fn answer_by(fields: &HeaderMap, now: Instant) -> Option<Instant> {
    let mut values = fields.get_all(ANSWER_WITHIN).iter();
    let said = values.next().filter(|_| values.next().is_none())?;
    now.checked_add(Duration::from_millis(said.to_str().ok()?.parse().ok()?))
}

/// How another node is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Within {
    /// What it is told that it has.
    told: Duration,
    /// This long it is waited for: its answer takes time to come here, too.
    pub(crate) waited: Duration,
}

impl Within {
    /// Of what is left of a node's own time.
    pub(crate) fn of(left: Duration, by_peer: bool) -> Self {
        let kept = left / if by_peer { KEPT_BETWEEN } else { KEPT_FIRST };
        Self { told: left - kept, waited: left - kept / 2 }
    }

    /// Says it in a request.
    pub(crate) fn tell(self, fields: &mut HeaderMap) {
        let ms = u64::try_from(self.told.as_millis()).unwrap_or(u64::MAX);
        fields.insert(ANSWER_WITHIN, HeaderValue::from(ms));
    }
}

/// Takes it out of what a client or another node sent: it is for this node.
pub(crate) fn forget(fields: &mut HeaderMap) {
    fields.remove(ANSWER_WITHIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_node_has_more_time_than_the_one_above_and_the_last_one_enough() {
        let first_byte = ms(1000);
        let (mut left, mut below) = (first_byte * 2, None);
        // A sibling that stands in for the owner, the owner, a parent, a shield.
        for by_peer in [false, true, true, true] {
            let Within { told, waited } = Within::of(left, by_peer);
            assert!(told < waited && waited < left, "{told:?} {waited:?} {left:?}");
            assert!(below.is_none_or(|below| waited < below));
            (left, below) = (told, Some(waited));
        }
        assert!(left > first_byte, "{left:?}");
    }

    #[test]
    fn what_is_told_is_heard_and_what_is_no_number_says_nothing() {
        let (mut fields, now) = (HeaderMap::new(), Instant::now());
        Within::of(ms(60_000), false).tell(&mut fields);
        Within::of(ms(8_000), false).tell(&mut fields);
        assert_eq!(answer_by(&fields, now), Some(now + ms(6_000)));
        fields.append(ANSWER_WITHIN, HeaderValue::from(1));
        assert_eq!(answer_by(&fields, now), None);
        for value in ["", "-1", "1.5", "a", "18446744073709551616", "1, 2"] {
            let fields = [(ANSWER_WITHIN, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(answer_by(&fields, now), None, "{value:?}");
        }
        forget(&mut fields);
        assert!(fields.is_empty());
    }
}
