//! The control plane's metrics. `docs/metrics.md` lists them.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Upper bounds of the decision time's buckets, in seconds.
const SECONDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Handles, resolved once.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// By outcome: `granted`, a reason's code, or `failed`.
    pub(crate) decisions: IntCounterVec,
    pub(crate) decision_seconds: Histogram,
    pub(crate) events_stored: IntCounter,
    /// By reason: a token's refusal, or `too-many-events`.
    pub(crate) events_refused: IntCounterVec,
    pub(crate) heartbeats: IntCounter,
    pub(crate) edges_healthy: IntGauge,
    pub(crate) titles: IntGauge,
    pub(crate) snapshot_age_seconds: Gauge,
    pub(crate) refresh_failures: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            decisions: IntCounterVec::new(
                Opts::new(
                    "nearcast_control_plane_decisions_total",
                    "Playback decisions; a refusal counts once for each of its reasons",
                ),
                &["outcome"],
            )?,
            decision_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "nearcast_control_plane_decision_seconds",
                    "Time to answer a playback request",
                )
                .buckets(SECONDS.to_vec()),
            )?,
            events_stored: IntCounter::new(
                "nearcast_control_plane_events_stored_total",
                "Playback events on disk",
            )?,
            events_refused: IntCounterVec::new(
                Opts::new(
                    "nearcast_control_plane_event_batches_refused_total",
                    "Batches of events that were not counted",
                ),
                &["reason"],
            )?,
            heartbeats: IntCounter::new(
                "nearcast_control_plane_heartbeats_total",
                "Heartbeats of edges",
            )?,
            edges_healthy: IntGauge::new(
                "nearcast_control_plane_edges_healthy",
                "Edges that are heard and serve",
            )?,
            titles: IntGauge::new("nearcast_control_plane_titles", "Titles of the catalog")?,
            snapshot_age_seconds: Gauge::new(
                "nearcast_control_plane_snapshot_age_seconds",
                "Time since the catalog was last read from the store",
            )?,
            refresh_failures: IntCounter::new(
                "nearcast_control_plane_catalog_refresh_failures_total",
                "Times that the catalog could not be read",
            )?,
        };
        metrics.register()?;
        let lost = "nearcast_control_plane_log_lines_lost_total";
        service::log::count_lost(&metrics.registry, lost)?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(self.decisions.clone()),
            Box::new(self.decision_seconds.clone()),
            Box::new(self.events_stored.clone()),
            Box::new(self.events_refused.clone()),
            Box::new(self.heartbeats.clone()),
            Box::new(self.edges_healthy.clone()),
            Box::new(self.titles.clone()),
            Box::new(self.snapshot_age_seconds.clone()),
            Box::new(self.refresh_failures.clone()),
        ];
        all.into_iter().try_for_each(|collector| self.registry.register(collector))
    }
}
