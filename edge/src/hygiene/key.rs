//! Which part of a query makes an object: an operator's rules.

use super::escaped;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Names in one list.
const NAMES_MAX: usize = 64;
/// Bytes of one name.
const NAME_BYTES_MAX: usize = 128;
/// What may be given.
const EXPECTED: &str = "\"all\", \"none\", { keep = [NAMES] } or { drop = [NAMES] }";

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

/// Which parameters of a query count. What is not ASCII in a name counts as escaped, and what needs
/// no escape as not; `*` at the end of one stands for any that begin so.
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

/// As given: a word, or a table.
enum Raw {
    Word(String),
    Lists(Lists),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    keep: Option<Vec<String>>,
    drop: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Given)
    }
}

struct Given;

impl<'de> Visitor<'de> for Given {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Raw, E> {
        Ok(Raw::Word(word.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Raw, A::Error> {
        Lists::deserialize(MapAccessDeserializer::new(table)).map(Raw::Lists)
    }
}

impl TryFrom<Raw> for Query {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let checked = |names: Vec<String>| {
            if names.len() > NAMES_MAX {
                return Err(format!("{} parameters: expected at most {NAMES_MAX}", names.len()));
            }
            let bad = names.iter().find_map(|name| Some((name, expected_of(name)?)));
            match bad {
                Some((name, expected)) => Err(format!("parameter {name:?}: expected {expected}")),
                None => Ok(names),
            }
        };
        match raw {
            Raw::Word(word) if word == "all" => Ok(Self::All),
            Raw::Word(word) if word == "none" => Ok(Self::None),
            Raw::Word(word) => Err(format!("{word:?}: expected {EXPECTED}")),
            Raw::Lists(Lists { keep: Some(names), drop: None }) => checked(names).map(Self::Keep),
            Raw::Lists(Lists { keep: None, drop: Some(names) }) => checked(names).map(Self::Drop),
            Raw::Lists(Lists { keep, .. }) => {
                let found = if keep.is_some() { "both keep and drop" } else { "an empty table" };
                Err(format!("{found}: expected {EXPECTED}"))
            }
        }
    }
}

impl KeyRules {
    /// Whether a query, as far as it belongs to the key, may have a parameter of this name; `*` at
    /// its end stands for any that begin so.
    pub(crate) fn may_have(&self, wanted: &str) -> bool {
        match &self.query {
            Query::All => true,
            Query::None => false,
            // Either may stand for more names than the other.
            Query::Keep(names) => {
                names.iter().any(|one| is_named(one, wanted) || is_named(wanted, one))
            }
            Query::Drop(names) => !names.iter().any(|one| is_named(one, wanted)),
        }
    }

    /// The query to look up and to forward, all of it ASCII; none if nothing is left.
    #[must_use]
    pub fn query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let query = escaped(cmcd::strip(query?)?);
        let counts = |pair: &&str| {
            let name = name(pair);
            let listed = |names: &[String]| names.iter().any(|one| is_named(one, name));
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

/// What a parameter's name should be, where it is not.
pub(crate) fn expected_of(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"&=#".contains(&byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if !fits || !name.bytes().all(allowed) {
        return Some(format!("1 to {NAME_BYTES_MAX} visible ASCII characters, none of & = #"));
    }
    let expected = "* as its last character alone, after the beginning of a name, as utm_*";
    (!is_plain_or_prefix(name)).then(|| expected.to_owned())
}

/// Whether a query has a parameter of this name; `*` at the end stands for any that begin so.
pub(crate) fn has(query: Option<&str>, wanted: &str) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|pair| !pair.is_empty() && is_named(wanted, name(pair)))
    })
}

/// One `*` at most, at the end, and something before it.
fn is_plain_or_prefix(name: &str) -> bool {
    name.find('*').is_none_or(|at| at > 0 && at + 1 == name.len())
}

/// Whether the rule `one` is about the parameter `name`, however either is escaped.
pub(crate) fn is_named(one: &str, name: &str) -> bool {
    let (one, name) = (normal(one), normal(name));
    match one.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => one == name,
    }
}

/// A name as all origins read it: escapes of letters, digits, `-`, `.`, `_` and `~` stand for these,
/// and the digits of other escapes are the same in either case (RFC 3986 section 6.2.2).
fn normal(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut parts = name.split('%');
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => {
                normal.push(char::from(code));
            }
            Some(code) => normal.push_str(&format!("%{code:02X}")),
            None => normal.push('%'),
        }
        normal.push_str(if code.is_some() { &part[2..] } else { part });
    }
    Cow::Owned(normal)
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
    fn it_is_known_which_parameters_no_key_has() {
        let cases = [
            (r#"{}"#, "a", true),
            (r#"{"query":"none"}"#, "a", false),
            (r#"{"query":{"keep":["b","c*"]}}"#, "b", true),
            (r#"{"query":{"keep":["b","c*"]}}"#, "b*", true),
            (r#"{"query":{"keep":["b","c*"]}}"#, "cd*", true),
            (r#"{"query":{"keep":["b","c*"]}}"#, "bc", false),
            (r#"{"query":{"drop":["b","c*"]}}"#, "b", false),
            (r#"{"query":{"drop":["b","c*"]}}"#, "b*", true),
            (r#"{"query":{"drop":["b","c*"]}}"#, "cd*", false),
        ];
        for (text, name, expected) in cases {
            assert_eq!(rules(text).may_have(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn rules_choose_and_sort() {
        let cases = [
            (r#"{}"#, "b=1&&a=2&CMCD=x", Some("b=1&&a=2")),
            (r#"{}"#, "CMCD=x", None),
            (r#"{}"#, "%43MCD=x", None),
            (r#"{}"#, "q=\u{e4}&%c3=\u{7f}", Some("q=%C3%A4&%c3=%7F")),
            (r#"{"query":{"drop":["%C3%A4"]}}"#, "a&\u{e4}=1&CMCD=\u{e4}", Some("a")),
            (r#"{"query":{"drop":["%c3%A4"]}}"#, "a&%C3%a4=1", Some("a")),
            (r#"{"query":{"keep":["a"]}}"#, "b=2&%61=1", Some("%61=1")),
            (r#"{"query":{"keep":["%61*"]}}"#, "%62=2&aa=1&b=%61", Some("aa=1")),
            (r#"{"query":{"drop":["utm_*"]}}"#, "a=1&utm%5Fb=2&%75tm_c", Some("a=1")),
            (
                r#"{"query":{"drop":["a"]}}"#,
                "%2561=1&%6=2&%=3&%+1=4&%6",
                Some("%2561=1&%6=2&%=3&%+1=4&%6"),
            ),
            (r#"{"query":"none"}"#, "a=1", None),
            (r#"{"query":{"keep":["id","q"]}}"#, "x=1&q&id=2&ID=3", Some("q&id=2")),
            (r#"{"query":{"drop":["utm_source"]}}"#, "a=1&utm_source=x&&b", Some("a=1&b")),
            (
                r#"{"query":{"drop":["utm_*"]}}"#,
                "utm_a=1&utm=2&utm_&xutm_=3",
                Some("utm=2&xutm_=3"),
            ),
            (r#"{"query":{"keep":["a*","b"]}}"#, "aa=1&a=2&b=3&ba=4", Some("aa=1&a=2&b=3")),
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
        let error = |text: &str| serde_json::from_str::<KeyRules>(text).unwrap_err().to_string();
        assert!(error(r#"{"query":{"keep":["a=b"]}}"#).contains("none of & = #"));
        assert!(error(r#"{"query":{"keep":[""]}}"#).contains("1 to 128"));
        for name in ["*", "*a", "a*b", "a**"] {
            let told = error(&format!(r#"{{"query":{{"drop":["{name}"]}}}}"#));
            assert!(
                told.contains(&format!("{name:?}: expected * as its last character alone")),
                "{told}"
            );
        }
        for (given, found) in [
            (r#""some""#, r#""some": expected "all", "none""#),
            (r#"{"keep":["a"],"drop":["b"]}"#, r#"both keep and drop: expected "all", "none""#),
            ("{}", r#"an empty table: expected "all", "none""#),
            ("7", r#"invalid type: integer `7`, expected "all", "none""#),
            (r#"{"omit":["a"]}"#, "unknown field `omit`, expected `keep` or `drop`"),
            (r#"{"keep":"a"}"#, "expected a sequence"),
        ] {
            let told = error(&format!(r#"{{"query":{given}}}"#));
            assert!(told.contains(found), "{told}");
        }
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
