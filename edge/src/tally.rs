//! What a site's requests are counted by, at hand: to find a counter by its labels costs more
//! than to count.
//!
//! Invariant: a counter begins to exist when it first counts, as it would without this.

use crate::metrics::Metrics;
use crate::verdict::Verdict;
use prometheus::IntCounter;
use std::sync::{Arc, OnceLock};

/// Those that nearly all requests end with; others are found by their labels each time.
const STATUSES: [u16; 3] = [200, 206, 304];
const PROTOCOLS: [&str; 3] = ["http/1.1", "h2", "h3"];
const REQUESTS: usize = Verdict::COUNT * PROTOCOLS.len() * STATUSES.len();
const BYTES: usize = Verdict::COUNT * PROTOCOLS.len();

/// A site's counters.
pub struct Tally {
    site: Arc<str>,
    requests: [OnceLock<IntCounter>; REQUESTS],
    bytes: [OnceLock<IntCounter>; BYTES],
}

impl Tally {
    /// For the site of this name.
    pub fn new(site: Arc<str>) -> Self {
        Self {
            site,
            requests: [const { OnceLock::new() }; REQUESTS],
            bytes: [const { OnceLock::new() }; BYTES],
        }
    }

    /// The site's name.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// A request was answered.
    pub fn answered(&self, metrics: &Metrics, verdict: Verdict, protocol: &str, status: u16) {
        let found = || metrics.requests_of(verdict, &self.site, protocol, status);
        let status = STATUSES.iter().position(|known| *known == status);
        match kind(verdict, protocol).zip(status) {
            Some((kind, status)) => {
                self.requests[kind * STATUSES.len() + status].get_or_init(found).inc();
            }
            None => found().inc(),
        }
    }

    /// Bytes of a body were handed to a connection.
    pub fn sent(&self, metrics: &Metrics, source: Verdict, protocol: &str, bytes: u64) {
        let found = || metrics.bytes_of(source, &self.site, protocol);
        match kind(source, protocol) {
            Some(kind) => self.bytes[kind].get_or_init(found).inc_by(bytes),
            None => found().inc_by(bytes),
        }
    }
}

/// What requests to no proxy site are counted by.
pub struct Names {
    /// To titles.
    pub titles: Arc<Tally>,
    /// To nothing that is here.
    pub none: Arc<Tally>,
}

impl Default for Names {
    fn default() -> Self {
        let of = |name: &str| Arc::new(Tally::new(name.into()));
        Self { titles: of("titles"), none: of("none") }
    }
}

/// The place of what both make up.
fn kind(verdict: Verdict, protocol: &str) -> Option<usize> {
    let protocol = PROTOCOLS.iter().position(|known| *known == protocol)?;
    Some(verdict as usize * PROTOCOLS.len() + protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    #[test]
    fn counts_are_those_of_the_labels() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let tally = Tally::new("films".into());
        let told = |verdict, protocol, status| {
            metrics.requests_of(verdict, "films", protocol, status).get()
        };
        for (verdict, protocol, status) in [
            (Verdict::HitMemory, "http/1.1", 200),
            (Verdict::HitMemory, "h3", 200),
            (Verdict::Busy, "h3", 304),
            (Verdict::Busy, "h2", 503),
            (Verdict::Origin, "spdy", 206),
        ] {
            assert_eq!(told(verdict, protocol, status), 0);
            for count in 1..3 {
                tally.answered(&metrics, verdict, protocol, status);
                assert_eq!(told(verdict, protocol, status), count, "{protocol} {status}");
            }
            tally.sent(&metrics, verdict, protocol, 7);
            tally.sent(&metrics, verdict, protocol, 4);
            assert_eq!(metrics.bytes_of(verdict, "films", protocol).get(), 11);
        }
    }
}
