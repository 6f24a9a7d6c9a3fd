//! Hints of what a player will ask for next (`nor`, `nrr`), resolved against the request that
//! carries them.
//!
//! Invariant: what comes out is a target on the same host, below its root, in a spelling that
//! hides nothing; whatever is not sure of that gives nothing.

use crate::query::{decode, nibble};
use crate::{Cmcd, NEXT_BYTES_MAX, strip};

/// Bytes of an object, as a range request names them (RFC 9110 section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From an offset on.
    From {
        /// The first byte's offset.
        first: u64,
        /// The last byte's offset, not below the first; none for the end.
        last: Option<u64>,
    },
    /// So many at the end, one at the least.
    Last(u64),
}

/// One hint as sent: a URL reference relative to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextObject {
    /// The reference, decoded.
    pub reference: Box<str>,
    /// Which bytes of it, in version 2.
    pub range: Option<Span>,
}

/// What will be asked for, on the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// `/path?query`, without dot segments and without CMCD.
    pub target: String,
    /// Which bytes of it; the whole otherwise.
    pub range: Option<Span>,
}

impl Span {
    /// `first-last`, `first-` or `-length`, in bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let number = |text: &str| {
            let digits = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits)
        };
        if first.is_empty() {
            return number(last).filter(|length| *length > 0).map(Self::Last);
        }
        let first = number(first)?;
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        last.is_none_or(|last| first <= last).then_some(Self::From { first, last })
    }
}

impl Cmcd {
    /// What comes next, by `nor` and `nrr`, seen from the request for `target` (`/path?query`).
    /// A range alone is one of the same object. Hints that leave the host or its root, or that
    /// are spelled ambiguously, are left out.
    #[must_use]
    pub fn next(&self, target: &str) -> Vec<Next> {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        if self.nor.is_empty() {
            let same = || match query.and_then(strip) {
                None => path.to_owned(),
                Some(query) => format!("{path}?{query}"),
            };
            let alone = |range| Next { target: same(), range: Some(range) };
            return self.nrr.map(alone).into_iter().collect();
        }
        let range = |object: &NextObject| object.range.or(self.nrr.filter(|_| self.nor.len() == 1));
        let next = |object: &NextObject| {
            let target = resolve(path, &object.reference)?;
            Some(Next { target, range: range(object) })
        };
        self.nor.iter().filter_map(next).collect()
    }
}

/// A hint's reference as the player meant it. Version 1 wants it percent-encoded on top of what
/// the URL has; some players of version 2 do that, too, which shows in slashes that are encoded.
pub fn reference(text: &str, version: u64) -> Option<Box<str>> {
    let encoded = || text.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f"));
    let text = if version < 2 || encoded() { decode(text)? } else { text.into() };
    let fits = !text.is_empty() && text.len() <= NEXT_BYTES_MAX;
    fits.then(|| text.into_owned().into_boxed_str())
}

/// Resolves a relative reference (RFC 3986 section 5.2) against the path of a request.
fn resolve(base: &str, reference: &str) -> Option<String> {
    let (path, query) = reference.split_once('?').map_or((reference, None), |(p, q)| (p, Some(q)));
    let leaves = path.starts_with("//") || path.split('/').next()?.contains(':');
    if leaves || !base.starts_with('/') {
        return None;
    }
    let mut target = match path {
        "" => base.to_owned(),
        path if path.starts_with('/') => without_dots(&spelled(path, true)?)?,
        path => {
            let folder = &base[..=base.rfind('/')?];
            without_dots(&format!("{folder}{}", spelled(path, true)?))?
        }
    };
    let query = match query {
        None => None,
        Some(query) => Some(spelled(query, false)?),
    };
    if let Some(query) = query.as_deref().and_then(strip) {
        target.push('?');
        target.push_str(&query);
    }
    Some(target)
}

/// Escapes what a URL can't hold. None for what would be read as something else: a control
/// byte, a backslash, a fragment, an escape of a dot or of a separator.
fn spelled(text: &str, is_path: bool) -> Option<String> {
    let mut spelled = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (place, byte) in bytes.iter().copied().enumerate() {
        let escape = || {
            let digits = (nibble(*bytes.get(place + 1)?)?, nibble(*bytes.get(place + 2)?)?);
            Some((digits.0 << 4) | digits.1)
        };
        match byte {
            0..=0x1f | 0x7f | b'\\' | b'#' => return None,
            b'%' => match escape() {
                Some(0..=0x1f | 0x7f | b'\\') => return None,
                Some(b'.' | b'/') if is_path => return None,
                Some(_) => spelled.push('%'),
                None => spelled.push_str("%25"),
            },
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                spelled.push_str(&format!("%{byte:02X}"));
            }
            other => spelled.push(char::from(other)),
        }
    }
    Some(spelled)
}

/// Removes dot segments (RFC 3986 section 5.2.4); none if they lead above the root.
fn without_dots(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()?),
            other => kept.push(other),
        }
        // `a/.` and `a/..` name folders.
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    // A target that begins with two slashes would be read as a host.
    let path = format!("/{}", kept.join("/"));
    (!path.starts_with("//")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_rfc_3986_says() {
        let cases = [
            ("seg-2.m4s", "/live/v1/seg-2.m4s"),
            ("../v2/seg-2.m4s", "/live/v2/seg-2.m4s"),
            ("./seg-2.m4s?a=1&CMCD=x&b=2", "/live/v1/seg-2.m4s?a=1&b=2"),
            ("/other/seg.m4s", "/other/seg.m4s"),
            ("?part=2", "/live/v1/seg-1.m4s?part=2"),
            ("a//b;c=1", "/live/v1/a//b;c=1"),
            ("..", "/live/"),
            ("a%20b c%", "/live/v1/a%20b%20c%25"),
            ("ä", "/live/v1/%C3%A4"),
        ];
        for (given, expected) in cases {
            assert_eq!(resolve("/live/v1/seg-1.m4s", given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn what_leaves_the_host_or_its_root_is_no_hint() {
        let cases = [
            "https://else.example/x",
            "javascript:alert(1)",
            "//else.example/x",
            "../..//else.example/x",
            "../../../x",
            "a/../../../../x",
            "%2e%2e/x",
            "..%2fx",
            "a\\..\\b",
            "a%5cb",
            "a\r\nHost: b",
            "a%0d%0ab",
            "a%00",
            "x#y",
            "?a=%0a",
        ];
        for given in cases {
            assert_eq!(resolve("/live/v1/seg-1.m4s", given), None, "{given}");
        }
        assert_eq!(resolve("*", "a"), None);
    }

    #[test]
    fn spans_are_strict() {
        let span = |first, last| Some(Span::From { first, last });
        assert_eq!(Span::parse("0-0"), span(0, Some(0)));
        assert_eq!(Span::parse("12323-48763"), span(12323, Some(48763)));
        assert_eq!(Span::parse("5-"), span(5, None));
        assert_eq!(Span::parse("-1000"), Some(Span::Last(1000)));
        for bad in
            ["", "-", "-0", "--5", "5", "5-4", "+5-6", "5-6-7", "0x1-2", "9999999999999999999-"]
        {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }
}
