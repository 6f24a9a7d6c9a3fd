//! Packaging: source files to track files with aligned segments.
//!
//! [`Package::open`] reads headers and sample tables, decides where to cut and lays out every
//! track file to the byte; [`Package::write_track`] then streams one of them in one pass. The
//! same sources and parameters give the same bytes, always.

mod clip;
mod cut;
mod error;
mod layout;
pub(crate) mod names;
mod plan;
mod source;
mod time;
mod write;

pub use clip::SECONDS_MAX;
pub use error::Error;
pub use layout::{SEGMENT_BYTES_MAX, SEGMENTS_MAX};
pub use source::{FileSource, ReadAt, Source};

use layout::Layout;
use model::index::{Facts, Segment, Track};
use model::tree::Hashed;
use std::io::Write;

/// What shapes a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Segment length to aim at, in milliseconds.
    pub segment_target_ms: u32,
}

impl Default for Params {
    fn default() -> Self {
        // Short enough to switch and start quickly, long enough that requests stay few.
        Self { segment_target_ms: 4000 }
    }
}

/// A title, laid out and ready to be written.
pub struct Package {
    sources: Vec<Source>,
    tracks: Vec<TrackPlan>,
    skipped: Vec<Skipped>,
}

/// One track file to be.
#[derive(Debug, Clone)]
pub struct TrackPlan {
    /// As they will stand in the index; `file_bytes` is exact.
    pub facts: Facts,
    /// As they will stand in the index.
    pub segments: Vec<Segment>,
    /// Name of the source file.
    pub source: String,
    body: Body,
}

/// What was written of a track.
pub struct Written {
    /// What the index says of it.
    pub track: Track,
    /// Its [tree file](model::tree).
    pub tree: Vec<u8>,
}

/// What a track file is written from.
#[derive(Debug, Clone)]
enum Body {
    Media(Layout),
    /// The whole document.
    Text(String),
}

/// A track of a source that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the source file.
    pub source: String,
    /// `track_ID` in that file.
    pub track: u32,
    /// Why: `timecode track (tmcd)`, `same samples as a-en of film-360.mp4`.
    pub why: String,
}

impl Package {
    /// Probes the sources (of any bytes: this is where a fuzzer comes in), checks that the renditions align and lays out every track. Reads
    /// headers and sample tables, no media.
    ///
    /// # Errors
    /// See [`Error`]; all but `Write` can come from here.
    pub fn open(sources: Vec<Source>, params: Params) -> Result<Self, Error> {
        let (tracks, skipped) = plan::plan(&sources, params)?;
        Ok(Self { sources, tracks, skipped })
    }

    /// The tracks in the order of the index: video, audio, text, each in order of input.
    #[must_use]
    pub fn tracks(&self) -> &[TrackPlan] {
        &self.tracks
    }

    /// The tracks of the sources that will not be in the title, and why.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Writes track file `n` (an index into [`Package::tracks`]) from its first byte to its
    /// last and returns what the index says of it, and its tree file. `progress` is called with the number of
    /// bytes written since it was last called.
    ///
    /// # Errors
    /// `Read` where a source fails, `Write` where `out` does.
    ///
    /// # Panics
    /// Where there is no track `n`.
    pub fn write_track(
        &self,
        n: usize,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Written, Error> {
        let plan = &self.tracks[n];
        let id = plan.facts.id.as_str();
        let failed = |failed: write::Failed| failed.error(id, &plan.source);
        let mut out = write::Digesting::new(out, progress);
        match &plan.body {
            Body::Text(document) => {
                out.put(document.as_bytes()).map_err(|e| failed(write::Failed::Write(e)))?;
            }
            Body::Media(layout) => {
                let data = &*self.sources[layout.source].data;
                write::track(layout, &plan.segments, data, &mut out).map_err(failed)?;
            }
        }
        let hashed = out.finish().map_err(|e| failed(write::Failed::Write(e)))?;
        let Hashed { digests, tree } = hashed;
        let (facts, segments) = (plan.facts.clone(), plan.segments.clone());
        Ok(Written { track: Track { facts, segments, digests }, tree })
    }
}
