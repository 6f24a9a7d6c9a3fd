//! What the tiers count, under the names that the edge exposes.

use prometheus::{IntCounter, Opts, Registry};

/// Every metric of the tiers.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Chunks that left memory for others.
    pub(crate) memory_evictions: IntCounter,
    /// Times that a chunk found no room in memory, with nothing left to evict.
    pub(crate) memory_full: IntCounter,
    /// Chunks from disk that were not what was written.
    pub(crate) ssd_mismatches: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let r = registry;
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
            ssd_mismatches: counter(
                r,
                "ssd_mismatches_total",
                "Chunks on SSD that were not what was written there",
            )?,
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("nearcast_edge_{name}"), help)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::with_opts(opts(name, help))?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
