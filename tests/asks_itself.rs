//! An edge that would ask itself is refused before it starts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use std::process::Command;

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nearcast")).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} was taken");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_origin_or_a_node_that_is_the_edge_itself_is_named_with_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let edge = "[edge]\nid = \"fra-1\"\nlisten = [\"http://0.0.0.0:8080\"]\n\
                peer-listen = [\"http://127.0.0.1:8090\"]\n";
    let site = |origin: &str| format!("[edge.sites.\"a.example\"]\norigins = [\"{origin}\"]\n");
    let node = |list: &str, id: &str| {
        let url = "http://localhost:8090";
        format!("[edge.hierarchy]\n{list} = [{{ id = \"{id}\", url = \"{url}\" }}]\n")
    };
    let good = "http://127.0.0.1:1";
    let listens = "another server than this edge itself: edge.listen has http://0.0.0.0:8080";
    let peers = "another server than this edge itself: edge.peer-listen has http://127.0.0.1:8090";
    for (tables, at, key, expected) in [
        (site("http://127.0.0.1:8080"), 6, "edge.sites.\"a.example\".origins[0]", listens),
        (site(good) + &node("parents", "eu-1"), 8, "edge.hierarchy.parents[0].url", peers),
        (site(good) + &node("shields", "eu-1"), 8, "edge.hierarchy.shields[0].url", peers),
        (site(good) + &node("siblings", "fra-2"), 8, "edge.hierarchy.siblings[0].url", peers),
    ] {
        std::fs::write(&path, format!("{edge}{tables}")).unwrap();
        for arguments in [&["config", "check", &file][..], &["--config", &file, "edge"]] {
            let error = refused(arguments);
            for told in [key, expected] {
                assert!(error.contains(told), "{tables}{error}");
            }
            if arguments[0] == "config" {
                assert!(error.contains(&format!("{file}:{at}:")), "{tables}{error}");
            }
        }
    }
    let data = dir.path().display().to_string();
    let asks = ["--origin", "http://127.0.0.1:8080", "--data-dir", &data];
    let error = refused(&[&["edge"], &asks[..]].concat());
    let told = "another server than this edge itself: edge.listen has http://127.0.0.1:8080";
    assert!(error.contains("edge.origin: ") && error.contains(told), "{error}");
    // The list that all siblings share.
    std::fs::write(&path, format!("{edge}{}{}", site(good), node("siblings", "fra-1"))).unwrap();
    let check = ["config", "check", &file];
    let output = Command::new(env!("CARGO_BIN_EXE_nearcast")).args(check).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
