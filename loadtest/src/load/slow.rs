//! Readers that take a trickle, as a client on a thin line does.

use std::time::Duration;

/// Pauses between two reads of a slow reader, at least.
const PAUSE: Duration = Duration::from_millis(100);

/// A rate, as a read of some bytes and a pause after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trickle {
    bytes: usize,
    pause: Duration,
}

impl Trickle {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let tenth = bytes_per_s / 10;
        if tenth == 0 {
            let pause = Duration::from_secs_f64(1.0 / bytes_per_s.max(1) as f64);
            return Self { bytes: 1, pause };
        }
        Self { bytes: usize::try_from(tenth).unwrap_or(usize::MAX / 2), pause: PAUSE }
    }

    /// How much one read takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Between two reads.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    pub(super) async fn wait(&self) {
        tokio::time::sleep(self.pause).await;
    }
}
