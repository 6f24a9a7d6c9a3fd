//! How a control plane starts, and what it says when it can't.

#![allow(clippy::unwrap_used, reason = "a story that panics has failed")]

use nearcast_control_plane::{Clock, Config, Settings, run, start};
use service::Shutdown;
use std::path::Path;
use std::time::{Duration, Instant};

fn settings(folder: &Path) -> Settings {
    Settings {
        listen: Some("127.0.0.1:0".into()),
        admin: Some("127.0.0.1:0".into()),
        store: Some("mem:".into()),
        data_dir: Some(folder.join("data")),
        ..Settings::default()
    }
}

#[tokio::test]
async fn it_announces_where_it_listens_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let announce = folder.path().join("announce.json");
    let settings = Settings { announce: Some(announce.clone()), ..settings(folder.path()) };
    let shutdown = Shutdown::new();
    let running = tokio::spawn(run(Config::check(settings).unwrap(), shutdown.clone()));
    let until = Instant::now() + Duration::from_secs(20);
    let said: serde_json::Value = loop {
        if let Ok(text) = std::fs::read(&announce) {
            break serde_json::from_slice(&text).unwrap();
        }
        assert!(Instant::now() < until && !running.is_finished(), "it never announced itself");
        tokio::task::yield_now().await;
    };
    for url in [&said["urls"][0], &said["admin"]] {
        let address = url.as_str().unwrap().strip_prefix("http://").unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_ok(), "{url}");
    }
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_second_one_on_one_data_folder_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::check(settings(folder.path())).unwrap();
    let shutdown = Shutdown::new();
    let first = start(config(), Clock::system(), shutdown.clone()).await.unwrap();
    let error = run(config(), Shutdown::new()).await.unwrap_err().to_string();
    let data = folder.path().join("data");
    let wanted = format!("control-plane.data-dir: another nearcast runs on {}: ", data.display());
    assert!(error.starts_with(&wanted), "{error}");
    shutdown.trigger();
    first.finished().await;
    let shutdown = Shutdown::new();
    shutdown.trigger();
    run(config(), shutdown).await.unwrap();
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("networks.csv"), "network,country\n10.0.0.0/8,Germany\n").unwrap();
    std::fs::write(at("file"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|addr| (addr.to_string(), taken)).unwrap();
    let base = || settings(folder.path());
    for (settings, wanted) in [
        (
            Settings { networks: Some(at("networks.csv")), ..base() },
            "networks.csv:2: country \"Germany\": expected two capital letters, as DE",
        ),
        (Settings { networks: Some(at("nothing.csv")), ..base() }, "nothing.csv: No such file"),
        (Settings { store: Some("ftp://x".into()), ..base() }, "ftp://x"),
        (Settings { data_dir: Some(at("file/data")), ..base() }, "file/data can't be written"),
        (Settings { listen: Some(taken.0.clone()), ..base() }, "is already in use"),
        (
            Settings { app_credential_file: Some(at("file")), ..base() },
            "file: expected one line of 16 to 512 visible characters",
        ),
    ] {
        let outcome = run(Config::check(settings).unwrap(), Shutdown::new()).await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
