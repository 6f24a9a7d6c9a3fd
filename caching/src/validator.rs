//! Validators of stored responses (RFC 9110 section 8.8, RFC 9111 section 4.3.1).

use crate::{Stored, date};
use http::header::{
    DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
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
    let modified = date::single(fields, &LAST_MODIFIED)?;
    let gap_ms = date::of(fields, &DATE)?.saturating_sub(date::parse(modified)?);
    (gap_ms >= DATE_GAP_MS).then(|| Validator::Date(modified.clone()))
}

/// Whether `fields` are of the very representation that is stored: both have the same strong
/// validator.
#[must_use]
pub fn same_validator(stored: &Stored, fields: &HeaderMap) -> bool {
    let known = strong_validator(stored);
    known.is_some() && known == strong_validator_of(fields)
}

/// The conditions that revalidate a stored response; none if it has no validator.
#[must_use]
pub fn revalidation_fields(stored: &Stored) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    if let Some(tag) = date::single(&stored.fields, &ETAG).filter(|tag| !tag.is_empty()) {
        conditions.insert(IF_NONE_MATCH, tag.clone());
    }
    let modified = date::single(&stored.fields, &LAST_MODIFIED);
    if let Some(modified) = modified.filter(|modified| date::parse(modified).is_some()) {
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
    use crate::test_fields::{fields, stored};

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
        let both = revalidation_fields(&stored("ETag: W/\"a\"\nLast-Modified: @-9"));
        assert_eq!(both.get("if-none-match").unwrap(), "W/\"a\"");
        assert!(both.contains_key("if-modified-since"));
        assert!(revalidation_fields(&stored("Last-Modified: foo\nETag:")).is_empty());
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
