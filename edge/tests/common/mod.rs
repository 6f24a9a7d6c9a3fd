//! What the stories have in common: a synthetic title, an origin that counts requests and can
//! misbehave, a control plane, and edges over real sockets.

#![allow(dead_code, unused_imports, missing_docs, reason = "each story uses its part")]

mod client;
mod control;
mod h3;
pub mod log;
pub mod nodes;
mod origin;
mod proxy;
mod scripted;
mod stopped;
mod title;
mod web;
mod web_answer;
mod web_misdeed;

pub use self::h3::{H3, Stream};
pub use client::{
    Answer, Opened, ask, ask_with_body, get, get_as, get_over, head, open, over_tls, send_over, tls,
};
pub use control::Control;
pub use origin::{Misdeed, Origin};
pub use proxy::{CHUNK, Proxy, proxy_settings};
pub use scripted::Scripted;
pub use stopped::{SMALL_BUFFER_BYTES, Stopped};
pub use title::{Film, film, films};
pub use web::{Asked, Hold, Item, Misdeed as WebMisdeed, Validator, Web, content};

use model::admin::PurgeDone;
use model::fleet::{EdgeState, EdgeView};
use nearcast_edge::{Config, Limits, Settings};
use service::Shutdown;
use service::client::Client;
use service::value::ByteSize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Nothing in a story takes this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Longest range that an origin is asked for.
pub const RANGE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a range that an origin was asked for: `bytes=0-9`, whatever stands before that.
pub fn range_bytes(asked: &str) -> u64 {
    let (first, last) = asked.split_once("bytes=").unwrap().1.split_once('-').unwrap();
    last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
}

/// A running edge.
pub struct Edge {
    pub dir: PathBuf,
    pub http: String,
    pub https: String,
    pub admin: String,
    /// Where other nodes reach it, if anywhere.
    pub peer: String,
    pub shutdown: Shutdown,
    task: JoinHandle<Result<(), nearcast_edge::Error>>,
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Polls until `condition` gives something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, condition: impl Fn() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A token for a title, valid for an hour from a minute ago.
pub fn token(signer: &token::Signer, title: &str) -> String {
    let now = now_s();
    token_between(signer, title, now - 60, now + 3600)
}

pub fn token_between(signer: &token::Signer, title: &str, from: u64, to: u64) -> String {
    let title = title.parse().unwrap();
    signer.mint(&token::Grant { play: [7; 16], title, not_before: from, expires: to })
}

/// Leaves the view that an earlier run would have kept.
pub fn keep_view(dir: &Path, view: &EdgeView) {
    std::fs::write(dir.join("view.json"), serde_json::to_vec(view).unwrap()).unwrap();
}

pub fn view(signer: &token::Signer) -> EdgeView {
    let edge = |id: &str, url: &str| EdgeState {
        id: id.parse().unwrap(),
        urls: vec![url.to_owned()],
        healthy: true,
        load: 0.1,
    };
    EdgeView {
        version: 3,
        keys: vec![signer.public()],
        control_plane_url: "http://127.0.0.1:7080".into(),
        edges: vec![
            edge("edge-a", "http://127.0.0.2:8080"),
            edge("edge-b", "http://127.0.0.3:8080"),
        ],
    }
}

/// Settings on free ports, without a control plane that answers.
pub fn settings(dir: &Path, origin: &str) -> Settings {
    Settings {
        listen: vec!["http://127.0.0.1:0".into(), "https://127.0.0.1:0".into()],
        origin: vec![origin.to_owned()],
        control_plane: Some("http://127.0.0.1:9".into()),
        id: Some("edge-a".into()),
        data_dir: Some(dir.to_owned()),
        memory: Some(ByteSize(64 << 20)),
        ssd: Some(ByteSize(0)),
        planned: Some(ByteSize(1 << 30)),
        admin: Some("127.0.0.1:0".into()),
        // Stories count what the origin is asked.
        prefetch_segments: Some(0),
        announce: Some(dir.join("announced.json")),
        ..Settings::default()
    }
}

impl Edge {
    /// Starts an edge and waits until it serves.
    pub async fn start(settings: Settings) -> Self {
        Self::start_with(settings, Limits::default()).await
    }

    /// Starts one that does less at a time.
    pub async fn start_with(settings: Settings, limits: Limits) -> Self {
        let dir = settings.data_dir.clone().unwrap();
        let announced = settings.announce.clone().unwrap();
        let _ = std::fs::remove_file(&announced);
        let shutdown = Shutdown::new();
        let config = Config { limits, ..Config::check(settings).unwrap() };
        let task = tokio::spawn(nearcast_edge::run(config, shutdown.clone()));
        let announced = until("the announcement", || async {
            assert!(!task.is_finished(), "the edge did not start");
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&announced).ok()?).ok()
        })
        .await;
        let url = |scheme: &str| {
            let urls = announced["urls"].as_array().unwrap().iter();
            let mut urls = urls.map(|url| url.as_str().unwrap().to_owned());
            urls.find(|url| url.starts_with(&format!("{scheme}:"))).unwrap_or_default()
        };
        Self {
            dir,
            http: url("http"),
            https: url("https"),
            admin: announced["admin"].as_str().unwrap().to_owned(),
            peer: announced["peer_urls"][0].as_str().unwrap_or_default().to_owned(),
            shutdown,
            task,
        }
    }

    /// Drains it and waits for its end.
    pub async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it without a drain: its task is dropped where it stands.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits until its one disk is in use (1) or known to be out of use (0).
    pub async fn ssd_is(&self, up: f64) {
        until("the disk's state", || async {
            let text = get(&format!("{}/metrics", self.admin), &[]).await.text();
            let line = text.lines().find_map(|line| line.strip_prefix("nearcast_edge_ssd_up{"))?;
            let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
            let troubles = |line: &&str| line.starts_with("nearcast_edge_ssd_troubles_total{");
            let troubled = text.lines().filter(troubles).any(|line| !line.ends_with(" 0"));
            (value == up && (up > 0.0 || troubled)).then_some(())
        })
        .await;
    }

    /// Waits until the disk at this folder is in use (1), or was found out of use (0).
    pub async fn disk_is(&self, dir: &Path, up: f64) {
        let disk = dir.display();
        let in_use = format!("nearcast_edge_ssd_up{{disk=\"{disk}\"}}");
        let troubles = format!("nearcast_edge_ssd_troubles_total{{disk=\"{disk}\",");
        until("the disk's state", || async {
            let text = get(&format!("{}/metrics", self.admin), &[]).await.text();
            let line = text.lines().find_map(|line| line.strip_prefix(&in_use))?;
            let mut lines = text.lines().filter(|line| line.starts_with(&troubles));
            let troubled = lines.any(|line| !line.ends_with(" 0"));
            (line.trim().parse() == Ok(up) && (up > 0.0 || troubled)).then_some(())
        })
        .await;
    }

    /// Purges by its admin port, as `docs/purge.md` says.
    pub async fn purge(&self, what: &serde_json::Value) -> PurgeDone {
        let admin = Client::new(DEADLINE, None, None).unwrap();
        admin.post_json(&format!("{}/v1/purge", self.admin), what).await.unwrap()
    }

    /// The value of a metric line, 0 if there is none.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = get(&format!("{}/metrics", self.admin), &[]).await.text();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0.0)
    }
}

/// An origin with a film, an edge before it, and a token for the film.
pub struct Stage {
    pub dir: TempDir,
    pub origin: Origin,
    pub film: Film,
    pub signer: token::Signer,
    pub edge: Edge,
    pub token: String,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    pub async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::of(film(), change).await
    }

    pub async fn of(film: Film, change: impl FnOnce(Settings) -> Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = token::Signer::generate().unwrap();
        keep_view(dir.path(), &view(&signer));
        let origin = Origin::start(&film).await;
        let edge = Edge::start(change(settings(dir.path(), &origin.url))).await;
        let token = token(&signer, "film");
        Self { dir, origin, film, signer, edge, token }
    }

    /// URL of something of the film, over plain HTTP.
    pub fn url(&self, resource: &str) -> String {
        self.url_at(&self.edge.http, resource)
    }

    pub fn url_at(&self, base: &str, resource: &str) -> String {
        format!("{base}/~{}/t/film/{}/{resource}", self.token, self.film.version)
    }

    pub async fn get(&self, resource: &str) -> Answer {
        get(&self.url(resource), &[]).await
    }
}
