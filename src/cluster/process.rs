//! One nearcast server as a process: started, signalled, stopped, started again where it was.

use super::{POLL, UP_WITHIN};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, ChildStdin, Command};

pub use rustix::process::Signal;

/// A server that has not drained by then is killed, and that is an error.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How much of a log is shown when a part does not come up, in lines.
const LOG_LINES: usize = 12;

/// What a server says once it listens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Announced {
    /// Its admin port.
    pub admin: String,
    /// Where it serves.
    pub urls: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    /// `edge-a`.
    pub name: String,
    /// Where it listens.
    pub announced: Announced,
    binary: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
    child: Child,
    /// Its standard input: it ends in order when this end is gone, whatever ended us.
    /// Held apart from `child`, which would close it before it waits.
    leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `nearcast` with `arguments` and waits until it has announced where it listens.
    /// Its log is `{dir}/{name}.log`.
    ///
    /// # Errors
    /// When it ends or does not announce itself in time, with the end of its log.
    pub async fn start(
        binary: &Path,
        dir: &Path,
        name: &str,
        arguments: Vec<String>,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let announce = dir.join(format!("{name}.announce"));
        let mut child = spawn(binary, dir, name, &arguments, &announce)?;
        let mut process = Self {
            name: name.to_owned(),
            announced: Announced::default(),
            binary: binary.to_owned(),
            arguments,
            dir: dir.to_owned(),
            leash: child.stdin.take(),
            child,
        };
        process.announced = process.await_announcement(&announce).await?;
        Ok(process)
    }

    async fn await_announcement(&mut self, announce: &Path) -> Result<Announced> {
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read(announce) {
                return Ok(serde_json::from_slice(&text)?);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once with {status}:\n{}", self.name, self.log_end());
            }
            if started.elapsed() > UP_WITHIN {
                bail!("{} is not up after {UP_WITHIN:?}:\n{}", self.name, self.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Where it logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Its process id; none once it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The first URL that it serves at.
    ///
    /// # Errors
    /// When it announced none.
    pub fn url(&self) -> Result<&str> {
        let url = self.announced.urls.first();
        Ok(url.with_context(|| format!("{} announced no URL", self.name))?)
    }

    /// Sends a signal; false if the process has ended.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// Asks it to end, as a service manager does, and waits until it has drained.
    ///
    /// # Errors
    /// When it does not end in time, or not with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_by(Signal::TERM).await
    }

    /// Asks it to end by another signal than `SIGTERM` (`SIGINT` is Ctrl-C), and waits until it
    /// has drained.
    ///
    /// # Errors
    /// As for [`Process::stop`].
    pub async fn stop_by(&mut self, signal: Signal) -> Result<()> {
        if !self.signal(signal) {
            return Ok(());
        }
        let Ok(status) = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("{} did not end within {STOP_WITHIN:?}:\n{}", self.name, self.log_end());
        };
        let status = status?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system can't.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again after it has ended, with the same data and at the same addresses.
    ///
    /// # Errors
    /// As for [`Process::start`].
    pub async fn restart(&mut self) -> Result<()> {
        let announce = self.dir.join(format!("{}.announce", self.name));
        let arguments = self.at_same_addresses();
        self.child = spawn(&self.binary, &self.dir, &self.name, &arguments, &announce)?;
        self.leash = self.child.stdin.take();
        self.announced = self.await_announcement(&announce).await?;
        Ok(())
    }

    /// The arguments with each free port (`:0`) of a `--listen` replaced by the one it got.
    fn at_same_addresses(&self) -> Vec<String> {
        let got = |wanted: &str| {
            let start = wanted.strip_suffix(":0")?;
            let fits =
                |url: &&String| url.rsplit_once(':').is_some_and(|(host, _)| host.ends_with(start));
            let url = self.announced.urls.iter().find(fits)?;
            Some(format!("{start}:{}", url.rsplit_once(':')?.1))
        };
        let same = |argument: &String| got(argument).unwrap_or_else(|| argument.clone());
        self.arguments.iter().map(same).collect()
    }
}

fn spawn(
    binary: &Path,
    dir: &Path,
    name: &str,
    arguments: &[String],
    announce: &Path,
) -> Result<Child> {
    let _ = std::fs::remove_file(announce);
    let path = dir.join(format!("{name}.log"));
    let log = std::fs::File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| path.display().to_string())?;
    Command::new(binary)
        .args(arguments)
        .args(["--until-stdin-ends", "--admin", "127.0.0.1:0", "--announce"])
        .arg(announce)
        // A Ctrl-C on the terminal is for whoever started this: the parts are told in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| binary.display().to_string())
}
