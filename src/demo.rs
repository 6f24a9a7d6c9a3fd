//! `nearcast demo`: the whole of nearcast on this machine, playing the sample titles; with
//! `--check`, the proof that it works.

mod check;
mod report;

use anyhow::{Context, Result, bail};
use clap::Args;
use nearcast::cluster::{self, Cluster, Options};
use serde_json::json;
use service::Shutdown;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Flags of `nearcast demo`.
#[derive(Debug, Args)]
pub struct Settings {
    /// Folder with one folder a sample title: MP4 and WebVTT files
    #[arg(long, default_value = "samples", env = "NEARCAST_DEMO_SAMPLES")]
    samples: PathBuf,
    /// Where its data goes, kept afterwards [default: a temporary folder, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Play everything in every way, kill edges, compare every byte; then end
    #[arg(long)]
    check: bool,
    /// Write where everything listens to this file, as JSON
    #[arg(long)]
    announce: Option<PathBuf>,
}

/// A sample title: its id, and the files it is ingested from.
struct Sample {
    id: String,
    files: Vec<PathBuf>,
}

/// Runs the demo until shutdown is requested, or the check to its end.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<()> {
    let samples = samples(&settings.samples)?;
    let temporary = tempfile::Builder::new().prefix("nearcast-demo-").tempdir()?;
    let dir = settings.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let binary = std::env::current_exe()?;
    let options = Options::new(&binary, &dir);
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    eprintln!("nearcast demo: data in {}", dir.display());
    for sample in &samples {
        ingest(&binary, &options, sample).await?;
    }
    let started = Instant::now();
    let cluster = Cluster::start(options).await?;
    service::announce(settings.announce.as_deref(), &announcement(&cluster)?)?;
    eprintln!("Origin, control plane and {} edges are up.", cluster.edges.len());
    if settings.check {
        let ids: Vec<String> = samples.into_iter().map(|sample| sample.id).collect();
        let outcome = tokio::select! {
            outcome = check::run(cluster, &ids, started) => outcome?,
            () = shutdown.requested() => bail!("interrupted"),
        };
        service::print(format_args!("{}\n", serde_json::to_string(&outcome)?))?;
        if !outcome.ok {
            bail!("the check has failed: see the line above");
        }
        return Ok(());
    }
    let console = cluster.operator.console();
    service::print(format_args!("\n  Console: {console}\n\n  Ctrl-C ends the demo.\n"))?;
    shutdown.requested().await;
    eprintln!("Ending.");
    cluster.stop().await
}

async fn ingest(binary: &Path, options: &Options, sample: &Sample) -> Result<()> {
    let (store, work) = (options.store_url(), options.dir.display().to_string());
    let mut arguments = vec!["ingest", "--store", &store, "--work-dir", &work];
    let name = display_name(&sample.id);
    arguments.extend(["--title", &sample.id, "--name", &name]);
    let files: Vec<String> = sample.files.iter().map(|file| file.display().to_string()).collect();
    arguments.extend(files.iter().map(String::as_str));
    eprintln!("Ingesting {} from {} files", sample.id, files.len());
    cluster::run(binary, &arguments).await.map(|_| ())
}

/// `big-film` as people would write it: `Big film`.
fn display_name(id: &str) -> String {
    let mut letters = id.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.map(|letter| if letter == '-' { ' ' } else { letter })).collect()
}

/// Every folder below `root` that holds a media file, in order.
fn samples(root: &Path) -> Result<Vec<Sample>> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        let named = || format!("{}: expected a folder with sample titles", dir.display());
        let entries = std::fs::read_dir(dir).with_context(named)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        Ok(paths)
    };
    let mut samples = Vec::new();
    for dir in list(root)?.into_iter().filter(|path| path.is_dir()) {
        let media = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "mp4" || extension == "vtt")
        };
        let files: Vec<PathBuf> = list(&dir)?.into_iter().filter(media).collect();
        if let (false, Some(name)) = (files.is_empty(), dir.file_name()) {
            samples.push(Sample { id: name.to_string_lossy().into_owned(), files });
        }
    }
    if samples.is_empty() {
        bail!("{}: no folder with .mp4 files in it", root.display());
    }
    Ok(samples)
}

/// Where everything listens, for scripts and browser tests.
fn announcement(cluster: &Cluster) -> Result<serde_json::Value> {
    let edge = |edge: &cluster::Process| {
        json!({
            "id": edge.name, "pid": edge.pid(), "urls": edge.announced.urls,
            "admin": edge.announced.admin,
            "cert": cluster.dir().join(&edge.name).join("tls/cert.pem"),
        })
    };
    Ok(json!({
        "console": cluster.operator.console(),
        "control_plane": cluster.operator.url(),
        "operator_key": cluster.operator.key(),
        "origin": cluster.origin.url()?,
        "dir": cluster.dir(),
        "edges": cluster.edges.iter().map(edge).collect::<Vec<_>>(),
        "pids": {
            "origin": cluster.origin.pid(), "control-plane": cluster.control_plane.pid(),
        },
    }))
}
