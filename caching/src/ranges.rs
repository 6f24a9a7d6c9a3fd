//! Ranges of bytes: several in one request, and those of a 206 (RFC 9110 section 14).

use crate::date;
use crate::list::{Quotes, members};
use http::HeaderMap;
use http::header::{CONTENT_RANGE, RANGE};
use model::ByteRange;

/// One part that a request wants (RFC 9110 section 14.1.1), of a representation whose length may
/// not be known. A position that `u64` can't hold is read as its greatest: beyond any end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// From this byte on.
    From {
        /// The first byte.
        first: u64,
        /// The last one, not before the first; none: to the end.
        last: Option<u64>,
    },
    /// So many bytes before the end.
    Last {
        /// How many.
        bytes: u64,
    },
}

/// What a request wants of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// All of it: no `Range`, another unit, or not well-formed.
    Whole,
    /// These parts, at least one, none empty, none overlapping or touching another, in the order
    /// in which they were asked for.
    Parts(Vec<ByteRange>),
    /// None of the parts exists: 416.
    Unsatisfiable,
    /// More parts than the caller takes: whether 416 or the whole is its choice.
    TooMany,
}

/// Reads the `Range` of a request for a representation of `bytes`, of at most `max` parts. Parts
/// that overlap or touch are merged (RFC 9110 section 15.3.7.2).
#[must_use]
pub fn ranges(request: &HeaderMap, bytes: u64, max: usize) -> Ranges {
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in range_specs(request) {
        count += 1;
        if count > max {
            return Ranges::TooMany;
        }
        let Some(spec) = spec else { return Ranges::Whole };
        parts.extend(spec.within(bytes));
    }
    match parts.len() {
        0 if count == 0 => Ranges::Whole,
        0 => Ranges::Unsatisfiable,
        _ => Ranges::Parts(merged(parts)),
    }
}

/// The parts that a request's `Range` asks for, in its order; None for what is malformed. Nothing
/// where there is no such field, or of another unit.
pub fn range_specs(request: &HeaderMap) -> impl Iterator<Item = Option<RangeSpec>> {
    members(specs(request).unwrap_or_default(), b',', Quotes::Plain).map(RangeSpec::of)
}

/// Where what a request asks for begins: at the first byte of its first range, and at the object's
/// where it names none, or counts from the end.
#[must_use]
pub fn asks_from(request: &HeaderMap) -> u64 {
    match range_specs(request).next().flatten() {
        Some(RangeSpec::From { first, .. }) => first,
        _ => 0,
    }
}

/// What stands behind the unit, which has no case (RFC 9110 section 14.1).
fn specs(request: &HeaderMap) -> Option<&[u8]> {
    let field = date::single(request, &RANGE)?.as_bytes();
    let at = field.iter().position(|&byte| byte == b'=')?;
    field[..at].trim_ascii().eq_ignore_ascii_case(b"bytes").then_some(&field[at + 1..])
}

impl RangeSpec {
    /// None: malformed.
    fn of(text: &[u8]) -> Option<Self> {
        let at = text.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (text[..at].trim_ascii(), text[at + 1..].trim_ascii());
        if first.is_empty() {
            return number(last).map(|bytes| Self::Last { bytes });
        }
        let first = number(first)?;
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        last.is_none_or(|last| first <= last).then_some(Self::From { first, last })
    }

    /// What there is of it in a representation of so many bytes.
    fn within(self, bytes: u64) -> Option<ByteRange> {
        match self {
            Self::Last { bytes: most } => {
                let length = most.min(bytes);
                (length > 0).then(|| ByteRange::new(bytes - length, length))
            }
            Self::From { first, last } => {
                let end = last.map_or(bytes, |last| last.saturating_add(1).min(bytes));
                (first < bytes).then(|| ByteRange::new(first, end - first))
            }
        }
    }
}

/// One too great for `u64` counts as the greatest: beyond any representation.
fn number(text: &[u8]) -> Option<u64> {
    let are_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    are_digits.then(|| text.iter().fold(0, add))
}

/// Merges parts that overlap or touch; a merged one stands where the first of it stood.
fn merged(parts: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut sorted: Vec<(usize, ByteRange)> = parts.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(place, range)| (range.start, *place));
    let mut kept: Vec<(usize, ByteRange)> = Vec::with_capacity(sorted.len());
    for (place, range) in sorted {
        match kept.last_mut() {
            Some((known_place, known)) if range.start <= known.end() => {
                *known_place = place.min(*known_place);
                known.bytes = range.end().max(known.end()) - known.start;
            }
            _ => kept.push((place, range)),
        }
    }
    kept.sort_unstable_by_key(|(place, _)| *place);
    kept.into_iter().map(|(_, range)| range).collect()
}

/// What part of a representation a 206 holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The part; not empty.
    pub range: ByteRange,
    /// The whole length; None if the origin does not say (`*`).
    pub total: Option<u64>,
}

/// Reads the `Content-Range` of a 206. None if it is absent, malformed, of another unit, or
/// contradicts itself, or its numbers are none of 64 bits: not to be stored.
#[must_use]
pub fn content_range(fields: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = range_and_total(fields)?;
    let dash = range.iter().position(|&byte| byte == b'-')?;
    // One that does not fit is read as the greatest.
    let fits = |text: &[u8]| number(text).filter(|number| *number < u64::MAX);
    let (first, last) = (fits(&range[..dash])?, fits(&range[dash + 1..])?);
    let total = if total == b"*" { None } else { Some(fits(total)?) };
    let sound = first <= last && total.is_none_or(|total| last < total);
    sound.then(|| ContentRange { range: ByteRange::new(first, last - first + 1), total })
}

/// Whether the `Content-Range` of a 206 is well-formed, but of numbers that are not counted here:
/// [`content_range`] reads none from 2^64 - 1 on.
#[must_use]
pub fn is_past_counting(fields: &HeaderMap) -> bool {
    let numbers = || {
        let (range, total) = range_and_total(fields)?;
        let dash = range.iter().position(|&byte| byte == b'-')?;
        let total = if total == b"*" { Some(0) } else { number(total) };
        Some([number(&range[..dash])?, number(&range[dash + 1..])?, total?])
    };
    numbers().is_some_and(|numbers| numbers.contains(&u64::MAX))
}

/// The whole length that a 416 names (`bytes */N`).
#[must_use]
pub fn unsatisfied_total(fields: &HeaderMap) -> Option<u64> {
    let (range, total) = range_and_total(fields)?;
    if range == b"*" { number(total) } else { None }
}

fn range_and_total(fields: &HeaderMap) -> Option<(&[u8], &[u8])> {
    let value = date::single(fields, &CONTENT_RANGE)?.as_bytes().trim_ascii();
    let (unit, rest) = value.split_at_checked(b"bytes ".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    Some((rest[..slash].trim_ascii(), rest[slash + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    fn of_100(value: &str) -> Ranges {
        ranges(&fields(&format!("Range: {value}")), 100, 4)
    }

    fn parts(pairs: &[(u64, u64)]) -> Ranges {
        Ranges::Parts(pairs.iter().map(|&(start, bytes)| ByteRange::new(start, bytes)).collect())
    }

    /// RFC 9110 section 14.1.2.
    #[test]
    fn ranges_of_a_hundred_bytes() {
        let table = [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("BYTES = 5-9 ", parts(&[(5, 5)])),
            ("bytes=-5", parts(&[(95, 5)])),
            ("bytes=-1000", parts(&[(0, 100)])),
            ("bytes=90-", parts(&[(90, 10)])),
            ("bytes=0-1, 50-59,-1", parts(&[(0, 2), (50, 10), (99, 1)])),
            ("bytes=50-59, 0-1", parts(&[(50, 10), (0, 2)])),
            ("bytes=0-9,5-19", parts(&[(0, 20)])),
            ("bytes=90-,0-9,10-19", parts(&[(90, 10), (0, 20)])),
            ("bytes=0-1,200-300", parts(&[(0, 2)])),
            ("bytes=0-18446744073709551616", parts(&[(0, 100)])),
            ("bytes=0-9223372036854775808", parts(&[(0, 100)])),
            ("bytes=0-99999999999999999999999", parts(&[(0, 100)])),
            ("bytes=9223372036854775808-", Ranges::Unsatisfiable),
            ("bytes=9223372036854775807-9223372036854775808", Ranges::Unsatisfiable),
            ("bytes=100-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=-0,200-", Ranges::Unsatisfiable),
            ("bytes=0-0,2-2,4-4,6-6,8-8", Ranges::TooMany),
            ("bytes=18446744073709551616-", Ranges::Unsatisfiable),
            ("bytes=,0-1", parts(&[(0, 2)])),
            ("bytes=9-5", Ranges::Whole),
            ("bytes=0-1,9-5", Ranges::Whole),
            ("bytes=0-1,x", Ranges::Whole),
            ("bytes=-", Ranges::Whole),
            ("bytes=", Ranges::Whole),
            ("bytes=--1", Ranges::Whole),
            ("bytes=+1-2", Ranges::Whole),
            ("items=0-1", Ranges::Whole),
            ("", Ranges::Whole),
            ("bytes=0-1\nRange: bytes=2-3", Ranges::Whole),
        ];
        for (value, wanted) in table {
            assert_eq!(of_100(value), wanted, "{value}");
        }
        assert_eq!(ranges(&fields(""), 100, 4), Ranges::Whole);
        assert_eq!(ranges(&fields("Range: bytes=0-"), 0, 4), Ranges::Unsatisfiable);
    }

    #[test]
    fn parts_of_what_has_no_length_yet() {
        let specs =
            |value: &str| -> Vec<_> { range_specs(&fields(&format!("Range: {value}"))).collect() };
        let from = |first, last| Some(RangeSpec::From { first, last });
        let back = |bytes| Some(RangeSpec::Last { bytes });
        let table: [(&str, &[Option<RangeSpec>]); 12] = [
            ("bytes=0-99", &[from(0, Some(99))]),
            ("bytes=,0-99", &[from(0, Some(99))]),
            ("Bytes= , 5-,x", &[from(5, None), None]),
            ("bytes=-7,0-1", &[back(7), from(0, Some(1))]),
            ("bytes=-18446744073709551616", &[back(u64::MAX)]),
            ("bytes=18446744073709551616-", &[from(u64::MAX, None)]),
            ("bytes=7-18446744073709551616", &[from(7, Some(u64::MAX))]),
            ("bytes=9-5", &[None]),
            ("bytes=,", &[]),
            ("lines=0-99", &[]),
            ("bytes", &[]),
            ("bytes=0-1\nRange: bytes=2-3", &[]),
        ];
        for (value, wanted) in table {
            assert_eq!(specs(value), wanted, "{value}");
        }
        assert_eq!(range_specs(&HeaderMap::new()).count(), 0);
    }

    #[test]
    fn ranges_past_two_to_the_63rd_are_where_they_say() {
        let (far, bytes) = ((1 << 63) + 5, u64::MAX - 1);
        let of = |value: &str| ranges(&fields(&format!("Range: {value}")), bytes, 1);
        assert_eq!(of(&format!("bytes={far}-{}", far + 9)), parts(&[(far, 10)]));
        assert_eq!(of(&format!("bytes={far}-")), parts(&[(far, bytes - far)]));
        assert_eq!(of(&format!("bytes=-{far}")), parts(&[(bytes - far, far)]));
        assert_eq!(of(&format!("bytes={bytes}-")), Ranges::Unsatisfiable);
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn what_a_206_holds() {
        let read = |value: &str| content_range(&fields(&format!("Content-Range: {value}")));
        let sound =
            |start, bytes, total| Some(ContentRange { range: ByteRange::new(start, bytes), total });
        assert_eq!(read("bytes 0-4/10"), sound(0, 5, Some(10)));
        assert_eq!(read("bytes 4-9/*"), sound(4, 6, None));
        for most in [i64::MAX as u64 - 1, i64::MAX as u64, 1 << 63, u64::MAX - 1] {
            assert_eq!(read(&format!("bytes 0-4/{most}")), sound(0, 5, Some(most)));
            let last = most - 1;
            assert_eq!(read(&format!("bytes {last}-{last}/{most}")), sound(last, 1, Some(most)));
        }
        for bad in [
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes */10",
            "bytes 0-4",
            "bytes 0-/9",
            "bytes=0-4/10",
            "items 0-4/10",
            "bytes 0-99999999999999999999/*",
            "bytes 0-4/18446744073709551615",
            "bytes 0-4/18446744073709551616",
            "bytes 0-18446744073709551615/*",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let past = |value: &str| is_past_counting(&fields(&format!("Content-Range: {value}")));
        for value in [
            "bytes 0-4/18446744073709551615",
            "bytes 0-4/99999999999999999999999",
            "bytes 0-99999999999999999999/*",
            "bytes 18446744073709551615-18446744073709551615/18446744073709551616",
        ] {
            assert!(past(value), "{value}");
        }
        for value in
            ["bytes 0-4/18446744073709551614", "bytes 4-0/10", "bytes */99999999999999999999"]
        {
            assert!(!past(value), "{value}");
        }
        assert_eq!(unsatisfied_total(&fields("Content-Range: bytes */47")), Some(47));
        assert_eq!(unsatisfied_total(&fields("Content-Range: bytes 0-1/47")), None);
    }
}
