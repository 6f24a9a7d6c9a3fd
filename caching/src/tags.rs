//! Names under which a stored response can be purged together with others: surrogate keys, cache
//! tags and cache groups (RFC 9875).

use crate::list::{Quotes, field_members, members};
use crate::structured;
use http::{HeaderMap, HeaderName};
use sfv::{List, ListEntry};
use std::collections::BTreeSet;

/// Most tags kept of one response.
pub const TAGS_MAX: usize = 128;

/// Longest tag kept, in bytes.
pub const TAG_BYTES_MAX: usize = 256;

/// Stands among a response's tags for those that are not kept: a purge by any tag ends it. No
/// purge can name it.
pub const OTHER_TAGS: &str = "";

/// The tags of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Sorted, each once; [`OTHER_TAGS`] first if some were dropped.
    pub tags: Vec<Box<str>>,
    /// How many were over [`TAGS_MAX`], longer than [`TAG_BYTES_MAX`], empty or not text.
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
    let (mut kept, mut dropped) = (BTreeSet::new(), 0);
    let mut take = |tag: Option<&str>| {
        let is_known = tag.is_some_and(|tag| kept.contains(tag));
        let fits = |tag: &&str| (1..=TAG_BYTES_MAX).contains(&tag.len());
        match tag.filter(fits).filter(|_| is_known || kept.len() < TAGS_MAX) {
            Some(tag) => drop(kept.insert(Box::from(tag))),
            None => dropped += 1,
        }
    };
    keys.chain(listed).for_each(|tag| take(std::str::from_utf8(tag).ok()));
    groups(response, "cache-groups").iter().for_each(|group| take(Some(group.as_str())));
    if dropped > 0 {
        kept.insert(Box::from(OTHER_TAGS));
    }
    Tags { tags: kept.into_iter().collect(), dropped }
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
    fn what_is_not_kept_is_counted_and_stood_for() {
        let many = (0..TAGS_MAX + 5).map(|n| format!("t{n} ")).collect::<String>();
        let found = tags(&fields(&format!("Surrogate-Key: {many}")));
        assert_eq!((found.tags.len(), found.dropped), (TAGS_MAX + 1, 5));
        assert_eq!(&*found.tags[0], OTHER_TAGS);
        let long = "x".repeat(TAG_BYTES_MAX + 1);
        let lines = [format!("Cache-Tag: {long}, a"), "Cache-Groups: \"a\", \"\"".to_owned()];
        for lines in lines {
            let found = tags(&fields(&lines));
            assert_eq!((found.dropped, read(&lines)), (1, vec![String::new(), "a".to_owned()]));
        }
        // The same in two fields is one.
        let most = (0..TAGS_MAX).map(|n| format!("t{n}")).collect::<Vec<_>>();
        let twice = format!("Surrogate-Key: {}\nCache-Tag: {}", most.join(" "), most.join(","));
        assert_eq!((read(&twice).len(), tags(&fields(&twice)).dropped), (TAGS_MAX, 0));
    }
}
