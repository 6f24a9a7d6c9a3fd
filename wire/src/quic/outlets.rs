//! The sending halves of the streams of requests that h3 reads: what answers takes them out of
//! h3's hands.
//!
//! Invariant: one that nobody takes goes with what h3 has of its stream.

use h3::quic::StreamId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a request's stream that h3 is given before the head is read: what Huffman's code makes
/// of the longest head that is read takes less. h3 itself would collect a frame of any length.
pub const HEAD_STREAM_BYTES_MAX: usize = 4 * crate::HEADER_BYTES_MAX as usize;

/// What a head gets which is longer than what is read: a frame, made when it is needed.
pub type TooLong = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// The sending halves of the requests' streams, until they are taken.
#[derive(Clone)]
pub struct Outlets {
    kept: Arc<Mutex<HashMap<u64, Arc<Outlet>>>>,
    too_long: TooLong,
}

/// A sending half, until it is taken, and what its stream brings until the head is read.
#[derive(Default)]
pub struct Outlet {
    send: Mutex<Option<quinn::SendStream>>,
    came: AtomicUsize,
    read: AtomicBool,
    full: AtomicBool,
    refused: AtomicBool,
    body: OnceLock<u64>,
}

impl Outlet {
    /// The sending half of a stream.
    pub fn of(stream: quinn::SendStream) -> Arc<Self> {
        Arc::new(Self { send: Mutex::new(Some(stream)), ..Self::default() })
    }

    /// None once it was taken.
    pub fn send(&self) -> MutexGuard<'_, Option<quinn::SendStream>> {
        locked(&self.send)
    }

    /// Whether h3 is to have these bytes, whose frames are not too long: its head is read, or
    /// there was room for them.
    pub fn takes(&self, bytes: usize, frames: bool) -> bool {
        // A piece may bring the rest of the head and what follows it.
        let room = self.came.fetch_add(bytes, Relaxed) < HEAD_STREAM_BYTES_MAX;
        let takes = frames && (room || self.read.load(Relaxed));
        self.full.fetch_or(!takes, Relaxed);
        takes
    }

    /// The head is malformed.
    pub fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// Whether the head is malformed.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// The request has ended, with so many bytes of body.
    pub fn end(&self, body: u64) {
        self.body.get_or_init(|| body);
    }

    /// Bytes of body; none: the request has not ended.
    pub fn body(&self) -> Option<u64> {
        self.body.get().copied()
    }

    /// Whether more has come than a head has.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed) && !self.read.load(Relaxed)
    }
}

/// What a mutex holds, whatever happened to others who held it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outlets {
    /// None yet.
    pub fn new(too_long: TooLong) -> Self {
        Self { kept: Arc::default(), too_long }
    }

    /// The one answer that none of these is taken for.
    pub fn too_long(&self) -> Vec<u8> {
        (self.too_long)()
    }

    /// What makes it.
    pub fn of_too_long(&self) -> TooLong {
        Arc::clone(&self.too_long)
    }

    /// Takes the sending half of a request's stream; h3 sends nothing on it any more.
    pub fn take(&self, id: StreamId) -> Option<quinn::SendStream> {
        let outlet = locked(&self.kept).remove(&id.into_inner())?;
        outlet.send().take()
    }

    /// The head of this request was read. None: its sending half was taken.
    pub fn read(&self, id: StreamId) -> Option<Arc<Outlet>> {
        let outlet = locked(&self.kept).get(&id.into_inner()).cloned()?;
        outlet.read.store(true, Relaxed);
        Some(outlet)
    }

    /// Keeps the sending half of a stream.
    pub fn insert(&self, id: StreamId, outlet: &Arc<Outlet>) {
        locked(&self.kept).insert(id.into_inner(), Arc::clone(outlet));
    }

    /// Keeps it no longer.
    pub fn forget(&self, id: StreamId) {
        locked(&self.kept).remove(&id.into_inner());
    }
}
