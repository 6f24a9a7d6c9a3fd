//! Where in a TOML file a key stands, and which key stands at a place: both ways by dotted path,
//! as `edge.sites."films.example".ttl[0].min`.

use std::fmt::Write as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One step down a dotted path.
enum Step<'k> {
    Key(&'k str),
    Index(usize),
}

/// Bytes before the value at `key`, or before the part of it that is `given`: an element of a
/// list, or a table of that name. What stands for all that is below it counts, as a URL does for
/// an origin's table. None if the key is not in the file.
pub(super) fn of_value(text: &str, key: &str, given: &str) -> Option<usize> {
    let file = parsed(text)?;
    let (at, here) = walk(&file, key, false)?;
    let part = match here {
        DeValue::Table(_) => down(here, &Step::Key(given)).map(|(at, _)| at),
        DeValue::Array(list) => {
            let same = list.iter().find(|value| value.get_ref().as_str() == Some(given));
            same.map(|value| value.span().start)
        }
        _ => None,
    };
    part.or(at)
}

/// Bytes before the table in which `key` is missing; none if not even the first of the tables
/// above it is in the file.
pub(super) fn of_missing(text: &str, key: &str) -> Option<usize> {
    walk(&parsed(text)?, key, true)?.0
}

/// The key that stands, or whose value stands, at byte `at`.
pub(super) fn key_at(text: &str, at: usize) -> Option<String> {
    let mut key = String::new();
    search(&parsed(text)?, at, &mut key).then_some(key)
}

fn parsed(text: &str) -> Option<DeValue<'_>> {
    Some(DeValue::Table(DeTable::parse(text).ok()?.into_inner()))
}

fn steps(key: &str) -> Option<Vec<Step<'_>>> {
    let (mut steps, mut rest) = (Vec::new(), key);
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let (name, after) = quoted.split_once('"')?;
            (Step::Key(name), after)
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            (Step::Index(index.parse().ok()?), after)
        } else {
            let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            (Step::Key(name), after)
        };
        steps.push(step);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    Some(steps)
}

/// Follows a path as far as it goes. Where a table lacks the next key, that is the end if it
/// `may_lack` it.
fn walk<'f, 't>(
    file: &'f DeValue<'t>,
    key: &str,
    may_lack: bool,
) -> Option<(Option<usize>, &'f DeValue<'t>)> {
    let (mut at, mut here) = (None, file);
    for step in steps(key)? {
        match down(here, &step) {
            Some((start, value)) => (at, here) = (Some(start), value),
            None if may_lack || !matches!(here, DeValue::Table(_) | DeValue::Array(_)) => break,
            None => return None,
        }
    }
    Some((at, here))
}

fn down<'f, 't>(here: &'f DeValue<'t>, step: &Step<'_>) -> Option<(usize, &'f DeValue<'t>)> {
    let (start, value) = match (step, here) {
        (Step::Key(name), DeValue::Table(table)) => {
            let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
            // A table may be all over the file; its name is where it begins.
            let named = value.get_ref().is_table();
            (if named { key.span().start } else { value.span().start }, value)
        }
        (Step::Index(number), DeValue::Array(list)) => {
            let value = list.get(*number)?;
            (value.span().start, value)
        }
        _ => return None,
    };
    Some((start, value.get_ref()))
}

/// Looks below `here`, deepest first, for what stands at byte `at`; its path is added to `key`.
fn search(here: &DeValue<'_>, at: usize, key: &mut String) -> bool {
    let within = |value: &Spanned<DeValue<'_>>| value.span().contains(&at);
    let before = key.len();
    match here {
        DeValue::Table(table) => {
            for (name, value) in table {
                push_name(key, name.get_ref());
                let found = search(value.get_ref(), at, key);
                if found || name.span().contains(&at) || within(value) {
                    return true;
                }
                key.truncate(before);
            }
        }
        DeValue::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = write!(key, "[{number}]");
                if search(value.get_ref(), at, key) || within(value) {
                    return true;
                }
                key.truncate(before);
            }
        }
        _ => {}
    }
    false
}

fn push_name(key: &mut String, name: &str) {
    if !key.is_empty() {
        key.push('.');
    }
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !name.is_empty() && name.bytes().all(bare) {
        key.push_str(name);
    } else {
        let _ = write!(key, "\"{name}\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[edge]\nlisten = [\"a\", \"b\"]\n\n[edge.sites.\"f.example\"]\n\
        origins = [\"x\", { url = \"y\", weight = 0 }]\n[[edge.sites.\"f.example\".ttl]]\n\
        path = \"*\"\n[[edge.sites.\"f.example\".ttl]]\nmin = \"2s\"\n\
        [edge.sites.\"[::1]:81\"]\norigins = []\n";

    #[test]
    fn a_key_is_found_and_a_place_has_its_key() {
        for (key, expected) in [
            ("edge.listen", "[\"a\""),
            ("edge.sites.\"f.example\".origins[0]", "\"x\""),
            ("edge.sites.\"f.example\".origins[1].weight", "0 }"),
            ("edge.sites.\"f.example\".ttl[1].min", "\"2s\""),
            ("edge.sites.\"[::1]:81\".origins", "[]"),
        ] {
            let at = of_value(FILE, key, "").unwrap();
            assert!(FILE[at..].starts_with(expected), "{key}: {:?}", &FILE[at..]);
            assert_eq!(key_at(FILE, at).as_deref(), Some(key));
        }
    }

    #[test]
    fn what_is_given_is_found_within_a_list_or_among_tables() {
        let found = |key, given| of_value(FILE, key, given).map(|at| &FILE[at..at + 3]);
        assert_eq!(found("edge.listen", "b"), Some("\"b\""));
        assert_eq!(found("edge.sites", "[::1]:81"), Some("\"[:"));
        // A URL stands for an origin's table.
        assert_eq!(found("edge.sites.\"f.example\".origins[0].url", "x"), Some("\"x\""));
    }

    #[test]
    fn what_is_not_in_the_file_has_a_place_only_as_missing() {
        assert_eq!(of_value(FILE, "edge.admin", "8081"), None);
        assert_eq!(of_value(FILE, "edge.listen[7]", "8081"), None);
        assert_eq!(of_value(FILE, "edge.sites.\"open", ""), None);
        assert_eq!(of_missing(FILE, "edge.sites.\"[::1]:81\".s3"), FILE.find("\"[::1]"));
        assert_eq!(of_missing(FILE, "edge.id"), Some(1));
        assert_eq!(of_missing(FILE, "origin.store"), None);
        assert_eq!(key_at("not toml", 0), None);
    }
}
