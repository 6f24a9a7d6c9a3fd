//! The one command: subcommands, configuration and logs. What they do lives in the crates
//! beside this one.

mod demo;
mod edges;
mod explain;
mod purge;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use service::config::{self, ConfigError};
use service::{Shutdown, log};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// An SSD hit takes buffers of a MiB and gives them back, which glibc answers with fresh pages
/// each time (docs/decisions/0007).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An Open Connect-style CDN for video.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:
  nearcast ingest --store dir:store --title big-film --name 'Big Film' 1080p.mp4 360p.mp4 en.mp4
  nearcast origin --store dir:store
  nearcast control-plane --store dir:store
  nearcast edge --origin http://127.0.0.1:7090 --control-plane http://127.0.0.1:7080 \\
      --join-secret-file control-plane-data/credentials/edge
  nearcast demo"
)]
struct Cli {
    /// Configuration file (TOML); flags and NEARCAST_ variables go before it
    #[arg(
        long,
        global = true,
        env = "NEARCAST_CONFIG",
        value_name = "FILE",
        help_heading = "Every command"
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogSettings,
    /// End in order when standard input ends: for a parent that must not leave orphans
    #[arg(long, global = true, hide = true)]
    until_stdin_ends: bool,
    #[command(subcommand)]
    command: Command,
}

/// What is logged unless told otherwise: these libraries speak of their own affairs at `info`.
const LOG_LEVEL: &str =
    "info,object_store=warn,foyer=warn,foyer_common=warn,foyer_memory=warn,foyer_storage=warn";

/// How to log.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct LogSettings {
    /// How log lines look [default: human on a terminal, JSON otherwise]
    #[arg(
        long,
        global = true,
        env = "NEARCAST_LOG_FORMAT",
        value_enum,
        help_heading = "Every command"
    )]
    log_format: Option<log::Format>,
    /// error, warn, info, debug, trace, or target=level,... [default: info; warn for libraries]
    #[arg(long, global = true, env = "NEARCAST_LOG_LEVEL", help_heading = "Every command")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn media files into a published title
    #[command(after_help = "Examples:
  nearcast ingest --store dir:store --title big-film --name 'Big Film' 1080p.mp4 360p.mp4 en.mp4 subs.en.vtt
  nearcast ingest --store s3://films/catalog --title big-film --name 'Big Film' --ladder master.mov")]
    Ingest(origin::ingest::Settings),
    /// Serve titles from the store to edges
    #[command(after_help = "Example:
  nearcast origin --store dir:store --listen 127.0.0.1:7090")]
    Origin(origin::serve::Settings),
    /// Serve players: titles of a control plane, or any HTTP or S3 origin behind a cache
    #[command(after_help = "Examples:
  nearcast edge --origin http://127.0.0.1:8000 --listen http://127.0.0.1:8080 --listen https://127.0.0.1:8443
  nearcast edge --origin s3://films
  nearcast edge --id edge-a --origin http://127.0.0.1:7090 --control-plane http://127.0.0.1:7080 \\
      --join-secret-file control-plane-data/credentials/edge \\
      --listen http://127.0.0.2:8080 --listen https://127.0.0.2:8443")]
    Edge(Box<edge::Settings>),
    /// Decide who may play, and from where; serve the console
    #[command(after_help = "Example:
  nearcast control-plane --store dir:store --data-dir control-plane-data --listen 127.0.0.1:7080")]
    ControlPlane(control_plane::Settings),
    /// Plan what edges hold tomorrow (for cron)
    #[command(after_help = "Example (crontab, every night at 01:10):
  10 1 * * *  nearcast plan run --control-plane http://127.0.0.1:7080 --credential-file /etc/nearcast/operator")]
    Plan(fill_planner::Settings),
    /// End what edges have stored: one URL, a prefix, a tag, or everything
    #[command(after_help = "Examples:
  nearcast purge http://films.example/poster.jpg
  nearcast purge --prefix http://films.example/season-1/ --soft
  nearcast purge --tag season-1 --admin http://10.0.0.1:8081 --admin http://10.0.0.2:8081
  nearcast purge --all --reason 'new packager'")]
    Purge(purge::Settings),
    /// Ask edges why they answer a URL as they do: key, freshness, purges, where its chunks are
    #[command(after_help = "Example:
  nearcast explain http://films.example/film.mp4")]
    Explain(explain::Settings),
    /// Run all of it on this machine with the sample titles
    #[command(after_help = "Examples:
  nearcast demo                  prints the address of the console
  nearcast demo --check          plays everything, kills edges, compares every byte")]
    Demo(demo::Settings),
    /// Look at a configuration file
    #[command(after_help = "Example:
  nearcast config check nearcast.toml")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a file: every key and every value
    #[command(after_help = "Example:
  nearcast config check nearcast.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
}

/// The configuration file: a table for each command.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    log: LogSettings,
    ingest: Option<origin::ingest::Settings>,
    origin: Option<origin::serve::Settings>,
    edge: Option<edge::Settings>,
    control_plane: Option<control_plane::Settings>,
    plan: Option<fill_planner::Settings>,
}

/// Threads that block are waited for so long at the end.
const THREADS_END_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli));
            // A thread that waits for a disk that hangs must not keep the process.
            runtime.shutdown_timeout(THREADS_END_MAX);
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error takes nothing, the status says it.
            let _ = writeln!(std::io::stderr(), "nearcast: {}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: some errors already name their cause.
fn explained(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(colon);
            text.push_str(&cause);
        }
    }
    text
}

async fn run(cli: Cli) -> Result<()> {
    if let Command::Config { command: ConfigCommand::Check { file } } = &cli.command {
        check(file)?;
        service::print(format_args!("{}: all keys and values are valid\n", file.display()))?;
        return Ok(());
    }
    let file: File = cli.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    let format = cli.log.log_format.or(file.log.log_format).unwrap_or_default();
    let level = cli.log.log_level.or(file.log.log_level).unwrap_or_else(|| LOG_LEVEL.to_owned());
    let _log = log::start(format, &level)
        .map_err(|reason| ConfigError::value("log.log-level", &level, reason))?;
    let shutdown = Shutdown::on_signals().context("signals")?;
    if cli.until_stdin_ends {
        end_with_stdin(shutdown.clone());
    }
    match cli.command {
        Command::Ingest(flags) => {
            let settings = flags.over(file.ingest.unwrap_or_default());
            origin::ingest::run(origin::ingest::Config::check(settings)?, shutdown).await?;
        }
        Command::Origin(flags) => {
            let settings = flags.over(file.origin.unwrap_or_default());
            origin::serve::run(origin::serve::Config::check(settings)?, shutdown).await?;
        }
        Command::Edge(flags) => {
            let settings = flags.over(file.edge.unwrap_or_default());
            edge::run(edge::Config::check(settings)?, shutdown).await?;
        }
        Command::ControlPlane(flags) => {
            let settings = flags.over(file.control_plane.unwrap_or_default());
            control_plane::run(control_plane::Config::check(settings)?, shutdown).await?;
        }
        Command::Plan(flags) => {
            let settings = flags.over(file.plan.unwrap_or_default());
            fill_planner::run(fill_planner::Config::check(settings)?, shutdown).await?;
        }
        Command::Purge(settings) => purge::run(settings).await?,
        Command::Explain(settings) => explain::run(settings).await?,
        Command::Demo(settings) => Box::pin(demo::run(settings, shutdown)).await?,
        Command::Config { .. } => {}
    }
    Ok(())
}

/// Requests shutdown once standard input ends, as it does when the process that holds its
/// other end is gone, however it went. A thread of its own: such a read can't be cancelled.
fn end_with_stdin(shutdown: Shutdown) {
    std::thread::spawn(move || {
        // What comes is of no interest, nor is an error: both ways it has ended.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        shutdown.trigger();
    });
}

/// Checks a file as each command would that reads it.
fn check(path: &Path) -> Result<()> {
    let text = config::read(path)?;
    let file = config::parse(path, &text)?;
    let told = |mistake: ConfigError| match mistake.placed(path, &text) {
        placed @ ConfigError::File { .. } => placed.into(),
        mistake => anyhow::Error::from(mistake).context(path.display().to_string()),
    };
    check_tables(path, file).map_err(|mistakes| {
        let told = mistakes.each().into_iter().map(|mistake| explained(&told(mistake)));
        anyhow::Error::msg(told.collect::<Vec<_>>().join("\n"))
    })
}

/// Every table, so that each mistake is told.
fn check_tables(path: &Path, file: File) -> Result<(), ConfigError> {
    let level = file.log.log_level.as_deref().unwrap_or(LOG_LEVEL);
    let level = log::check(level).map_err(|why| ConfigError::value("log.log-level", level, why));
    let ingest = file.ingest.iter().flat_map(|settings| {
        let store = check_store("ingest.store", settings.store.as_deref());
        [store, origin::ingest::Config::check_table(settings).map(drop)]
    });
    let origin = file.origin.into_iter().flat_map(|settings| {
        let store = check_store("origin.store", settings.store.as_deref());
        [store, checked(origin::serve::Config::check(settings))]
    });
    let edge = file.edge.into_iter().map(|settings| {
        let config = edge::Config::check(settings);
        let notes = config.as_ref().map(edge::Config::notes).unwrap_or_default();
        notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
        checked(config)
    });
    let control_plane = file.control_plane.into_iter().flat_map(|settings| {
        let store = check_store("control-plane.store", settings.store.as_deref());
        [store, checked(control_plane::Config::check(settings))]
    });
    let plan = file.plan.into_iter().map(|settings| checked(fill_planner::Config::check(settings)));
    let tables = ingest.chain(origin).chain(edge).chain(control_plane).chain(plan);
    config::all([level.map(drop)].into_iter().chain(tables)).map(drop)
}

/// The URL of a store, without touching the store.
fn check_store(key: &str, url: Option<&str>) -> Result<(), ConfigError> {
    let Some(url) = url else { return Ok(()) };
    let expected = "dir:PATH or s3://bucket/prefix";
    store::Store::open(url).map(|_| ()).map_err(|_| ConfigError::value(key, url, expected))
}

/// A file that is named but not there yet is no mistake: the control plane makes the
/// credentials at its first start.
fn checked<T>(outcome: Result<T, ConfigError>) -> Result<(), ConfigError> {
    match outcome {
        Err(ConfigError::Read { path, source })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            eprintln!(
                "{}: is not there yet (the control plane makes credentials at its first start)",
                path.display()
            );
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}
