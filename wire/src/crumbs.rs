//! Cookies that come in several fields: HTTP/2 and 3 let clients send each pair apart, so that
//! those that stay the same compress well.
//!
//! Invariant: whoever answers sees them as HTTP/1.1 would have brought them. Keys, `Vary` and
//! origins know of no other form, and many origins read the first field alone.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Version};

/// Makes one `Cookie` field of several, as they must be before they go on as HTTP/1.1 or to what
/// knows nothing of HTTP/2 (RFC 9113 section 8.2.3, RFC 9114 section 4.2.1). Those of an HTTP/1.1
/// message stay as they are: it has no business with several (RFC 6265 section 5.4).
pub fn join(version: Version, fields: &mut HeaderMap) {
    if version < Version::HTTP_2 {
        return;
    }
    let mut crumbs = fields.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined);
    fields.insert(COOKIE, joined.expect("values of fields and a separator make a value"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_one_cookie_where_there_may_be_crumbs() {
        let joined = |version, values: &[&'static [u8]]| -> Vec<Vec<u8>> {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append("x-a", HeaderValue::from_static("1"));
                fields.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
            }
            join(version, &mut fields);
            assert_eq!(fields.get_all("x-a").iter().count(), values.len());
            fields.get_all(COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect()
        };
        for version in [Version::HTTP_2, Version::HTTP_3] {
            assert!(joined(version, &[]).is_empty());
            assert_eq!(joined(version, &[b"a=1; b=2"]), [b"a=1; b=2"]);
            assert_eq!(joined(version, &[b"b=2", b"a=\xe4", b"b=3"]), [b"b=2; a=\xe4; b=3"]);
        }
        assert_eq!(joined(Version::HTTP_11, &[b"a=1", b"b=2"]), [b"a=1", b"b=2"]);
    }
}
