//! `CDN-Loop` (RFC 8586): which nodes a request has passed. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// A request that passed more nodes than this runs in a circle that nobody signs.
const NODES_MAX: usize = 32;

/// The ids of the nodes that a request has passed, in order.
///
/// # Errors
/// The field's value, if it names too many, or `own`.
pub(crate) fn passed(fields: &HeaderMap, own: &str) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for value in fields.get_all(&CDN_LOOP) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for info in members(&value) {
            let id = info.split(';').next().unwrap_or(info).trim();
            if id == own || ids.len() == NODES_MAX {
                return Err(value.chars().take(200).collect());
            }
            ids.push(id.to_owned());
        }
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

/// Adds a node to those that a request has passed.
pub(crate) fn add(fields: &mut HeaderMap, own: &HeaderValue) {
    fields.append(CDN_LOOP, own.clone());
}

/// Whether `id` is a `cdn-id`: a token, or a host with a port.
pub(crate) fn is_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&b);
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
    fn our_own_id_and_a_crowd_are_loops() {
        assert!(of(&["a, edge-1;x=1"]).is_err());
        assert!(of(&["a", "edge-1"]).is_err());
        assert!(of(&["edge-11, xedge-1"]).is_ok());
        assert!(of(&[&vec!["a"; NODES_MAX + 1].join(",")]).is_err());
    }
}
