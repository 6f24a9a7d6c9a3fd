//! Fields on their way through: what goes to the next hop and what is kept (RFC 9110 section
//! 7.6, RFC 9111 section 3.1).

use crate::{date, hop_fields, surrogate};
use http::header::{DATE, EXPECT, HOST, MAX_FORWARDS, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use std::net::IpAddr;

/// This node on a message's way.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The version of the message that was received.
    pub version: Version,
    /// The node's pseudonym in `Via` and `CDN-Loop`: letters, digits, `-`, `.`, `_`; other
    /// characters are replaced.
    pub name: &'a str,
}

/// Longest pseudonym written, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The addresses that a request came from, the client's first. No standard names it (RFC 7239 was
/// to take its place), but origins read it.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The fields of a request to the next hop: those of the connection, `Host`, `Content-Length`
/// and `Expect` are gone, `Via` and `Surrogate-Capability` are appended. `Range` and conditions stay
/// (see [`crate::strip_conditions`]), and so does `CDN-Loop` (see [`crate::add_to_loop`]).
#[must_use]
pub fn forward_request(fields: &HeaderMap, hop: &Hop<'_>) -> HeaderMap {
    let mut kept = hop_fields::without(fields);
    kept.remove(HOST);
    kept.remove(EXPECT);
    append_via(&mut kept, hop);
    surrogate::append_capability(&mut kept);
    kept
}

/// Whether a request's field of this name is sent on by [`forward_request`], as it came or with an
/// addition.
#[must_use]
pub fn is_forwarded(name: &HeaderName, fields: &HeaderMap) -> bool {
    name != HOST && name != EXPECT && !hop_fields::is_taken_off(name, fields)
}

/// The fields of an answer as passed on: those of the connection and `Content-Length` are gone,
/// and there is a `Date` (RFC 9110 section 6.6.1).
#[must_use]
pub fn received_fields(fields: &HeaderMap, received_ms: i64) -> HeaderMap {
    let mut kept = hop_fields::without(fields);
    if !kept.contains_key(DATE) {
        let _ = kept.try_insert(DATE, date::format(received_ms));
    }
    kept
}

/// Appends this node to `Via` (RFC 9110 section 7.6.3).
pub fn append_via(fields: &mut HeaderMap, hop: &Hop<'_>) {
    let version = match hop.version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    let mut value = version.as_bytes().to_vec();
    value.push(b' ');
    value.extend_from_slice(pseudonym(hop.name).as_bytes());
    let value = HeaderValue::from_bytes(&value).expect("a version and a pseudonym fit a field");
    // Here and below an addition fails only past 32,768 fields, which no listener lets in.
    let _ = fields.try_append(VIA, value);
}

/// Appends whom a request came from to `X-Forwarded-For`, in one line: not all who read it look at
/// further ones.
pub fn append_forwarded_for(fields: &mut HeaderMap, client: IpAddr) {
    let mut value = Vec::new();
    for line in fields.get_all(FORWARDED_FOR).iter().filter(|line| !line.is_empty()) {
        value.extend_from_slice(line.as_bytes());
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(client.to_string().as_bytes());
    let value = HeaderValue::from_bytes(&value).expect("fields and an address fit a field");
    let _ = fields.try_insert(FORWARDED_FOR, value);
}

/// A node's name as it stands in `Via` and `CDN-Loop`.
pub(crate) fn pseudonym(name: &str) -> HeaderValue {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let clean = name.chars().take(NAME_BYTES_MAX).map(|c| if plain(c) { c } else { '_' });
    let clean: String = clean.collect();
    HeaderValue::from_str(if clean.is_empty() { "_" } else { &clean })
        .expect("letters, digits and three marks are a field value")
}

/// How far a request may go yet (RFC 9110 section 7.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwards {
    /// Nothing is said, or nothing that can be read.
    Unsaid,
    /// No further: answer it.
    Here,
    /// Pass it on with this for `Max-Forwards`.
    Left(u32),
}

/// Reads `Max-Forwards`, which counts for OPTIONS and TRACE.
#[must_use]
pub fn forwards(fields: &HeaderMap) -> Forwards {
    let Some(digits) = date::single(fields, &MAX_FORWARDS).map(|value| value.as_bytes()) else {
        return Forwards::Unsaid;
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Forwards::Unsaid;
    }
    let add = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    match digits.iter().fold(0, add) {
        0 => Forwards::Here,
        more => Forwards::Left(more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, fields};

    fn hop(version: Version) -> Hop<'static> {
        Hop { version, name: "edge-1.example" }
    }

    #[test]
    fn a_request_to_the_next_hop() {
        let lines = "Host: a\nConnection: close, cdn-loop\nContent-Length: 3\nExpect: 100-continue\n\
                     CDN-Loop: other; a=b\nVia: 1.0 x\nRange: bytes=0-1\nReq-Num: 1";
        let wanted = "CDN-Loop: other; a=b\nVia: 1.0 x\n\
                      Via: 2 edge-1.example\nRange: bytes=0-1\nReq-Num: 1\n\
                      Surrogate-Capability: nearcast=\"Surrogate/1.0\"";
        assert_eq!(forward_request(&fields(lines), &hop(Version::HTTP_2)), fields(wanted));
    }

    /// RFC 9110 section 7.6.2.
    #[test]
    fn how_far_a_request_may_go() {
        let of = |lines: &str| forwards(&fields(lines));
        assert_eq!(of(""), Forwards::Unsaid);
        assert_eq!(of("Max-Forwards: 0"), Forwards::Here);
        assert_eq!(of("Max-Forwards: 1"), Forwards::Left(0));
        assert_eq!(of("Max-Forwards: 10"), Forwards::Left(9));
        assert_eq!(of("Max-Forwards: 99999999999999999999"), Forwards::Left(u32::MAX - 1));
        for odd in ["", "-1", "+1", "1.5", "1\nMax-Forwards: 0"] {
            assert_eq!(of(&format!("Max-Forwards: {odd}")), Forwards::Unsaid, "{odd}");
        }
    }

    #[test]
    fn an_answer_as_passed_on() {
        let received = received_fields(&fields("Connection: a\na: 1\nb: 2"), NOW_MS);
        assert_eq!(received, fields("b: 2\nDate: @0"));
        let dated = received_fields(&fields("Date: foo"), NOW_MS);
        assert_eq!(dated.get("date").unwrap(), "foo");
    }

    #[test]
    fn who_asks_is_the_last_of_one_line() {
        for (before, client, wanted) in [
            ("", "192.0.2.1", "192.0.2.1"),
            ("X-Forwarded-For: 198.51.100.7", "192.0.2.1", "198.51.100.7, 192.0.2.1"),
            (
                "X-Forwarded-For: a,b\nX-Forwarded-For:\nX-Forwarded-For: \u{e4}",
                "2001:db8::1",
                "a,b, \u{e4}, 2001:db8::1",
            ),
        ] {
            let mut fields = fields(before);
            append_forwarded_for(&mut fields, client.parse().unwrap());
            let lines: Vec<_> = fields.get_all(FORWARDED_FOR).iter().collect();
            assert_eq!(lines, [wanted], "{before}");
        }
    }

    #[test]
    fn via_names_the_version_received() {
        for (version, wanted) in [
            (Version::HTTP_10, "1.0 edge-1.example"),
            (Version::HTTP_11, "1.1 edge-1.example"),
            (Version::HTTP_3, "3 edge-1.example"),
        ] {
            let mut fields = HeaderMap::new();
            append_via(&mut fields, &hop(version));
            assert_eq!(fields.get("via").unwrap(), wanted);
        }
    }
}
