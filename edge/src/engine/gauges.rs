//! What the engine holds at the moment, read when the metrics are: nothing on the request path
//! counts it. All of it but the kept chunks, and what is spent
//! around them, goes back to 0 when nothing is under way.

use super::Engine;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Gauges of an engine.
struct Gauges {
    engine: Weak<Engine>,
    kept: IntGauge,
    held: IntGauge,
    spent: IntGauge,
    chunks: IntGauge,
    growing: IntGauge,
}

/// Registers what `engine` holds.
///
/// # Errors
/// When a name is taken already.
pub fn register(engine: &Arc<Engine>, registry: &Registry) -> Result<(), prometheus::Error> {
    let gauge = counting::unregistered_gauge;
    registry.register(Box::new(Gauges {
        engine: Arc::downgrade(engine),
        kept: gauge("memory_kept_bytes", "Memory of the chunks that the cache keeps")?,
        held: gauge("memory_held_bytes", "Memory that only fetches and responses under way hold")?,
        spent: gauge(
            "memory_spent_bytes",
            "Memory that waits for the rest of its huge page to be given back",
        )?,
        chunks: gauge("filling_chunks", "Chunks that are being fetched")?,
        growing: gauge(
            "growing_bytes",
            "Memory of answers without a strong validator that are arriving",
        )?,
    }))
}

impl Gauges {
    fn all(&self) -> [&IntGauge; 5] {
        [&self.kept, &self.held, &self.spent, &self.chunks, &self.growing]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(engine) = self.engine.upgrade() else { return Vec::new() };
        let of = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (kept, held) = engine.chunks.memory_bytes();
        self.kept.set(of(kept));
        self.held.set(of(held));
        self.spent.set(of(engine.chunks.arena().bytes_spent()));
        self.chunks.set(of(engine.inflight.count() as u64));
        self.growing.set(of(engine.growing_bytes.load(Ordering::Relaxed)));
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
