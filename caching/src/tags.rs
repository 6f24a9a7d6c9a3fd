//! Names under which a stored response can be purged together with others: surrogate keys, cache
//! tags and cache groups (RFC 9875).

use crate::list::{Quotes, field_members, members};
use crate::structured;
use http::{HeaderMap, HeaderName};
use sfv::{List, ListEntry};

/// Most tags kept of one response.
pub const TAGS_MAX: usize = 128;

/// Longest tag kept, in bytes.
pub const TAG_BYTES_MAX: usize = 256;

/// The tags of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Sorted, each once.
    pub tags: Vec<Box<str>>,
    /// How many were over [`TAGS_MAX`], longer than [`TAG_BYTES_MAX`] or not text: a purge by
    /// them will not find the response.
    pub dropped: usize,
}

/// Reads `Surrogate-Key` (separated by spaces), `Cache-Tag` (by commas) and `Cache-Groups` (a
/// structured list of strings; one that is malformed counts as absent, RFC 9875 section 2).
#[must_use]
pub fn tags(response: &HeaderMap) -> Tags {
    let surrogate_key = HeaderName::from_static("surrogate-key");
    let cache_tag = HeaderName::from_static("cache-tag");
    let lines = response.get_all(&surrogate_key).iter();
    let keys = lines.flat_map(|line| members(line.as_bytes(), b' ', Quotes::Plain));
    let listed = field_members(response, &cache_tag, Quotes::Plain);
    let mut found = Tags::default();
    for tag in keys.chain(listed) {
        found.take(std::str::from_utf8(tag).ok());
    }
    for group in groups(response, "cache-groups") {
        found.take(Some(&group));
    }
    found.tags.sort_unstable();
    found.tags.dedup();
    found
}

impl Tags {
    fn take(&mut self, tag: Option<&str>) {
        match tag.filter(|tag| tag.len() <= TAG_BYTES_MAX && self.tags.len() < TAGS_MAX) {
            Some(tag) => self.tags.push(tag.into()),
            None => self.dropped += 1,
        }
    }
}

/// The strings of a structured list; empty if any member is something else.
pub(crate) fn groups(fields: &HeaderMap, name: &'static str) -> Vec<String> {
    let list: List = structured::list(fields, &HeaderName::from_static(name)).unwrap_or_default();
    let string = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => item.bare_item.as_string().map(|text| text.as_str().to_owned()),
        ListEntry::InnerList(_) => None,
    };
    list.iter().map(string).collect::<Option<Vec<_>>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    fn read(lines: &str) -> Vec<String> {
        tags(&fields(lines)).tags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn three_fields_one_set() {
        let lines = "Surrogate-Key: b  a\nSurrogate-Key: c\nCache-Tag: d e,f ,, b\n\
                     Cache-Groups: \"g h\", \"i\";x=1\nCache-Groups: \"a\"";
        assert_eq!(read(lines), ["a", "b", "c", "d e", "f", "g h", "i"]);
        assert_eq!(read("Cache-Groups: \"a\", token"), [""; 0]);
        assert_eq!(read("Cache-Groups: \"a\", (\"b\")"), [""; 0]);
        assert_eq!(read("Cache-Groups: \"a\", \"b"), [""; 0]);
    }

    #[test]
    fn limits_are_counted() {
        let many = (0..TAGS_MAX + 5).map(|n| format!("t{n} ")).collect::<String>();
        let found = tags(&fields(&format!("Surrogate-Key: {many}")));
        assert_eq!((found.tags.len(), found.dropped), (TAGS_MAX, 5));
        let long = "x".repeat(TAG_BYTES_MAX + 1);
        assert_eq!(tags(&fields(&format!("Cache-Tag: {long}, a"))).dropped, 1);
    }
}
