//! A server under test: its process, where it listens, and how a hit of its cache is told.

use crate::cases::{Case, Source};
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a server may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// What a cache may keep: all objects of all sizes, and misses.
pub const CACHE_MIB: u64 = 1024;
/// What nearcast may keep in memory where hits shall come from disk.
pub const SMALL_MEMORY_MIB: u64 = 16;

/// What all servers are started with.
pub struct World {
    /// For data, configuration, logs; gone at the end.
    pub dir: PathBuf,
    pub origin: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The core of every server.
    pub core: usize,
    /// OpenSSL's name of the one cipher.
    pub cipher: &'static str,
    /// Directives added to nginx's server, to try settings.
    pub nginx: String,
    /// Where peers were installed.
    pub peers: PathBuf,
}

/// A running server; it ends when dropped.
pub struct Running {
    /// As in the table, with its version.
    pub name: String,
    child: Child,
    /// Of plain HTTP/1.1.
    pub http: u16,
    /// Of all else.
    pub https: u16,
    /// What it speaks.
    pub cases: Vec<Case>,
    /// A response field that says where the bytes come from, and what it must contain.
    pub hit: (&'static str, &'static str),
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with all it started, which are in a group of their own.
    fn end(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("a free port")?.local_addr()?.port())
}

impl World {
    /// A folder for one server.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    /// Starts `command` on the servers' core and waits until it listens.
    pub fn start(&self, command: Start<'_>) -> Result<Running> {
        let log = command.dir.join("log");
        let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        let core = self.core.to_string();
        let mut all = Command::new("taskset");
        all.args(["-c", &core]).args(&command.arguments).envs(command.envs.iter().cloned());
        all.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Its workers with it, so that all can be ended together.
        std::os::unix::process::CommandExt::process_group(&mut all, 0);
        let child = all.spawn().context("taskset (package util-linux)")?;
        let mut running = Running {
            name: command.name.clone(),
            child,
            http: command.http,
            https: command.https,
            cases: command.cases,
            hit: command.hit,
        };
        let deadline = Instant::now() + START_MAX;
        for port in [command.http, command.https] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = running.child.try_wait()?;
                if ended.is_some() || Instant::now() > deadline {
                    running.end();
                    let text = std::fs::read_to_string(&log).unwrap_or_default();
                    bail!("{} does not listen on port {port}:\n{text}", command.name);
                }
                std::thread::sleep(POLL_PERIOD);
            }
        }
        Ok(running)
    }
}

/// What [`World::start`] starts.
pub struct Start<'a> {
    pub name: String,
    pub dir: &'a Path,
    pub arguments: Vec<String>,
    pub envs: Vec<(String, String)>,
    pub http: u16,
    pub https: u16,
    pub cases: Vec<Case>,
    pub hit: (&'static str, &'static str),
}

/// nearcast, this binary of it.
pub fn nearcast(
    world: &World,
    name: &str,
    binary: &Path,
    envs: &[(String, String)],
    source: Source,
) -> Result<Running> {
    let dir = world.folder(&format!("{name}-{}", source.name()))?;
    let (http, https, admin) = (free_port()?, free_port()?, free_port()?);
    let (memory, ssd) = match source {
        Source::Memory => (CACHE_MIB, 0),
        Source::Ssd => (SMALL_MEMORY_MIB, CACHE_MIB),
        Source::Miss | Source::Planned => (CACHE_MIB / 2, CACHE_MIB / 2),
    };
    let text = |path: &Path| path.display().to_string();
    let arguments = vec![
        text(binary),
        "--log-level".into(),
        "warn".into(),
        "edge".into(),
        format!("--origin=http://{}", world.origin),
        format!("--listen=http://127.0.0.1:{http}"),
        format!("--listen=https://127.0.0.1:{https}"),
        format!("--admin=127.0.0.1:{admin}"),
        format!("--data-dir={}", text(&dir.join("data"))),
        format!("--memory={memory}MiB"),
        format!("--ssd={ssd}MiB"),
        format!("--cert={}", text(&world.cert)),
        format!("--key={}", text(&world.key)),
    ];
    let wanted = if source == Source::Ssd { "hit-ssd" } else { "hit-memory" };
    world.start(Start {
        name: name.to_owned(),
        dir: &dir,
        arguments,
        envs: envs.to_vec(),
        http,
        https,
        cases: Case::ALL.to_vec(),
        hit: ("cache-status", wanted),
    })
}
