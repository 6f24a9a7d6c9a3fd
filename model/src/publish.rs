//! The publish record: the last thing that an ingest writes, and what the catalog is read from.

use crate::{TitleId, Version};
use serde::{Deserialize, Serialize};

/// A title's version, complete in the store. JSON; an older reader skips fields it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRecord {
    /// The title.
    pub title: TitleId,
    /// The version that is complete.
    pub version: Version,
    /// Name for people.
    pub name: String,
    /// When it was published, milliseconds since 1970 UTC. The newest record of a title is
    /// the one that plays.
    pub published_at_ms: u64,
    /// Length of the longest track, in milliseconds.
    pub duration_ms: u64,
    /// The track files.
    pub files: Vec<PublishedFile>,
}

/// A track file of a published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// File name below `titles/{title}/{version}/`.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// `video`, `audio` or `text`.
    pub kind: String,
    /// For people: `1280x720 avc1.64001f`, `en`, ...
    pub summary: String,
}

impl PublishRecord {
    /// Bytes of all track files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
