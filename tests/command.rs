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
fn a_typo_in_a_sites_table_is_named_with_its_own_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let site = "[edge.sites.\"films.example\"]\norigins = [\"http://127.0.0.1:1\"]\n";
    for (rest, at) in [
        ("hedges = true\n", ":3:1: edge.sites.\"films.example\".hedges: unknown field"),
        ("\nretries = \"x\"\n", ":4:11: edge.sites.\"films.example\".retries: invalid type"),
        (
            "s3 = { endpiont = \"x\" }\n",
            ":3:8: edge.sites.\"films.example\".s3.endpiont: unknown field",
        ),
        (
            "stall-timeout = 5\n",
            ":3:17: edge.sites.\"films.example\".stall-timeout: invalid type: integer `5`, \
             expected a length of time with its unit, as \"5s\"",
        ),
        ("query = { keep = [\"a=b\"] }\n", ":3:9: edge.sites.\"films.example\".query: parameter"),
        (
            "query = { drop = [\"utm*a\"] }\n",
            ":3:9: edge.sites.\"films.example\".query: parameter \"utm*a\": expected * as its last",
        ),
        (
            "query = { keep = [\"a\"], drop = [\"b\"] }\n",
            ":3:9: edge.sites.\"films.example\".query: both keep and drop: expected \"all\"",
        ),
        (
            "[[edge.sites.\"films.example\".ttl]]\npath = \"*\"\nfixd = \"1h\"\n",
            ":5:1: edge.sites.\"films.example\".ttl[0].fixd: unknown field",
        ),
        (
            "[edge.sites.\"films.example\".health-check]\npaht = \"/\"\n",
            ":4:1: edge.sites.\"films.example\".health-check.paht: unknown field",
        ),
    ] {
        std::fs::write(&path, format!("{site}{rest}")).unwrap();
        let error = refused(&["config", "check", &file]);
        assert!(error.contains(&format!("{file}{at}")), "{rest}: {error}");
    }
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let text = r#"[log]
log-level = "edge=loud"
[edge]
listen = ["tcp://127.0.0.1:1"]
head-timeout = "0s"
[edge.sites."a.example"]
origins = ["ftp://a", "http://127.0.0.1:1", "http://user@b"]
ranges-max = 0
ttl = [{ path = "x", fixed = "1s" }, { path = "*" }]
stale-after = "3651d"
targeted = ["Cache-Control"]
[edge.sites."B.example"]
origins = ["http://127.0.0.1:1"]
[plan]
control-plane = "here"
"#;
    std::fs::write(&path, text).unwrap();
    let file = path.display().to_string();
    let error = refused(&["config", "check", &file]);
    for at in [
        ":2:13: log.log-level: ",
        ":4:11: edge.listen: \"tcp://127.0.0.1:1\" is not allowed: expected ",
        ":5:16: edge.head-timeout: ",
        ":7:12: edge.sites.\"a.example\".origins[0].url: \"ftp://a\" is not allowed: expected ",
        ":7:45: edge.sites.\"a.example\".origins[2].url: ",
        ":8:14: edge.sites.\"a.example\".ranges-max: ",
        ":9:17: edge.sites.\"a.example\".ttl[0].path: \"x\" is not allowed: expected ",
        ":9:38: edge.sites.\"a.example\".ttl[1] is missing: expected ",
        ":10:15: edge.sites.\"a.example\".stale-after: ",
        ":11:13: edge.sites.\"a.example\".targeted: ",
        ":12:13: edge.sites: \"B.example\" is not allowed: expected ",
        ":15:17: plan.control-plane: ",
    ] {
        let told = error.lines().any(|line| line.contains(&file) && line.contains(at));
        assert!(told, "{at}: {error}");
    }
    assert_eq!(error.lines().count(), 12, "{error}");
    // So does the start, of what it needs.
    std::fs::write(&path, text.replace("log-level = \"edge=loud\"\n", "")).unwrap();
    let error = refused(&["--config", &file, "edge"]);
    assert!(error.contains("origins[2].url") && error.contains("B.example"), "{error}");
}

#[test]
fn a_value_that_is_not_allowed_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let site = "[edge.sites.\"b.example\"]\norigins = [\"s3://films\"]\n";
    let s3 = |table: &str| format!("{site}s3 = {{ anonymous = true{table} }}\n");
    let web = |rest: &str| format!("[edge.sites.\"b.example\"]\norigins = {rest}\n");
    let url = "[\"http://127.0.0.1:1\"]";
    let whole = |rest: &str| format!("[edge]\nid = \"a\"\n{rest}\n{}", web(url));
    for (text, at) in [
        (
            s3(", endpoint = \"10.0.0.5:9000\""),
            ":3:37: edge.sites.\"b.example\".s3.endpoint: \"10.0.0.5:9000\" is not allowed",
        ),
        (web("[\"ftp://a\"]"), ":2:12: edge.sites.\"b.example\".origins[0].url: "),
        (
            web("[{ url = \"http://a\", wieght = 0 }]"),
            ":2:32: edge.sites.\"b.example\".origins[0].wieght: unknown field `wieght`",
        ),
        (
            web("[{ url = \"http://a\", priority = -1 }]"),
            ":2:43: edge.sites.\"b.example\".origins[0].priority: invalid value",
        ),
        (web(&format!("{url}\nranges-max = 0")), ":3:14: edge.sites.\"b.example\".ranges-max: "),
        (
            web(&format!("{url}\nttl = [{{ path = \"*\", min = \"2s\", max = \"1s\" }}]")),
            ":3:28: edge.sites.\"b.example\".ttl[0].min: \"2s\"",
        ),
        (web(url).replace("b.example", "b.example:80"), ":1:13: edge.sites: \"b.example:80\""),
        (web("[]"), ":2:11: edge.sites.\"b.example\".origins is missing"),
        (
            "[edge.sites.\"b.example\"]\nretries = 1\n".into(),
            ":1:13: edge.sites.\"b.example\".origins is missing",
        ),
        (whole("ca = \"/nope\""), ":3:6: edge.ca: \"/nope\""),
        (whole("ticket-secret = \"/nope\""), ":3:17: edge.ticket-secret: \"/nope\""),
        (
            whole("listen = [\"http://127.0.0.1:1\"]\nadmin = \"127.0.0.1:1\""),
            ":4:9: edge.admin: \"127.0.0.1:1\" is not allowed",
        ),
        (
            whole("listen = [\"http://127.0.0.1:1\", \"http://127.0.0.1\"]"),
            ":3:33: edge.listen: \"http://127.0.0.1\" is not allowed",
        ),
        ("[edge]\nid = \"a\"\norigin = [\"a\"]\n".into(), ":3:11: edge.origin: \"a\""),
        ("[origin]\nstore = \"zip:/x\"\n".into(), ":2:9: origin.store: \"zip:/x\""),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = refused(&["config", "check", &file]);
        assert!(error.contains(&format!("nearcast: {file}{at}")), "{text}: {error}");
    }
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    std::fs::write(&path, "[edge]\norigin = [\"http://127.0.0.1:1\"]\n").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut check = Command::new(env!("CARGO_BIN_EXE_nearcast"));
    let check = check.args(["config", "check", &path.display().to_string()]).stdout(writer);
    let output = check.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_ssd_that_is_no_folder_or_has_less_room_than_set_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let mut edge = Command::new(env!("CARGO_BIN_EXE_nearcast"));
    edge.current_dir(dir.path()).args([
        "edge",
        "--origin",
        "http://127.0.0.1:1",
        "--ssd",
        "100TiB",
    ]);
    edge.args(["--listen", "http://127.0.0.1:0", "--admin", "127.0.0.1:0", "--until-stdin-ends"]);
    edge.args(["--ssd-dir", "file", "--ssd-dir", "folder"]).stdin(std::process::Stdio::piped());
    let mut edge = edge.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(edge.stderr.take().unwrap()));
    // Of each folder there is a line, whatever becomes of it.
    let mut awaited = vec![r#""disk":"file""#, r#""disk":"folder""#];
    let mut log = Vec::new();
    for line in lines.map_while(Result::ok) {
        awaited.retain(|disk| !line.contains(disk));
        log.push(line);
        if awaited.is_empty() {
            break;
        }
    }
    drop(edge.stdin.take());
    edge.wait().unwrap();
    for words in ["it fails: expected a folder", "less room than is set"] {
        assert!(log.iter().any(|line| line.contains(words)), "{words}: {log:#?}");
    }
}

#[test]
fn a_certificate_that_is_not_there_is_named_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (data, there) = (dir.path().display().to_string(), dir.path().join("there.pem"));
    std::fs::write(&there, "").unwrap();
    let there = there.display().to_string();
    for (cert, key, named) in [("gone.pem", &*there, "edge.cert"), (&there, "gone.pem", "edge.key")]
    {
        let origin = ["edge", "--origin", "http://127.0.0.1:1", "--data-dir", &data];
        let error = refused(&[&origin[..], &["--cert", cert, "--key", key]].concat());
        assert!(error.contains(named) && error.contains("gone.pem"), "{error}");
    }
}

/// A command that finds no credentials of whoever runs the tests.
fn without_aws(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearcast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.args(arguments).env("HOME", "/nonexistent");
    command
}

/// Each as it is copied from the page, into a file that has a site.
#[test]
fn the_settings_that_the_edges_page_shows_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let shown: Vec<_> = include_str!("../docs/edge.md").split("```toml\n").skip(1).collect();
    for shown in &shown {
        let mut shown = shown.split("```").next().unwrap().to_owned();
        if !shown.contains("edge.sites") {
            shown.push_str("[edge.sites.\"*\"]\norigins = [\"http://127.0.0.1:1\"]\n");
        }
        std::fs::write(&path, &shown).unwrap();
        let mut check = without_aws(&["config", "check", &file]);
        check.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let output = check.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{shown}{said}");
    }
    let bucket = shown.iter().find(|shown| shown.contains("s3://"));
    assert!(bucket.is_some() && shown.len() > 2, "{shown:?}");
}

#[test]
fn a_bucket_without_credentials_is_named_before_the_first_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let site = "[edge.sites.\"films.example\"]\norigins = [\"s3://films\"]\n";
    std::fs::write(&path, site).unwrap();
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (good, text) = said(&mut without_aws(&["config", "check", &file]));
    assert!(good && text.contains("edge.sites.\"films.example\".s3: no credentials"), "{text}");
    assert!(text.contains("http://169.254.169.254"), "{text}");
    let data = dir.path().display().to_string();
    let edge = ["edge", "--origin", "s3://films", "--data-dir", &data];
    for arguments in [&["config", "check", &file][..], &edge] {
        let (good, text) = said(without_aws(arguments).env("AWS_EC2_METADATA_DISABLED", "true"));
        assert!(!good && text.contains(".s3.credentials-file is missing"), "{text}");
    }
    std::fs::write(&path, format!("{site}s3 = {{ anonymous = true }}\n")).unwrap();
    assert_eq!(said(&mut without_aws(&["config", "check", &file])), (true, String::new()));
}

#[test]
fn what_can_never_be_is_told_of_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nearcast.toml");
    let file = path.display().to_string();
    let site = "[edge.sites.\"films.example\"]\norigins = [\"s3://films\"]\n\
                s3 = { anonymous = true }\n";
    let rule =
        "[[edge.sites.\"films.example\".ttl]]\npath = \"*\"\nquery = \"v\"\nfixed = \"1h\"\n";
    let told = "edge.sites.\"films.example\".ttl[0].query: \"v\" belongs to no key";
    let behind = "[[edge.sites.\"films.example\".ttl]]\npath = \"/a/*\"\nfixed = \"1h\"\n";
    let all = "[[edge.sites.\"films.example\".ttl]]\npath = \"*\"\nfixed = \"1m\"\n";
    let memory = "[edge]\nmemory = \"15TiB\"\n";
    std::fs::write(&path, [memory, site, all, behind].concat()).unwrap();
    let output = without_aws(&["config", "check", &file]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("edge.memory: 15TiB is more than the "), "{text}");
    let shadowed = ".ttl[1].path: \"/a/*\" is never looked at, since ";
    assert!(text.contains(shadowed) && !text.contains("ttl[0].path"), "{text}");
    for (query, is_told) in [("", true), ("query = { keep = [\"v\"] }\n", false)] {
        std::fs::write(&path, [site, query, rule].concat()).unwrap();
        let output = without_aws(&["config", "check", &file]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.contains(told), is_told, "{query:?}: {text}");
    }
}

#[test]
fn a_valid_configuration_is_said_to_be_valid() {
    // The shipped examples, with their paths below a folder that exists here.
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display().to_string();
    let credentials = dir.path().join("control-plane/credentials");
    std::fs::create_dir_all(&credentials).unwrap();
    for role in ["edge", "operator"] {
        std::fs::write(credentials.join(role), "a secret\n").unwrap();
    }
    let path = dir.path().join("nearcast.toml");
    for example in [include_str!("../deploy/nearcast.toml"), include_str!("../deploy/cache.toml")] {
        std::fs::write(&path, example.replace("/var/lib/nearcast", &here)).unwrap();
        let file = path.display().to_string();
        let output = nearcast(&["config", "check", &file]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
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
