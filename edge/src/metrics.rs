//! What the edge counts. Also the source of the counters in its heartbeat.

use crate::planned;
use crate::verdict::Verdict;
use chunks::health::Trouble;
use counting::{counter, counters, from_zero, gauge, histogram, histograms};
use futures::FutureExt;
use model::fleet::EdgeCounters;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Every metric of the edge. Each request takes a clone along: one count, not one a metric.
#[derive(Clone)]
pub struct Metrics(Arc<Counts>);

impl Deref for Metrics {
    type Target = Counts;
    fn deref(&self) -> &Counts {
        &self.0
    }
}

/// What [`Metrics`] share.
pub struct Counts {
    /// All of `requests`, without a walk over their labels.
    answers: AtomicU64,
    /// All of `body_bytes`, likewise: those that were here when asked for, and the others.
    hit_bytes: AtomicU64,
    missed_bytes: AtomicU64,
    requests: IntCounterVec,
    body_bytes: IntCounterVec,
    first_byte: HistogramVec,
    /// Those of `first_byte` that were needed, by verdict.
    first_bytes: [OnceLock<Histogram>; Verdict::COUNT],
    /// Bodies that were cut since their bytes could not be had.
    pub bodies_cut: IntCounter,
    /// Bytes fetched from origins, for players and for the fill plan.
    pub origin_bytes: IntCounter,
    /// Bytes fetched from siblings and parents.
    pub peer_bytes: IntCounter,
    fills: IntCounterVec,
    fill_seconds: Histogram,
    corrupt: IntCounterVec,
    /// Revalidations in the background that were left to the next request, for too many ran.
    pub revalidations_left: IntCounter,
    /// Answers without a strong validator that nobody else could join, for too many arrived.
    pub answers_unlisted: IntCounter,
    pub answers_overtagged: IntCounter,
    /// Readers that were cut, for others waited for them.
    pub left_behind: IntCounter,
    /// Requests of other nodes for what is here from before a purge that they know of.
    pub purges_told: IntCounterVec,
    /// Answers of other nodes that were from before a purge, and not taken: the origin was asked.
    pub nodes_passed_by: IntCounter,
    /// Changes that other nodes may not know of, and that a restart may forget.
    pub changes_unwritten: IntCounter,
    /// Answers that were not stored, by why.
    pub answers_unstored: IntCounterVec,
    /// Reads of the planned tier that did not end in time.
    pub planned_stalls: IntCounter,
    /// Whether the planned tier's disk is in use.
    pub planned_up: IntGauge,
    /// Whether it takes writes, as far as is known.
    pub planned_writable: IntGauge,
    /// Times that it was switched off, by `reason`: `failed`, `slow`, `gone`; and that it took
    /// no more writes: `unwritable`.
    pub planned_troubles: IntCounterVec,
    /// Fetches that waited for memory, or for their turn to be written, in vain.
    pub fetches_without_memory: IntCounter,
    /// Bytes of chunks handed to their only reader and not kept, for want of memory.
    pub memory_passed_bytes: IntCounter,
    fetch_panics: IntCounter,
    /// By verdict.
    cmcd: [IntCounter; cmcd::Verdict::ALL.len()],
    /// Of connections.
    pub wire: wire::Metrics,
    /// Requests that hold a place among the responses, from before they wait for the origin.
    pub responses: IntGauge,
    /// Bytes that the plan in force names, within the budget.
    pub plan_bytes: IntGauge,
    /// Bytes of them that are here, verified.
    pub plan_bytes_present: IntGauge,
    /// Number of the plan in force.
    pub plan_number: IntGauge,
    heartbeats: IntCounterVec,
}

/// How a run of chunks from the origin ended, or one try at it.
#[derive(Debug, Clone, Copy)]
pub enum FillEnd {
    /// Every chunk arrived whole.
    Done,
    /// Nobody wanted the rest.
    Left,
    /// Some chunk could not be had.
    Failed,
    /// A try failed and another followed.
    Retried,
}

/// Seconds; a hit takes microseconds to prepare, an origin up to several seconds.
const FIRST_BYTE_BUCKETS_S: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

impl Metrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// When a name is taken already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let r = registry;
        let first_byte = histograms(
            r,
            "first_byte_seconds",
            "From the request to the head of the answer, its first chunk at hand",
            &FIRST_BYTE_BUCKETS_S,
            &["verdict"],
        )?;
        let fill_seconds = histogram(
            r,
            "fill_seconds",
            "From the start of a fetch of chunks to its end",
            &FIRST_BYTE_BUCKETS_S,
        )?;
        Ok(Self(Arc::new(Counts {
            answers: AtomicU64::default(),
            hit_bytes: AtomicU64::default(),
            missed_bytes: AtomicU64::default(),
            first_byte,
            first_bytes: [const { OnceLock::new() }; Verdict::COUNT],
            fill_seconds,
            requests: counters(
                r,
                "requests_total",
                "Requests answered",
                &["verdict", "site", "protocol", "status"],
            )?,
            body_bytes: counters(
                r,
                "body_bytes_total",
                "Bytes of bodies handed to connections, by where they came from",
                &["source", "site", "protocol"],
            )?,
            bodies_cut: counter(r, "bodies_cut_total", "Bodies cut before their end")?,
            origin_bytes: counter(r, "origin_bytes_total", "Bytes fetched from origins")?,
            peer_bytes: counter(r, "peer_bytes_total", "Bytes fetched from siblings and parents")?,
            fills: from_zero(
                counters(r, "fills_total", "Runs of chunks fetched from origins", &["end"])?,
                &["done", "left", "failed", "retried"],
            ),
            corrupt: from_zero(
                counters(
                    r,
                    "corrupt_chunks_total",
                    "Chunks that were not what their digest says, by where they came from",
                    &["source"],
                )?,
                &["origin", "sibling", "parent", "ssd", "plan"],
            ),
            revalidations_left: counter(
                r,
                "revalidations_left_total",
                "Background revalidations left to the next request, since too many ran",
            )?,
            answers_unlisted: counter(
                r,
                "answers_unlisted_total",
                "Arriving answers that nobody else could join, since too many arrived",
            )?,
            answers_unstored: from_zero(
                counters(
                    r,
                    "answers_unstored_total",
                    "Answers that were not stored, by why",
                    &["reason"],
                )?,
                // The one that an alert is about.
                &["no-room"],
            ),
            answers_overtagged: counter(
                r,
                "answers_overtagged_total",
                "Stored answers with more tags, or longer ones, than are kept",
            )?,
            left_behind: counter(
                r,
                "readers_left_behind_total",
                "Clients cut since others waited for them, of answers that are too large to be kept",
            )?,
            purges_told: from_zero(
                counters(
                    r,
                    "purges_told_total",
                    "Requests of other nodes for what is here from before a purge that they know of",
                    &["strength"],
                )?,
                &["soft", "hard"],
            ),
            nodes_passed_by: counter(
                r,
                "nodes_passed_by_total",
                "Answers of other nodes that may be from before a purge, so that the origin was asked",
            )?,
            changes_unwritten: counter(
                r,
                "changes_unwritten_total",
                "Changes of URLs that other nodes may not know of, which the disk did not take",
            )?,
            planned_stalls: counter(
                r,
                "planned_stalls_total",
                "Reads of the planned tier that did not end in time",
            )?,
            planned_up: gauge(r, "planned_up", "The planned tier's disk is in use: 1, or 0")?,
            planned_writable: {
                let writable = gauge(r, "planned_writable", "It takes writes: 1, or 0")?;
                writable.set(1);
                writable
            },
            planned_troubles: from_zero(
                counters(
                    r,
                    "planned_troubles_total",
                    "Times that the planned tier's disk was switched off or took no more writes",
                    &["reason"],
                )?,
                &[&Trouble::NAMES[..], &[planned::UNWRITABLE]].concat(),
            ),
            fetches_without_memory: counter(
                r,
                "fetches_without_memory_total",
                "Fetches that waited for memory, or for their turn to be written, in vain",
            )?,
            memory_passed_bytes: counter(
                r,
                "memory_passed_bytes_total",
                "Bytes of chunks handed to their only reader and not kept, for want of memory",
            )?,
            fetch_panics: counter(r, "fetch_panics_total", "Tasks of fetches that panicked")?,
            cmcd: {
                let help = "Requests by what came of their CMCD";
                let counters = counters(r, "cmcd_requests_total", help, &["verdict"])?;
                cmcd::Verdict::ALL.map(|verdict| counters.with_label_values(&[verdict.as_str()]))
            },
            wire: wire::Metrics::new(r)?,
            responses: gauge(r, "responses", "Places of responses that are taken")?,
            plan_bytes: gauge(r, "plan_bytes", "Bytes named by the plan in force")?,
            plan_bytes_present: gauge(r, "plan_present_bytes", "Bytes of the plan that are here")?,
            plan_number: gauge(r, "plan_number", "Number of the plan in force")?,
            heartbeats: from_zero(
                counters(r, "heartbeats_total", "Heartbeats sent", &["end"])?,
                &["answered", "failed"],
            ),
        })))
    }

    /// A request was answered.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// What counts such requests.
    pub fn requests_of(
        &self,
        verdict: Verdict,
        site: &str,
        protocol: &str,
        status: u16,
    ) -> IntCounter {
        let status = status.to_string();
        self.requests.with_label_values(&[verdict.name(), site, protocol, &status])
    }

    /// What counts bytes of such bodies.
    pub fn bytes_of(&self, source: Verdict, site: &str, protocol: &str) -> IntCounter {
        self.body_bytes.with_label_values(&[source.name(), site, protocol])
    }

    /// A request was read for CMCD.
    pub fn cmcd(&self, read: &cmcd::Read) {
        self.cmcd[read.verdict as usize].inc();
    }

    /// The head of an answer was ready after `waited`.
    pub fn first_byte(&self, verdict: Verdict, waited: Duration) {
        let found = || self.first_byte.with_label_values(&[verdict.name()]);
        let histogram = self.first_bytes[verdict as usize].get_or_init(found);
        histogram.observe(waited.as_secs_f64());
    }

    /// Media bytes were handed to a connection.
    pub fn sent(&self, source: Verdict, bytes: u64) {
        let sum = if source.is_hit() { &self.hit_bytes } else { &self.missed_bytes };
        sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes came from an upstream.
    pub fn fetched(&self, source: Verdict, bytes: usize) {
        self.came_of(source).inc_by(bytes as u64);
    }

    /// Counts bytes that come from such an upstream.
    pub fn came_of(&self, source: Verdict) -> &IntCounter {
        if source == Verdict::Origin { &self.origin_bytes } else { &self.peer_bytes }
    }

    /// A run of chunks ended, so long after it began.
    pub fn filled(&self, end: FillEnd, took: Duration) {
        self.fill(end);
        self.fill_seconds.observe(took.as_secs_f64());
    }

    /// A run of chunks ended, or one try at it.
    pub fn fill(&self, end: FillEnd) {
        let end = match end {
            FillEnd::Done => "done",
            FillEnd::Left => "left",
            FillEnd::Failed => "failed",
            FillEnd::Retried => "retried",
        };
        self.fills.with_label_values(&[end]).inc();
    }

    /// A chunk from `source` (`origin` or `plan`) was not what its digest says.
    pub fn corrupt(&self, source: &str) {
        self.corrupt.with_label_values(&[source]).inc();
    }

    /// A heartbeat was answered, or not.
    pub fn heartbeat(&self, answered: bool) {
        let end = if answered { "answered" } else { "failed" };
        self.heartbeats.with_label_values(&[end]).inc();
    }

    /// A fetch, to be run in a task of its own: its panic is counted. All that it was to bring is
    /// lost with it, and who waits for that is told as it is dropped.
    pub fn guarded<F: Future>(&self, fetch: F) -> impl Future<Output = ()> + use<F> {
        let panics = self.fetch_panics.clone();
        async move {
            if AssertUnwindSafe(fetch).catch_unwind().await.is_err() {
                panics.inc();
                tracing::error!("a fetch's task panicked");
            }
        }
    }

    /// The counters that a heartbeat carries.
    #[must_use]
    pub fn counters(&self) -> EdgeCounters {
        let hits = self.hit_bytes.load(Ordering::Relaxed);
        let misses = self.missed_bytes.load(Ordering::Relaxed);
        EdgeCounters {
            requests: self.answers.load(Ordering::Relaxed),
            bytes: hits + misses,
            hit_bytes: hits,
            origin_bytes: self.origin_bytes.get(),
            connections: self.wire.open.get().try_into().unwrap_or(0),
        }
    }
}
