//! `CDN-Loop` (RFC 8586): which nodes a request has passed. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// A request that passed more nodes than this runs in a circle that nobody signs.
const NODES_MAX: usize = 32;

/// The ids of the other nodes that a request has passed, in order. The caller may have added
/// `own` at the end already.
///
/// # Errors
/// The field's last value, if it names too many, or `own` elsewhere.
pub(crate) fn passed(fields: &HeaderMap, own: &str) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    let mut last = String::new();
    for value in fields.get_all(&CDN_LOOP) {
        last = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let id = |info: &str| info.split(';').next().unwrap_or(info).trim().to_owned();
        ids.extend(members(&last).take(NODES_MAX + 1).map(id));
    }
    let is_own = |id: &String| id.eq_ignore_ascii_case(own);
    if ids.last().is_some_and(is_own) {
        ids.pop();
    }
    if ids.len() > NODES_MAX || ids.iter().any(is_own) {
        return Err(last.chars().take(200).collect());
    }
    Ok(ids)
}

/// Cuts at commas that stand outside of quoted strings.
fn members(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let cut = move |c: char| {
        let cuts = c == ',' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        cuts
    };
    value.split(cut).map(str::trim).filter(|info| !info.is_empty())
}

/// Adds this node to those that a request has passed, unless the caller did.
pub(crate) fn add(fields: &mut HeaderMap, own: &HeaderValue) {
    let last = fields.get_all(&CDN_LOOP).iter().next_back();
    let last = last.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let last = last.as_deref().and_then(|value| members(value).last());
    if !last.is_some_and(|info| info.as_bytes().eq_ignore_ascii_case(own.as_bytes())) {
        fields.append(CDN_LOOP, own.clone());
    }
}

/// Whether `id` may name a node in `CDN-Loop` and `Via` alike.
pub(crate) fn is_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Vec<String>, String> {
        let mut fields = HeaderMap::new();
        values.iter().for_each(|value| _ = fields.append(CDN_LOOP, value.parse().unwrap()));
        passed(&fields, "edge-1")
    }

    #[test]
    fn ids_are_read_from_all_lines_without_parameters() {
        let ids = of(&[
            "foo123.foocdn.example, barcdn; trace=\"a,b \\\" ,edge-1\"",
            "AnotherCDN;abc=123",
        ]);
        assert_eq!(ids.unwrap(), ["foo123.foocdn.example", "barcdn", "AnotherCDN"]);
        assert_eq!(of(&["", " , ,"]).unwrap(), [""; 0]);
    }

    #[test]
    fn our_own_id_stands_once_at_the_end() {
        for given in [&["a"][..], &["a, edge-1"], &["a", "edge-1"]] {
            assert_eq!(of(given).unwrap(), ["a"]);
            let mut fields = HeaderMap::new();
            given.iter().for_each(|value| _ = fields.append(CDN_LOOP, value.parse().unwrap()));
            add(&mut fields, &HeaderValue::from_static("edge-1"));
            let all: Vec<_> =
                fields.get_all(CDN_LOOP).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all.join(", "), "a, edge-1");
        }
    }

    #[test]
    fn our_own_id_and_a_crowd_are_loops() {
        assert!(of(&["a, edge-1;x=1, b"]).is_err());
        assert!(of(&["Edge-1", "a, edge-1"]).is_err());
        assert!(of(&["edge-11, xedge-1"]).is_ok());
        assert!(of(&[&vec!["a"; NODES_MAX + 1].join(",")]).is_err());
    }
}
