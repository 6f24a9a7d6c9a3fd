//! `CDN-Loop` (RFC 8586): which nodes a request has passed.
//!
//! Invariant: what a client says of nodes keeps its request from none of them. The node that a
//! client asks marks its own entry; the nodes behind it believe what stands from there on.

use crate::forward::pseudonym;
use crate::list::{Quotes, field_members, members};
use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The parameter of a node that was asked by somebody who already named nodes: those are not
/// known to have been passed.
const ENTRY: &[u8] = b"entry";
/// Most nodes that a request may have come through.
pub const LOOP_HOPS_MAX: usize = 16;

/// Where a request has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// How often at this node.
    pub own: usize,
    /// At how many nodes in all.
    pub hops: usize,
}

impl Loop {
    /// The request goes in a circle, or comes through more than [`LOOP_HOPS_MAX`]: answer 508.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.own > 0 || self.hops > LOOP_HOPS_MAX
    }
}

/// The ids of the nodes that a request says to have passed, in order, without parameters: of one
/// that another node sent (`by_peer`) those since it came to the first of them, of another one all.
#[must_use]
pub fn passed(fields: &HeaderMap, by_peer: bool) -> Vec<&[u8]> {
    let mut ids = Vec::new();
    if !fields.contains_key(CDN_LOOP) {
        return ids;
    }
    for member in field_members(fields, &CDN_LOOP, Quotes::Escaped) {
        let mut parts = members(member, b';', Quotes::Escaped);
        let id = parts.next().unwrap_or_default();
        let name = |part: &[u8]| part.split(|&byte| byte == b'=').next() == Some(ENTRY);
        if by_peer && parts.any(name) {
            ids.clear();
        }
        ids.push(id);
    }
    ids
}

/// Reads a request's `CDN-Loop` at the node `name`; `by_peer` as of [`passed`].
#[must_use]
pub fn loops(fields: &HeaderMap, name: &str, by_peer: bool) -> Loop {
    let passed = passed(fields, by_peer);
    if passed.is_empty() {
        return Loop { own: 0, hops: 0 };
    }
    let own_name = pseudonym(name);
    let is_own = |id: &&&[u8]| id.eq_ignore_ascii_case(own_name.as_bytes());
    Loop { own: passed.iter().filter(is_own).count(), hops: passed.len() }
}

/// Adds the node `name` to those that a request has passed; `by_peer`, if another node sent it.
pub fn add_to_loop(fields: &mut HeaderMap, name: &str, by_peer: bool) {
    let mut own = pseudonym(name).as_bytes().to_vec();
    if !by_peer && fields.contains_key(CDN_LOOP) {
        own.extend_from_slice(b";entry=1");
    }
    let own = HeaderValue::from_bytes(&own).expect("a pseudonym and a parameter fit a field");
    // This fails only past 32,768 fields, which no listener lets in.
    let _ = fields.try_append(CDN_LOOP, own);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    /// RFC 8586 section 2.
    #[test]
    fn loops_are_seen() {
        let seen = |lines: &str| loops(&fields(lines), "edge-1.example", false);
        assert_eq!(seen(""), Loop { own: 0, hops: 0 });
        let twice = "CDN-Loop: foo123.foocdn.example, barcdn.example; trace=\"a,b\"\n\
                     CDN-Loop: EDGE-1.example;x";
        assert_eq!(seen(twice), Loop { own: 1, hops: 3 });
        assert!(seen(twice).refuse());
        assert!(!seen("CDN-Loop: edge-11.example, edge-1").refuse());
        assert!(seen(&"CDN-Loop: a\n".repeat(LOOP_HOPS_MAX + 1)).refuse());
        assert!(!seen(&"CDN-Loop: a\n".repeat(LOOP_HOPS_MAX)).refuse());
    }

    #[test]
    fn an_odd_name_knows_itself_again() {
        let (name, mut sent) = ("a b\n,\u{e4}", HeaderMap::new());
        add_to_loop(&mut sent, name, false);
        assert!(loops(&sent, name, false).refuse());
    }

    #[test]
    fn what_a_client_says_is_believed_by_no_node_behind_the_first() {
        let crowd = vec!["b"; LOOP_HOPS_MAX].join(", ");
        for said in ["b, c", "a;entry=1, c", "x;entry, b;trace=\"", &crowd] {
            let mut sent = fields(&format!("CDN-Loop: {said}"));
            assert!(!loops(&sent, "d", false).refuse(), "{said}");
            add_to_loop(&mut sent, "d", false);
            add_to_loop(&mut sent, "e", true);
            assert_eq!(passed(&sent, true), [&b"d"[..], b"e"], "{said}");
            assert!(!loops(&sent, "b", true).refuse() && loops(&sent, "d", true).refuse());
            // All of it, where it leaves the nodes and comes back.
            assert!(loops(&sent, "d", false).refuse(), "{said}");
        }
        let mut sent = HeaderMap::new();
        add_to_loop(&mut sent, "d", false);
        assert_eq!(sent.get(CDN_LOOP).unwrap(), "d");
    }
}
