//! The `Priority` field (RFC 9218).

use crate::structured::{self, key, value};
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry};

/// How much a response matters beside others of the same client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Priority {
    /// 0 is served first, 7 last.
    pub urgency: u8,
    /// It is of use in parts: share bandwidth among responses of one urgency.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

const PRIORITY: HeaderName = HeaderName::from_static("priority");

impl Priority {
    /// A request's priority; the default where it says nothing or nothing that can be read.
    #[must_use]
    pub fn of_request(fields: &HeaderMap) -> Self {
        Self::default().merged(fields)
    }

    /// The priority with what the origin's response changes of it (RFC 9218 section 8).
    #[must_use]
    pub fn merged(self, response: &HeaderMap) -> Self {
        let Some(members) = structured::dictionary(response, &PRIORITY) else { return self };
        let urgency = item(&members, "u").and_then(BareItem::as_integer).map(i64::from);
        Self {
            urgency: match urgency {
                Some(urgency @ 0..=7) => urgency as u8,
                _ => self.urgency,
            },
            incremental: item(&members, "i")
                .and_then(BareItem::as_boolean)
                .unwrap_or(self.incremental),
        }
    }

    /// The field's value.
    #[must_use]
    pub fn value(self) -> HeaderValue {
        let incremental = if self.incremental { ", i" } else { "" };
        value(format!("u={}{incremental}", self.urgency.min(7)))
    }
}

fn item<'a>(members: &'a Dictionary, name: &'static str) -> Option<&'a BareItem> {
    match members.get(key(name))? {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    #[test]
    fn read_merge_write() {
        let read = |value: &str| Priority::of_request(&fields(&format!("Priority: {value}")));
        let default = Priority::default();
        assert_eq!(read("u=5, i"), Priority { urgency: 5, incremental: true });
        assert_eq!(read("i=?0;x, u=0;y=1, z=(a)"), Priority { urgency: 0, incremental: false });
        for odd in ["u=8", "u=-1", "u=1.5", "u=a", "u=(1)", "i=1", "u=1, &", ""] {
            assert_eq!(read(odd), default, "{odd}");
        }
        let merged = Priority { urgency: 1, incremental: true }.merged(&fields("Priority: u=6"));
        assert_eq!(merged, Priority { urgency: 6, incremental: true });
        assert_eq!(merged.value(), "u=6, i");
        assert_eq!(default.value(), "u=3");
    }
}
