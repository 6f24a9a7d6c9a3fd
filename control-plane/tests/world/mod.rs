//! A control plane as its callers see it: real HTTP on a free port, a real database in a
//! temporary folder, a store in memory, and a clock that the test turns.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use model::publish::{PublishRecord, PublishedFile};
use model::{TitleId, Version, store_key};
use nearcast_control_plane::{Clock, Config, Running, Settings, start};
use serde_json::{Value, json};
use service::Shutdown;
use service::client::Client;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::Store;

/// 2026-11-21, 00:00:00 UTC.
pub const MIDNIGHT_MS: u64 = 1_795_219_200_000;

pub struct World {
    pub folder: PathBuf,
    pub now_ms: Arc<AtomicU64>,
    pub store: Store,
    pub running: Option<Running>,
    pub url: String,
    pub networks: Option<&'static str>,
    shutdown: Shutdown,
    client: Client,
    _temporary: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub fn reasons(&self) -> Vec<&str> {
        let reasons = self.body["reasons"].as_array().expect("reasons");
        reasons.iter().map(|reason| reason["code"].as_str().unwrap()).collect()
    }
}

impl World {
    /// With two profiles (`anna` may play, `otto`'s account is not active), the title `film`
    /// and edges `a` and `b`.
    pub async fn open(networks: Option<&'static str>) -> Self {
        let mut world = Self::empty(networks).await;
        world.publish("film", 1, 60_000, &[("v1.mp4", 1000), ("a1.mp4", 200)]).await;
        for (path, body) in [
            ("/v1/accounts/home", json!({"active": true})),
            ("/v1/accounts/gone", json!({"active": false})),
            ("/v1/profiles/anna", json!({"account": "home"})),
            ("/v1/profiles/otto", json!({"account": "gone"})),
        ] {
            assert_eq!(world.put(path, body).await.status, 204, "{path}");
        }
        world.beat("a", &[]).await;
        world.beat("b", &[]).await;
        world.shows("film").await;
        world
    }

    pub async fn empty(networks: Option<&'static str>) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_owned();
        let mut world = Self {
            now_ms: Arc::new(AtomicU64::new(MIDNIGHT_MS)),
            store: Store::open(&format!("mem:{}", folder.display())).unwrap(),
            running: None,
            url: String::new(),
            networks,
            shutdown: Shutdown::new(),
            client: Client::new(Duration::from_secs(20), None, None).unwrap(),
            folder,
            _temporary: temporary,
        };
        world.start().await;
        world
    }

    pub async fn start(&mut self) {
        self.running = Some(self.start_in(&self.folder.clone()).await);
        self.url = self.running.as_ref().unwrap().url.clone();
    }

    pub async fn start_in(&self, folder: &Path) -> Running {
        let networks = self.networks.map(|text| {
            let path = self.folder.join("networks.csv");
            std::fs::write(&path, text).unwrap();
            path
        });
        let settings = Settings {
            listen: Some("127.0.0.1:0".into()),
            admin: Some("127.0.0.1:0".into()),
            store: Some(self.store.url().to_owned()),
            data_dir: Some(folder.join("data")),
            catalog_refresh: Some("20ms".parse().unwrap()),
            networks,
            ..Settings::default()
        };
        let clock = Clock::turned_by(self.now_ms.clone());
        start(Config::check(settings).unwrap(), clock, self.shutdown.clone()).await.unwrap()
    }

    /// What the first SIGTERM does.
    pub fn drain(&self) {
        self.shutdown.trigger();
    }

    /// Ends the control plane as SIGTERM does.
    pub async fn stop(&mut self) {
        self.drain();
        self.running.take().unwrap().finished().await;
        self.shutdown = Shutdown::new();
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn turn(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn credential(&self, role: &str) -> String {
        let path = self.folder.join("data/credentials").join(role);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    pub async fn publish(
        &self,
        title: &str,
        cut: u8,
        duration_ms: u64,
        files: &[(&str, u64)],
    ) -> Version {
        let title: TitleId = title.parse().unwrap();
        let version = Version::of_index(format!("{title}{cut}").as_bytes());
        let file = |(name, bytes): &(&str, u64)| PublishedFile {
            name: (*name).into(),
            bytes: *bytes,
            kind: "video".into(),
            summary: String::new(),
        };
        let record = PublishRecord {
            title: title.clone(),
            version,
            name: title.to_string(),
            published_at_ms: u64::from(cut),
            duration_ms,
            files: files.iter().map(file).collect(),
        };
        let key = store_key::publish_record(&title, &version);
        let bytes = serde_json::to_vec(&record).unwrap();
        self.store.put_if_absent(&key, bytes.into()).await.unwrap();
        version
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        role: Option<&str>,
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(role) = role {
            request = request.header("authorization", format!("Bearer {}", self.credential(role)));
        }
        self.send(request.body(Full::new(Bytes::from(body))).unwrap()).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.client.send(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, path: &str, role: &str) -> Answer {
        self.call(Method::GET, path, Some(role), vec![]).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some("operator"), body.to_string().into_bytes()).await
    }

    pub async fn post(&self, path: &str, role: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(role), body.to_string().into_bytes()).await
    }

    pub async fn playback(&self, title: &str, profile: &str) -> Answer {
        let body = json!({"title": title, "profile": profile, "device": "tv"});
        self.post("/v1/playback", "app", body).await
    }

    pub async fn beat(&self, edge: &str, holdings: &[(&str, Version, &str)]) -> Answer {
        self.beat_of(edge, json!({}), holdings).await
    }

    /// A heartbeat in which `over` replaces fields.
    pub async fn beat_of(
        &self,
        edge: &str,
        over: Value,
        holdings: &[(&str, Version, &str)],
    ) -> Answer {
        let holding = |(title, version, file): &(&str, Version, &str)| json!({"title": title, "version": version, "file": file});
        let mut beat = json!({
            "urls": [format!("http://{edge}.test:8080"), format!("https://{edge}.test:8443")],
            "boot": 1, "serving": true, "load": 0.1, "planned_bytes_max": 1500,
            "counters": {"requests": 10, "bytes": 100, "hit_bytes": 40, "origin_bytes": 60, "connections": 1},
            "holdings": holdings.iter().map(holding).collect::<Vec<_>>(),
        });
        let beat_fields = beat.as_object_mut().unwrap();
        beat_fields.extend(over.as_object().unwrap().clone());
        self.post(&format!("/v1/edges/{edge}/heartbeat"), "edge", beat).await
    }

    pub async fn events(&self, token: &str, events: Value) -> Answer {
        let body = json!({"token": token, "events": events}).to_string().into_bytes();
        self.call(Method::POST, "/v1/events", None, body).await
    }

    /// Waits until the catalog shows a title.
    pub async fn shows(&mut self, title: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get("/v1/overview", "operator").await;
            let titles = answer.body["titles"].as_array().cloned().unwrap_or_default();
            if titles.iter().any(|shown| shown["title"] == title) {
                return;
            }
            assert!(Instant::now() < until, "{title} was never shown: {answer:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Demand of a day: `(title, plays, watched_ms, bytes)`.
    pub async fn demand(&self, day_after: &str) -> Vec<(String, u64, u64, u64)> {
        let input = self.get(&format!("/v1/planner/input?date={day_after}"), "operator").await;
        let demand = input.body["demand"].as_array().expect("demand").clone();
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
        let row = |row: &Value| {
            let title = row["title"].as_str().unwrap().to_owned();
            (title, number(row, "plays"), number(row, "watched_ms"), number(row, "bytes"))
        };
        demand.iter().map(row).collect()
    }
}

pub fn event(seq: u32, kind: &str, watched_ms: u64, bytes: u64) -> Value {
    json!({"seq": seq, "kind": kind, "at_ms": 1, "position_ms": 0, "watched_ms": watched_ms, "bytes": bytes})
}
