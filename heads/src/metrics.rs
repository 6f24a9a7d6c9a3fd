//! What heads and purges count.

use counting::{counter, counters, from_zero, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// Every metric of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Lookups beyond memory, by how they ended: `found`, `none`, `busy`, `slow`, `off`.
    pub(crate) reads: IntCounterVec,
    /// Bytes of heads in memory.
    pub(crate) memory_bytes: IntGauge,
    /// Rows on disk.
    pub(crate) rows: IntGauge,
    /// Bytes that these take there, with their indexes.
    pub(crate) disk_bytes: IntGauge,
    /// Rows that a batch wrote or took out.
    pub(crate) rows_written: IntCounter,
    /// Heads that stay in memory only, by reason: `busy`, `too-large` or `no-room`.
    pub(crate) unwritten: IntCounterVec,
    /// Keys pushed out of `memory`, rows out of `disk`.
    pub(crate) evicted: IntCounterVec,
    /// Invalidations by how they ended: `written`, `nothing` (there was none), `busy`, `failed`.
    pub(crate) invalidations: IntCounterVec,
    /// Failed `read`s, `write`s, `sync`s and `open`s of the database.
    pub(crate) failures: IntCounterVec,
    /// Damage found: a `row`, the whole `database`.
    pub(crate) damaged: IntCounterVec,
    /// Databases begun anew since removals were lost while the disk failed.
    pub(crate) restarted: IntCounter,
}

/// Every metric of the purge log.
#[derive(Debug, Clone)]
pub(crate) struct PurgeMetrics {
    /// Purges in force, by `kind` and `strength`.
    pub(crate) purges: IntCounterVec,
    /// Purges refused since the disk failed or the queue was full.
    pub(crate) failures: IntCounterVec,
    /// Number of the last purge.
    pub(crate) number: IntGauge,
    /// Purges that are kept one by one.
    pub(crate) kept: IntGauge,
    /// Bytes of the log's file.
    pub(crate) file_bytes: IntGauge,
    /// The oldest purges made into one of everything, for want of room.
    pub(crate) folded: IntCounter,
    /// Files rewritten to what still counts.
    pub(crate) compactions: IntCounter,
    /// What was wrong with the file at start: `torn`, `damaged`, `unreadable`.
    pub(crate) damaged: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            reads: from_zero(
                counters(r, "head_reads_total", "Heads sought beyond memory", &["end"])?,
                &["found", "none", "busy", "slow", "off"],
            ),
            memory_bytes: gauge(r, "heads_memory_bytes", "Bytes of heads in memory")?,
            rows: gauge(r, "head_rows", "Heads on disk")?,
            disk_bytes: gauge(r, "heads_disk_bytes", "Bytes of heads on disk")?,
            rows_written: counter(r, "head_rows_written_total", "Changes of heads on disk")?,
            unwritten: from_zero(
                counters(
                    r,
                    "heads_unwritten_total",
                    "Heads that stay in memory only",
                    &["reason"],
                )?,
                &["busy", "too-large", "no-room"],
            ),
            evicted: from_zero(
                counters(r, "heads_evicted_total", "Heads pushed out", &["tier"])?,
                &["memory", "disk"],
            ),
            invalidations: from_zero(
                counters(
                    r,
                    "invalidations_total",
                    "Unsafe methods that ended what was stored, by what came of it on disk",
                    &["end"],
                )?,
                &["written", "nothing", "busy", "failed"],
            ),
            failures: from_zero(
                counters(
                    r,
                    "head_database_failures_total",
                    "Operations on the database of heads that failed",
                    &["operation"],
                )?,
                &["read", "write", "sync", "open"],
            ),
            damaged: from_zero(
                counters(r, "heads_damaged_total", "Damage found on disk", &["what"])?,
                &["row", "database"],
            ),
            restarted: counter(
                r,
                "head_database_restarts_total",
                "Databases begun anew since removals were lost while the disk failed",
            )?,
        })
    }
}

impl PurgeMetrics {
    pub(crate) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            purges: counters(r, "purges_total", "Purges in force", &["kind", "strength"])?,
            failures: from_zero(
                counters(r, "purge_failures_total", "Purges refused", &["reason"])?,
                &["busy", "disk"],
            ),
            number: gauge(r, "purge_number", "Number of the last purge")?,
            kept: gauge(r, "purges_kept", "Purges kept one by one")?,
            file_bytes: gauge(r, "purge_log_bytes", "Bytes of the purge log's file")?,
            folded: counter(
                r,
                "purges_folded_total",
                "Oldest purges made into one of everything, for want of room",
            )?,
            compactions: counter(r, "purge_compactions_total", "Purge logs rewritten")?,
            damaged: from_zero(
                counters(
                    r,
                    "purge_log_damaged_total",
                    "Purge logs that were not whole at start",
                    &["how"],
                )?,
                &["torn", "damaged", "unreadable"],
            ),
        })
    }
}
