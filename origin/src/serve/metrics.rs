//! What an operator wants to know of an origin.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// An origin's metrics.
pub(super) struct Metrics {
    /// Requests by status.
    pub requests: IntCounterVec,
    /// Body bytes handed to connections.
    pub bytes: IntCounter,
    /// Requests that failed for the store's sake.
    pub store_errors: IntCounter,
    /// From a request to the head of its answer, seconds.
    pub seconds: Histogram,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self::unregistered().expect("names and labels are valid");
        let all: [Box<dyn prometheus::core::Collector>; 4] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.bytes.clone()),
            Box::new(metrics.store_errors.clone()),
            Box::new(metrics.seconds.clone()),
        ];
        for one in all {
            registry.register(one).expect("each name is registered once");
        }
        service::log::count_lost(registry, "nearcast_origin_log_lines_lost_total")
            .expect("each name is registered once");
        metrics
    }

    fn unregistered() -> prometheus::Result<Self> {
        Ok(Self {
            requests: IntCounterVec::new(
                Opts::new("nearcast_origin_requests_total", "Requests answered, by status"),
                &["status"],
            )?,
            bytes: IntCounter::new("nearcast_origin_sent_bytes_total", "Body bytes sent")?,
            store_errors: IntCounter::new(
                "nearcast_origin_store_errors_total",
                "Requests that failed because the store did",
            )?,
            seconds: Histogram::with_opts(HistogramOpts::new(
                "nearcast_origin_head_seconds",
                "From a request to the head of its answer",
            ))?,
        })
    }
}
