//! From the work folder to the store: track files, index, and last the publish record.

use super::{Config, FileReport, INDEX, Packaged, Report, Show, track_path};
use crate::Error;
use bytes::Bytes;
use model::index::{Kind, VideoRange};
use model::publish::{PublishRecord, PublishedFile};
use model::{Track, Version, store_key};
use service::Shutdown;
use std::path::Path;
use std::sync::Arc;
use store::Store;

/// Uploads what is missing and publishes.
pub(super) async fn publish(
    config: &Config,
    store: &Store,
    dir: &Path,
    packaged: Packaged,
    shutdown: &Shutdown,
) -> Result<Report, Error> {
    let Packaged { index, encoded, skipped } = packaged;
    let version = Version::of_index(&encoded);
    let show = Show::new("Uploading", index.bytes() + encoded.len() as u64);
    let target = Target { store, show: &show, shutdown };
    let mut files = Vec::new();
    for track in &index.tracks {
        let key = store_key::track(&config.title, &version, &track.facts.id, track.extension());
        let path = track_path(dir, track.facts.id.as_str());
        let uploaded = target.put(&key, &path, track.facts.file_bytes).await?;
        let (name, summary) = (track.file_name(), summary(track));
        files.push(FileReport { name, bytes: track.facts.file_bytes, uploaded, summary });
    }
    let key = store_key::index(&config.title, &version);
    target.put(&key, &dir.join(INDEX), encoded.len() as u64).await?;
    let record = PublishRecord {
        title: config.title.clone(),
        version,
        name: config.name.clone(),
        published_at_ms: now_ms(),
        duration_ms: index.duration_ms(),
        files: index.tracks.iter().map(published).collect(),
    };
    if shutdown.is_requested() {
        return Err(Error::Stopped);
    }
    let already_published = !put_record(store, &record).await?;
    show.done();
    Ok(Report {
        title: record.title,
        version,
        already_published,
        duration_ms: record.duration_ms,
        segments: index.video().next().map_or(0, |track| track.segments.len()),
        files,
        skipped,
    })
}

/// Where to, and who is told.
struct Target<'a> {
    store: &'a Store,
    show: &'a Show,
    shutdown: &'a Shutdown,
}

impl Target<'_> {
    /// Uploads a file unless the store holds it; says whether it did. An object of that key
    /// and size is this file: keys hold the version, and objects appear whole.
    async fn put(&self, key: &str, path: &Path, bytes: u64) -> Result<bool, Error> {
        match self.store.head(key).await {
            Ok(head) if head.bytes == bytes => {
                self.show.add(bytes);
                return Ok(false);
            }
            Ok(head) => {
                tracing::warn!(
                    key,
                    bytes,
                    found = head.bytes,
                    "an object of another size is replaced"
                );
            }
            Err(store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let show = self.show.clone();
        let progress = Arc::new(move |bytes| show.add(bytes));
        match self.store.put_file(key, path, progress, self.shutdown).await {
            Err(store::Error::Stopped { .. }) => Err(Error::Stopped),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }
}

/// Writes the publish record; false when this version has one.
async fn put_record(store: &Store, record: &PublishRecord) -> Result<bool, Error> {
    let key = store_key::publish_record(&record.title, &record.version);
    let json = serde_json::to_vec_pretty(record).expect("plain data always serialises");
    match store.put_if_absent(&key, Bytes::from(json)).await {
        Ok(()) => Ok(true),
        Err(store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn published(track: &Track) -> PublishedFile {
    let kind = match track.facts.kind {
        Kind::Video { .. } => "video",
        Kind::Audio { .. } => "audio",
        Kind::Text => "text",
    };
    PublishedFile {
        name: track.file_name(),
        bytes: track.facts.file_bytes,
        kind: kind.to_owned(),
        summary: summary(track),
    }
}

/// What people want to know of a track: `1280x720 avc1.64001f`, `en mp4a.40.2 2 ch`.
fn summary(track: &Track) -> String {
    let facts = &track.facts;
    let language = facts.language.as_deref().unwrap_or("und");
    match &facts.kind {
        Kind::Video { width, height, range, .. } => {
            let range = match range {
                VideoRange::Sdr => "",
                VideoRange::Pq => " PQ",
                VideoRange::Hlg => " HLG",
            };
            format!("{width}x{height} {}{range}", facts.codec)
        }
        Kind::Audio { channels, .. } => format!("{language} {} {channels} ch", facts.codec),
        Kind::Text => language.to_owned(),
    }
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
