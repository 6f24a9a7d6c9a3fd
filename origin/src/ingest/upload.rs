//! From the work folder to the store: track files, index, and last the publish record.

use super::{Config, FileReport, INDEX, Packaged, Report, Show, track_path, tree_path};
use crate::Error;
use bytes::Bytes;
use model::index::{Kind, VideoRange};
use model::publish::{PublishRecord, PublishedFile};
use model::{Track, Version, chunk, store_key};
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
    let Packaged { index, trees, encoded, notes } = packaged;
    let version = Version::of_index(&encoded);
    let tree_bytes = trees.iter().map(Vec::len).sum::<usize>();
    let show = Show::new("Uploading", index.bytes() + (tree_bytes + encoded.len()) as u64);
    let target = Target { store, show: &show, shutdown, verify: config.verify };
    let mut files = Vec::new();
    for (track, tree) in index.tracks.iter().zip(&trees) {
        let key = store_key::track(&config.title, &version, &track.facts.id, track.extension());
        let path = track_path(dir, track.facts.id.as_str());
        let whole = |number, bytes: &[u8]| track.chunk_is_whole(number, bytes);
        let uploaded = target.put(&key, &path, track.facts.file_bytes, &whole).await?;
        let key = store_key::tree(&config.title, &version, &track.facts.id);
        let path = tree_path(dir, track.facts.id.as_str());
        target.put(&key, &path, tree.len() as u64, &is_of(tree)).await?;
        let (name, summary) = (track.file_name(), summary(track));
        files.push(FileReport { name, bytes: track.facts.file_bytes, uploaded, summary });
    }
    let key = store_key::index(&config.title, &version);
    target.put(&key, &dir.join(INDEX), encoded.len() as u64, &is_of(&encoded)).await?;
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
    let already_published = !put_record(store, record.clone()).await?;
    show.done();
    Ok(Report {
        title: record.title,
        version,
        already_published,
        duration_ms: record.duration_ms,
        segments: index.video().next().map_or(0, |track| track.segments.len()),
        files,
        notes,
    })
}

/// Asks the store a question before any work is done for it. A folder that is not there yet
/// will be made.
pub(super) async fn reach(store: &Store, config: &Config) -> Result<(), Error> {
    match store.list(&format!("{}{}/", store_key::PUBLISHED, config.title)).await {
        Err(store::Error::Unavailable { .. }) if config.store.starts_with("dir:") => Ok(()),
        outcome => outcome.map(|_| ()).map_err(Error::from),
    }
}

/// Where to, and who is told.
struct Target<'a> {
    store: &'a Store,
    show: &'a Show,
    shutdown: &'a Shutdown,
    /// Whether to read what is there.
    verify: bool,
}

/// Whether these bytes are that chunk of a file.
type Whole<'a> = &'a (dyn Fn(u64, &[u8]) -> bool + Sync);

/// Whether bytes are that chunk of these.
fn is_of(whole: &[u8]) -> impl Fn(u64, &[u8]) -> bool + Sync {
    |number, bytes| {
        let range = chunk::range(number, whole.len() as u64);
        whole.get(range.start as usize..range.end() as usize) == Some(bytes)
    }
}

impl Target<'_> {
    /// Uploads a file unless the store holds it; says whether it did. An object of that key
    /// and size is this file: keys hold the version, and objects appear whole.
    async fn put(
        &self,
        key: &str,
        path: &Path,
        bytes: u64,
        whole: Whole<'_>,
    ) -> Result<bool, Error> {
        match self.store.head(key).await {
            Ok(head) if head.bytes == bytes => {
                if !self.verify || self.is_intact(key, bytes, whole).await? {
                    self.show.add(bytes);
                    return Ok(false);
                }
                tracing::warn!(key, "the store's bytes are damaged: uploaded again");
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

impl Target<'_> {
    /// Reads an object and holds each chunk against its digest.
    async fn is_intact(&self, key: &str, bytes: u64, whole: Whole<'_>) -> Result<bool, Error> {
        for number in 0..chunk::count(bytes) {
            if self.shutdown.is_requested() {
                return Err(Error::Stopped);
            }
            let range = chunk::range(number, bytes);
            if !whole(number, &self.store.get_range(key, range.start..range.end()).await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Makes this version, under this name, the one that plays; false when it was before.
async fn put_record(store: &Store, mut record: PublishRecord) -> Result<bool, Error> {
    let before = newest(store, &record).await?;
    let is_this = |now: &PublishRecord| now.version == record.version && now.name == record.name;
    if before.as_ref().is_some_and(is_this) {
        return Ok(false);
    }
    if let Some(before) = before {
        // The newest plays, whatever the clock of the machine that wrote the last one said.
        record.published_at_ms = record.published_at_ms.max(before.published_at_ms + 1);
    }
    let json = serde_json::to_vec_pretty(&record).expect("plain data always serialises");
    let json = Bytes::from(json);
    let key = store_key::publish_record(&record.title, &record.version);
    match store.put_if_absent(&key, json.clone()).await {
        Ok(()) => return Ok(true),
        Err(store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // An older cut is wanted again, or a new name: one more record, nothing is overwritten.
    let key = store_key::republish_record(&record.title, &record.version, record.published_at_ms);
    store.put_if_absent(&key, json).await?;
    Ok(true)
}

/// The publish record of the same title that plays: the newest, as the catalog orders them. A
/// record that can't be read is none, there as here.
async fn newest(store: &Store, record: &PublishRecord) -> Result<Option<PublishRecord>, Error> {
    let mut records: Vec<PublishRecord> = Vec::new();
    for entry in store.list(&format!("{}{}/", store_key::PUBLISHED, record.title)).await? {
        let bytes = store.get(&entry.key, store::SMALL_BYTES_MAX).await?;
        match serde_json::from_slice(&bytes) {
            Ok(found) => records.push(found),
            Err(error) => tracing::warn!(key = entry.key, %error, "a publish record is damaged"),
        }
    }
    Ok(records.into_iter().max_by_key(|found| (found.published_at_ms, found.version)))
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
