//! What the tiers count, under the names that the edge exposes.

use crate::disk::Trouble;
use crate::policy::Stats;
use counting::{counter, counters, from_zero, gauge, gauges, ratio};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// Every metric of the tiers. `disk` is a disk's folder.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Chunks that left memory for others.
    pub(crate) memory_evictions: IntCounter,
    /// Times that a chunk found no room in memory, with nothing left to evict.
    pub(crate) memory_full: IntCounter,
    /// Chunks that were copied to another place in memory, to free a huge page.
    pub(crate) memory_moved: IntCounter,
    /// Places refused to chunks that were to be fetched ahead of their readers.
    pub(crate) memory_ahead_refused: IntCounter,
    /// Places refused to chunks that were to stay in memory since they can't be had again.
    pub(crate) memory_stay_refused: IntCounter,
    /// Whether a disk is in use, by `disk`.
    pub(crate) ssd_up: IntGaugeVec,
    /// Times that a disk was switched off or could not be opened, by `disk` and `reason`:
    /// `failed`, `slow`, `gone`.
    pub(crate) ssd_troubles: IntCounterVec,
    /// Chunks that were to be written and were not, by `reason`: `queue` (too many at a time),
    /// `failed`, `off` (the disk is).
    pub(crate) ssd_drops: IntCounterVec,
    /// Bytes that wait to be written, padding included.
    pub(crate) ssd_queue_bytes: IntGauge,
    /// Bytes written to disks, padding and indexes included.
    pub(crate) ssd_written_bytes: IntCounter,
    /// Bytes of chunks that were written anew before their block went.
    pub(crate) ssd_kept_bytes: IntCounter,
    ssd_budget_bytes: IntGauge,
    ssd_refused_bytes: IntGauge,
    ssd_threshold: Gauge,
    /// Bytes of chunks that were read.
    pub(crate) ssd_read_bytes: IntCounter,
    ssd_reads: IntCounterVec,
    /// Chunks from disk that were not what was written.
    pub(crate) ssd_mismatches: IntCounter,
    /// Blocks that made room for others, with all chunks that they held.
    pub(crate) ssd_evicted_blocks: IntCounter,
}

impl Metrics {
    pub(crate) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            memory_evictions: counter(
                r,
                "memory_evictions_total",
                "Chunks that left memory for others",
            )?,
            memory_full: counter(
                r,
                "memory_full_total",
                "Chunks that found no room in memory, with nothing left to evict",
            )?,
            memory_moved: counter(
                r,
                "memory_moved_total",
                "Chunks that were copied to another place in memory, to free a huge page",
            )?,
            memory_ahead_refused: counter(
                r,
                "memory_ahead_refused_total",
                "Places refused to chunks that were to be fetched ahead of their readers",
            )?,
            memory_stay_refused: counter(
                r,
                "memory_stay_refused_total",
                "Places refused to chunks of superseded versions that responses have before them",
            )?,
            ssd_up: gauges(r, "ssd_up", "Disks in use: 1, or 0", &["disk"])?,
            ssd_troubles: counters(
                r,
                "ssd_troubles_total",
                "Times that a disk was switched off or could not be opened",
                &["disk", "reason"],
            )?,
            ssd_drops: from_zero(
                counters(
                    r,
                    "ssd_drops_total",
                    "Chunks that the SSD tier did not write",
                    &["reason"],
                )?,
                &["queue", "failed", "off"],
            ),
            ssd_queue_bytes: gauge(r, "ssd_queue_bytes", "Bytes that wait for an SSD")?,
            ssd_written_bytes: counter(
                r,
                "ssd_written_bytes_total",
                "Bytes written to SSD, padding and indexes included",
            )?,
            ssd_kept_bytes: counter(
                r,
                "ssd_kept_bytes_total",
                "Bytes of chunks written anew before their block went",
            )?,
            ssd_budget_bytes: gauge(r, "ssd_budget_bytes", "Bytes that may be written now")?,
            ssd_refused_bytes: gauge(
                r,
                "ssd_refused_bytes",
                "Bytes wanted on SSD that the write budget refused so far",
            )?,
            ssd_threshold: ratio(r, "ssd_threshold_ratio", "Score above which SSDs would fill")?,
            ssd_read_bytes: counter(r, "ssd_read_bytes_total", "Bytes of chunks read from SSD")?,
            ssd_reads: from_zero(
                counters(r, "ssd_reads_total", "Reads of the SSD tier", &["end"])?,
                &["hit", "miss", "damaged", "failed", "slow", "busy", "no-room"],
            ),
            ssd_mismatches: counter(
                r,
                "ssd_mismatches_total",
                "Chunks on SSD that were not what was written there",
            )?,
            ssd_evicted_blocks: counter(
                r,
                "ssd_evicted_blocks_total",
                "Blocks of the SSD tier that made room for others",
            )?,
        })
    }

    /// A disk that is not up yet: its counters begin at 0.
    pub(crate) fn disk(&self, name: &str) {
        self.ssd_up.with_label_values(&[name]).set(0);
        for trouble in Trouble::NAMES {
            self.ssd_troubles.with_label_values(&[name, trouble]).inc_by(0);
        }
    }

    /// Where the policy stands.
    pub(crate) fn policy(&self, stats: &Stats) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.ssd_budget_bytes.set(bytes(stats.budget_bytes));
        self.ssd_refused_bytes.set(bytes(stats.refused_bytes));
        self.ssd_threshold.set(stats.threshold.into());
    }

    /// A read ended: `hit`, `miss`, `damaged`, `failed`, `slow` (bypassed), `busy` (too many
    /// at a time), `no-room` (in memory).
    pub(crate) fn ssd_reads(&self, end: &str) {
        self.ssd_reads.with_label_values(&[end]).inc();
    }
}
