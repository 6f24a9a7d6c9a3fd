//! What the engine holds at the moment, read when the metrics are: nothing on the request path
//! counts it. All of it but the kept chunks, what is spent around them and what is lost goes
//! back to 0 when nothing is under way.

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
    ahead: IntGauge,
    spent: IntGauge,
    queued: IntGauge,
    lost: IntGauge,
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
        ahead: gauge(
            "memory_ahead_chunks",
            "Chunks kept in memory, or coming, before their readers",
        )?,
        spent: gauge(
            "memory_spent_bytes",
            "Memory that waits for the rest of its huge page to be given back",
        )?,
        queued: gauge(
            "memory_queued_bytes",
            "Huge pages that sockets may have some of on its way",
        )?,
        lost: gauge("memory_lost_bytes", "Memory that the kernel refused to renew")?,
        chunks: gauge("filling_chunks", "Chunks that are being fetched")?,
        growing: gauge(
            "growing_bytes",
            "Memory of answers without a strong validator that are arriving",
        )?,
    }))
}

impl Gauges {
    fn all(&self) -> [&IntGauge; 8] {
        let Self { kept, held, ahead, spent, queued, lost, chunks, growing, .. } = self;
        [kept, held, ahead, spent, queued, lost, chunks, growing]
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
        self.ahead.set(of(engine.chunks.count_ahead() as u64));
        let arena = engine.chunks.arena();
        self.spent.set(of(arena.bytes_spent()));
        self.queued.set(of(arena.bytes_held()));
        self.lost.set(of(arena.bytes_lost()));
        self.chunks.set(of(engine.inflight.count() as u64));
        self.growing.set(of(engine.growing_bytes.load(Ordering::Relaxed)));
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
