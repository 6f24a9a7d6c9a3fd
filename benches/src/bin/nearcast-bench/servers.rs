//! A server under test: its process, where it listens, and how a hit of its cache is told.

use crate::cases::Case;
use crate::planned::Title;
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

/// What all servers are started with.
pub struct World {
    /// For data, configuration, logs; gone at the end.
    pub dir: PathBuf,
    pub origin: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The core of every server.
    pub core: usize,
    /// The core of all else.
    pub client_core: usize,
    /// OpenSSL's name of the one cipher.
    pub cipher: &'static str,
    /// Directives added to nginx's server, to try settings.
    pub nginx: String,
    /// Where peers were installed.
    pub peers: PathBuf,
}

/// A process with all that it started, which are in a group of their own. It ends when dropped.
pub struct Process(Child);

impl Process {
    fn end(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A running server; it ends when dropped.
pub struct Running {
    /// As in the table, with its version.
    pub name: String,
    process: Process,
    /// Threads that serve connections, each with a core of its own.
    pub shards: usize,
    /// What it needs beside it.
    pub others: Vec<Process>,
    /// Of plain HTTP/1.1.
    pub http: u16,
    /// Of all else.
    pub https: u16,
    /// What it speaks.
    pub cases: Vec<Case>,
    /// A response field that says where the bytes come from, and what it must contain.
    pub hit: (&'static str, &'static str),
    /// The objects are segments of this title.
    pub titles: Option<Title>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("a free port")?.local_addr()?.port())
}

impl World {
    /// A new folder for one server, of several of a name one each.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        for number in 1.. {
            let dir = self.dir.join(format!("{name}-{number}"));
            match std::fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| dir.display().to_string()),
            }
        }
        unreachable!("a folder has a number")
    }

    /// The cores for so many threads, as taskset takes them: those of the servers first, the
    /// client's last.
    fn cores(&self, count: usize) -> String {
        let known = std::thread::available_parallelism().map_or(1, usize::from);
        let mut cores = vec![self.core];
        cores.extend((0..known).filter(|core| ![self.core, self.client_core].contains(core)));
        cores.push(self.client_core);
        let words: Vec<String> = cores.iter().take(count).map(usize::to_string).collect();
        words.join(",")
    }

    /// Starts `command` on the servers' core and waits until it listens.
    pub fn start(&self, command: Start<'_>) -> Result<Running> {
        let ports = match command.cases.as_slice() {
            [Case::H1] => vec![command.http],
            _ => vec![command.http, command.https],
        };
        let cores = self.cores(command.shards);
        let mut all = vec!["taskset".into(), "-c".into(), cores];
        all.extend(command.arguments);
        let process = spawn(&command.name, command.dir, &all, &command.envs, &ports)?;
        Ok(Running {
            name: command.name,
            process,
            shards: command.shards,
            others: Vec::new(),
            http: command.http,
            https: command.https,
            cases: command.cases,
            hit: command.hit,
            titles: None,
        })
    }
}

/// Starts a program, its log in `dir`, and waits until it listens on all of `ports`.
pub fn spawn(
    name: &str,
    dir: &Path,
    arguments: &[String],
    envs: &[(String, String)],
    ports: &[u16],
) -> Result<Process> {
    let log = dir.join("log");
    let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut all = Command::new(&arguments[0]);
    all.args(&arguments[1..]).envs(envs.iter().cloned());
    all.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // Its workers with it, so that all can be ended together.
    std::os::unix::process::CommandExt::process_group(&mut all, 0);
    let mut process = Process(all.spawn().with_context(|| arguments[0].clone())?);
    let deadline = Instant::now() + START_MAX;
    for port in ports {
        while TcpStream::connect(("127.0.0.1", *port)).is_err() {
            let ended = process.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                process.end();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{name} does not listen on port {port}:\n{text}");
            }
            std::thread::sleep(POLL_PERIOD);
        }
    }
    Ok(process)
}

/// What [`World::start`] starts.
pub struct Start<'a> {
    pub name: String,
    pub dir: &'a Path,
    pub shards: usize,
    pub arguments: Vec<String>,
    pub envs: Vec<(String, String)>,
    pub http: u16,
    pub https: u16,
    pub cases: Vec<Case>,
    pub hit: (&'static str, &'static str),
}
