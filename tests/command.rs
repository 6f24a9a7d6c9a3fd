//! The command as an operator meets it: help, mistakes in the configuration, a port in use.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use std::process::{Command, Output};

fn nearcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearcast")).args(arguments).output().unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = nearcast(arguments);
    assert!(!output.status.success(), "{arguments:?} was taken");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let commands: [&[&str]; 11] = [
        &[],
        &["ingest"],
        &["origin"],
        &["edge"],
        &["control-plane"],
        &["plan"],
        &["purge"],
        &["explain"],
        &["demo"],
        &["config"],
        &["config", "check"],
    ];
    for command in commands {
        let output = nearcast(&[command, &["--help"]].concat());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(help.contains("Example"), "{command:?} shows no example:\n{help}");
    }
}

#[test]
fn a_typo_in_the_configuration_is_named_with_file_line_key_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    std::fs::write(&path, "[edge]\nid = \"edge-a\"\nmemroy = \"1GiB\"\n").unwrap();
    let file = path.display().to_string();
    let error = refused(&["config", "check", &file]);
    assert!(error.contains(&format!("{file}:3:1: edge.memroy: unknown field")), "{error}");
    assert!(error.contains("`memory`"), "{error}");
    assert!(refused(&["--config", &file, "edge"]).contains("edge.memroy"));
}

#[test]
fn a_valid_configuration_is_said_to_be_valid() {
    // The shipped example, with its paths below a folder that exists here.
    let dir = tempfile::tempdir().unwrap();
    let example = include_str!("../deploy/nearcast.toml");
    let here = dir.path().display().to_string();
    let credentials = dir.path().join("control-plane/credentials");
    std::fs::create_dir_all(&credentials).unwrap();
    for role in ["edge", "operator"] {
        std::fs::write(credentials.join(role), "a secret\n").unwrap();
    }
    let path = dir.path().join("nearcast.toml");
    std::fs::write(&path, example.replace("/var/lib/nearcast", &here)).unwrap();
    let file = path.display().to_string();
    let output = nearcast(&["config", "check", &file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let store = format!("dir:{}", dir.path().display());
    let data = dir.path().join("data").display().to_string();
    let origin = ["origin", "--store", &store, "--listen", &address, "--admin", "127.0.0.1:0"];
    let edge = format!("http://{address}");
    let edge = [
        "edge",
        "--control-plane",
        "http://127.0.0.1:9",
        "--origin",
        "http://127.0.0.1:9",
        "--listen",
        &edge,
        "--admin",
        "127.0.0.1:0",
        "--data-dir",
        &data,
    ];
    let control = [
        "control-plane",
        "--store",
        &store,
        "--data-dir",
        &data,
        "--listen",
        &address,
        "--admin",
        "127.0.0.1:0",
    ];
    for arguments in [&origin[..], &edge, &control] {
        let error = refused(arguments);
        assert!(error.contains(&format!("{address} is already in use")), "{arguments:?}: {error}");
    }
}

#[test]
fn a_bad_value_in_any_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let table = [
        ("[ingest]\nstore = \"zip:/x\"\n", "ingest.store"),
        ("[ingest]\nsegment = \"1ms\"\n", "ingest.segment"),
        ("[origin]\nstore = \"zip:/x\"\n", "origin.store"),
        ("[log]\nlog-level = \"l=l=l\"\n", "log.log-level"),
        ("[log]\nlog-level = \"inof\"\n", "log.log-level"),
        ("[ingest]\nstore = \"mem:\"\n", "ingest.store"),
        ("[edge]\nid = \"edge-a\"\n", "edge.origin is missing"),
    ];
    for (text, key) in table {
        std::fs::write(&path, text).unwrap();
        let error = refused(&["config", "check", &path.display().to_string()]);
        assert!(error.contains(key) && error.contains("expected"), "{text}: {error}");
    }
}

#[test]
fn an_error_says_each_thing_once() {
    let missing = ["ingest", "--store", "dir:/tmp", "--title", "t", "/no/such/film.mp4"];
    let error = refused(&missing);
    assert_eq!(error, "nearcast: /no/such/film.mp4: No such file or directory (os error 2)\n");
}
