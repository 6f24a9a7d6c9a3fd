//! The query argument `CMCD`: found, decoded, removed.

use std::borrow::Cow;

const NAME: &str = "CMCD";

/// Whether a pair of a query is CMCD, however its name is spelled: `%43MCD` is the same to who
/// reads queries, and would else be in the key, another one for each request.
#[must_use]
pub fn is_cmcd(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or(pair);
    name == NAME || name.contains('%') && decode(name).is_some_and(|name| name == NAME)
}

/// The argument's value as sent. Of several the first counts.
pub fn find(query: &str) -> Option<&str> {
    let pair = query.split('&').find(|pair| is_cmcd(pair))?;
    Some(pair.split_once('=').map_or("", |(_, value)| value))
}

/// A query without CMCD, every other argument as it was and where it was: what belongs to a
/// cache key, and to the origin. None if nothing is left.
#[must_use]
pub fn strip(query: &str) -> Option<Cow<'_, str>> {
    if !query.split('&').any(is_cmcd) {
        return (!query.is_empty()).then_some(Cow::Borrowed(query));
    }
    let mut kept = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !is_cmcd(pair)) {
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(pair);
    }
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

/// Undoes percent encoding (RFC 3986 section 2.1). None for a broken escape or for what is not
/// UTF-8.
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (nibble(bytes.next()?)? << 4) | nibble(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// A hexadecimal digit's value.
pub fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
