//! An origin as given: a URL, or a table.

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// One origin: a URL, or a table with more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `http://host[:port][/path]`, `https://...` or `s3://bucket[/prefix]`.
    pub url: String,
    /// Its share among those of the same priority.
    pub weight: u32,
    /// Lower ones are used first; others when those fail.
    pub priority: u32,
}

impl Origin {
    /// Whether it is a bucket (`s3://`): only names of objects reach it, and no query.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        self.url.starts_with("s3://")
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlOrTable)
    }
}

/// By hand, since an untagged enum can't say which of a table's keys is wrong.
struct UrlOrTable;

impl<'de> Visitor<'de> for UrlOrTable {
    type Value = Origin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL or { url, weight, priority }")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<Origin, E> {
        Ok(Origin { url: url.to_owned(), weight: 1, priority: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Origin, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct Table {
            url: String,
            #[serde(default = "one")]
            weight: u32,
            #[serde(default)]
            priority: u32,
        }
        fn one() -> u32 {
            1
        }
        let Table { url, weight, priority } =
            Table::deserialize(MapAccessDeserializer::new(table))?;
        Ok(Origin { url, weight, priority })
    }
}
