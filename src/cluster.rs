//! A whole nearcast on one machine: origin, control plane and two edges, each a process of
//! its own, on free ports of loopback addresses, with embedded stores in one folder.

mod process;
mod title;

pub use process::{Announced, Process, Signal};
pub use title::{StoredTitle, Verdict};

use anyhow::{Context, Result, bail};
use model::api::{Overview, Playback, PlaybackRequest};
use serde_json::json;
use service::client::Client;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The profile that a new cluster can play as.
pub const PROFILE: &str = "viewer";
/// A part that has not come up by then has failed.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);
/// A control call takes this long at most.
const CALL_MAX: Duration = Duration::from_secs(10);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The nearcast binary.
    pub binary: PathBuf,
    /// Where its data lies; kept by whoever made it.
    pub dir: PathBuf,
    /// The store's URL; `None`: a folder within `dir`.
    pub store: Option<String>,
    /// Budget of each edge's planned tier, such as `64MiB`.
    pub planned: String,
    /// Each edge's id and address.
    pub edges: Vec<(String, String)>,
}

impl Options {
    /// Two edges, on 127.0.0.2 and 127.0.0.3, and a store in a folder.
    #[must_use]
    pub fn new(binary: &Path, dir: &Path) -> Self {
        let edge = |id: &str, ip: &str| (id.to_owned(), ip.to_owned());
        Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            store: None,
            planned: "256MiB".to_owned(),
            edges: vec![edge("edge-a", "127.0.0.2"), edge("edge-b", "127.0.0.3")],
        }
    }

    /// The store's URL.
    #[must_use]
    pub fn store_url(&self) -> String {
        let folder = || format!("dir:{}", self.dir.join("store").display());
        self.store.clone().unwrap_or_else(folder)
    }
}

/// A running cluster. Its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    /// The origin server.
    pub origin: Process,
    /// The control plane.
    pub control_plane: Process,
    /// The edges, in the order of the options.
    pub edges: Vec<Process>,
    /// Calls the control plane as its operator.
    pub operator: Operator,
    options: Options,
}

/// The control plane's API, with the operator's credential.
#[derive(Clone)]
pub struct Operator {
    url: String,
    key: String,
    client: Client,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts every part and waits until the control plane hears each edge and a profile can
    /// play.
    ///
    /// # Errors
    /// Names the part that did not come up, with the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let store = options.store_url();
        let binary = &options.binary;
        let origin = Process::start(binary, &options.dir, "origin", origin_args(&store)).await?;
        let data = options.dir.join("control-plane");
        let arguments = control_plane_args(&store, &data);
        let control_plane =
            Process::start(binary, &options.dir, "control-plane", arguments).await?;
        let mut edges: Vec<Process> = Vec::new();
        for (id, ip) in &options.edges {
            // Players are steered from one edge to another by host alone: all use the ports
            // that the first one got.
            let ports = edges.first().and_then(ports).unwrap_or((0, 0));
            let urls = (origin.url()?, control_plane.url()?);
            let arguments = edge_args(&options, id, ip, ports, urls);
            edges.push(Process::start(binary, &options.dir, id, arguments).await?);
        }
        let operator = Operator::new(control_plane.url()?, &data)?;
        let cluster = Self { origin, control_plane, edges, operator, options };
        cluster.operator.make_profile().await?;
        let fleet = cluster.edges.len();
        cluster.wait("every edge to be heard", async |overview| healthy(overview) == fleet).await?;
        Ok(cluster)
    }

    /// Waits until `done` is true of the console's overview.
    ///
    /// # Errors
    /// When it is not within half a minute.
    pub async fn wait(
        &self,
        what: &str,
        done: impl AsyncFn(&Overview) -> bool,
    ) -> Result<Overview> {
        let started = Instant::now();
        loop {
            let overview = self.operator.overview().await;
            if let Ok(overview) = &overview
                && done(overview).await
            {
                return Ok(overview.clone());
            }
            if started.elapsed() > UP_WITHIN {
                bail!("waited {UP_WITHIN:?} for {what}; last seen: {overview:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs the nearcast command with `arguments` to its end.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        run(&self.options.binary, arguments).await
    }

    /// The folder with the cluster's data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// File that holds the operator's credential.
    #[must_use]
    pub fn operator_file(&self) -> PathBuf {
        self.options.dir.join("control-plane/credentials/operator")
    }

    /// The certificates that the edges generated, as PEM.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>> {
        let read = |(id, _): &(String, String)| {
            let path = self.options.dir.join(id).join("tls/cert.pem");
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        self.options.edges.iter().map(read).collect()
    }

    /// The process of the edge that listens at `host` (`127.0.0.2:8080`).
    pub fn edge_at(&mut self, host: &str) -> Option<&mut Process> {
        let at = |edge: &Process| edge.announced.urls.iter().any(|url| url.ends_with(host));
        self.edges.iter_mut().find(|edge| at(edge))
    }

    /// Ends every part in order: edges first.
    ///
    /// # Errors
    /// When one does not end by itself, or not with success.
    pub async fn stop(self) -> Result<()> {
        let mut parts = self.edges;
        parts.push(self.control_plane);
        parts.push(self.origin);
        let mut outcome = Ok(());
        for mut part in parts {
            // One that fails to end must not keep the others from ending in order.
            let stopped = part.stop().await;
            outcome = outcome.and(stopped);
        }
        outcome
    }
}

fn healthy(overview: &Overview) -> usize {
    overview.edges.iter().filter(|edge| edge.state.healthy).count()
}

impl Operator {
    fn new(url: &str, data: &Path) -> Result<Self> {
        let path = data.join("credentials/operator");
        let key = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let key = key.trim().to_owned();
        let client = Client::new(CALL_MAX, Some(key.clone()), None)?;
        Ok(Self { url: url.to_owned(), key, client })
    }

    /// The console's address, with the credential in its fragment.
    #[must_use]
    pub fn console(&self) -> String {
        format!("{}/#key={}", self.url, self.key)
    }

    /// Base URL of the control plane.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The operator's credential.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Asks to play a title.
    ///
    /// # Errors
    /// A refusal, or whatever else the control plane answers.
    pub async fn playback(&self, title: &str) -> Result<Playback> {
        let request = PlaybackRequest {
            title: title.parse()?,
            profile: PROFILE.to_owned(),
            device: "nearcast-cluster".to_owned(),
        };
        let url = format!("{}/v1/playback", self.url);
        let asked = Instant::now();
        loop {
            match self.client.post_json(&url, &request).await {
                // No edge was heard just now: "come back", as Retry-After says.
                Err(service::client::Error::Status { status, .. })
                    if status.as_u16() == 503 && asked.elapsed() < UP_WITHIN =>
                {
                    tokio::time::sleep(POLL).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// What the console shows.
    ///
    /// # Errors
    /// When the control plane can't be asked.
    pub async fn overview(&self) -> Result<Overview> {
        Ok(self.client.get_json(&format!("{}/v1/overview", self.url)).await?)
    }

    /// Puts a JSON body to a path of the API.
    ///
    /// # Errors
    /// When the control plane refuses it.
    pub async fn put(&self, path: &str, body: &serde_json::Value) -> Result<()> {
        let url = format!("{}{path}", self.url);
        Ok(self.client.send_json("PUT".parse()?, &url, body).await?)
    }

    /// Posts a JSON body to a path of the API.
    ///
    /// # Errors
    /// When the control plane refuses it.
    pub async fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<()> {
        let url = format!("{}{path}", self.url);
        Ok(self.client.send_json("POST".parse()?, &url, body).await?)
    }

    async fn make_profile(&self) -> Result<()> {
        self.put("/v1/accounts/demo", &json!({"active": true})).await?;
        self.put(&format!("/v1/profiles/{PROFILE}"), &json!({"account": "demo"})).await
    }
}

/// Runs `binary` with `arguments` to its end and returns what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub async fn run(binary: &Path, arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(binary)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| binary.display().to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("nearcast {} ended with {}: {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

fn origin_args(store: &str) -> Vec<String> {
    words(&["origin", "--store", store, "--listen", "127.0.0.1:0"])
}

fn control_plane_args(store: &str, data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let list = ["control-plane", "--store", store, "--data-dir", &data, "--listen", "127.0.0.1:0"];
    words(&list)
}

/// The ports of an edge's plain and TLS listeners.
fn ports(edge: &Process) -> Option<(u16, u16)> {
    let port = |scheme: &str| {
        let url = edge.announced.urls.iter().find(|url| url.starts_with(scheme))?;
        url.rsplit_once(':')?.1.parse().ok()
    };
    Some((port("http:")?, port("https:")?))
}

fn edge_args(
    options: &Options,
    id: &str,
    ip: &str,
    ports: (u16, u16),
    (origin, control): (&str, &str),
) -> Vec<String> {
    let secret = options.dir.join("control-plane/credentials/edge").display().to_string();
    let data = options.dir.join(id).display().to_string();
    let (plain, tls) = (format!("http://{ip}:{}", ports.0), format!("https://{ip}:{}", ports.1));
    words(&[
        "edge",
        "--id",
        id,
        "--listen",
        &plain,
        "--listen",
        &tls,
        "--origin",
        origin,
        "--control-plane",
        control,
        "--join-secret-file",
        &secret,
        "--data-dir",
        &data,
        "--memory",
        "64MiB",
        "--ssd",
        "256MiB",
        "--planned",
        &options.planned,
    ])
}
