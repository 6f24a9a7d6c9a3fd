//! The `Cache-Status` field (RFC 9211): how this cache came by a response.

use crate::structured::{NAME_BYTES_MAX, is_token, list, named, printable};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sfv::ListEntry;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Longest `key` or `detail` written, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a request went to the next hop (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// The cache was told not to handle it.
    Bypass,
    /// Its method is to be forwarded.
    Method,
    /// Nothing is stored under the URL.
    UriMiss,
    /// Something is stored under the URL, but for other selecting fields.
    VaryMiss,
    /// Nothing stored fits, for one of these two reasons.
    Miss,
    /// A fresh response is stored, but the client wants none of it.
    Request,
    /// The stored response is stale.
    Stale,
    /// Only a part of the response is stored.
    Partial,
}

impl Forwarded {
    /// The token of the field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One cache's member of the field. `hit` and `forwarded` exclude each other: if both are set,
/// `hit` is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The response was stored and went out without asking the next hop.
    pub hit: bool,
    /// Why the next hop was asked.
    pub forwarded: Option<Forwarded>,
    /// What it answered, where that differs from the status sent.
    pub forwarded_status: Option<StatusCode>,
    /// Seconds of freshness left; negative when stale.
    pub ttl_s: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// Several requests shared one to the next hop.
    pub collapsed: bool,
    /// The cache key.
    pub key: Option<&'a str>,
    /// More, in the node's own words.
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// The member for the node `name`. Written by hand, since each answer has one, and a
    /// serializer of any structured field takes ten times as long.
    #[must_use]
    pub fn value(&self, name: &str) -> HeaderValue {
        let mut text = Vec::with_capacity(MEMBER_BYTES);
        if is_token(name) {
            text.extend_from_slice(name.as_bytes());
        } else {
            string(&mut text, name, NAME_BYTES_MAX);
        }
        if self.hit && self.forwarded.is_none() {
            text.extend_from_slice(b";hit");
        }
        if let Some(reason) = self.forwarded {
            text.extend_from_slice(b";fwd=");
            text.extend_from_slice(reason.as_str().as_bytes());
        }
        let status = self.forwarded_status.map(|status| i64::from(status.as_u16()));
        for (start, number) in [(";fwd-status=", status), (";ttl=", self.ttl_s)] {
            if let Some(number) = number {
                text.extend_from_slice(start.as_bytes());
                let number = number.clamp(-INTEGER_MAX, INTEGER_MAX);
                text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
        }
        for (name, set) in [(";stored", self.stored), (";collapsed", self.collapsed)] {
            if set {
                text.extend_from_slice(name.as_bytes());
            }
        }
        for (start, words) in [(";key=", self.key), (";detail=", self.detail)] {
            if let Some(words) = words {
                text.extend_from_slice(start.as_bytes());
                string(&mut text, words, TEXT_BYTES_MAX);
            }
        }
        HeaderValue::from_bytes(&text).expect("all of it is printable ASCII")
    }

    /// What the cache calls itself that an answer came from: its member is the last (RFC 9211 section
    /// 2). None where that can't be told.
    #[must_use]
    pub fn nearest(fields: &HeaderMap) -> Option<String> {
        let members = list(fields, &CACHE_STATUS)?;
        let ListEntry::Item(last) = members.last()? else { return None };
        named(last).map(str::to_owned)
    }

    /// Appends the member after those of the caches nearer to the origin.
    pub fn append(&self, name: &str, fields: &mut HeaderMap) {
        // Fails only past 32,768 fields, which no listener lets in.
        let _ = fields.try_append(CACHE_STATUS, self.value(name));
    }
}

/// Room for nearly every member.
const MEMBER_BYTES: usize = 128;

/// Integers of structured fields have at most 15 digits.
const INTEGER_MAX: i64 = 999_999_999_999_999;

/// A string item (RFC 9651 section 4.1.6) of as much of `words` as one may have.
fn string(text: &mut Vec<u8>, words: &str, bytes_max: usize) {
    text.push(b'"');
    let words = printable(words, bytes_max);
    if words.bytes().any(|byte| matches!(byte, b'"' | b'\\')) {
        for byte in words.bytes() {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
    } else {
        text.extend_from_slice(words.as_bytes());
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_reader_of_structured_fields_finds_what_was_told(
            name in "[a-zA-Z*0-9 .:/~\"\\\\-]{1,20}",
            detail in "[ -~]{0,20}",
            ttl_s in proptest::option::of(-2_000_000_000_000_000..2_000_000_000_000_000i64),
            (hit, stored) in any::<(bool, bool)>(),
        ) {
            let told = CacheStatus {
                hit, stored, ttl_s, detail: Some(&detail), ..CacheStatus::default()
            };
            let value = told.value(&name);
            let list = sfv::Parser::new(value.as_bytes()).parse::<sfv::List>().unwrap();
            let [ListEntry::Item(item)] = &list[..] else { panic!("{value:?}") };
            let named = item.bare_item.as_token().map(sfv::TokenRef::as_str);
            let named = named.or(item.bare_item.as_string().map(sfv::StringRef::as_str));
            prop_assert_eq!(named, Some(&*name));
            let of = |name: &'static str| item.params.get(crate::structured::key(name));
            let ttl = ttl_s.map(|ttl_s| ttl_s.clamp(-INTEGER_MAX, INTEGER_MAX));
            let read = of("ttl").and_then(sfv::BareItem::as_integer).map(i64::from);
            prop_assert_eq!(read, ttl);
            let text = of("detail").and_then(|item| item.as_string()).map(|text| text.as_str());
            prop_assert_eq!(text, Some(&*detail));
            prop_assert_eq!((of("hit").is_some(), of("stored").is_some()), (hit, stored));
        }
    }

    #[test]
    fn members() {
        let hit = CacheStatus { hit: true, ttl_s: Some(-30), ..CacheStatus::default() };
        assert_eq!(hit.value("edge-1.example"), "edge-1.example;hit;ttl=-30");
        let miss = CacheStatus {
            forwarded: Some(Forwarded::UriMiss),
            forwarded_status: Some(StatusCode::NOT_MODIFIED),
            stored: true,
            collapsed: true,
            key: Some("a\"b\u{e4}\n"),
            detail: Some("no-store"),
            ..CacheStatus::default()
        };
        let wanted = "\"1 edge\";fwd=uri-miss;fwd-status=304;stored;collapsed;key=\"a\\\"b??\";\
                      detail=\"no-store\"";
        assert_eq!(miss.value("1 edge"), wanted);
        let both = CacheStatus { hit: true, forwarded: Some(Forwarded::Stale), ..hit };
        assert_eq!(both.value("e"), "e;fwd=stale;ttl=-30");
    }

    #[test]
    fn own_member_comes_last() {
        let mut fields = HeaderMap::new();
        CacheStatus::default().append("parent", &mut fields);
        CacheStatus { ttl_s: Some(i64::MAX), ..CacheStatus::default() }.append("e", &mut fields);
        let all: Vec<_> = fields.get_all("cache-status").iter().collect();
        assert_eq!(all, ["parent", "e;ttl=999999999999999"]);
    }
}
