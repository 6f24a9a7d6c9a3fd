//! Whether the body of a partial answer is what its fields say, and what was asked for.

use bytes::Bytes;
use http::HeaderMap;
use std::ops::Range;

/// A field's value as text.
pub fn field<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields.get(name).map(|value| value.to_str().unwrap())
}

/// What the node that was asked says of its part in an answer: each adds itself behind those that
/// it has asked (RFC 9211 section 2).
pub fn own_member(fields: &HeaderMap) -> &str {
    let values = fields.get_all("cache-status").iter();
    values.flat_map(|value| value.to_str().unwrap().split(',')).next_back().unwrap_or_default()
}

/// The parts that a request wants of something that long, in order.
fn wanted(range: &str, length: usize) -> Vec<Range<usize>> {
    let parts = range.strip_prefix("bytes=").unwrap().split(',');
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap();
        let part = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..length.min(last + 1),
            (Ok(first), Err(_)) => first..length,
            (Err(_), Ok(last)) => length.saturating_sub(last)..length,
            (Err(_), Err(_)) => unreachable!("{range}"),
        };
        (part.start < part.end).then_some(part)
    };
    parts.filter_map(part).collect()
}

fn given(text: &str, length: usize) -> Option<Range<usize>> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    (total.parse() == Ok(length)).then_some(())?;
    Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
}

/// Holds a 206 against the `range` that was asked for; one range of it may end early if it
/// `may_be_short`.
pub fn partial(
    range: &str,
    fields: &HeaderMap,
    (bytes, whole, may_be_short): (&Bytes, &Bytes, bool),
    seen: &dyn Fn() -> String,
) {
    let wanted = wanted(range, whole.len());
    if let Some(range) = field(fields, "content-range") {
        let given = given(range, whole.len()).unwrap_or_else(|| panic!("{}", seen()));
        // Those that meet may be joined (RFC 9110 section 15.3.7.2).
        let start = wanted.iter().map(|part| part.start).min();
        let end = wanted.iter().map(|part| part.end).max();
        assert_eq!(start, Some(given.start), "{}", seen());
        let is_short = may_be_short && Some(given.end) < end;
        assert!(is_short || Some(given.end) == end, "{}", seen());
        let right = whole.slice(given);
        assert!(*bytes == right, "{}: {}", seen(), differ(bytes, &right));
        return;
    }
    let kind = field(fields, "content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut rest = &bytes[..];
    for part in wanted {
        let start = format!("\r\n--{boundary}\r\n");
        rest = rest.strip_prefix(start.as_bytes()).unwrap_or_else(|| panic!("{}", seen()));
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        let said = head.split("Content-Range: ").nth(1).unwrap();
        assert_eq!(given(said, whole.len()).as_ref(), Some(&part), "{}", seen());
        let (body, after) = rest[end + 4..].split_at(part.len());
        let right = whole.slice(part);
        assert!(body == right, "{}: {}", seen(), differ(body, &right));
        rest = after;
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes(), "{}", seen());
}

/// Whether a 416 that tells this `Content-Range` is right of something that long: it names the
/// length, and no byte of it is wanted (RFC 9110 section 15.5.17).
pub fn is_past_the_end(range: &str, told: &str, length: usize) -> bool {
    told == format!("bytes */{length}") && wanted(range, length).is_empty()
}

/// Where two bodies part.
pub fn differ(given: &[u8], right: &[u8]) -> String {
    let at = given.iter().zip(right).position(|(given, right)| given != right);
    format!("{} bytes, not {}; the first that differs is at {at:?}", given.len(), right.len())
}
