//! The client's conditions against a stored response (RFC 9110 section 13, RFC 9111 section
//! 4.3.2).

use crate::list::{Quotes, field_members};
use crate::validator::{is_dated_strongly, strong_match, strong_validator, weak_match};
use crate::{Stored, Validator, date};
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{HeaderMap, HeaderName, Method};

/// What a request's conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Answer with the response.
    Go,
    /// Answer 304 with [`not_modified_fields`].
    NotModified,
    /// `If-Match` or `If-Unmodified-Since` does not hold. Who owns the resource answers 412; a
    /// cache passes the request on, since only the origin may refuse (RFC 9111 section 4.3.2).
    Failed,
}

/// Evaluates the conditions of a GET or HEAD against a stored response that is fresh or has just
/// been validated, in the order of RFC 9110 section 13.2.2. Other methods and responses other
/// than 2xx have no conditions here. `If-Range` is apart: [`if_range`].
#[must_use]
pub fn precondition(method: &Method, request: &HeaderMap, stored: &Stored) -> Precondition {
    if !matches!(*method, Method::GET | Method::HEAD) || !stored.status.is_success() {
        return Precondition::Go;
    }
    if !still_current(request, stored) {
        return Precondition::Failed;
    }
    let unchanged = if request.contains_key(IF_NONE_MATCH) {
        any_tag(request, &IF_NONE_MATCH, stored, weak_match)
    } else {
        date::of(request, &IF_MODIFIED_SINCE).is_some_and(|since_ms| changed_ms(stored) <= since_ms)
    };
    if unchanged { Precondition::NotModified } else { Precondition::Go }
}

/// `If-Match`, else `If-Unmodified-Since`.
fn still_current(request: &HeaderMap, stored: &Stored) -> bool {
    if request.contains_key(IF_MATCH) {
        return any_tag(request, &IF_MATCH, stored, strong_match);
    }
    let Some(since_ms) = date::of(request, &IF_UNMODIFIED_SINCE) else { return true };
    date::of(&stored.fields, &LAST_MODIFIED).is_none_or(|modified_ms| modified_ms <= since_ms)
}

fn any_tag(
    request: &HeaderMap,
    name: &HeaderName,
    stored: &Stored,
    matches: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let tag = date::single(&stored.fields, &ETAG);
    field_members(request, name, Quotes::Plain)
        .any(|member| member == b"*" || tag.is_some_and(|tag| matches(member, tag.as_bytes())))
}

/// When the response last changed as far as a cache can tell: without `Last-Modified` by its
/// `Date`, without that when it was received (RFC 9111 section 4.3.2).
fn changed_ms(stored: &Stored) -> i64 {
    date::of(&stored.fields, &LAST_MODIFIED)
        .or_else(|| date::of(&stored.fields, &DATE))
        .unwrap_or(stored.received_ms)
}

/// Whether the request names what it has a part of by a date ([`if_range`]), which the same
/// representation in another content coding has as well.
#[must_use]
pub fn is_range_dated(request: &HeaderMap) -> bool {
    request.contains_key(IF_RANGE)
        && date::single(request, &IF_RANGE)
            .is_none_or(|wanted| !wanted.as_bytes().starts_with(b"\""))
}

/// Whether the request's `Range` applies: its `If-Range` is absent or names exactly the stored
/// representation (RFC 9110 section 13.1.5).
#[must_use]
pub fn if_range(request: &HeaderMap, stored: &Stored) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(wanted) = date::single(request, &IF_RANGE) else { return false };
    match strong_validator(stored) {
        Some(Validator::ETag(tag)) if wanted.as_bytes().starts_with(b"\"") => {
            strong_match(wanted.as_bytes(), tag.as_bytes())
        }
        // A date is compared as a date even where there is an entity tag as well; but to be strong
        // it needs more than that.
        Some(_) => {
            let modified_ms = date::of(&stored.fields, &LAST_MODIFIED);
            is_dated_strongly(&stored.fields) && modified_ms == date::parse(wanted)
        }
        None => false,
    }
}

/// What of a response's fields a 304 carries (RFC 9110 section 15.4.5): all but those that
/// describe content, which it has none of. `Last-Modified` stays only without an entity tag.
#[must_use]
pub fn not_modified_fields(fields: &HeaderMap) -> HeaderMap {
    let mut kept = fields.clone();
    let of_content =
        [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE];
    for name in of_content {
        kept.remove(name);
    }
    for name in ["content-md5", "content-digest"] {
        kept.remove(name);
    }
    if kept.contains_key(ETAG) {
        kept.remove(LAST_MODIFIED);
    }
    kept
}

/// The conditions of RFC 9110 section 13.1.
const CONDITIONS: [HeaderName; 5] =
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];

/// Takes `Range` and all conditions out of a request: a fill sends its own.
pub fn strip_conditions(request: &mut HeaderMap) {
    request.remove(RANGE);
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Whether a request has any condition.
#[must_use]
pub fn is_conditional(request: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| request.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{fields, stored};
    use http::StatusCode;

    fn get(request: &str, response: &str) -> Precondition {
        precondition(&Method::GET, &fields(request), &stored(response))
    }

    /// RFC 9110 sections 13.1.2 and 13.1.3, and the suite's conditional-* tests.
    #[test]
    fn not_modified() {
        let tagged = "ETag: \"abcdef\"\nLast-Modified: @-5000\nDate: @0";
        let dated = "Last-Modified: @-3000\nDate: @0";
        let yes = [
            ("If-None-Match: \"abcdef\"", tagged),
            ("If-None-Match: W/\"abcdef\"", tagged),
            ("If-None-Match: \"abcdef\", \"1\"", tagged),
            ("If-None-Match: \"1\", \"abcdef\", \"2\"", tagged),
            ("If-None-Match: \"1,\\\"\nIf-None-Match: \"abcdef\"", tagged),
            ("If-None-Match: *", dated),
            ("If-None-Match: \"abcdef\"\nIf-Modified-Since: @-9000", tagged),
            ("If-None-Match: W/\"a\"", "ETag: W/\"a\""),
            ("If-None-Match: abc", "ETag: abc"),
            ("If-Modified-Since: @-3000", dated),
            ("If-Modified-Since: @-2000", dated),
            ("If-Modified-Since: @1", "Date: @0"),
            ("If-Modified-Since: @1", ""),
        ];
        for (request, response) in yes {
            assert_eq!(get(request, response), Precondition::NotModified, "{request}");
        }
        let no = [
            ("", tagged),
            ("If-None-Match: \"x\"", tagged),
            ("If-None-Match: \"x\"\nIf-Modified-Since: @0", tagged),
            ("If-None-Match: abcdef", tagged),
            ("If-None-Match: \"a\"", dated),
            ("If-Modified-Since: @-3001", dated),
            ("If-Modified-Since: foo", dated),
            ("If-Modified-Since: @0\nIf-Modified-Since: @0", dated),
            ("If-Modified-Since: @-1", "Date: @0"),
        ];
        for (request, response) in no {
            assert_eq!(get(request, response), Precondition::Go, "{request}");
        }
    }

    #[test]
    fn not_for_other_methods_and_statuses() {
        let request = fields("If-None-Match: *\nIf-Match: \"x\"");
        let mut missing = stored("ETag: \"a\"");
        assert_eq!(precondition(&Method::POST, &request, &missing), Precondition::Go);
        missing.status = StatusCode::NOT_FOUND;
        assert_eq!(precondition(&Method::GET, &request, &missing), Precondition::Go);
    }

    /// RFC 9110 sections 13.1.1 and 13.1.4.
    #[test]
    fn failed() {
        let response = "ETag: \"a\"\nLast-Modified: @-100\nDate: @0";
        for request in ["If-Match: \"b\"", "If-Match: W/\"a\"", "If-Unmodified-Since: @-101"] {
            assert_eq!(get(request, response), Precondition::Failed, "{request}");
        }
        for request in [
            "If-Match: *",
            "If-Match: \"b\", \"a\"",
            "If-Match: \"a\"\nIf-Unmodified-Since: @-101",
            "If-Unmodified-Since: @-100",
            "If-Unmodified-Since: foo",
        ] {
            assert_eq!(get(request, response), Precondition::Go, "{request}");
        }
        assert_eq!(
            get("If-Match: \"a\"\nIf-None-Match: \"a\"", response),
            Precondition::NotModified
        );
    }

    /// RFC 9110 section 13.1.5.
    #[test]
    fn parts_of_exactly_this() {
        let holds = |request: &str, response: &str| if_range(&fields(request), &stored(response));
        let tagged = "ETag: \"a\"\nLast-Modified: @-100\nDate: @0";
        let dated = "Last-Modified: @-100\nDate: @0";
        assert!(holds("", ""));
        assert!(holds("If-Range: \"a\"", tagged));
        assert!(holds("If-Range: @-100", tagged));
        assert!(holds("If-Range: @-100", dated));
        for (request, response) in [
            ("If-Range: \"b\"", tagged),
            ("If-Range: W/\"a\"", tagged),
            ("If-Range: W/\"a\"", "ETag: W/\"a\""),
            ("If-Range: @-99", dated),
            ("If-Range: @-101", dated),
            ("If-Range: @-30", "Last-Modified: @-30\nDate: @0"),
            ("If-Range: @-30", "ETag: \"a\"\nLast-Modified: @-30\nDate: @0"),
            ("If-Range: @-100", "ETag: W/\"a\"\nLast-Modified: @-100\nDate: @0"),
            ("If-Range: @-100", "ETag: \"a\"\nLast-Modified: @-100"),
            ("If-Range: @-100", "ETag: \"a\"\nDate: @0"),
            ("If-Range: foo", "ETag: \"a\"\nLast-Modified: bar\nDate: @0"),
            ("If-Range: \"a\"\nIf-Range: \"a\"", tagged),
            ("If-Range: \"a\"", dated),
            ("If-Range:", tagged),
        ] {
            assert!(!holds(request, response), "{request}");
        }
    }

    #[test]
    fn fields_of_a_304() {
        let lines = "ETag: \"a\"\nLast-Modified: @0\nVary: a\nContent-Type: b\nContent-Length: 3\n\
                     Content-Location: /c\nAge: 1\nAccess-Control-Allow-Origin: *";
        let kept = not_modified_fields(&fields(lines));
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["access-control-allow-origin", "age", "content-location", "etag", "vary"]
        );
        assert!(not_modified_fields(&fields("Last-Modified: @0")).contains_key("last-modified"));
    }

    #[test]
    fn a_fill_sends_its_own_conditions() {
        let mut request = fields("Range: bytes=0-1\nIf-Range: \"a\"\nIf-Match: *\nA: 1");
        assert!(is_conditional(&request));
        strip_conditions(&mut request);
        assert_eq!(request, fields("A: 1"));
        assert!(!is_conditional(&request));
    }
}
