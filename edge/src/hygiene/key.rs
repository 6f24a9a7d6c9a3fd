//! Which part of a query makes an object: an operator's rules.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Names in one list.
const NAMES_MAX: usize = 64;
/// Bytes of one name.
const NAME_BYTES_MAX: usize = 128;

/// What of a query belongs to an object's key, and is sent to the origin: the same for both,
/// since what an origin sees beside the key is what poisons caches. By default all of it, in
/// the order in which it came. CMCD never belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyRules {
    /// Which parameters.
    pub query: Query,
    /// Sort them by name; those of one name keep their order.
    pub sort: bool,
}

/// Which parameters of a query count. Names are compared as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", try_from = "Raw")]
pub enum Query {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// These.
    Keep(Vec<String>),
    /// All but these.
    Drop(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", rename = "Query")]
enum Raw {
    All,
    None,
    Keep(Vec<String>),
    Drop(Vec<String>),
}

impl TryFrom<Raw> for Query {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let checked = |names: Vec<String>| {
            if names.len() > NAMES_MAX {
                return Err(format!("{} parameters: expected at most {NAMES_MAX}", names.len()));
            }
            let is_bad = |name: &&String| {
                let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
                let allowed = |byte: u8| byte.is_ascii_graphic() && !b"&=#".contains(&byte);
                !fits || !name.bytes().all(allowed)
            };
            match names.iter().find(is_bad) {
                Some(name) => Err(format!(
                    "parameter {name:?}: expected 1 to {NAME_BYTES_MAX} visible ASCII characters, none of & = #"
                )),
                None => Ok(names),
            }
        };
        Ok(match raw {
            Raw::All => Self::All,
            Raw::None => Self::None,
            Raw::Keep(names) => Self::Keep(checked(names)?),
            Raw::Drop(names) => Self::Drop(checked(names)?),
        })
    }
}

impl KeyRules {
    /// The query to look up and to forward; none if nothing is left.
    #[must_use]
    pub fn query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let query = cmcd::strip(query?)?;
        let counts = |pair: &&str| {
            let name = name(pair);
            let listed = |names: &Vec<String>| names.iter().any(|one| one == name);
            !pair.is_empty()
                && match &self.query {
                    Query::All => true,
                    Query::None => false,
                    Query::Keep(names) => listed(names),
                    Query::Drop(names) => !listed(names),
                }
        };
        if self.query == Query::All && !self.sort {
            return Some(query);
        }
        let mut pairs: Vec<&str> = query.split('&').filter(counts).collect();
        if self.sort {
            pairs.sort_by_key(|pair| name(pair));
        }
        (!pairs.is_empty()).then(|| Cow::Owned(pairs.join("&")))
    }
}

fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap_or(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> KeyRules {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rules_choose_and_sort() {
        let cases = [
            (r#"{}"#, "b=1&&a=2&CMCD=x", Some("b=1&&a=2")),
            (r#"{}"#, "CMCD=x", None),
            (r#"{"query":"none"}"#, "a=1", None),
            (r#"{"query":{"keep":["id","q"]}}"#, "x=1&q&id=2&ID=3", Some("q&id=2")),
            (r#"{"query":{"drop":["utm_source"]}}"#, "a=1&utm_source=x&&b", Some("a=1&b")),
            (r#"{"query":"all","sort":true}"#, "b=2&a=9&b=1&a=1", Some("a=9&a=1&b=2&b=1")),
            (r#"{"query":{"keep":["a"]},"sort":true}"#, "b=2&a=9&a=", Some("a=9&a=")),
        ];
        for (text, query, expected) in cases {
            assert_eq!(rules(text).query(Some(query)).as_deref(), expected, "{text} {query}");
        }
        assert_eq!(KeyRules::default().query(None), None);
    }

    #[test]
    fn bad_rules_say_what_is_expected() {
        let error = |text| serde_json::from_str::<KeyRules>(text).unwrap_err().to_string();
        assert!(error(r#"{"query":{"keep":["a=b"]}}"#).contains("none of & = #"));
        assert!(error(r#"{"query":{"keep":[""]}}"#).contains("1 to 128"));
        assert!(error(r#"{"query":"some"}"#).contains("unknown variant"));
        assert!(error(r#"{"sorted":true}"#).contains("unknown field"));
    }

    #[test]
    fn rules_survive_being_written_down() {
        for rules in [
            KeyRules::default(),
            KeyRules { query: Query::Keep(vec!["a".into()]), sort: true },
            KeyRules { query: Query::Drop(vec!["b".into()]), sort: false },
        ] {
            let text = serde_json::to_string(&rules).unwrap();
            assert_eq!(serde_json::from_str::<KeyRules>(&text).unwrap(), rules);
        }
    }
}
