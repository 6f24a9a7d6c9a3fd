//! Which chunks responses hold on to, so that clients that stop reading can't take all memory.
//!
//! A chunk that a response has handed to its connection stays in memory until it is sent, also
//! when the cache has let go of it: evicting it frees nothing. So the bytes of all such chunks
//! are summed, each once however many send it; past a share of memory, responses copy small
//! pieces instead.

use bytes::Bytes;
use chunks::Key;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// When memory is short, this much is copied for sending, so that a client that reads slowly
/// holds no slot.
pub const COPIED_BYTES_MAX: usize = 64 << 10;

/// The chunks that responses hold.
#[derive(Clone, Default)]
pub struct Pins(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<HashMap<Key, Held, BuildHasherDefault<AsItIs>>>,
    bytes: AtomicU64,
}

/// A key begins with what names a body, which is random or a hash: a part of it is as good as
/// another hash of it.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, body: &[u8]) {
        let start = body.first_chunk().copied().unwrap_or_default();
        self.0 ^= u64::from_le_bytes(start);
    }

    fn write_u32(&mut self, number: u32) {
        // Spread: a table goes by the lowest bits and the highest.
        self.0 ^= u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _: usize) {}
}

struct Held {
    by: usize,
    bytes: u64,
}

/// Bytes of a chunk, with a hold on it for as long as anybody has them.
struct Pinned {
    bytes: Bytes,
    _pin: Pin,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// One response's hold on a chunk.
pub struct Pin {
    key: Key,
    pins: Pins,
}

impl Pins {
    /// Bytes of the chunks that are held.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Holds a chunk of so many bytes.
    pub fn pin(&self, key: Key, bytes: u64) -> Pin {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of = held.entry(key).or_insert_with(|| {
            self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
            Held { by: 0, bytes }
        });
        of.by += 1;
        Pin { key, pins: self.clone() }
    }
}

impl Pin {
    /// The same bytes; the hold lasts as long as they do.
    pub fn held_with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Pinned { bytes, _pin: self })
    }

    /// Which chunk it holds.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let shared = &self.pins.0;
        let mut held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of) = held.entry(self.key) {
            of.get_mut().by -= 1;
            if of.get().by == 0 {
                shared.bytes.fetch_sub(of.get().bytes, Ordering::Relaxed);
                of.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_counts_once_however_many_hold_it() {
        let pins = Pins::default();
        let key = |number| Key { body: [1; 16], number };
        let held = [pins.pin(key(1), 10), pins.pin(key(1), 10), pins.pin(key(2), 5)];
        assert_eq!(pins.bytes(), 15);
        let [first, second, third] = held;
        drop((first, third));
        assert_eq!(pins.bytes(), 10);
        drop(second);
        assert_eq!(pins.bytes(), 0);
    }
}
