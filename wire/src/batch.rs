//! Records that leave a connection together, in one buffer.
//!
//! A buffer is lent to a connection while records wait in it, and goes back to its thread when
//! they have left: the next connection's records are written where a core's cache still is.
//!
//! Invariant: what the buffers lent on a thread have beyond [`BATCH_BYTES`] each is at most
//! [`BEYOND_BYTES_MAX`] in all. So batches are large as long as few peers are slow.

use crate::tls::sealing::{HEAD_BYTES, TAIL_BYTES};
use prometheus::{PullingGauge, Registry};
use rustls::{ContentType, ProtocolVersion};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Plaintext of a full record (RFC 8446, section 5.1).
pub const RECORD_BYTES: usize = 16 << 10;
/// Records in a batch that any connection has: few enough for ten thousand peers that read slowly.
pub const BATCH_RECORDS: usize = 4;
/// Records in a large batch: enough that a system call for each is cheap, few enough for a core's
/// cache.
pub const LARGE_RECORDS: usize = 32;
/// Bytes that batches lent on a thread may have beyond [`BATCH_BYTES`] each; further ones are no
/// larger than that.
pub const BEYOND_BYTES_MAX: usize = 16 << 20;
/// Room for what TLS says itself among the records: alerts, updates of keys.
const SPARE_BYTES: usize = 2 << 10;
/// What records need that are not full, beyond what they would as a part of full ones.
const SHORT_BYTES: usize = 512;
/// Memory of a batch that any connection has.
pub const BATCH_BYTES: usize = buffer_bytes(BATCH_RECORDS);
/// Memory of a large batch.
pub const LARGE_BATCH_BYTES: usize = buffer_bytes(LARGE_RECORDS);
const BEYOND_BYTES_EACH: usize = LARGE_BATCH_BYTES - BATCH_BYTES;
/// Buffers of each size that a thread keeps for the next turn; connections take turns one by one.
const FREE_MAX: usize = 2;

const fn buffer_bytes(records: usize) -> usize {
    records * (RECORD_BYTES + HEAD_BYTES + TAIL_BYTES) + SHORT_BYTES + SPARE_BYTES
}

/// A thread's buffers.
struct Buffers {
    free: Vec<Box<[u8]>>,
    free_large: Vec<Box<[u8]>>,
    /// Of those lent, what they have beyond the others.
    beyond_bytes: usize,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = const {
        RefCell::new(Buffers { free: Vec::new(), free_large: Vec::new(), beyond_bytes: 0 })
    };
}

/// Of all threads, the size of buffers that are lent.
static LENT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Registers the gauge of what all connections hold for records that wait to leave.
///
/// # Errors
/// When the registry has it already.
pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let help = "Memory of TLS records that wait for their sockets";
    let read = || LENT_BYTES.load(Ordering::Relaxed) as f64;
    let gauge = PullingGauge::new("nearcast_edge_record_buffers_bytes", help, Box::new(read))?;
    registry.register(Box::new(gauge))
}

impl Buffers {
    fn lend(&mut self) -> Box<[u8]> {
        let is_large = self.beyond_bytes + BEYOND_BYTES_EACH <= BEYOND_BYTES_MAX;
        let (free, bytes) = match is_large {
            true => (&mut self.free_large, LARGE_BATCH_BYTES),
            false => (&mut self.free, BATCH_BYTES),
        };
        self.beyond_bytes += bytes - BATCH_BYTES;
        free.pop().unwrap_or_else(|| vec![0; bytes].into_boxed_slice())
    }

    fn take_back(&mut self, buffer: Box<[u8]>) {
        let beyond = buffer.len() - BATCH_BYTES;
        // One that was lent by another thread.
        self.beyond_bytes = self.beyond_bytes.saturating_sub(beyond);
        let free = if beyond > 0 { &mut self.free_large } else { &mut self.free };
        if free.len() < FREE_MAX {
            free.push(buffer);
        }
    }
}

/// Records, sealed, and how far they have left.
pub struct Batch {
    buffer: Box<[u8]>,
    sent: usize,
    end: usize,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        let buffer = BUFFERS.with_borrow_mut(Buffers::lend);
        LENT_BYTES.fetch_add(buffer.len(), Ordering::Relaxed);
        Self { buffer, sent: 0, end: 0 }
    }

    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        &self.buffer[self.sent..self.end]
    }

    /// So much of it has left.
    pub fn advance(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.end);
    }

    /// Where the next record begins.
    pub fn end(&self) -> usize {
        self.end
    }

    /// How much plaintext fits, in full records, beside what TLS may say.
    pub fn room(&self) -> usize {
        let left = self.buffer.len().saturating_sub(self.end + SPARE_BYTES);
        let full = RECORD_BYTES + HEAD_BYTES + TAIL_BYTES;
        let rest = (left % full).saturating_sub(HEAD_BYTES + TAIL_BYTES);
        left / full * RECORD_BYTES + rest
    }

    /// Room for the payload of a record, its head written; none if there is none left.
    pub fn record(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let length = u16::try_from(bytes).ok()?.to_be_bytes();
        let version = ProtocolVersion::TLSv1_2.to_array();
        let out = self.buffer.get_mut(self.end..self.end + HEAD_BYTES + bytes)?;
        self.end += HEAD_BYTES + bytes;
        let (head, payload) = out.split_at_mut(HEAD_BYTES);
        head[..1].copy_from_slice(&ContentType::ApplicationData.to_array());
        head[1..3].copy_from_slice(&version);
        head[3..].copy_from_slice(&length);
        Some(payload)
    }

    /// Puts bytes between the records, at `at`; false if there is no room for them.
    pub fn insert(&mut self, at: usize, bytes: &[u8]) -> bool {
        if self.end + bytes.len() > self.buffer.len() || !(self.sent..=self.end).contains(&at) {
            return false;
        }
        self.buffer.copy_within(at..self.end, at + bytes.len());
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    /// Where the record after the one at `at` begins.
    pub fn after(&self, at: usize) -> usize {
        let length = self.buffer[at..self.end].get(3..HEAD_BYTES);
        let length =
            length.map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        (at + HEAD_BYTES + length).min(self.end)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        LENT_BYTES.fetch_sub(buffer.len(), Ordering::Relaxed);
        // At the end of a thread there are no lists any more.
        let _ = BUFFERS.try_with(|buffers| buffers.borrow_mut().take_back(buffer));
    }
}
