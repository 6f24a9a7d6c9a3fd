//! The `Range` field (RFC 9110 section 14): one range of bytes of a representation.

use crate::ByteRange;

/// What a request wants of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it (200): no range, another unit, several ranges, or not well-formed.
    Whole,
    /// This part (206), never empty and within the representation.
    Part(ByteRange),
    /// No byte of it (416).
    Unsatisfiable,
}

/// Reads a `Range` field for a representation of `bytes`. A field that is not understood is
/// ignored, as section 14.2 allows; several ranges count as not understood.
#[must_use]
pub fn wanted(field: Option<&str>, bytes: u64) -> Wanted {
    let Some(spec) = field.and_then(bytes_unit) else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (Some(first), _) if last.is_empty() => part(first, bytes.saturating_sub(1), bytes),
        (Some(first), Some(last)) if first <= last => part(first, last, bytes),
        (None, Some(suffix)) if first.is_empty() => suffix_part(suffix, bytes),
        _ => Wanted::Whole,
    }
}

fn bytes_unit(field: &str) -> Option<&str> {
    let (unit, spec) = field.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(spec.trim())
}

/// Digits only: `+1` is no number here. More digits than fit mean "past any end".
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

fn part(first: u64, last: u64, bytes: u64) -> Wanted {
    if first >= bytes {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part(ByteRange::new(first, last.min(bytes - 1) - first + 1))
}

fn suffix_part(suffix: u64, bytes: u64) -> Wanted {
    let length = suffix.min(bytes);
    if length == 0 {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part(ByteRange::new(bytes - length, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_a_hundred_bytes() {
        let part = |start, bytes| Wanted::Part(ByteRange::new(start, bytes));
        let table = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=10-", part(10, 90)),
            ("bytes=90-200", part(90, 10)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-1000", part(0, 100)),
            ("BYTES = 5-9", part(5, 5)),
            ("bytes=0-99999999999999999999", part(0, 100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=9-5", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ];
        for (field, expected) in table {
            assert_eq!(wanted(Some(field), 100), expected, "{field}");
        }
        assert_eq!(wanted(None, 100), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(field in "(bytes)?=?[0-9+, -]{0,24}", bytes in 0u64..1000) {
            if let Wanted::Part(range) = wanted(Some(&field), bytes) {
                prop_assert!(range.bytes > 0 && range.fits(bytes));
            }
        }
    }
}
