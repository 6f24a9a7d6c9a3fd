//! What an ingest did.

use model::{TitleId, Version};
use serde::Serialize;
use std::fmt;

/// An ingest that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The title.
    pub title: TitleId,
    /// Its version.
    pub version: Version,
    /// Whether this version, under this name, was the one that plays before this run.
    pub already_published: bool,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// Segments of the first video track.
    pub segments: usize,
    /// Track files.
    pub files: Vec<FileReport>,
    /// What people should know: tracks left out and why, segments that came out long.
    pub notes: Vec<String>,
}

/// A track file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its name in the store.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// False when the store held it already.
    pub uploaded: bool,
    /// `1280x720 avc1.64001f`.
    pub summary: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let state = if file.uploaded { "uploaded" } else { "was in the store" };
            writeln!(f, "{:>12} bytes  {:<16} {} ({state})", file.bytes, file.name, file.summary)?;
        }
        for note in &self.notes {
            writeln!(f, "Note: {note}")?;
        }
        let (seconds, ms) = (self.duration_ms / 1000, self.duration_ms % 1000);
        let state = if self.already_published { "was published already" } else { "is published" };
        writeln!(
            f,
            "{} {state}: version {}, {seconds}.{ms:03} s in {} segments",
            self.title, self.version, self.segments
        )
    }
}
