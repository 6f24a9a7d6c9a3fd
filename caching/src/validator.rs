//! Validators of stored responses (RFC 9110 section 8.8, RFC 9111 section 4.3.1).
//!
//! Invariant: what is strong by the fields of a stored response was strong by those that its bytes
//! came with. No renewal makes a weak date strong ([`gains`]), so whoever is sent those fields, a
//! node below or a client, may go by them as well.

use crate::{Stored, date};
use http::header::{
    CONTENT_ENCODING, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// How long before `Date` a response must have been changed last for its date to be a strong
/// validator, in milliseconds. RFC 9110 section 8.8.2.2 asks for a second and for one clock;
/// a minute also covers an origin of several machines.
const DATE_GAP_MS: i64 = 60_000;

/// What names one representation's exact bytes; the value as the origin sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// A strong entity tag.
    ETag(HeaderValue),
    /// A `Last-Modified` that is strong.
    Date(HeaderValue),
}

impl Validator {
    /// The value of `If-Range` that asks for a part of this representation only.
    #[must_use]
    pub fn if_range(&self) -> HeaderValue {
        let (Self::ETag(value) | Self::Date(value)) = self;
        value.clone()
    }

    /// The condition under which the origin answers with this representation or 412.
    #[must_use]
    pub fn if_match(&self) -> (HeaderName, HeaderValue) {
        match self {
            Self::ETag(tag) => (IF_MATCH, tag.clone()),
            Self::Date(date) => (IF_UNMODIFIED_SINCE, date.clone()),
        }
    }
}

/// The strong validator of a stored response. None: parts of it must not be joined with others
/// (RFC 9111 section 3.4).
#[must_use]
pub fn strong_validator(stored: &Stored) -> Option<Validator> {
    strong_validator_of(&stored.fields)
}

/// [`strong_validator`] of a response's fields.
#[must_use]
pub fn strong_validator_of(fields: &HeaderMap) -> Option<Validator> {
    if fields.contains_key(ETAG) {
        let tag = date::single(fields, &ETAG).filter(|tag| is_strong(tag.as_bytes()))?;
        return Some(Validator::ETag(tag.clone()));
    }
    // The same resource as it is, and in other codings, has one date (RFC 9110 section 8.8.1).
    if fields.contains_key(CONTENT_ENCODING) || !is_dated_strongly(fields) {
        return None;
    }
    date::single(fields, &LAST_MODIFIED).cloned().map(Validator::Date)
}

/// Whether `Date` is so much later than `Last-Modified` that no other version can have that
/// (RFC 9110 section 8.8.2.2).
pub(crate) fn is_dated_strongly(fields: &HeaderMap) -> bool {
    let dates = date::of(fields, &DATE).zip(date::of(fields, &LAST_MODIFIED));
    dates.is_some_and(|(sent_ms, modified_ms)| sent_ms.saturating_sub(modified_ms) >= DATE_GAP_MS)
}

/// Whether a stored response would have a strong validator by its renewed fields that it had not
/// when its bytes came: a date that was weak then. They may be of another version of that second.
pub(crate) fn gains(stored: &Stored, renewed: &HeaderMap) -> bool {
    strong_validator(stored).is_none() && strong_validator_of(renewed).is_some()
}

/// Whether `fields` are of the very representation that is stored: both have the same strong
/// validator.
#[must_use]
pub fn same_validator(stored: &Stored, fields: &HeaderMap) -> bool {
    let known = strong_validator(stored);
    known.is_some() && known == strong_validator_of(fields)
}

/// The conditions that revalidate a stored response; none if it has no validator, or one that a
/// 304 would do nothing for: a date that was weak when the bytes came, and would be strong by now.
/// The whole answer brings other bytes, if there are any, and is known by that date from then on.
#[must_use]
pub fn revalidation_fields(stored: &Stored, now_ms: i64) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    if let Some(tag) = date::single(&stored.fields, &ETAG).filter(|tag| !tag.is_empty()) {
        conditions.insert(IF_NONE_MATCH, tag.clone());
    }
    let is_new = |modified_ms: i64| now_ms.saturating_sub(modified_ms) < DATE_GAP_MS;
    let is_of_use = |modified_ms: i64| {
        stored.fields.contains_key(ETAG) || is_dated_strongly(&stored.fields) || is_new(modified_ms)
    };
    let modified = date::single(&stored.fields, &LAST_MODIFIED);
    if let Some(modified) = modified.filter(|date| date::parse(date).is_some_and(is_of_use)) {
        conditions.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    conditions
}

/// A well-formed strong entity tag (RFC 9110 section 8.8.3).
pub(crate) fn is_strong(tag: &[u8]) -> bool {
    let inner = tag.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(|inner| inner.iter().all(|&byte| byte > b' ' && byte != b'"' && byte != 0x7f))
}

/// RFC 9110 section 8.8.3.2: both strong and equal.
pub(crate) fn strong_match(a: &[u8], b: &[u8]) -> bool {
    a == b && is_strong(a)
}

/// RFC 9110 section 8.8.3.2: equal but for the mark of weakness. A tag that lacks its quotes
/// matches itself alone.
pub(crate) fn weak_match(a: &[u8], b: &[u8]) -> bool {
    opaque(a) == opaque(b)
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").filter(|rest| is_strong(rest)).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, fields, stored};

    /// RFC 9110 sections 8.8.1 and 8.8.2.2.
    #[test]
    fn strong_and_weak() {
        let strong = ["ETag: \"a\"", "ETag: \"\"", "Last-Modified: @-60\nDate: @0"];
        for lines in strong {
            assert!(strong_validator(&stored(lines)).is_some(), "{lines}");
        }
        let weak = [
            "",
            "ETag: W/\"a\"",
            "ETag: abc",
            "ETag: \"a",
            "ETag: \"a b\"",
            "ETag: \"a\"\nETag: \"b\"",
            "ETag: W/\"a\"\nLast-Modified: @-600\nDate: @0",
            "Last-Modified: @-59\nDate: @0",
            "Last-Modified: @-600",
            "Last-Modified: foo\nDate: @0",
            "Last-Modified: @-600\nLast-Modified: @-600\nDate: @0",
            "Last-Modified: @-600\nDate: @0\nContent-Encoding: br",
        ];
        for lines in weak {
            assert_eq!(strong_validator(&stored(lines)), None, "{lines}");
        }
    }

    /// RFC 9110 section 8.8.3.2.
    #[test]
    fn comparisons() {
        let table = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
            ("abc", "abc", false, true),
            ("abc", "\"abc\"", false, false),
        ];
        for (a, b, strong, weak) in table {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            assert_eq!((strong_match(a, b), weak_match(a, b)), (strong, weak));
        }
    }

    #[test]
    fn conditions_to_send() {
        let at = |lines: &str, later_s: i64| {
            revalidation_fields(&stored(lines), NOW_MS + later_s * 1000)
        };
        let both = at("ETag: W/\"a\"\nLast-Modified: @-9", 1000);
        assert_eq!(both.get("if-none-match").unwrap(), "W/\"a\"");
        assert!(both.contains_key("if-modified-since"));
        assert!(at("Last-Modified: foo\nETag:", 0).is_empty());
        let is_asked = |lines: &str, later_s| at(lines, later_s).contains_key("if-modified-since");
        let (weak, strong) = ("Last-Modified: @-9\nDate: @0", "Last-Modified: @-60\nDate: @0");
        assert!(is_asked(weak, 50) && is_asked(strong, 1000));
        assert!(!is_asked(weak, 51), "it would be strong, and the bytes are not known by it");
    }

    #[test]
    fn what_is_gained_by_a_renewal() {
        let weak = stored("Last-Modified: @-9\nDate: @0");
        assert!(gains(&weak, &fields("Last-Modified: @-9\nDate: @51")));
        assert!(!gains(&weak, &fields("Last-Modified: @-9\nDate: @50")));
        let tagged = stored("ETag: \"a\"\nLast-Modified: @-9\nDate: @0");
        assert!(!gains(&tagged, &fields("ETag: \"a\"\nLast-Modified: @-9\nDate: @51")));
    }

    #[test]
    fn parts_of_one_representation() {
        let tagged = stored("ETag: \"a\"");
        assert!(same_validator(&tagged, &fields("ETag: \"a\"")));
        assert!(!same_validator(&tagged, &fields("ETag: W/\"a\"")));
        assert!(!same_validator(&tagged, &fields("Last-Modified: @-600\nDate: @0")));
        assert!(!same_validator(&stored(""), &fields("")));
        let dated = stored("Last-Modified: @-600\nDate: @0");
        assert!(same_validator(&dated, &fields("Last-Modified: @-600\nDate: @7")));
        assert!(!same_validator(&dated, &fields("Last-Modified: @-599\nDate: @7")));
        let validator = strong_validator(&tagged).unwrap();
        assert_eq!(validator.if_range(), "\"a\"");
        assert_eq!(validator.if_match().0, "if-match");
        let date = strong_validator(&dated).unwrap();
        assert_eq!(date.if_match().0, "if-unmodified-since");
    }
}
