//! Counters of HTTP/3 listeners.

use prometheus::{IntCounter, Registry};

/// Counters of HTTP/3 listeners.
#[derive(Debug, Clone)]
pub struct Metrics {
    sends: IntCounter,
    segments: IntCounter,
    /// Clients that were asked to prove their address first.
    pub retried: IntCounter,
    /// Connections that were closed for streams without requests.
    pub futile: IntCounter,
    /// Sockets whose sends stay small.
    pub unmerged: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            counting::counter(registry, &format!("quic_{name}_total"), help)
        };
        Ok(Self {
            sends: counter("merged_sends", "UDP sends of more than ten datagrams")?,
            segments: counter("merged_datagrams", "Datagrams that left by such sends")?,
            retried: counter("retries", "Clients asked to prove their address first")?,
            futile: counter("floods", "Connections closed for streams without requests")?,
            unmerged: counter(
                "merging_stopped",
                "UDP sockets whose sends stay small since the system refused a large one",
            )?,
        })
    }

    /// A large send of this many datagrams has left.
    pub fn merged(&self, datagrams: usize) {
        self.sends.inc();
        self.segments.inc_by(datagrams as u64);
    }
}
