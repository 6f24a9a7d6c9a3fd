//! `Cache-Control`, `Pragma` and targeted fields read into directives (RFC 9111 section 5.2,
//! RFC 9213, `Surrogate-Control`). Doubt makes a response less reusable: a lifetime that cannot be read is 0, of two
//! the shorter counts.

use crate::list::{self, Quotes, field_members, members};
use crate::structured;
use crate::surrogate::{self, SURROGATE_CONTROL};
use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry};

/// The longest lifetime that is told apart, in seconds (RFC 9111 section 1.2.2 asks for 2^31 at
/// least): beyond it all are equal.
const SECONDS_MAX: i64 = u32::MAX as i64;

/// Directives of a request or a response. Durations are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub immutable: bool,
    pub only_if_cached: bool,
    pub max_age_ms: Option<i64>,
    pub s_maxage_ms: Option<i64>,
    pub while_revalidate_ms: Option<i64>,
    pub if_error_ms: Option<i64>,
    pub min_fresh_ms: Option<i64>,
    pub max_stale_ms: Option<i64>,
    /// Read from a targeted field: `Cache-Control` and `Expires` do not count (RFC 9213).
    pub targeted: bool,
}

/// A response's directives: of the first valid field of `targeted`, else of `Cache-Control`.
pub fn of_response(fields: &HeaderMap, targeted: &[HeaderName]) -> Directives {
    targeted.iter().find_map(|name| of_targeted(fields, name)).unwrap_or_else(|| {
        let mut directives = Directives::default();
        for member in field_members(fields, &CACHE_CONTROL, Quotes::Escaped) {
            directives.take(member);
        }
        directives
    })
}

/// A request's directives; `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111
/// section 5.4).
pub fn of_request(fields: &HeaderMap) -> Directives {
    let mut directives = Directives::default();
    if fields.contains_key(CACHE_CONTROL) {
        for member in field_members(fields, &CACHE_CONTROL, Quotes::Escaped) {
            directives.take(member);
        }
    } else {
        directives.no_cache = field_members(fields, &PRAGMA, Quotes::Escaped)
            .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
    }
    directives
}

/// Names of fields that `no-cache="..."` of `Cache-Control` lists: not to be reused (RFC 9111
/// section 5.2.2.4).
pub fn listed_fields(fields: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for member in field_members(fields, &CACHE_CONTROL, Quotes::Escaped) {
        let Some((name, value)) = split(member) else { continue };
        let is_no_cache = name.eq_ignore_ascii_case(b"no-cache");
        let Some(listed) = list::unquoted(value).filter(|_| is_no_cache) else { continue };
        let parsed = members(&listed, b',', Quotes::Escaped);
        names.extend(parsed.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    names
}

fn split(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = member.iter().position(|&byte| byte == b'=')?;
    Some((&member[..at], &member[at + 1..]))
}

impl Directives {
    /// Whether an answer to a request with `Authorization` may be stored (RFC 9111 section 3.5).
    pub fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage_ms.is_some()
    }

    fn take(&mut self, member: &[u8]) {
        let (name, value) = split(member).map_or((member, None), |(n, v)| (n, Some(v)));
        // Space around "=" is no directive's syntax: the name still counts, its value does not.
        let clean = name.trim_ascii_end().len() == name.len();
        let name = name.trim_ascii().to_ascii_lowercase();
        let seconds = || value.filter(|_| clean).and_then(delta);
        match name.as_slice() {
            b"no-cache" if value.is_some_and(qualified) => {}
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            // With a list of fields, too: to keep the rest for others would take those fields
            // from the one client that they are for (RFC 9111 section 5.2.2.7 allows either).
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => shorten(&mut self.max_age_ms, seconds()),
            b"s-maxage" => shorten(&mut self.s_maxage_ms, seconds()),
            b"stale-while-revalidate" => shorten(&mut self.while_revalidate_ms, seconds()),
            b"stale-if-error" => shorten(&mut self.if_error_ms, seconds()),
            b"min-fresh" => {
                // The client asks for more than it can say: nothing stored is fresh enough.
                let wanted = seconds().unwrap_or(SECONDS_MAX * 1000);
                self.min_fresh_ms = Some(self.min_fresh_ms.unwrap_or(0).max(wanted));
            }
            b"max-stale" if value.is_none() => shorten(&mut self.max_stale_ms, Some(i64::MAX)),
            b"max-stale" => shorten(&mut self.max_stale_ms, seconds()),
            _ => {}
        }
    }
}

/// `no-cache="a, b"` speaks of those fields only; an empty or broken list of all.
fn qualified(value: &[u8]) -> bool {
    list::unquoted(value).is_some_and(|names| !names.trim_ascii().is_empty())
}

/// Delta-seconds as a token or, as recipients ought to take it too, quoted (RFC 9111 5.2).
pub fn delta(value: &[u8]) -> Option<i64> {
    let quoted = list::unquoted(value);
    list::digits(quoted.as_deref().unwrap_or(value)).map(ms)
}

fn ms(seconds: i64) -> i64 {
    seconds.clamp(0, SECONDS_MAX) * 1000
}

fn shorten(duration_ms: &mut Option<i64>, other_ms: Option<i64>) {
    let other = other_ms.unwrap_or(0);
    *duration_ms = Some(duration_ms.map_or(other, |known| known.min(other)));
}

/// A targeted field's directives (RFC 9213 section 2.1). None, so that the next field counts: it
/// is absent, empty, no dictionary, or gives a known directive a value of the wrong type.
fn of_targeted(fields: &HeaderMap, name: &HeaderName) -> Option<Directives> {
    if name == SURROGATE_CONTROL {
        return surrogate::directives(fields);
    }
    let members = structured::dictionary(fields, name)?;
    Some(Directives {
        no_store: flag(&members, "no-store")?,
        no_cache: flag(&members, "no-cache")?,
        private: flag(&members, "private")?,
        public: flag(&members, "public")?,
        must_revalidate: flag(&members, "must-revalidate")?,
        proxy_revalidate: flag(&members, "proxy-revalidate")?,
        must_understand: flag(&members, "must-understand")?,
        immutable: flag(&members, "immutable")?,
        max_age_ms: duration(&members, "max-age")?,
        s_maxage_ms: duration(&members, "s-maxage")?,
        while_revalidate_ms: duration(&members, "stale-while-revalidate")?,
        if_error_ms: duration(&members, "stale-if-error")?,
        targeted: true,
        ..Directives::default()
    })
}

/// Outer None: wrong type. A list of fields (a string) counts as the directive without one.
fn flag(members: &Dictionary, name: &'static str) -> Option<bool> {
    match members.get(structured::key(name)) {
        None => Some(false),
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::Boolean(set) => Some(*set),
            BareItem::String(_) | BareItem::Token(_) if matches!(name, "no-cache" | "private") => {
                Some(true)
            }
            _ => None,
        },
        Some(ListEntry::InnerList(_)) => None,
    }
}

/// Outer None: wrong type. A negative duration is 0.
fn duration(members: &Dictionary, name: &'static str) -> Option<Option<i64>> {
    match members.get(structured::key(name)) {
        None => Some(None),
        Some(ListEntry::Item(item)) => Some(Some(ms(i64::from(item.bare_item.as_integer()?)))),
        Some(ListEntry::InnerList(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    fn cc(value: &str) -> Directives {
        of_response(&fields(&format!("Cache-Control: {value}")), &[])
    }

    fn cdn(lines: &str) -> Directives {
        of_response(&fields(lines), &[HeaderName::from_static("cdn-cache-control")])
    }

    /// RFC 9111 section 5.2.2.1 and the suite's cc-parse.
    #[test]
    fn max_age_in_every_spelling() {
        let table = [
            ("max-age=3600", Some(3_600_000)),
            ("MaX-aGe=3600", Some(3_600_000)),
            ("max-age=\"3600\"", Some(3_600_000)),
            ("max-age=003600", Some(3_600_000)),
            ("foobar, max-age=3600", Some(3_600_000)),
            ("max-age=99999999999999999999", Some(SECONDS_MAX * 1000)),
            ("max-age='3600'", Some(0)),
            ("max-age=3600.0", Some(0)),
            ("max-age=a3600", Some(0)),
            ("max-age=3600a", Some(0)),
            ("max-age=-3600", Some(0)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age =3600", Some(0)),
            ("max-age= 3600", Some(0)),
            ("max-age=1800, max-age=1", Some(1000)),
            ("max-age=1, max-age=1800", Some(1000)),
            ("extension=\"max-age=3600\", max-age=1", Some(1000)),
            ("extension=\"max-age=3600\"", None),
            ("extension=\"max-age=3600", None),
            ("", None),
        ];
        for (value, wanted) in table {
            assert_eq!(cc(value).max_age_ms, wanted, "{value}");
        }
    }

    #[test]
    fn flags_and_lists_of_fields() {
        assert!(cc("nO-StOrE").no_store && cc("a, no-store=\"x").no_store);
        assert!(cc("no-cache").no_cache && cc("private").private);
        assert!(!cc("no-cache=\"a, b\"").no_cache && cc("private=\"a\"").private);
        assert!(cc("no-cache=\"\"").no_cache && cc("no-cache=a").no_cache);
        let listed =
            listed_fields(&fields("Cache-Control: No-Cache=\"a, B\", private=\"c\", x=\"d\""));
        assert_eq!(listed, ["a", "b"]);
    }

    #[test]
    fn the_clients_words() {
        let request = |lines: &str| of_request(&fields(lines));
        assert!(request("Pragma: no-cache").no_cache && request("Pragma: x, No-Cache").no_cache);
        assert!(!request("Pragma: no-cache\nCache-Control: max-age=1").no_cache);
        assert_eq!(request("Cache-Control: max-stale").max_stale_ms, Some(i64::MAX));
        assert_eq!(request("Cache-Control: max-stale=x").max_stale_ms, Some(0));
        assert_eq!(request("Cache-Control: min-fresh=5, min-fresh=7").min_fresh_ms, Some(7000));
    }

    /// RFC 9213 section 2.1, and the suite's cdn-* tests.
    #[test]
    fn targeted_fields_are_structured() {
        let fallback = "\nCache-Control: no-store";
        let valid = cdn(&format!("CDN-Cache-Control: foobar;a=1, max-age=10{fallback}"));
        assert!(valid.targeted && !valid.no_store);
        assert_eq!(valid.max_age_ms, Some(10_000));
        let lines =
            cdn(&format!("CDN-Cache-Control: max-age=10\nCDN-Cache-Control: no-cache{fallback}"));
        assert!(lines.no_cache && lines.max_age_ms == Some(10_000));
        assert_eq!(cdn("CDN-Cache-Control: max-age=-5").max_age_ms, Some(0));
        assert!(cdn("CDN-Cache-Control: private").private);
        let invalid = [
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age=1.5",
            "max-age",
            "MaX-aGe=3600",
            "max-age =100",
            "max-age= 100",
            "no-store=1",
            "no-store=(1)",
            "",
        ];
        for value in invalid {
            let read = cdn(&format!("CDN-Cache-Control: {value}{fallback}"));
            assert!(!read.targeted && read.no_store, "{value}");
        }
    }
}
