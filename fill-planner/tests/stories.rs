//! The command against a real control plane.

#![allow(clippy::unwrap_used, reason = "a story that panics has failed")]

use http::Method;
use model::publish::{PublishRecord, PublishedFile};
use model::{FillPlan, Version, store_key};
use nearcast_fill_planner::{Command, Config, Error, Run, Settings, run_to};
use serde_json::json;
use service::Shutdown;
use service::client::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// 2026-11-20, 12:00:00 UTC.
const NOON_MS: u64 = 1_795_219_200_000 - 43_200_000;

struct World {
    folder: tempfile::TempDir,
    url: String,
    operator: Client,
    _running: control_plane::Running,
}

impl World {
    /// Two titles that have been played today, and one edge that can hold one of them.
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store::Store::open(&format!("mem:{}", folder.path().display())).unwrap();
        for (title, bytes) in [("film", 1000), ("epic", 3000)] {
            publish(&store, title, bytes).await;
        }
        let settings = control_plane::Settings {
            listen: Some("127.0.0.1:0".into()),
            admin: Some("127.0.0.1:0".into()),
            store: Some(store.url().to_owned()),
            data_dir: Some(folder.path().to_owned()),
            ..control_plane::Settings::default()
        };
        let clock = control_plane::Clock::turned_by(Arc::new(AtomicU64::new(NOON_MS)));
        let config = control_plane::Config::check(settings).unwrap();
        let running = control_plane::start(config, clock, Shutdown::new()).await.unwrap();
        let secret = std::fs::read_to_string(folder.path().join("credentials/operator")).unwrap();
        let operator = Client::new(Duration::from_secs(20), Some(secret), None).unwrap();
        Self { url: running.url.clone(), folder, operator, _running: running }
    }

    async fn played(&self) {
        self.put("/v1/accounts/home", json!({"active": true})).await;
        self.put("/v1/profiles/anna", json!({"account": "home"})).await;
        let beat = json!({"urls": ["http://a.test"], "boot": 1, "serving": true, "load": 0.0,
            "counters": {"requests": 0, "bytes": 0, "hit_bytes": 0, "origin_bytes": 0, "connections": 0},
            "planned_bytes_max": 3500, "holdings": []});
        let _: serde_json::Value = self.post("/v1/edges/a/heartbeat", beat).await;
        for (title, bytes) in [("film", 800), ("epic", 3000)] {
            let asked = json!({"title": title, "profile": "anna", "device": "tv"});
            let playback: serde_json::Value = self.post("/v1/playback", asked).await;
            let event = json!({"seq": 0, "kind": "start", "at_ms": 0, "position_ms": 0, "watched_ms": 0, "bytes": bytes});
            let events = json!({"token": playback["token"], "events": [event]});
            let url = format!("{}/v1/events", self.url);
            self.operator.send_json(Method::POST, &url, &events).await.unwrap();
        }
    }

    async fn put(&self, path: &str, body: serde_json::Value) {
        let url = format!("{}{path}", self.url);
        self.operator.send_json(Method::PUT, &url, &body).await.unwrap();
    }

    /// The catalog is read in the background: until then, the answer is 503.
    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: serde_json::Value) -> T {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.operator.post_json(&format!("{}{path}", self.url), &body).await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    }

    fn config(&self, role: &str, run: Run) -> Config {
        config(&self.url, self.folder.path().join("credentials").join(role), run)
    }
}

async fn publish(store: &store::Store, title: &str, bytes: u64) {
    let version = Version::of_index(title.as_bytes());
    let record = PublishRecord {
        title: title.parse().unwrap(),
        version,
        name: title.into(),
        published_at_ms: 1,
        duration_ms: 1000,
        files: vec![PublishedFile {
            name: "v1.mp4".into(),
            bytes,
            kind: "video".into(),
            summary: String::new(),
        }],
    };
    let key = store_key::publish_record(&record.title, &version);
    let bytes = serde_json::to_vec(&record).unwrap();
    store.put_if_absent(&key, bytes.into()).await.unwrap();
}

fn config(url: &str, file: PathBuf, run: Run) -> Config {
    let settings = Settings {
        command: Some(Command::Run(run)),
        control_plane: Some(url.into()),
        credential_file: Some(file),
        ..Settings::default()
    };
    Config::check(settings).unwrap()
}

fn tomorrow() -> Run {
    Run { date: Some("2026-11-21".into()), ..Run::default() }
}

#[tokio::test]
async fn a_plan_is_shown_and_published() {
    let world = World::open().await;
    world.played().await;
    let operator = |run: Run| world.config("operator", run);
    let mut text = Vec::new();
    let dry = Run { dry_run: true, ..tomorrow() };
    assert_eq!(run_to(&operator(dry), &mut text).await.unwrap(), None);
    let plan = format!("{}/v1/edges/a/plan", world.url);
    assert!(world.operator.get_json::<FillPlan>(&plan).await.is_err(), "a dry run has published");
    assert_eq!(run_to(&operator(tomorrow()), &mut text).await.unwrap(), Some(1));
    insta::assert_snapshot!(String::from_utf8(text).unwrap());
    let plan: FillPlan = world.operator.get_json(&plan).await.unwrap();
    assert_eq!((plan.number, plan.date.as_str()), (1, "2026-11-21"));
    let titles: Vec<&str> = plan.titles.iter().map(|title| title.title.as_str()).collect();
    assert_eq!(titles, ["epic"]);
    let mut json = Vec::new();
    let run = Run { json: true, ..tomorrow() };
    assert_eq!(run_to(&operator(run), &mut json).await.unwrap(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&report["number"], &report["edges"][0]["titles"][1]["verdict"]),
        (&json!(2), &json!("no-room"))
    );
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let world = World::open().await;
    let mut out = Vec::new();
    let mut fails = async |config: Config| run_to(&config, &mut out).await.unwrap_err();
    let operator = world.folder.path().join("credentials/operator");
    let _: serde_json::Value = {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match world.operator.get_json(&format!("{}/v1/overview", world.url)).await {
                Ok(overview) => break overview,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    };
    let no_edges = fails(world.config("operator", tomorrow())).await;
    assert!(matches!(no_edges, Error::NoEdges), "{no_edges}");
    let bad = Run { date: Some("tomorrow".into()), ..Run::default() };
    let error = fails(world.config("operator", bad)).await;
    assert_eq!(error.to_string(), "--date \"tomorrow\": expected a day, as 2026-11-21");
    let edge = fails(world.config("edge", tomorrow())).await;
    assert!(matches!(edge, Error::Refused { .. }), "{edge}");
    let error = fails(config("http://127.0.0.1:1", operator, tomorrow())).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let none = fails(config(&world.url, "nothing/here".into(), tomorrow())).await;
    assert!(none.to_string().starts_with("nothing/here: "), "{none}");
}
