//! A player without a picture: follows what the manifests say, as fast as it can or in step
//! with the clock, and moves on to the next edge when one fails.

mod dash;
mod fetch;
mod hls;
mod timeline;

use crate::{Error, Protocol};
use bytes::Bytes;
use fetch::Fleet;
use model::api::Playback;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use timeline::Item;
use tokio::time::Instant;

/// A play ends after this many segments in a row that no edge could serve.
const FAILED_IN_A_ROW_MAX: u64 = 3;
/// How far a paced player loads ahead of its clock.
const BUFFER: Duration = Duration::from_secs(12);

/// By which manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// HLS, read with m3u8-rs.
    Hls,
    /// MPEG-DASH, read with dash-mpd-core.
    Dash,
}

/// What to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracks {
    /// Every track, whole.
    All,
    /// One video (a different rendition each segment), the first audio and the first text.
    One,
}

/// What to play, and how.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// What the control plane answered.
    pub playback: Playback,
    /// By HLS or DASH.
    pub format: Format,
    /// The protocol to the edges.
    pub protocol: Protocol,
    /// PEM certificates to trust.
    pub ca_pem: Vec<Vec<u8>>,
    /// What to load.
    pub tracks: Tracks,
    /// An edge that sends no byte for this long is left.
    pub first_byte_max: Duration,
    /// Whether to keep in step with the clock, a few segments ahead.
    pub paced: bool,
}

impl PlayOptions {
    /// Every track, as fast as it comes; an edge that is silent for two seconds is left.
    #[must_use]
    pub fn new(
        playback: Playback,
        format: Format,
        protocol: Protocol,
        ca_pem: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            playback,
            format,
            protocol,
            ca_pem,
            tracks: Tracks::All,
            first_byte_max: Duration::from_secs(2),
            paced: false,
        }
    }
}

/// One body that a play received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Path below the token: `/t/film/{version}/v1/0.m4s`.
    pub path: String,
    /// Host and port of the edge that served it.
    pub edge: String,
    /// The edge's verdict: `hit-memory`, `origin`, ...
    pub verdict: Option<String>,
    /// `http/1.1`, `h2` or `h3`.
    pub protocol: String,
    /// Length of the body.
    pub bytes: u64,
    /// From the request to the edge that served it, to its first byte.
    pub first_byte: Duration,
    /// Whether another edge had failed to serve it.
    pub failed_over: bool,
    /// From the start of the first request that failed to the first byte from the other edge.
    pub failover: Option<Duration>,
}

/// A whole play.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlayReport {
    /// Whether it went on to the last segment (some on the way may have failed).
    pub ended: bool,
    /// Bodies received: init segments, segments, text.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that no edge could serve.
    pub failed_segments: u64,
    /// What went wrong, first to last; the first 20.
    pub errors: Vec<String>,
    /// Failovers, each as in [`SegmentReport::failover`].
    pub failovers: Vec<Duration>,
    /// From the first request of the play to the first byte of a segment.
    pub start_to_first_segment: Option<Duration>,
    /// Bodies by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Bodies by protocol.
    pub protocols: BTreeMap<String, u64>,
    /// Bodies by edge.
    pub edges: BTreeMap<String, u64>,
    /// The whole play's time.
    pub elapsed: Duration,
}

/// Plays a title to its end and hands each body to `on_segment`.
///
/// # Errors
/// [`Error`] when no edge serves a manifest that can be played. A segment that no edge serves
/// is counted in the report.
pub async fn play(
    options: PlayOptions,
    on_segment: &mut dyn FnMut(&SegmentReport, &Bytes),
) -> Result<PlayReport, Error> {
    let started = Instant::now();
    let mut fleet = Fleet::new(&options)?;
    let tracks = match options.format {
        Format::Hls => hls::load(&mut fleet).await?,
        Format::Dash => dash::load(&mut fleet).await?,
    };
    let items = timeline::in_order(&tracks, options.tracks);
    let mut report = PlayReport::default();
    let mut failed_in_a_row = 0;
    for item in &items {
        if options.paced {
            tokio::time::sleep_until(started + item.at.saturating_sub(BUFFER)).await;
        }
        match fleet.fetch(&item.path).await {
            Ok((segment, body)) => {
                failed_in_a_row = 0;
                report.count(&segment, item, started.elapsed() - body.rest);
                on_segment(&segment, &body.bytes);
            }
            Err(error) => {
                report.failed_segments += 1;
                report.note(&error);
                failed_in_a_row += 1;
            }
        }
        if failed_in_a_row == FAILED_IN_A_ROW_MAX {
            break;
        }
    }
    report.ended = failed_in_a_row < FAILED_IN_A_ROW_MAX;
    for error in fleet.take_errors() {
        report.note(&error);
    }
    report.failovers.splice(0..0, fleet.take_manifest_failovers());
    report.elapsed = started.elapsed();
    Ok(report)
}

impl PlayReport {
    fn count(&mut self, segment: &SegmentReport, item: &Item, first_byte: Duration) {
        self.segments += 1;
        self.bytes += segment.bytes;
        self.failovers.extend(segment.failover);
        if item.is_media {
            self.start_to_first_segment.get_or_insert(first_byte);
        }
        let verdict = segment.verdict.as_deref().unwrap_or("none");
        *self.verdicts.entry(verdict.to_owned()).or_default() += 1;
        *self.protocols.entry(segment.protocol.clone()).or_default() += 1;
        *self.edges.entry(segment.edge.clone()).or_default() += 1;
    }

    fn note(&mut self, error: &Error) {
        if self.errors.len() < 20 {
            self.errors.push(error.to_string());
        }
    }
}
