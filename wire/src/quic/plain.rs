//! Requests as nearly all come: a GET or HEAD whose head is all that its stream brings, in one
//! piece. They are read here, since h3 takes two wakes of its task and two parsings of the URI for
//! each; whatever is not like that, or not as it should be, is left to h3, which knows the
//! rest of the protocol.
//!
//! Invariant: a request that is read here is the one that h3 would have read.

use super::fields::Section;
use crate::HEADER_BYTES_MAX;
use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

/// HEADERS (RFC 9114 section 7.2.2).
pub const HEADERS: u64 = 1;
/// What RFC 9114 section 4.2.2 counts on top of a field's name and value.
const FIELD_BYTES: usize = 32;
/// Fields that say more of where a request goes, or of what comes behind its head.
const ODD: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Reads the requests of a connection.
#[derive(Default)]
pub struct Plain {
    /// Of the request before: all of a connection have one, as a rule.
    authority: Option<Authority>,
}

/// The pseudo-header fields (RFC 9114 section 4.3.1).
#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
}

impl Plain {
    /// The head of a request, of which `piece` is all that there is; none when h3 is to read it.
    pub fn read(&mut self, piece: &[u8]) -> Option<Parts> {
        let (kind, rest) = varint(piece)?;
        let (length, block) = varint(rest)?;
        if kind != HEADERS || usize::try_from(length) != Ok(block.len()) {
            return None;
        }
        let mut section = Section::of(block)?;
        let (mut pseudo, mut headers) = (Pseudo::default(), HeaderMap::new());
        let mut bytes = 0;
        while !section.is_empty() {
            let (name, value) = section.field()?;
            bytes += name.len() + value.len() + FIELD_BYTES;
            if bytes > usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX) {
                return None;
            }
            match name.strip_prefix(b":") {
                Some(name) if headers.is_empty() => self.pseudo(&mut pseudo, name, &value)?,
                Some(_) => return None,
                None => {
                    let name = HeaderName::from_lowercase(&name).ok()?;
                    if ODD.contains(&name) {
                        return None;
                    }
                    headers.try_append(name, HeaderValue::from_bytes(&value).ok()?).ok()?;
                }
            }
        }
        parts(pseudo, headers)
    }

    /// Takes a pseudo-header field that is as it should be and comes for the first time.
    fn pseudo(&mut self, into: &mut Pseudo, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"method" if into.method.is_none() => into.method = Some(method(value)?),
            b"scheme" if into.scheme.is_none() && value == b"https" => {
                into.scheme = Some(Scheme::HTTPS);
            }
            b"authority" if into.authority.is_none() => {
                into.authority = Some(self.authority(value)?);
            }
            b"path" if into.path.is_none() && value.starts_with(b"/") && value.is_ascii() => {
                let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(value));
                into.path = Some(path.ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    fn authority(&mut self, value: &[u8]) -> Option<Authority> {
        match &self.authority {
            Some(before) if before.as_str().as_bytes() == value => {}
            _ => {
                let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(value));
                self.authority = Some(authority.ok()?);
            }
        }
        self.authority.clone()
    }
}

/// A method whose requests bring nothing but a head.
fn method(value: &[u8]) -> Option<Method> {
    match value {
        b"GET" => Some(Method::GET),
        b"HEAD" => Some(Method::HEAD),
        _ => None,
    }
}

fn parts(pseudo: Pseudo, headers: HeaderMap) -> Option<Parts> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(pseudo.scheme?);
    uri.authority = Some(pseudo.authority?);
    uri.path_and_query = Some(pseudo.path?);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = pseudo.method?;
    parts.uri = Uri::from_parts(uri).ok()?;
    parts.version = Version::HTTP_3;
    parts.headers = headers;
    Some(parts)
}

/// A QUIC integer (RFC 9000 section 16), and what comes after it.
pub fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (head, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value =
        head[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(section: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0x40 | (section.len() >> 8) as u8, section.len() as u8];
        frame.extend_from_slice(section);
        frame
    }

    fn literal(section: &mut Vec<u8>, name: &str, value: &str) {
        section.push(0x27);
        section.push(u8::try_from(name.len() - 7).unwrap());
        section.extend_from_slice(name.as_bytes());
        section.extend([0x7f, u8::try_from(value.len() - 127).unwrap()]);
        section.extend_from_slice(value.as_bytes());
    }

    /// GET, https, `a.b`, `/x?y`.
    const PLAIN: [u8; 15] =
        [0, 0, 0xd1, 0xd7, 0x50, 3, b'a', b'.', b'b', 0x51, 4, b'/', b'x', b'?', b'y'];

    fn with(fields: &[u8]) -> Vec<u8> {
        framed(&[&PLAIN, fields].concat())
    }

    #[test]
    fn a_request_as_most_are() {
        let mut plain = Plain::default();
        for _ in 0..2 {
            // user-agent: u; range: bytes=0-; cookie: 302, in Huffman's code.
            let piece = with(&[0x5f, 0x50, 1, b'u', 0xf7, 0x55, 0x82, 0x64, 0x02]);
            let head = plain.read(&piece).unwrap();
            assert_eq!(head.method, Method::GET);
            assert_eq!(head.uri, "https://a.b/x?y");
            assert_eq!(head.version, Version::HTTP_3);
            assert_eq!(head.headers.len(), 3);
            assert_eq!(head.headers[header::USER_AGENT], "u");
            assert_eq!(head.headers[header::RANGE], "bytes=0-");
            assert_eq!(head.headers[header::COOKIE], "302");
        }
        // Another host on the same connection.
        let piece = framed(&[0, 0, 0xd2, 0xd7, 0x50, 1, b'c', 0xc1]);
        let head = plain.read(&piece).unwrap();
        assert_eq!((head.method, head.uri), (Method::HEAD, Uri::from_static("https://c/")));
    }

    #[test]
    fn what_is_not_plain_is_left() {
        let read = |piece: &[u8]| Plain::default().read(piece);
        let plain = with(&[]);
        assert!(read(&plain).is_some());
        for cut in 0..plain.len() {
            assert!(read(&plain[..cut]).is_none(), "{cut} bytes");
        }
        assert!(read(&[&plain[..], &[0]].concat()).is_none(), "something behind it");
        let sections: [(&str, &[u8]); 11] = [
            ("POST", &[0, 0, 0xd4, 0xd7, 0x50, 1, b'c', 0xc1]),
            ("http", &[0, 0, 0xd1, 0xd6, 0x50, 1, b'c', 0xc1]),
            ("no method", &[0, 0, 0xd7, 0x50, 1, b'c', 0xc1]),
            ("no scheme", &[0, 0, 0xd1, 0x50, 1, b'c', 0xc1]),
            ("no authority", &[0, 0, 0xd1, 0xd7, 0xc1]),
            ("no path", &[0, 0, 0xd1, 0xd7, 0x50, 1, b'c']),
            ("a status", &[0, 0, 0xd1, 0xd7, 0x50, 1, b'c', 0xc1, 0xd9]),
            ("two methods", &[0, 0, 0xd1, 0xd1, 0xd7, 0x50, 1, b'c', 0xc1]),
            ("a path that begins with no slash", &[0, 0, 0xd1, 0xd7, 0x50, 1, b'c', 0x51, 1, b'*']),
            ("an empty authority", &[0, 0, 0xd1, 0xd7, 0x50, 0, 0xc1]),
            ("a field between", &[0, 0, 0xd1, 0xd7, 0x50, 1, b'c', 0x5f, 0x50, 1, b'u', 0xc1]),
        ];
        for (what, section) in sections {
            assert!(read(&framed(section)).is_none(), "{what}");
        }
        let fields: [(&str, &[u8]); 4] = [
            ("content-length: 0", &[0xc4]),
            ("host", &[0x24, b'h', b'o', b's', b't', 3, b'a', b'.', b'b']),
            ("an upper-case name", &[0x21, b'X', 1, b'y']),
            ("a line's end in a value", &[0x21, b'x', 1, b'\n']),
        ];
        for (what, fields) in fields {
            assert!(read(&with(fields)).is_none(), "{what}");
        }
    }

    #[test]
    fn a_head_that_is_too_large_is_left() {
        let count = HEADER_BYTES_MAX as usize / (10 + 200 + FIELD_BYTES);
        for (count, fits) in [(count - 1, true), (count + 1, false)] {
            let mut section = PLAIN.to_vec();
            for _ in 0..count {
                literal(&mut section, "x-longname", &"v".repeat(200));
            }
            assert_eq!(Plain::default().read(&framed(&section)).is_some(), fits);
        }
    }

    /// More names than a map of headers takes, in a piece as large as a stream's window has.
    #[test]
    fn a_head_of_very_many_names_is_left() {
        let mut section = PLAIN.to_vec();
        for number in 0..30_000_u32 {
            section.extend([0x24]);
            section.extend(format!("{number:04x}").as_bytes());
            section.push(0);
        }
        let mut frame = vec![1];
        frame.extend((u32::try_from(section.len()).unwrap() | 0x8000_0000).to_be_bytes());
        frame.extend(section);
        assert!(Plain::default().read(&frame).is_none());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Plain::default().read(&bytes);
            let _ = Plain::default().read(&framed(&bytes));
            let _ = Plain::default().read(&with(&bytes));
        }
    }
}
