//! Fields of one connection (RFC 9110 section 7.6.1, RFC 9111 section 3.1).

use crate::list::{Quotes, field_members};
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

/// Never passed on, whether `Connection` names them or not.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Meant for every recipient (RFC 9110 section 7.6.1): that `Connection` names one is a mistake
/// or an attack, such as a client that makes `Authorization` or `CDN-Loop` vanish on the way.
const END_TO_END: [&str; 33] = [
    "age",
    "authorization",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "pragma",
    "range",
    "set-cookie",
    "surrogate-key",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// The fields less those of the connection that they came on. `Content-Length` goes too: it says
/// where a message on that connection ends, and whoever writes the next one counts anew.
pub fn without(fields: &HeaderMap) -> HeaderMap {
    let mut kept = fields.clone();
    for member in field_members(fields, &CONNECTION, Quotes::Escaped) {
        let Ok(name) = HeaderName::from_bytes(member) else { continue };
        if END_TO_END.binary_search(&name.as_str()).is_err() {
            kept.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// Whether [`without`] takes off a field of this name.
pub fn is_taken_off(name: &HeaderName, fields: &HeaderMap) -> bool {
    let is_it = |member: &[u8]| member.eq_ignore_ascii_case(name.as_str().as_bytes());
    HOP_BY_HOP.contains(&name.as_str())
        || (END_TO_END.binary_search(&name.as_str()).is_err()
            && field_members(fields, &CONNECTION, Quotes::Escaped).any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    #[test]
    fn the_list_can_be_searched() {
        assert!(END_TO_END.is_sorted());
    }

    #[test]
    fn nominated_fields_go_unless_all_need_them() {
        let lines = "Connection: a, B, vary\nConnection: cache-control, \"x, c\"\nA: 1\nb: 2\nC: 3\n\
                     Vary: a\nCache-Control: max-age=1\nKeep-Alive: 5\nTE: trailers\nUpgrade: x\n\
                     Transfer-Encoding: chunked\nContent-Length: 5\nProxy-Authorization: x";
        let wanted = fields("C: 3\nVary: a\nCache-Control: max-age=1");
        let given = fields(lines);
        assert_eq!(without(&given), wanted);
        for name in given.keys() {
            assert_eq!(is_taken_off(name, &given), !wanted.contains_key(name), "{name}");
        }
    }
}
