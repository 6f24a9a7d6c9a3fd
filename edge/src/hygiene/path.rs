//! One spelling for each path.

use super::Refusal;
use std::borrow::Cow;

/// A slash that is no separator, in canonical form.
pub const SLASH: &str = "%2F";

/// The canonical form of a path (RFC 3986 section 6.2.2): unreserved characters stand for
/// themselves, other escapes are in upper case, what a URL can't hold is escaped, plain dot
/// segments are removed. Slashes are kept as they are, `//` too: object stores have such keys. An
/// escaped one is an octet of its segment and stays escaped (`/@scope%2Fname`): the same section
/// has the two name different things, so they are two keys also where an origin takes them for one.
///
/// Equal forms name the same thing on any server. So what servers read in different ways is
/// refused rather than repaired: backslashes, dot segments that are escaped or that an escaped slash
/// makes, control bytes, broken escapes, and what leads above the root.
///
/// # Errors
/// [`Refusal`] names what is wrong.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::TargetForm);
    }
    if !path.bytes().any(is_unusual) && !path.split('/').any(is_dots) {
        return Ok(Cow::Borrowed(path));
    }
    let mut kept: Vec<String> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(raw) = segments.next() {
        let segment = respelled(raw)?;
        let is_last = segments.peek().is_none();
        match segment.as_str() {
            "." | ".." if raw != segment => return Err(Refusal::HiddenDots),
            _ if has_hidden_dots(&segment) => return Err(Refusal::HiddenDots),
            "." => {}
            ".." => drop(kept.pop().ok_or(Refusal::AboveRoot)?),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // `a/.` and `a/..` name folders.
        if is_last {
            kept.push(String::new());
        }
    }
    Ok(Cow::Owned(format!("/{}", kept.join("/"))))
}

/// The canonical form of a pattern for paths, in which `*` stands for anything: as [`canonical`] of
/// what stands between the stars. None if it matches no canonical path: by a broken escape, a dot
/// segment, what ends a path, or what is refused in one.
pub fn canonical_pattern(pattern: &str) -> Option<String> {
    let parts = pattern.split('*').map(respelled);
    let pattern = parts.collect::<Result<Vec<_>, _>>().ok()?.join("*");
    let mut segments = pattern.split('/');
    let has_dots = segments.any(|segment| is_dots(segment) || has_hidden_dots(segment));
    let matches_some = !has_dots && !pattern.contains(['?', '#']);
    matches_some.then_some(pattern)
}

/// Whether an origin that takes escaped slashes for slashes would find a dot segment in a segment,
/// which is canonical.
fn has_hidden_dots(segment: &str) -> bool {
    segment.contains(SLASH) && segment.split(SLASH).any(is_dots)
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

/// Whether a byte is an escape's, or can't stand in a path.
fn is_unusual(byte: u8) -> bool {
    byte == b'%' || byte == b'\\' || byte <= 0x20 || byte >= 0x7f || must_be_escaped(byte)
}

/// Visible, but in no URL (RFC 3986 section 3.3).
fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn respelled(segment: &str) -> Result<String, Refusal> {
    let mut spelled = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let is_escape = byte == b'%';
        let meant = if is_escape {
            let mut digit = || bytes.next().and_then(hex_digit).ok_or(Refusal::BrokenEscape);
            (digit()? << 4) | digit()?
        } else {
            byte
        };
        match meant {
            0..=0x1f | 0x7f => return Err(Refusal::ControlByte),
            b'\\' => return Err(Refusal::HiddenSeparator),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                spelled.push(char::from(meant));
            }
            b' ' | 0x80.. => escape(&mut spelled, meant),
            other if is_escape || must_be_escaped(other) => escape(&mut spelled, other),
            other => spelled.push(char::from(other)),
        }
    }
    Ok(spelled)
}

/// A query with what no URL can hold escaped as it is in a path (RFC 3986 section 2.1): all but
/// ASCII, and DEL. What is ASCII stays as it was sent: servers differ on what it means.
pub fn escaped(query: Cow<'_, str>) -> Cow<'_, str> {
    if !query.bytes().any(|byte| byte >= 0x7f) {
        return query;
    }
    let mut text = String::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        match byte {
            0x7f.. => escape(&mut text, byte),
            other => text.push(char::from(other)),
        }
    }
    Cow::Owned(text)
}

fn escape(text: &mut String, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    for digit in [b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]] {
        text.push(char::from(digit));
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_paths_however_both_are_spelled() {
        for (pattern, canonical) in [
            ("/live/*", Some("/live/*")),
            ("*.m3u8", Some("*.m3u8")),
            ("/@s%2fp*%7e", Some("/@s%2Fp*~")),
            ("/é/a b*", Some("/%C3%A9/a%20b*")),
            ("/a%2a", Some("/a%2A")),
            ("/a/.*", Some("/a/.*")),
            ("/a*/../b", None),
            ("/%2e%2E/*", None),
            ("/a%2*F", None),
            ("/a%2F../*", None),
            ("/%zz", None),
            ("/a\\b", None),
            ("/a?b=*", None),
        ] {
            assert_eq!(canonical_pattern(pattern).as_deref(), canonical, "{pattern}");
        }
    }

    #[test]
    fn one_spelling() {
        let cases = [
            ("/", "/"),
            ("/a/b.mp4", "/a/b.mp4"),
            ("/%61%2d%7E", "/a-~"),
            ("/a%20b", "/a%20b"),
            ("/a%c3%a4", "/a%C3%A4"),
            ("/aä", "/a%C3%A4"),
            ("/a{b}|^\"", "/a%7Bb%7D%7C%5E%22"),
            ("/a//b/", "/a//b/"),
            ("/a;v=1/b,c", "/a;v=1/b,c"),
            ("/a%3bv%3F", "/a%3Bv%3F"),
            ("/a%2520", "/a%2520"),
            ("/@a%2fb", "/@a%2Fb"),
            ("/a%2F%2Fb%2F/%2f", "/a%2F%2Fb%2F/%2F"),
            ("/a%2Fb/../c", "/c"),
            ("/..a%2F...", "/..a%2F..."),
            ("/..%252Fa", "/..%252Fa"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/...", "/..."),
        ];
        for (given, expected) in cases {
            assert_eq!(canonical(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        let cases = [
            ("", Refusal::TargetForm),
            ("*", Refusal::TargetForm),
            ("/%", Refusal::BrokenEscape),
            ("/%2", Refusal::BrokenEscape),
            ("/%zz", Refusal::BrokenEscape),
            ("/%+1", Refusal::BrokenEscape),
            ("/%é", Refusal::BrokenEscape),
            ("/a%00", Refusal::ControlByte),
            ("/a%0d%0aHost:b", Refusal::ControlByte),
            ("/a%7f", Refusal::ControlByte),
            ("/a%5Cb", Refusal::HiddenSeparator),
            ("/a\\b", Refusal::HiddenSeparator),
            ("/..%2fb", Refusal::HiddenDots),
            ("/%2e%2e%2fb", Refusal::HiddenDots),
            ("/a%2F..", Refusal::HiddenDots),
            ("/a/b%2f.%2e%2Fc", Refusal::HiddenDots),
            ("/.%2Fb", Refusal::HiddenDots),
            ("/a%2f..%5c", Refusal::HiddenSeparator),
            ("/a%2F%00", Refusal::ControlByte),
            ("/a%2", Refusal::BrokenEscape),
            ("/a/%2e%2E/b", Refusal::HiddenDots),
            ("/a/.%2e", Refusal::HiddenDots),
            ("/a/%2e", Refusal::HiddenDots),
            ("/..", Refusal::AboveRoot),
            ("/a/../../b", Refusal::AboveRoot),
        ];
        for (given, expected) in cases {
            assert_eq!(canonical(given), Err(expected), "{given}");
        }
    }

    /// What a server would look up: the bytes of each segment, dot segments followed.
    fn meaning(path: &str) -> Vec<Vec<u8>> {
        let mut named: Vec<Vec<u8>> = Vec::new();
        for segment in path[1..].split('/') {
            match segment {
                "." => named.push(Vec::new()),
                ".." => {
                    named.pop();
                    named.push(Vec::new());
                }
                other => {
                    let mut bytes = other.bytes();
                    let mut decoded = Vec::new();
                    while let Some(byte) = bytes.next() {
                        decoded.push(if byte == b'%' {
                            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                        } else {
                            byte
                        });
                    }
                    named.push(decoded);
                }
            }
        }
        named
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_form_is_stable_clean_and_means_the_same(
            path in "(/|%2[0-9eEfF]|%[4-7][0-9a-fA-F]|%[cC]3%[aA]4|%5c|\\.|a|B|~|;|\\||é){0,16}"
        ) {
            let path = format!("/{path}");
            if let Ok(form) = canonical(&path) {
                prop_assert_eq!(canonical(&form), Ok(form.clone()));
                prop_assert!(form.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
                prop_assert!(!form.split('/').any(is_dots));
                prop_assert!(!form.split('/').any(has_hidden_dots));
                prop_assert!(!form.contains("%2f") && !form.contains("%00") && !form.contains("%5C"));
                prop_assert!(form.parse::<http::uri::PathAndQuery>().is_ok());
                if !path.split('/').any(is_dots) {
                    prop_assert_eq!(meaning(&form), meaning(&path));
                }
            }
        }

        #[test]
        fn forms_are_equal_exactly_if_they_mean_the_same(
            one in "/(%61|a|%41|A|/|%2D|-|%3b|%3B|%2f|%2F){0,4}",
            other in "/(%61|a|%41|A|/|%2D|-|%3b|%3B|%2f|%2F){0,4}",
        ) {
            let (first, second) = (canonical(&one).unwrap(), canonical(&other).unwrap());
            prop_assert_eq!(first == second, meaning(&one) == meaning(&other));
        }
    }
}
