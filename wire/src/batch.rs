//! Records that leave a connection together, in one buffer.
//!
//! A buffer is lent to a connection while records wait in it, and goes back to its thread when
//! they have left: the next connection's records are written where a core's cache still is.

use crate::tls::sealing::{HEAD_BYTES, TAIL_BYTES};
use rustls::{ContentType, ProtocolVersion};
use std::cell::RefCell;

/// Plaintext of a full record (RFC 8446, section 5.1).
pub const RECORD_BYTES: usize = 16 << 10;
/// Records in a batch: enough that a system call for each is cheap, few enough for the cache of
/// a core and for a thousand peers that read slowly.
pub const BATCH_RECORDS: usize = 8;
/// Room for what TLS says itself among the records: alerts, updates of keys.
const SPARE_BYTES: usize = 2 << 10;
const BUFFER_BYTES: usize = BATCH_RECORDS * (RECORD_BYTES + HEAD_BYTES + TAIL_BYTES) + SPARE_BYTES;
/// Buffers that a thread keeps for the next turn; connections take turns one by one.
const FREE_MAX: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
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
        let free = FREE.with_borrow_mut(Vec::pop);
        let buffer = free.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
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
        // At the end of a thread there is no list any more.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < FREE_MAX {
                free.push(buffer);
            }
        });
    }
}
