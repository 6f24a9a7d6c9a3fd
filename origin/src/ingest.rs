//! From media files to a published title.
//!
//! Packages into a work folder, uploads what the store does not hold yet, and writes the
//! publish record last: until then nobody can see the title, and a run that was cut short is
//! taken up again by the next one.

mod ladder;
mod report;
mod settings;
mod show;
mod upload;
mod work;

pub use report::{FileReport, Report};
pub use settings::{Config, Settings};

use crate::Error;
use manifests::package::{Package, Params, Source};
use model::TitleIndex;
use service::Shutdown;
use show::Show;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use work::Work;

/// Name of the encoded index within the work folder.
const INDEX: &str = "index";

/// Ingests, prints a summary (or, with `--json`, the report) on standard output.
///
/// # Errors
/// [`Error`] names the file or object; nothing is published then.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<Report, Error> {
    let report = ingest(&config, &shutdown).await?;
    let printed = if config.json {
        let report = serde_json::to_string(&report).expect("plain data always serialises");
        service::print(format_args!("{report}\n"))
    } else {
        service::print(&report)
    };
    printed.map_err(|error| Error::file(Path::new("standard output"), error))?;
    Ok(report)
}

/// Ingests without printing.
///
/// # Errors
/// As for [`run`].
pub async fn ingest(config: &Config, shutdown: &Shutdown) -> Result<Report, Error> {
    let store = store::Store::open(&config.store)?;
    upload::reach(&store, config).await?;
    let work = Arc::new(Work::open(config)?);
    let outcome = through(config, &store, &work, shutdown).await;
    // Renditions that ffmpeg made are kept for the run that goes on; all else is made anew.
    let resumed = matches!(outcome, Err(Error::Stopped | Error::Store(_))) && config.ladder;
    if !resumed {
        work.finish();
    }
    outcome
}

async fn through(
    config: &Config,
    store: &store::Store,
    work: &Arc<Work>,
    shutdown: &Shutdown,
) -> Result<Report, Error> {
    let files = if config.ladder {
        ladder::make(&config.files, work.dir(), shutdown).await?
    } else {
        config.files.clone()
    };
    let params = Params { segment_target_ms: config.segment_target_ms };
    let packaged = {
        let (work, shutdown) = (Arc::clone(work), shutdown.clone());
        tokio::task::spawn_blocking(move || package(&files, params, &work, &shutdown)).await??
    };
    store.create().await?;
    upload::publish(config, store, work.dir(), packaged, shutdown).await
}

/// A packaged title in the work folder.
struct Packaged {
    index: TitleIndex,
    /// The tree file of each of its tracks.
    trees: Vec<Vec<u8>>,
    encoded: Vec<u8>,
    /// What people should know: tracks left out, segments that came out long.
    notes: Vec<String>,
}

/// Writes every track file and the index into the work folder.
fn package(
    files: &[PathBuf],
    params: Params,
    work: &Work,
    shutdown: &Shutdown,
) -> Result<Packaged, Error> {
    let open = |path: &PathBuf| Source::open(path).map_err(|error| Error::file(path, error));
    let sources = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let package = Package::open(sources, params)?;
    let bytes = package.tracks().iter().map(|track| track.facts.file_bytes).sum();
    let show = Show::new("Packaging", bytes);
    let (mut tracks, mut trees) = (Vec::new(), Vec::new());
    for (n, plan) in package.tracks().iter().enumerate() {
        let written = work.write(plan.facts.id.as_str(), shutdown, |out| {
            package.write_track(n, out, &mut |bytes| show.add(bytes))
        })?;
        tracks.push(written.track);
        trees.push(written.tree);
    }
    show.done();
    let index = TitleIndex { segment_target_ms: params.segment_target_ms, tracks };
    let encoded = index.encode();
    let path = work.dir().join(INDEX);
    std::fs::write(&path, &encoded).map_err(|error| Error::file(path, error))?;
    let skipped = |s: &manifests::package::Skipped| {
        format!("{}: track {} is left out: {}", s.source, s.track, s.why)
    };
    let mut notes: Vec<String> = package.skipped().iter().map(skipped).collect();
    notes.extend(long_segments(&index));
    Ok(Packaged { index, trees, encoded, notes })
}

/// Says so when segments came out more than twice as long as was aimed at: cuts are at key
/// frames, and many encoders set one every ten seconds.
fn long_segments(index: &TitleIndex) -> Option<String> {
    let track = index.video().next()?;
    let longest = track.segments.iter().map(|segment| segment.duration).max()?;
    let ms = longest.saturating_mul(1000) / u64::from(track.facts.timescale);
    (ms > 2 * u64::from(index.segment_target_ms)).then(|| {
        format!(
            "segments are up to {ms} ms long, {} ms was aimed at: the key frames are that far \
             apart; encode with one every 2 s, or use --ladder",
            index.segment_target_ms
        )
    })
}

/// The file of a track in the work folder.
fn track_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.track"))
}

/// Its tree file.
fn tree_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.tree"))
}
