//! Steering manifests for HLS (draft-pantos-hls-rfc8216bis-20 section 7.2) and DASH (ETSI TS
//! 103 998), which are the same document.
//!
//! The pathway `.` is the edge whose manifest the player loaded. Every other edge is a clone of
//! it with another host. hls.js and Shaka put `HOST` into `URL.hostname`, which ignores a value
//! with a port: only edges on the base's port are named, by host alone.

use model::EdgeId;
use model::fleet::EdgeState;
use serde::Serialize;

/// What a steering manifest is made of.
#[derive(Debug, Clone, Copy)]
pub struct Steer<'a> {
    /// The edge whose manifest the player loaded.
    pub base: &'a EdgeId,
    /// `http` or `https`, as the player loaded it.
    pub scheme: &'a str,
    /// Edges, best first (`model::rank::rank`).
    pub ranked: &'a [&'a EdgeState],
    /// Where the next steering manifest comes from, with the play token.
    pub reload_uri: &'a str,
    /// The player asks again after this many seconds.
    pub ttl_s: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct Manifest<'a> {
    version: u8,
    ttl: u32,
    reload_uri: &'a str,
    pathway_priority: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pathway_clones: Vec<Clone<'a>>,
}

#[derive(Serialize)]
struct Clone<'a> {
    #[serde(rename = "BASE-ID")]
    base: &'static str,
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "URI-REPLACEMENT")]
    replacement: Replacement<'a>,
}

#[derive(Serialize)]
struct Replacement<'a> {
    #[serde(rename = "HOST")]
    host: &'a str,
}

/// The pathway of the edge whose manifest was loaded.
pub const BASE_PATHWAY: &str = ".";

/// The steering manifest as JSON. An edge without a URL of the scheme on the base's port is
/// left out; a base that is not ranked (it does not answer, or drains) comes last.
#[must_use]
pub fn render(steer: &Steer<'_>) -> String {
    let port = base_port(steer);
    let mut priority = Vec::with_capacity(steer.ranked.len() + 1);
    let mut clones = Vec::with_capacity(steer.ranked.len());
    for edge in steer.ranked {
        if edge.id == *steer.base {
            priority.push(BASE_PATHWAY);
        } else if let Some((host, _)) =
            addresses(edge, steer.scheme).find(|(_, own)| Some(*own) == port)
        {
            let id = edge.id.as_str();
            priority.push(id);
            clones.push(Clone { base: BASE_PATHWAY, id, replacement: Replacement { host } });
        }
    }
    if !priority.contains(&BASE_PATHWAY) {
        priority.push(BASE_PATHWAY);
    }
    let manifest = Manifest {
        version: 1,
        ttl: steer.ttl_s,
        reload_uri: steer.reload_uri,
        pathway_priority: priority,
        pathway_clones: clones,
    };
    serde_json::to_string(&manifest).expect("plain data always serialises")
}

/// The base's port; while it is not ranked, that of the best edge: a fleet uses one port.
fn base_port<'a>(steer: &Steer<'a>) -> Option<&'a str> {
    let base = steer.ranked.iter().find(|edge| edge.id == *steer.base);
    let first = |edge: &&'a EdgeState| addresses(edge, steer.scheme).next();
    base.and_then(first).or_else(|| steer.ranked.iter().find_map(first)).map(|(_, port)| port)
}

/// Host and port of each of the edge's URLs of this scheme, best first.
fn addresses<'a>(edge: &'a EdgeState, scheme: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    edge.urls.iter().filter_map(move |url| {
        let rest = url.strip_prefix(scheme)?.strip_prefix("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        // An IPv6 address has colons of its own, within brackets.
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_host..].rfind(':') {
            Some(colon) => (&authority[..after_host + colon], &authority[after_host + colon + 1..]),
            None => (authority, if scheme == "https" { "443" } else { "80" }),
        };
        (!host.is_empty()).then_some((host, port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(id: &str, urls: &[&str]) -> EdgeState {
        EdgeState {
            id: id.parse().unwrap(),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            healthy: true,
            load: 0.0,
        }
    }

    fn fleet() -> [EdgeState; 4] {
        [
            edge("edge-b", &["http://127.0.0.3:8080", "https://127.0.0.3:8443"]),
            edge("edge-a", &["http://127.0.0.2:8080", "https://127.0.0.2:8443"]),
            edge("edge-c", &["http://127.0.0.4:9090", "https://[::1]:8443"]),
            edge("edge-d", &["https://edge-d.example"]),
        ]
    }

    fn steer(base: &str, scheme: &str, edges: &[EdgeState]) -> String {
        let ranked: Vec<&EdgeState> = edges.iter().collect();
        let base = base.parse().unwrap();
        let reload_uri = "http://127.0.0.1:7080/v1/steering/~tok/t/film/00/steering.json?base=x";
        render(&Steer { base: &base, scheme, ranked: &ranked, reload_uri, ttl_s: 30 })
    }

    #[test]
    fn the_base_is_a_dot_and_the_others_are_clones_of_it() {
        insta::assert_snapshot!(steer("edge-a", "http", &fleet()), @r#"{"VERSION":1,"TTL":30,"RELOAD-URI":"http://127.0.0.1:7080/v1/steering/~tok/t/film/00/steering.json?base=x","PATHWAY-PRIORITY":["edge-b","."],"PATHWAY-CLONES":[{"BASE-ID":".","ID":"edge-b","URI-REPLACEMENT":{"HOST":"127.0.0.3"}}]}"#);
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets_and_a_dead_base_comes_last() {
        insta::assert_snapshot!(steer("edge-x", "https", &fleet()), @r#"{"VERSION":1,"TTL":30,"RELOAD-URI":"http://127.0.0.1:7080/v1/steering/~tok/t/film/00/steering.json?base=x","PATHWAY-PRIORITY":["edge-b","edge-a","edge-c","."],"PATHWAY-CLONES":[{"BASE-ID":".","ID":"edge-b","URI-REPLACEMENT":{"HOST":"127.0.0.3"}},{"BASE-ID":".","ID":"edge-a","URI-REPLACEMENT":{"HOST":"127.0.0.2"}},{"BASE-ID":".","ID":"edge-c","URI-REPLACEMENT":{"HOST":"[::1]"}}]}"#);
    }

    #[test]
    fn a_base_alone_has_no_clones() {
        insta::assert_snapshot!(steer("edge-d", "https", &fleet()[3..]), @r#"{"VERSION":1,"TTL":30,"RELOAD-URI":"http://127.0.0.1:7080/v1/steering/~tok/t/film/00/steering.json?base=x","PATHWAY-PRIORITY":["."]}"#);
    }
}
