//! What `nearcast demo --check` found: its last line, as JSON.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The outcome of a check.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Whether all is well.
    pub ok: bool,
    /// What is not, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Titles ingested.
    pub titles: u64,
    /// Plays from start to end.
    pub plays: u64,
    /// Init segments, segments and text files received.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that differ from the store's.
    pub wrong_bytes: u64,
    /// Segments that no edge could serve.
    pub failed_segments: u64,
    /// From the failed request's start to the first byte of another edge.
    pub failover_ms: Failover,
    /// From the start of all parts to the first byte of a segment.
    pub start_to_first_segment_ms: u64,
    /// Track files that edges hold complete by the plan.
    pub planned_files: u64,
    /// Segments by the edges' verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Segments by protocol.
    pub protocols: BTreeMap<String, u64>,
}

/// How long a play stood when its edge went away.
#[derive(Debug, Default, Serialize)]
pub struct Failover {
    /// Killed (SIGKILL): the connection is refused or reset.
    pub killed: Option<u64>,
    /// Frozen (SIGSTOP): the edge is silent.
    pub frozen: Option<u64>,
}

impl Outcome {
    /// Notes that something is not as it should be.
    pub fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// Demands that `right` holds.
    pub fn expect(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.fault(what());
        }
    }
}

/// Whole milliseconds, rounded up: an instant success is not 0.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
