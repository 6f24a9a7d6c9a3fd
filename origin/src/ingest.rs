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
    if config.json {
        println!("{}", serde_json::to_string(&report).expect("plain data always serialises"));
    } else {
        print!("{report}");
    }
    Ok(report)
}

/// Ingests without printing.
///
/// # Errors
/// As for [`run`].
pub async fn ingest(config: &Config, shutdown: &Shutdown) -> Result<Report, Error> {
    let store = store::Store::open(&config.store)?;
    let work = Arc::new(Work::open(config)?);
    let files = if config.ladder {
        ladder::make(&config.files, work.dir(), shutdown).await?
    } else {
        config.files.clone()
    };
    let params = Params { segment_target_ms: config.segment_target_ms };
    let packaged = {
        let (work, shutdown) = (Arc::clone(&work), shutdown.clone());
        tokio::task::spawn_blocking(move || package(&files, params, &work, &shutdown)).await??
    };
    store.create().await?;
    let report = upload::publish(config, &store, work.dir(), packaged, shutdown).await?;
    work.finish();
    Ok(report)
}

/// A packaged title in the work folder.
struct Packaged {
    index: TitleIndex,
    encoded: Vec<u8>,
    skipped: Vec<String>,
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
    let mut tracks = Vec::new();
    for (n, plan) in package.tracks().iter().enumerate() {
        tracks.push(work.write(plan.facts.id.as_str(), shutdown, |out| {
            package.write_track(n, out, &mut |bytes| show.add(bytes))
        })?);
    }
    show.done();
    let index = TitleIndex { segment_target_ms: params.segment_target_ms, tracks };
    let encoded = index.encode();
    let path = work.dir().join(INDEX);
    std::fs::write(&path, &encoded).map_err(|error| Error::file(path, error))?;
    let skipped = |s: &manifests::package::Skipped| {
        format!("{}: track {} is left out: {}", s.source, s.track, s.why)
    };
    let skipped = package.skipped().iter().map(skipped).collect();
    Ok(Packaged { index, encoded, skipped })
}

/// The file of a track in the work folder.
fn track_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.track"))
}
