//! `Surrogate-Control` and `Surrogate-Capability` (W3C Note "Edge Architecture Specification"
//! 1.0): what origins say to caches like this one where they do not know RFC 9213 yet.
//!
//! `max-age`, `no-store` and `no-store-remote` count; a member that names other devices does not,
//! one that names this kind goes before those that name none. A freshness extension
//! (`max-age=60+30`) is not used: the Note's text leaves open what it allows.

use crate::control::{Directives, delta};
use crate::list::{Quotes, field_members, members};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The field itself: in [`crate::Settings::targeted`] it is read by these rules.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// The device token of every nearcast node.
const DEVICE: &[u8] = b"nearcast";

/// Tells the next hop that `Surrogate-Control` is read here.
pub fn append_capability(request: &mut HeaderMap) {
    let value = HeaderValue::from_static("nearcast=\"Surrogate/1.0\"");
    // Fails only past 32,768 fields, which no listener lets in.
    let _ = request.try_append(SURROGATE_CAPABILITY, value);
}

/// Removes `Surrogate-Control` from a response to a client that does not say that it reads it: the
/// field was for the surrogates on the way, of which this one is the last then. Other nodes
/// behind this one say that they do.
pub fn keep_surrogate_control(request: &HeaderMap, response: &mut HeaderMap) {
    if !request.contains_key(SURROGATE_CAPABILITY) {
        response.remove(SURROGATE_CONTROL);
    }
}

/// A response's directives; None if the field has none for this device.
pub fn directives(fields: &HeaderMap) -> Option<Directives> {
    let (mut ours, mut everyones) = (None, None);
    for member in field_members(fields, &SURROGATE_CONTROL, Quotes::Escaped) {
        let mut parts = members(member, b';', Quotes::Escaped);
        let Some(directive) = parts.next() else { continue };
        let mut devices = parts.peekable();
        let found = if devices.peek().is_none() {
            &mut everyones
        } else if devices.any(|device| device.eq_ignore_ascii_case(DEVICE)) {
            &mut ours
        } else {
            continue;
        };
        take(found, directive);
    }
    ours.or(everyones)
}

fn take(found: &mut Option<Directives>, directive: &[u8]) {
    let at = directive.iter().position(|&byte| byte == b'=').unwrap_or(directive.len());
    let (name, value) = directive.split_at(at);
    let is = |word: &[u8]| name.trim_ascii().eq_ignore_ascii_case(word);
    let max_age = is(b"max-age");
    if !max_age && !is(b"no-store") && !is(b"no-store-remote") {
        return;
    }
    let known = found.get_or_insert(Directives { targeted: true, ..Directives::default() });
    if !max_age {
        known.no_store = true;
        return;
    }
    let value = value.get(1..).unwrap_or_default();
    let seconds = value.split(|&byte| byte == b'+').next().unwrap_or_default();
    let clean = name.trim_ascii().len() == name.len();
    let lifetime_ms = delta(seconds).filter(|_| clean).unwrap_or(0);
    let shortest_ms = known.max_age_ms.map_or(lifetime_ms, |other_ms| other_ms.min(lifetime_ms));
    known.max_age_ms = Some(shortest_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    fn read(value: &str) -> Option<(Option<i64>, bool)> {
        let found = directives(&fields(&format!("Surrogate-Control: {value}")))?;
        assert!(found.targeted);
        Some((found.max_age_ms.map(|ms| ms / 1000), found.no_store))
    }

    /// The suite's surrogate-control tests.
    #[test]
    fn directives_for_this_device() {
        let table = [
            ("max-age=3600", Some((Some(3600), false))),
            ("MaX-aGe=3600", Some((Some(3600), false))),
            ("foobar, max-age=3600", Some((Some(3600), false))),
            ("max-age=99999999999", Some((Some(4_294_967_295), false))),
            ("max-age=60+30", Some((Some(60), false))),
            ("max-age=3600;nearcast", Some((Some(3600), false))),
            ("max-age=3600;other; NearCast", Some((Some(3600), false))),
            ("max-age=3600, max-age=5;nearcast", Some((Some(5), false))),
            ("no-store;other, max-age=9", Some((Some(9), false))),
            ("no-store", Some((None, true))),
            ("max-age=9, no-store-remote", Some((Some(9), true))),
            ("max-age =100", Some((Some(0), false))),
            ("max-age= 100", Some((Some(0), false))),
            ("max-age", Some((Some(0), false))),
            ("max-age=3600;not-for-you", None),
            ("content=\"ESI/1.0, max-age=1\"", None),
            ("foo", None),
            ("", None),
        ];
        for (value, wanted) in table {
            assert_eq!(read(value), wanted, "{value}");
        }
    }

    #[test]
    fn who_is_no_surrogate_is_told_nothing_of_them() {
        for (request, is_kept) in [("", false), ("Surrogate-Capability: a=\"Surrogate/1.0\"", true)]
        {
            let mut response = fields("Surrogate-Control: max-age=1\nCache-Control: max-age=2");
            keep_surrogate_control(&fields(request), &mut response);
            let kept = response.contains_key(SURROGATE_CONTROL);
            assert_eq!((kept, response.len()), (is_kept, 1 + usize::from(is_kept)), "{request}");
        }
    }

    #[test]
    fn the_next_hop_is_told() {
        let mut request = fields("Surrogate-Capability: abc=\"Surrogate/1.0\"");
        append_capability(&mut request);
        let all: Vec<_> = request.get_all("surrogate-capability").iter().collect();
        assert_eq!(all, ["abc=\"Surrogate/1.0\"", "nearcast=\"Surrogate/1.0\""]);
    }
}
