//! The `Cache-Status` field (RFC 9211): how this cache came by a response.

use crate::structured::{key, name_item, printable, string, value};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sfv::{ListSerializer, TokenRef};

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
    /// The member for the node `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> HeaderValue {
        let mut list = ListSerializer::new();
        let (token, text) = name_item(name);
        let mut item = match token {
            Some(token) => list.bare_item(token),
            None => list.bare_item(string(&text)),
        };
        if self.hit && self.forwarded.is_none() {
            item = item.parameter(key("hit"), true);
        }
        if let Some(reason) = self.forwarded {
            let reason = TokenRef::from_str(reason.as_str()).expect("constant tokens are tokens");
            item = item.parameter(key("fwd"), reason);
        }
        if let Some(status) = self.forwarded_status {
            item = item.parameter(key("fwd-status"), i64::from(status.as_u16()).clamp_integer());
        }
        if let Some(ttl_s) = self.ttl_s {
            item = item.parameter(key("ttl"), ttl_s.clamp_integer());
        }
        for (name, set) in [("stored", self.stored), ("collapsed", self.collapsed)] {
            if set {
                item = item.parameter(key(name), true);
            }
        }
        for (name, text) in [("key", self.key), ("detail", self.detail)] {
            if let Some(text) = text {
                let text = printable(text, TEXT_BYTES_MAX);
                item = item.parameter(key(name), string(&text));
            }
        }
        let _ = item;
        value(list.finish().expect("the list has a member"))
    }

    /// Appends the member after those of the caches nearer to the origin.
    pub fn append(&self, name: &str, fields: &mut HeaderMap) {
        // Fails only past 32,768 fields, which no listener lets in.
        let _ = fields.try_append(HeaderName::from_static("cache-status"), self.value(name));
    }
}

/// Integers of structured fields have at most 15 digits.
trait ClampInteger {
    fn clamp_integer(self) -> sfv::Integer;
}

impl ClampInteger for i64 {
    fn clamp_integer(self) -> sfv::Integer {
        let bound = 999_999_999_999_999;
        sfv::Integer::try_from(self.clamp(-bound, bound)).expect("15 digits fit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
