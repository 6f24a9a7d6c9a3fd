//! A response's age (RFC 9111 section 4.2.3) and what a response from the store carries.

use crate::list::{self, Quotes, members};
use crate::{Stored, date};
use http::header::{AGE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The age of a response whose `Age` cannot be trusted: greater than any lifetime.
const UNTRUSTED_MS: i64 = i64::MAX / 4;

/// The largest value of the `Age` field, in seconds (RFC 9111 section 1.2.2).
const AGE_FIELD_MAX: i64 = 1 << 31;

/// How old a response was when it arrived: what its age at any time follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    initial_ms: i64,
    received_ms: i64,
    is_trusted: bool,
}

impl Age {
    pub(crate) fn of(stored: &Stored) -> Self {
        let reported_ms = reported_ms(&stored.fields);
        let received_ms = stored.received_ms;
        let corrected_ms = reported_ms.unwrap_or(0).saturating_add(delay_ms(stored));
        let initial_ms = apparent_ms(stored).max(corrected_ms);
        Self { initial_ms, received_ms, is_trusted: reported_ms.is_some() }
    }

    /// As [`age_ms`].
    pub(crate) fn ms(&self, now_ms: i64) -> i64 {
        if self.is_trusted { self.known_ms(now_ms) } else { UNTRUSTED_MS }
    }

    /// The `Age` field of a response served from the store, in whole seconds.
    pub(crate) fn field(&self, now_ms: i64) -> HeaderValue {
        let seconds = (self.known_ms(now_ms) / 1000).min(AGE_FIELD_MAX);
        // In one piece of memory; from a number it takes two.
        let digits = HeaderValue::from_str(itoa::Buffer::new().format(seconds));
        digits.unwrap_or_else(|_| HeaderValue::from(seconds))
    }

    /// How long [`Self::field`] stays the same, in milliseconds.
    pub(crate) fn stays_ms(&self, now_ms: i64) -> i64 {
        // A clock that was set back may be set again.
        if now_ms < self.received_ms { 0 } else { 1000 - self.known_ms(now_ms).rem_euclid(1000) }
    }

    fn known_ms(&self, now_ms: i64) -> i64 {
        let resident_ms = now_ms.saturating_sub(self.received_ms).max(0);
        self.initial_ms.saturating_add(resident_ms).min(UNTRUSTED_MS)
    }
}

/// The current age in milliseconds, never negative. Where the origin's `Age` is malformed it is
/// greater than any lifetime: the response is stale.
pub fn age_ms(stored: &Stored, now_ms: i64) -> i64 {
    Age::of(stored).ms(now_ms)
}

/// A moment at which the origin was asked for a response at the earliest, where it was received
/// after a request of `requested_ms`. Without an `Age` no cache on the way has kept it. An age has
/// whole seconds: the part of one that it lacks counts in full. One that is not to be trusted
/// says nothing: then it may be as old as can be.
#[must_use]
pub fn asked_ms(fields: &HeaderMap, requested_ms: i64) -> i64 {
    if !fields.contains_key(AGE) {
        return requested_ms;
    }
    let ago_ms = reported_ms(fields).map(|ms| ms.saturating_add(999));
    ago_ms.map_or(i64::MIN, |ago_ms| requested_ms.saturating_sub(ago_ms))
}

/// The fields of a response served from the store: the stored ones less those that
/// `no-cache="..."` lists, with the current `Age`.
pub(crate) fn reused(fields: &HeaderMap, listed: &[HeaderName], age: HeaderValue) -> HeaderMap {
    let mut fields = fields.clone();
    for name in listed {
        fields.remove(name);
    }
    // An insertion fails only past 32,768 fields, which no listener lets in.
    let _ = fields.try_insert(AGE, age);
    fields
}

/// How long the origin took to answer, in milliseconds: the RFC's `response_delay`.
pub(crate) fn delay_ms(stored: &Stored) -> i64 {
    stored.received_ms.saturating_sub(stored.requested_ms).max(0)
}

/// The least age with which a response came, without the time that the origin took: its second may
/// have been over just then. Of one whose lifetime `is_ruled` by the operator, as far as a cache on
/// the way told it.
pub(crate) fn age_on_arrival_ms(stored: &Stored, is_ruled: bool) -> i64 {
    let apparent_ms = if is_ruled { 0 } else { apparent_ms(stored) - 1000 };
    reported_ms(&stored.fields).map_or(UNTRUSTED_MS, |ms| ms.max(apparent_ms))
}

/// The part of the age with which a response came that no cache on the way told: the time that the
/// origin took, and by how much its clock is behind, or stood still when it made the answer.
pub(crate) fn untold_ms(stored: &Stored) -> i64 {
    Age::of(stored).initial_ms.saturating_sub(reported_ms(&stored.fields).unwrap_or(0)).max(0)
}

/// What `Date` says. A date has whole seconds: the part of a second that it lacks is not age,
/// or a response with `max-age=1` would be stale when it arrives.
fn apparent_ms(stored: &Stored) -> i64 {
    let received_ms = stored.received_ms.saturating_sub(stored.received_ms.rem_euclid(1000));
    let date_ms = date::of(&stored.fields, &DATE);
    date_ms.map_or(0, |date_ms| received_ms.saturating_sub(date_ms).max(0))
}

/// The `Age` received, 0 if absent, None if not to be trusted. Of a list in one line the first
/// member counts (RFC 9111 section 5.1). Several lines, or one value said twice, mean that a
/// cache on the way does not keep `Age`: not to be trusted, like a value that is no number. The
/// RFC says that a cache SHOULD take the first line, and ignore what is no number; to hold the
/// response for stale is the safe side, and what the public suite's 0.4.5 requires.
fn reported_ms(fields: &HeaderMap) -> Option<i64> {
    if !fields.contains_key(AGE) {
        return Some(0);
    }
    let mut values = members(date::single(fields, &AGE)?.as_bytes(), b',', Quotes::Escaped);
    let first = values.next()?;
    if values.any(|value| value == first) {
        return None;
    }
    Some(list::digits(first)?.saturating_mul(1000).min(UNTRUSTED_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, stored};
    use crate::{Facts, Settings};

    /// The suite's age-parse, and RFC 9111 section 5.1 for lists.
    #[test]
    fn age_in_every_spelling() {
        let table = [
            ("", Some(0)),
            ("Age: 7200", Some(7_200_000)),
            ("Age: 0,7200", Some(0)),
            ("Age: 7200,0", Some(7_200_000)),
            ("Age: 99999999999999999999", Some(UNTRUSTED_MS)),
            ("Age: abc", None),
            ("Age: -7200", None),
            ("Age: 7200.0", None),
            ("Age: 7200;foo=bar", None),
            ("Age: 7200;foo=111", None),
            ("Age: 0, 0", None),
            ("Age: 3600, 3600", None),
            ("Age: 0\nAge: 0", None),
            ("Age: 7200\nAge: 0", None),
            ("Age: 0\nAge: 7200", None),
            ("Age:", None),
        ];
        for (lines, wanted) in table {
            assert_eq!(reported_ms(&stored(lines).fields), wanted, "{lines}");
        }
    }

    #[test]
    fn a_kept_response_was_asked_for_before_its_age_began() {
        let asked_ms = |lines: &str| asked_ms(&stored(lines).fields, NOW_MS);
        assert_eq!(asked_ms("Date: @-100"), NOW_MS);
        assert_eq!(asked_ms("Age: 0"), NOW_MS - 999);
        assert_eq!(asked_ms("Age: 7, 3"), NOW_MS - 7_999);
        assert_eq!(asked_ms("Age: a"), i64::MIN);
    }

    /// RFC 9111 section 4.2.3.
    #[test]
    fn the_greater_of_date_and_age_counts() {
        let age_s = |lines: &str, later_ms| age_ms(&stored(lines), NOW_MS + later_ms) / 1000;
        assert_eq!(age_s("Date: @0", 5000), 5);
        assert_eq!(age_s("Date: @-100", 5000), 105);
        assert_eq!(age_s("Date: @-100\nAge: 300", 5000), 305);
        assert_eq!(age_s("Date: @100\nAge: 3", 0), 3);
        assert_eq!(age_s("Date: foo", 0), 0);
        assert_eq!(age_s("", -5000), 0);
        let mut slow = stored("Age: 3");
        slow.requested_ms -= 2000;
        assert_eq!(age_ms(&slow, NOW_MS), 5000);
    }

    #[test]
    fn a_part_of_a_second_is_no_age() {
        let mut late = stored("Date: @0");
        late.received_ms += 999;
        late.requested_ms += 999;
        assert_eq!(age_ms(&late, late.received_ms), 0);
        assert_eq!(age_ms(&late, late.received_ms + 1), 1);
    }

    #[test]
    fn seconds_stay_until_they_change() {
        for (lines, received_ms) in [
            ("Cache-Control: max-age=60\nDate: @0", 0),
            ("Cache-Control: max-age=60\nDate: @-3\nAge: 5", 417),
        ] {
            let mut stored = stored(lines);
            stored.received_ms += received_ms;
            let facts = Facts::of(&stored, &Settings::default());
            let told =
                |now_ms| (facts.age_field(now_ms), facts.fresh_for_ms(now_ms).div_euclid(1000));
            let mut now_ms = stored.received_ms;
            for _ in 0..100 {
                let stays_ms = facts.stays_ms(now_ms);
                assert!((1..=1000).contains(&stays_ms), "{lines} {stays_ms}");
                assert_eq!(told(now_ms), told(now_ms + stays_ms - 1), "{lines}");
                assert_ne!(told(now_ms), told(now_ms + stays_ms), "{lines}");
                now_ms += (stays_ms / 3).max(1);
            }
            assert_eq!(facts.stays_ms(stored.received_ms - 1), 0);
            let reuse = facts.reuse(&HeaderMap::new(), now_ms, &Settings::default(), None);
            assert_eq!(facts.is_fresh(now_ms), reuse == crate::Reuse::Fresh);
        }
    }

    #[test]
    fn served_from_the_store() {
        let lines = "Cache-Control: no-cache=\"a\"\nA: 1\nB: 2\nAge: 30\nDate: @0";
        let facts = |lines: &str| Facts::of(&stored(lines), &Settings::default());
        let fields = facts(lines).reused_fields(&stored(lines), NOW_MS + 3000);
        assert_eq!(fields.get("age").unwrap(), "33");
        assert!(!fields.contains_key("a") && fields.contains_key("b"));
        assert_eq!(facts("Age: x\nDate: @-7").age_field(NOW_MS), "7");
        assert_eq!(facts("Age: 99999999999999").age_field(NOW_MS), "2147483648");
    }
}
