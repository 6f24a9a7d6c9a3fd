//! `Nearcast-Newer-Than`: how nodes tell each other of a purge that has not come to all of them.
//! Pure.
//!
//! A request says how many milliseconds ago the last purge of what it asks for was taken; who
//! answers from nothing that is as old says so by the same value. An age, not a time of day: the
//! clocks of two nodes need not agree. Both round to the safe side, so what counts as newer is.

use http::{HeaderMap, HeaderName, HeaderValue};

const NEWER_THAN: HeaderName = HeaderName::from_static("nearcast-newer-than");

/// What another node asks for: nothing of the origin's from before a moment.
#[derive(Debug, Clone)]
pub struct NewerThan {
    /// The moment, in milliseconds since 1970 UTC by this node's clock. What the origin was asked
    /// for after it will do.
    pub unix_ms: i64,
    said: HeaderValue,
}

impl NewerThan {
    /// What a request says. No number, or several: nothing.
    #[must_use]
    pub fn of(fields: &HeaderMap, now_ms: i64) -> Option<Self> {
        let mut values = fields.get_all(NEWER_THAN).iter();
        let said = values.next().filter(|_| values.next().is_none())?.clone();
        let ago_ms: u64 = said.to_str().ok()?.parse().ok()?;
        let ago_ms = i64::try_from(ago_ms).ok()?;
        Some(Self { unix_ms: now_ms.saturating_sub(ago_ms), said })
    }

    /// Says that the answer is newer.
    pub fn confirm(&self, fields: &mut HeaderMap) {
        fields.insert(NEWER_THAN, self.said.clone());
    }
}

/// Says in a request that what is asked for was purged at `unix_ms`.
pub(crate) fn tell(fields: &mut HeaderMap, unix_ms: i64, now_ms: i64) -> HeaderValue {
    // A millisecond less: of both times a part of one is cut off.
    let ago_ms = now_ms.saturating_sub(unix_ms).saturating_sub(1).max(0);
    let said = HeaderValue::from(ago_ms);
    fields.insert(NEWER_THAN, said.clone());
    said
}

/// Whether an answer says it of what the request `said`. Takes it out: it is for this node.
pub(crate) fn take(fields: &mut HeaderMap, said: Option<&HeaderValue>) -> bool {
    let confirmed = fields.remove(NEWER_THAN);
    confirmed.is_some() && confirmed.as_ref() == said
}

/// Takes it out of what is sent on.
pub fn forget(fields: &mut HeaderMap) {
    fields.remove(NEWER_THAN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_by_another_clock_keeps_to_the_safe_side() {
        let mut request = HeaderMap::new();
        let said = tell(&mut request, 5_000, 5_100);
        let asked = NewerThan::of(&request, 900_000).unwrap();
        assert_eq!(asked.unix_ms, 900_000 - 99);
        let mut answer = HeaderMap::new();
        asked.confirm(&mut answer);
        assert!(take(&mut answer.clone(), Some(&said)));
        assert!(!take(&mut answer.clone(), Some(&HeaderValue::from(98))), "of another request");
        assert!(!take(&mut answer, None) && answer.is_empty(), "nobody asked");
        assert!(!take(&mut HeaderMap::new(), Some(&said)));
        // A clock that was set back since.
        tell(&mut request, 5_000, 4_000);
        assert_eq!(NewerThan::of(&request, 900_000).unwrap().unix_ms, 900_000);
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        for value in ["", "-1", "1.5", "a", "99999999999999999999", "1, 2"] {
            let mut fields = HeaderMap::new();
            fields.insert(NEWER_THAN, HeaderValue::from_static(value));
            assert!(NewerThan::of(&fields, 0).is_none(), "{value:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(NEWER_THAN, HeaderValue::from(1));
        twice.append(NEWER_THAN, HeaderValue::from(2));
        assert!(NewerThan::of(&twice, 0).is_none());
    }
}
