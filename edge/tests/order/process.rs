//! The edge of a history: a process of its own, so that it can be killed with all that it does
//! at that moment, and started anew over what it left. It is this very test that runs once more
//! and is told to be an edge.

use super::HOST;
use super::connection::Trust;
use crate::common::{DEADLINE, get, settings, until};
use nearcast_edge::{Config, Settings};
use serde::{Deserialize, Serialize};
use service::Shutdown;
use service::value::ByteSize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use upstream::hierarchy::{self, Peer};

/// Holds a [`Role`], for the process that is to play it.
const ROLE: &str = "NEARCAST_ORDER_EDGE";
/// The test that plays it.
const PLAYER: &str = "whatever_comes_in_whatever_order_an_answer_is_of_one_version";
const MEMORY: ByteSize = ByteSize(16 << 20);

/// What differs between edges.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    pub id: String,
    pub dir: PathBuf,
    pub origin: String,
    /// Bytes of the reactive SSD tier; 0 for none.
    pub ssd: u64,
    pub ssd_direct: bool,
    /// Where other nodes reach it, if anywhere.
    pub peer_listen: Option<String>,
    /// Others by id and URL.
    pub siblings: Vec<(String, String)>,
    pub parents: Vec<(String, String)>,
}

fn peers(named: &[(String, String)]) -> Vec<Peer> {
    named.iter().cloned().map(|(id, url)| Peer { id, url }).collect()
}

impl Role {
    /// One without an SSD that knows no others.
    pub fn alone(id: &str, dir: &Path, origin: &str) -> Self {
        Self {
            id: id.to_owned(),
            dir: dir.to_owned(),
            origin: origin.to_owned(),
            ssd: 0,
            ssd_direct: false,
            peer_listen: None,
            siblings: Vec::new(),
            parents: Vec::new(),
        }
    }

    /// That of this process, if it has one.
    pub fn own() -> Option<Self> {
        let text = std::env::var(ROLE).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn settings(&self) -> Settings {
        Settings {
            id: Some(self.id.clone()),
            peer_listen: self.peer_listen.iter().cloned().collect(),
            hierarchy: hierarchy::Settings {
                siblings: peers(&self.siblings),
                parents: peers(&self.parents),
                // However busy the machine is, who listens is reached.
                connect_timeout: "10s".parse().ok(),
                ..hierarchy::Settings::default()
            },
            control_plane: None,
            memory: Some(MEMORY),
            ssd: Some(ByteSize(self.ssd)),
            ssd_direct: Some(self.ssd_direct),
            ..settings(&self.dir, &self.origin)
        }
    }

    /// Is an edge until told to stop. Ends at once when nobody is left to tell it.
    pub fn play(&self) {
        let shutdown = Shutdown::new();
        let told = shutdown.clone();
        std::thread::spawn(move || match std::io::stdin().read_line(&mut String::new()) {
            Ok(1..) => told.trigger(),
            Ok(0) | Err(_) => std::process::exit(1),
        });
        let config = Config::check(self.settings()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(nearcast_edge::run(config, shutdown)).unwrap();
    }
}

/// Where a process is asked, and whether it still is there.
pub struct Place {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: String,
    pub trust: Trust,
    /// Bytes of each thing that the origin had sent before it started; `None` for the first
    /// process of a history.
    pub sent_before: Option<Vec<u64>>,
    /// It was told to stop, or is being killed.
    is_ending: AtomicBool,
    gone: CancellationToken,
}

impl Place {
    /// Whether it ends, or did: then it need not answer.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Waits until it is no more. Cancel safe.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Whether it has waited for memory in vain; one that ends says nothing of it.
    pub async fn was_full(self: &Arc<Self>) -> bool {
        let own = Arc::clone(self);
        // In a task of its own, which may fail: it may end meanwhile.
        let count = async move { own.metric("nearcast_edge_fetches_without_memory_total ").await };
        tokio::spawn(count).await.is_ok_and(|count| count > 0.0)
    }

    /// The sum of the lines that begin so.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = get(&format!("{}/metrics", self.admin), &[]).await.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.filter_map(|line| line.rsplit([' ', '}']).next()?.parse::<f64>().ok()).sum()
    }
}

/// A running process; dropped, it is killed.
pub struct Process {
    pub place: Arc<Place>,
    child: Child,
}

impl Process {
    /// Starts one, and waits until it listens.
    pub async fn start(role: &Role, sent_before: Option<Vec<u64>>) -> Self {
        let announced = role.dir.join("announced.json");
        let _ = std::fs::remove_file(&announced);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "--exact", PLAYER])
            .env(ROLE, serde_json::to_string(role).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said: serde_json::Value = until("an edge that listens", || async {
            serde_json::from_slice(&std::fs::read(&announced).ok()?).ok()
        })
        .await;
        let urls: Vec<&str> =
            said["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
        let addr = |scheme: &str| {
            urls.iter().find_map(|url| url.strip_prefix(scheme)).unwrap().parse().unwrap()
        };
        let place = Place {
            http: addr("http://"),
            https: addr("https://"),
            admin: said["admin"].as_str().unwrap().to_owned(),
            trust: Trust::new(&role.dir.join("tls/cert.pem")),
            sent_before,
            is_ending: AtomicBool::new(false),
            gone: CancellationToken::new(),
        };
        Self { place: Arc::new(place), child }
    }

    /// Waits until its SSD tier is in use: it serves before that.
    pub async fn ssd_is_up(&self) {
        until("the SSD tier", || async {
            (self.place.metric("nearcast_edge_ssd_up{").await > 0.0).then_some(())
        })
        .await;
    }

    /// Lets it drain and end; until then `meanwhile` is called every few milliseconds, since it
    /// waits for who is being answered.
    pub async fn stop(mut self, meanwhile: impl Fn()) {
        self.place.is_ending.store(true, Ordering::SeqCst);
        self.child.stdin.take().unwrap().write_all(b"stop\n").await.unwrap();
        let started = Instant::now();
        let status = loop {
            meanwhile();
            match tokio::time::timeout(super::TICK, self.child.wait()).await {
                Ok(status) => break status.unwrap(),
                Err(_) => assert!(started.elapsed() < DEADLINE, "an edge that does not end"),
            }
        };
        assert!(status.success(), "an edge ended with {status}");
        self.place.gone.cancel();
    }

    /// Ends it as a loss of power does, but that the kernel keeps what it was given.
    pub async fn kill(mut self) {
        self.place.is_ending.store(true, Ordering::SeqCst);
        self.child.kill().await.unwrap();
        self.place.gone.cancel();
    }
}

/// The URL of a thing, whichever process is asked for it.
pub fn url(number: usize) -> String {
    format!("http://{HOST}/{number}")
}
