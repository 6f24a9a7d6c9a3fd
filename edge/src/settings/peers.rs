//! Other nodes: where this one answers them, and which it asks.

use super::{Listen, parse_listen};
use model::EdgeId;
use service::config::ConfigError;
use upstream::hierarchy;

/// Stands in for a name that is made at start: it is none that an operator gives.
const UNNAMED: &str = "edge-unnamed";

/// How a node is placed among others, checked.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Where other nodes are answered: plain HTTP, within the operator's network.
    pub listen: Vec<Listen>,
    hierarchy: hierarchy::Settings,
}

impl Peers {
    pub(super) fn check(
        id: Option<&EdgeId>,
        listen: &[String],
        hierarchy: hierarchy::Settings,
    ) -> Result<Self, ConfigError> {
        if id.is_none() && !hierarchy.siblings.is_empty() {
            let expected = "this node's name: its siblings know each other by their names";
            return Err(ConfigError::missing("edge.id", expected));
        }
        let name = id.map_or(UNNAMED, EdgeId::as_str);
        hierarchy::Config::check("edge.hierarchy", name, &hierarchy)?;
        let listen = listen.iter().map(|text| {
            let listen = parse_listen("edge.peer-listen", text)?;
            if listen.tls {
                let expected = "http://IP:PORT: nodes talk plain HTTP within your network";
                return Err(ConfigError::value("edge.peer-listen", text, expected));
            }
            Ok(listen)
        });
        Ok(Self { listen: listen.collect::<Result<_, _>>()?, hierarchy })
    }

    /// The nodes around the one of this name.
    ///
    /// # Errors
    /// When another node has the same name.
    pub fn around(&self, id: &EdgeId) -> Result<hierarchy::Config, ConfigError> {
        hierarchy::Config::check("edge.hierarchy", id.as_str(), &self.hierarchy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: Option<&str>, listen: &str, table: &str) -> Result<Peers, String> {
        let hierarchy = service::config::parse(std::path::Path::new("nearcast.toml"), table);
        let hierarchy: hierarchy::Settings = hierarchy.map_err(|error| error.to_string())?;
        let id: Option<EdgeId> = id.map(|id| id.parse().unwrap());
        let listen: Vec<String> = listen.split_whitespace().map(str::to_owned).collect();
        Peers::check(id.as_ref(), &listen, hierarchy).map_err(|error| error.to_string())
    }

    const SIBLINGS: &str = "[[siblings]]\nid = \"edge-b\"\nurl = \"http://10.0.0.2:8090\"\n";

    #[test]
    fn a_node_among_siblings_has_a_name() {
        let peers = check(Some("edge-a"), "http://10.0.0.1:8090", SIBLINGS).unwrap();
        assert_eq!(peers.listen[0].addr, "10.0.0.1:8090".parse().unwrap());
        assert!(peers.around(&"edge-c".parse().unwrap()).is_ok());
        assert!(check(None, "", "").is_ok());
        let parent = SIBLINGS.replace("siblings", "parents");
        assert!(check(None, "", &parent).is_ok());
        // All nodes share one list of siblings, so it may hold this one.
        assert!(check(Some("edge-b"), "", SIBLINGS).is_ok());
    }

    #[test]
    fn bad_keys_are_named() {
        let parent = SIBLINGS.replace("siblings", "parents");
        let errors = [
            check(None, "", SIBLINGS),
            check(Some("edge-a"), "https://10.0.0.1:8090", ""),
            check(Some("edge-a"), "10.0.0.1", ""),
            check(Some("edge-a"), "", &SIBLINGS.repeat(2)),
            check(Some("edge-b"), "", &SIBLINGS.repeat(2)),
            check(Some("edge-b"), "", &parent),
            check(Some("edge-b"), "", &parent.replace("parents", "shields")),
            check(
                Some("edge-a"),
                "",
                &format!("{SIBLINGS}{}", SIBLINGS.replace("edge-b", "edge-c")),
            ),
            check(Some("edge-a"), "", &SIBLINGS.replace("http", "s3")),
            check(Some("edge-a"), "", &SIBLINGS.replace("edge-b", "edge b")),
            check(Some("edge-a"), "", &format!("{SIBLINGS}{parent}")),
            check(Some("edge-a"), "", &format!("connect-timeout = \"1m\"\n{SIBLINGS}")),
            check(Some("edge-a"), "", &format!("sibling = 1\n{SIBLINGS}")),
        ];
        insta::assert_snapshot!(errors.map(Result::unwrap_err).join("\n"));
    }
}
