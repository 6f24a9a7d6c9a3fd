//! Which stored variant answers a request (RFC 9111 section 4.1). Field values are compared in a
//! normal form, so that two ways of saying the same select the same variant.

use crate::forward::FORWARDED_FOR;
use crate::list::{self, Quotes, field_members, members};
use crate::{Stored, date};
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, COOKIE, DATE, VARY,
};
use http::{HeaderMap, HeaderName};

/// The request's fields that a response was chosen by, sorted by name, in normal form; None for
/// a field that the request did not have. Empty without `Vary`.
pub type Selecting = Vec<(HeaderName, Option<String>)>;

/// Most fields that a `Vary` may name: a response with more is not stored.
pub const SELECTING_MAX: usize = 32;

/// The selecting fields of a response and the request that it answers, of which fields reached the
/// origin if they are `sent`: it cannot have chosen by others, and these are taken as absent. None:
/// no later request can be matched (`Vary: *`, or an answer to one address:
/// `Vary: X-Forwarded-For`), or the field cannot be read or names more than [`SELECTING_MAX`].
#[must_use]
pub fn selecting(
    response: &HeaderMap,
    request: &HeaderMap,
    sent: impl Fn(&HeaderName) -> bool,
) -> Option<Selecting> {
    let said = |name: &HeaderName| if sent(name) { normal(name, request) } else { None };
    Some(names(response)?.into_iter().map(|name| (name.clone(), said(&name))).collect())
}

/// Whether a request selects the variant stored with `selecting`. `stored` are the variant's own
/// fields: a variant in the very language that the client likes best is selected by it. Fields of
/// the request that would not be `sent` to the origin are taken as absent.
#[must_use]
pub fn selects<'s>(
    selecting: impl IntoIterator<Item = &'s (HeaderName, Option<String>)>,
    stored: &HeaderMap,
    request: &HeaderMap,
    sent: impl Fn(&HeaderName) -> bool,
) -> bool {
    selecting.into_iter().all(|(name, value)| match sent(name) {
        false => value.is_none(),
        true => {
            normal(name, request) == *value
                || (name == ACCEPT_LANGUAGE && is_favourite_language(stored, request))
        }
    })
}

/// Of several variants that match, the index of the newest by `Date`, then by arrival.
#[must_use]
pub fn newest<'a>(candidates: impl Iterator<Item = &'a Stored>) -> Option<usize> {
    let time = |stored: &Stored| {
        (date::of(&stored.fields, &DATE).unwrap_or(stored.received_ms), stored.received_ms)
    };
    let mut candidates = candidates.enumerate();
    let first = candidates.next()?;
    // Mostly there is no other: then no date has to be read.
    let Some(second) = candidates.next() else { return Some(first.0) };
    let all = [first, second].into_iter().chain(candidates);
    all.max_by_key(|(_, stored)| time(stored)).map(|(index, _)| index)
}

/// Whether requests can be matched against the response at all.
pub(crate) fn is_usable(response: &HeaderMap) -> bool {
    names(response).is_some()
}

fn names(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for member in field_members(response, &VARY, Quotes::Escaped) {
        let name = HeaderName::from_bytes(member).ok()?;
        // What the origin was told of who asks is not what came in that field.
        if name == "*" || name == FORWARDED_FOR {
            return None;
        }
        if names.len() == SELECTING_MAX {
            return None;
        }
        names.push(name);
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

/// A request's field in normal form: lines joined, no space around commas; preferences also in
/// one case and order, since neither means anything in them (RFC 9110 section 12.4.2).
fn normal(name: &HeaderName, request: &HeaderMap) -> Option<String> {
    if !request.contains_key(name) {
        return None;
    }
    if name == COOKIE {
        let lines = request.get_all(name).iter();
        let pairs = lines.flat_map(|line| members(line.as_bytes(), b';', Quotes::Escaped));
        return Some(joined(pairs.map(text), "; "));
    }
    let values = field_members(request, name, Quotes::Escaped);
    if ![ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name) {
        return Some(joined(values.map(text), ","));
    }
    let mut preferences: Vec<String> = values.map(|value| preference(name, value)).collect();
    preferences.sort_unstable();
    preferences.dedup();
    Some(joined(preferences.into_iter(), ","))
}

fn joined(values: impl Iterator<Item = String>, separator: &str) -> String {
    values.collect::<Vec<_>>().join(separator)
}

/// Bytes as text, one char each: different bytes stay different.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// One member of an `Accept*` field: `Gzip; q=1.0` and `gzip` are one.
fn preference(name: &HeaderName, member: &[u8]) -> String {
    let mut parts = members(member, b';', Quotes::Escaped);
    let mut normal = text(parts.next().unwrap_or_default()).to_ascii_lowercase();
    if name == ACCEPT_ENCODING && matches!(normal.as_str(), "x-gzip" | "x-compress") {
        normal.drain(..2);
    }
    for part in parts {
        match weight(part) {
            Some(1000) => {}
            Some(thousandths) => normal.push_str(&format!(";q={thousandths}")),
            None => {
                normal.push(';');
                normal.push_str(&text(part));
            }
        }
    }
    normal
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2); None for another parameter or a malformed
/// one.
fn weight(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    let (whole, fraction) = match value {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !matches!(whole, b'0' | b'1') {
        return None;
    }
    let digits = if fraction.is_empty() { 0 } else { list::digits(fraction)? };
    let scale = 10_i64.pow(3 - fraction.len() as u32);
    let thousandths = i64::from(whole - b'0') * 1000 + digits * scale;
    u32::try_from(thousandths).ok().filter(|&thousandths| thousandths <= 1000)
}

/// The stored variant is in one language, and the client prefers exactly that one to all others:
/// an origin that has it would choose it again.
fn is_favourite_language(stored: &HeaderMap, request: &HeaderMap) -> bool {
    let mut languages = field_members(stored, &CONTENT_LANGUAGE, Quotes::Escaped);
    let (Some(language), None) = (languages.next(), languages.next()) else { return false };
    let (mut own, mut others) = (0, 0);
    for member in field_members(request, &ACCEPT_LANGUAGE, Quotes::Escaped) {
        let mut parts = members(member, b';', Quotes::Escaped);
        let range = parts.next().unwrap_or_default();
        let weight = parts.next().map_or(Some(1000), weight).unwrap_or(0);
        let best = if range.eq_ignore_ascii_case(language) { &mut own } else { &mut others };
        *best = weight.max(*best);
    }
    own > others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, fields, stored};

    fn same(vary: &str, first: &str, second: &str) -> bool {
        let response = fields(&format!("Vary: {vary}"));
        let selecting = selecting(&response, &fields(first), |_| true);
        selects(&selecting.expect("a Vary that selects"), &response, &fields(second), |_| true)
    }

    /// RFC 9111 section 4.1, and the suite's vary tests.
    #[test]
    fn requests_match() {
        let yes = [
            ("Foo", "Foo: 1", "Foo: 1\nOther: 3"),
            ("Foo, Bar, Baz", "Foo: 1\nBaz: 7", "Baz: 7\nFoo: 1"),
            ("foo,, FOO", "Foo: 1", "Foo: 1"),
            ("Foo", "", ""),
            ("Foo", "Foo: 1, 2", "Foo: 1\nFoo: 2"),
            ("Foo", "Foo: 1,2", "Foo:  1, 2 "),
            ("Accept-Language", "Accept-Language: en, de", "Accept-Language: de, en"),
            ("Accept-Language", "Accept-Language: en, de", "Accept-Language: eN, De"),
            ("Accept-Language", "Accept-Language: en, de", "Accept-Language:  en ,   de"),
            ("Accept-Encoding", "Accept-Encoding: gzip, br;q=1.0", "Accept-Encoding: BR, x-gzip"),
            ("Accept-Encoding", "Accept-Encoding: a;q=0.5", "Accept-Encoding: a ; q=0.500"),
            ("Cookie", "Cookie: a=b; c=d", "Cookie: a=b\nCookie: c=d"),
        ];
        for (vary, first, second) in yes {
            assert!(same(vary, first, second), "{vary}: {first} / {second}");
        }
        let no = [
            ("Foo", "Foo: 1", "Foo: 2"),
            ("Foo", "Foo: 1", ""),
            ("Foo", "", "Foo: 1"),
            ("Foo", "", "Foo:"),
            ("Foo", "Foo: a", "Foo: A"),
            ("Foo", "Foo: 1,2", "Foo: 2,1"),
            ("Foo", "Foo: \"1, 2\"", "Foo: \"1,2\""),
            ("Foo", "Foo: \u{e4}", "Foo: \u{f6}"),
            ("Foo, Bar", "Foo: 1\nBar: 2", "Foo: 1\nBar: 3"),
            ("Accept-Language", "Accept-Language: en, de", "Accept-Language: en, de;q=0.5"),
            ("Accept-Encoding", "Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0"),
            ("Accept", "Accept: a/b;v=X", "Accept: a/b;v=x"),
        ];
        for (vary, first, second) in no {
            assert!(!same(vary, first, second), "{vary}: {first} / {second}");
        }
    }

    #[test]
    fn what_is_not_sent_is_absent() {
        let response = fields("Vary: Foo, Accept-Language\nContent-Language: de");
        let sent = |name: &HeaderName| name == "bar";
        let (said, unsaid) = (fields("Foo: 1\nAccept-Language: de"), fields(""));
        let absent = selecting(&response, &said, sent).unwrap();
        assert_eq!(Some(&absent), selecting(&response, &unsaid, |_| true).as_ref());
        assert!(selects(&absent, &response, &said, sent));
        assert!(!selects(&absent, &fields(""), &said, |_| true));
        let present = selecting(&response, &said, |_| true).unwrap();
        assert!(!selects(&present, &response, &said, sent));
    }

    #[test]
    fn nothing_matches_a_star() {
        for lines in [
            "*",
            "*, *",
            "*\nVary: *",
            ", *",
            "\nVary: *",
            "*, Foo",
            "Foo, *",
            "a b",
            "Foo, X-Forwarded-For",
        ] {
            let vary = fields(&format!("Vary: {lines}"));
            assert_eq!(selecting(&vary, &fields(""), |_| true), None, "{lines}");
        }
        assert_eq!(selecting(&fields(""), &fields("Foo: 1"), |_| true), Some(Vec::new()));
        let many = (0..=SELECTING_MAX).map(|n| format!("Vary: f{n}\n")).collect::<String>();
        assert_eq!(selecting(&fields(&many), &fields(""), |_| true), None);
    }

    #[test]
    fn the_variant_in_the_clients_favourite_language() {
        let response = fields("Vary: Accept-Language\nContent-Language: de");
        let request = fields("Accept-Language: en, de");
        let selecting = selecting(&response, &request, |_| true).unwrap();
        let likes = |value: &str| {
            let request = fields(&format!("Accept-Language: {value}"));
            selects(&selecting, &response, &request, |_| true)
        };
        assert!(likes("fr;q=0.5, de;q=1.0") && likes("DE"));
        for other in ["fr, de", "fr;q=1, de;q=0.9", "*", "de;q=0", "de-CH", "de;q=x"] {
            assert!(!likes(other), "{other}");
        }
    }

    #[test]
    fn the_newest_of_several() {
        let mut late = stored("Date: @1");
        late.received_ms = NOW_MS + 1;
        let all = [stored("Date: @0"), stored("Date: @1"), late, stored("Date: @-9")];
        assert_eq!(newest(all.iter()), Some(2));
        assert_eq!(newest([].iter()), None);
    }
}
