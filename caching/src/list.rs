//! Members of comma-separated lists (RFC 9110 section 5.6.1), as bytes: quoted strings are kept
//! whole, empty members are skipped. A quote that never closes reaches to the end of its line.

use http::{HeaderMap, HeaderName};

/// How a backslash inside quotes reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// It escapes the next byte (quoted-string).
    Escaped,
    /// It is a byte like others (entity tags, RFC 9110 section 8.8.3).
    Plain,
}

/// The members of one line or value, trimmed.
pub fn members(value: &[u8], separator: u8, quotes: Quotes) -> Members<'_> {
    Members { rest: value, separator, quotes }
}

/// The members of all lines of a field.
pub fn field_members<'a>(
    fields: &'a HeaderMap,
    name: &HeaderName,
    quotes: Quotes,
) -> impl Iterator<Item = &'a [u8]> {
    fields.get_all(name).iter().flat_map(move |line| members(line.as_bytes(), b',', quotes))
}

/// Iterator of [`members`].
pub struct Members<'a> {
    rest: &'a [u8],
    separator: u8,
    quotes: Quotes,
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = self.end_of_member();
            let (member, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

impl Members<'_> {
    fn end_of_member(&self) -> usize {
        let (mut quoted, mut escaped) = (false, false);
        for (at, &byte) in self.rest.iter().enumerate() {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' && self.quotes == Quotes::Escaped {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            } else if byte == self.separator && !quoted {
                return at;
            }
        }
        self.rest.len()
    }
}

/// The text of a quoted string without its quotes and escapes; None if it is not one.
pub fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => text.push(*bytes.next()?),
            b'"' => return None,
            _ => text.push(byte),
        }
    }
    Some(text)
}

/// A non-negative integer of digits only; one too great for `i64` is [`i64::MAX`].
pub fn digits(value: &[u8]) -> Option<i64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: i64, digit: &u8| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    Some(value.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str, quotes: Quotes) -> Vec<&str> {
        let text = |member| std::str::from_utf8(member).unwrap();
        members(value.as_bytes(), b',', quotes).map(text).collect()
    }

    #[test]
    fn members_keep_quotes_whole() {
        assert_eq!(texts(" a ,, b=\"c, d\",e", Quotes::Escaped), ["a", "b=\"c, d\"", "e"]);
        assert_eq!(texts(r#""a\", b", c"#, Quotes::Escaped), [r#""a\", b""#, "c"]);
        assert_eq!(texts(r#""a\", "b""#, Quotes::Plain), [r#""a\""#, r#""b""#]);
        assert_eq!(texts("a, \"b, c", Quotes::Escaped), ["a", "\"b, c"]);
        assert_eq!(texts(",, ,", Quotes::Plain), [""; 0]);
    }

    #[test]
    fn quoted_strings_and_digits() {
        assert_eq!(unquoted(br#""a\"b""#), Some(b"a\"b".to_vec()));
        for bad in ["a", "\"", "\"a", r#""a"b""#, r#""a\""#] {
            assert_eq!(unquoted(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(digits(b"007"), Some(7));
        assert_eq!(digits(b"99999999999999999999999"), Some(i64::MAX));
        for bad in ["", "-1", "+1", "1.0", " 1", "a"] {
            assert_eq!(digits(bad.as_bytes()), None, "{bad}");
        }
    }
}
