//! What a connection may have handed over and not yet acknowledged.
//!
//! Invariant: twice what its path takes at a time, as Linux has it for TCP (`tcp_sndbuf_expand`):
//! so much is sent while as much waits to be, and a client on a thin line pins no more of memory
//! than that line needs, within [`SEND_WINDOW_BYTES`].

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In bytes. At most: twice what 100 Mbit/s have under way in 80 ms.
pub const SEND_WINDOW_BYTES: RangeInclusive<u64> = 256 << 10..=2 << 20;

/// The window of one connection.
pub struct Window {
    quic: quinn::Connection,
    bytes: AtomicU64,
}

impl Window {
    /// That of a connection which was begun with the least.
    pub fn of(quic: quinn::Connection) -> Self {
        Self { quic, bytes: (*SEND_WINDOW_BYTES.start()).into() }
    }

    /// Fits it to the path when it is full; whether there is more room now.
    pub fn fit(&self) -> bool {
        let bytes = fitting(self.quic.stats().path.cwnd);
        let before = self.bytes.swap(bytes, Relaxed);
        if bytes != before {
            self.quic.set_send_window(bytes);
        }
        bytes > before
    }
}

fn fitting(congestion_window: u64) -> u64 {
    let twice = congestion_window.saturating_mul(2);
    twice.clamp(*SEND_WINDOW_BYTES.start(), *SEND_WINDOW_BYTES.end())
}
