//! A field section of QPACK (RFC 9204) that needs no dynamic table, field by field, and the
//! integers and strings of which it consists.
//!
//! Invariant: nothing of what it is given is believed; whatever it can't read is none.

use super::huffman;
use std::borrow::Cow;

/// The flag of a string in Huffman's code, above a prefix of so many bits.
const fn coded(bits: u32) -> u8 {
    1 << bits
}

/// A field's name and value.
pub type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// What is left of a section.
pub struct Section<'a>(&'a [u8]);

impl<'a> Section<'a> {
    /// A section that requires no insert (RFC 9204 section 4.5.1).
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        match bytes {
            [0, 0, fields @ ..] => Some(Self(fields)),
            _ => None,
        }
    }

    /// A section with whatever prefix: h3 looks for nothing in a dynamic table that has no room.
    pub fn any(bytes: &'a [u8]) -> Option<Self> {
        let mut section = Self(bytes);
        section.integer(8)?;
        section.integer(7)?;
        Some(section)
    }

    /// Whether all fields were read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field.
    pub fn field(&mut self) -> Option<Field<'a>> {
        let first = *self.0.first()?;
        // Section 4.5.2: indexed, static.
        if first & 0xc0 == 0xc0 {
            let (name, value) = STATIC.get(self.integer(6)?)?;
            return Some((Cow::Borrowed(name.as_bytes()), Cow::Borrowed(value.as_bytes())));
        }
        // Section 4.5.4: a name of the static table.
        if first & 0xd0 == 0x50 {
            let (name, _) = STATIC.get(self.integer(4)?)?;
            return Some((Cow::Borrowed(name.as_bytes()), self.string(7)?));
        }
        // Section 4.5.6: both as they are.
        if first & 0xe0 == 0x20 {
            return Some((self.string(3)?, self.string(7)?));
        }
        None
    }

    /// The next field's name alone; `:` if it is in Huffman's code and can't be read, which others
    /// might. Its value need not be one that can be read here.
    pub fn name(&mut self) -> Option<Cow<'a, [u8]>> {
        let first = *self.0.first()?;
        let name = match first {
            _ if first & 0xc0 == 0xc0 => {
                return Some(Cow::Borrowed(STATIC.get(self.integer(6)?)?.0.as_bytes()));
            }
            _ if first & 0xd0 == 0x50 => Cow::Borrowed(STATIC.get(self.integer(4)?)?.0.as_bytes()),
            _ if first & 0xe0 == 0x20 => self.text(3)?.unwrap_or(Cow::Borrowed(b":")),
            _ => return None,
        };
        self.coded(7)?;
        Some(name)
    }

    /// A string, whose length has so many bits of its first byte (section 4.1.2).
    fn string(&mut self, bits: u32) -> Option<Cow<'a, [u8]>> {
        self.text(bits)?
    }

    /// The same; none within: it is there, in Huffman's code that can't be read.
    fn text(&mut self, bits: u32) -> Option<Option<Cow<'a, [u8]>>> {
        let is_coded = *self.0.first()? & coded(bits) != 0;
        let text = self.coded(bits)?;
        Some(match is_coded {
            true => huffman::text(text).map(Cow::Owned),
            false => Some(Cow::Borrowed(text)),
        })
    }

    /// The same as it is written, in Huffman's code or not.
    fn coded(&mut self, bits: u32) -> Option<&'a [u8]> {
        let length = self.integer(bits)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    /// An integer that has so many bits of its first byte (RFC 7541 section 5.1), of at most nine
    /// bytes more, as h3 reads it.
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1_u64 << bits) - 1;
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        let mut value = u64::from(*first) & most;
        if value < most {
            return usize::try_from(value).ok();
        }
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value = value.checked_add(u64::from(byte & 0x7f) << shift)?;
            if byte & 0x80 == 0 {
                return usize::try_from(value).ok();
            }
        }
        None
    }
}

/// The static table (RFC 9204 appendix A).
#[rustfmt::skip]
pub const STATIC: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(section: &[u8]) -> Option<Vec<(String, String)>> {
        let mut section = Section::of(section)?;
        let mut fields = Vec::new();
        while !section.is_empty() {
            let (name, value) = section.field()?;
            let text = |bytes: Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
            fields.push((text(name), text(value)));
        }
        Some(fields)
    }

    #[test]
    fn fields_in_every_spelling() {
        let section = [
            &[0, 0, 0xd1, 0xc1, 0xff, 0x23][..],
            &[0x50, 3, b'a', b'.', b'b', 0x5f, 0x50, 1, b'u'],
            &[0x22, b'n', b's', 0],
            &[0x2d, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0x82, 0x64, 0x02],
        ];
        // The name in Huffman's code is cut short here, and whole below.
        assert_eq!(fields(&section.concat()), None);
        let whole = [section[0], section[1], section[2], &[0x2a, 0x64, 0x02, 0x82, 0x64, 0x02]];
        let expected = [
            (":method", "GET"),
            (":path", "/"),
            ("x-frame-options", "sameorigin"),
            (":authority", "a.b"),
            ("user-agent", "u"),
            ("ns", ""),
            ("302", "302"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(&whole.concat()).unwrap(), expected);
    }

    #[test]
    fn long_integers() {
        let mut section = vec![0, 0, 0x51, 0x7f, 0x81, 0x01];
        section.extend([b'/'; 256]);
        assert_eq!(fields(&section).unwrap()[0].1.len(), 256);
        for cut in 2..section.len() {
            assert_eq!(fields(&section[..cut]), if cut == 2 { Some(vec![]) } else { None });
        }
    }

    #[test]
    fn what_needs_a_dynamic_table_is_left() {
        for section in [
            &[1, 0, 0xd1][..],
            &[0, 1, 0xd1],
            &[0],
            // Indexed and named by the dynamic table, before and after the base; no such index.
            &[0, 0, 0x80],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 0],
            &[0, 0, 0xff, 0x24],
            &[0, 0, 0xff, 0x80, 0x80, 0x01],
        ] {
            assert_eq!(fields(section), None, "{section:02x?}");
        }
    }
}
