//! Texts in the encoding that a client likes: compressed once per stored body, kept in memory
//! under a name of its own, and made again should it have left.

use crate::compress::{Compressor, Encoding};
use crate::engine::Engine;
use crate::error::Fault;
use bytes::Bytes;
use chunks::Key;
use futures::Stream;
use lru::LruCache;
use model::chunk::CHUNK_BYTES;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Encoded bodies of which the length is remembered: a playlist and a manifest of each title
/// that is being watched, and more.
const LENGTHS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The encoded forms of an edge.
pub struct Encoded {
    compressor: Compressor,
    lengths: Mutex<LruCache<[u8; 16], u64>>,
}

impl Encoded {
    /// None yet.
    ///
    /// # Errors
    /// A metric of its compressor's name is registered already.
    pub fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let lengths = Mutex::new(LruCache::new(LENGTHS_MAX));
        Ok(Self { compressor: Compressor::new(registry)?, lengths })
    }

    /// The encoded form named `id`: from memory, or made of the `whole` body. None: send the
    /// body as it is.
    pub async fn of<S: Stream<Item = Result<Bytes, Fault>>>(
        &self,
        engine: &Arc<Engine>,
        id: [u8; 16],
        encoding: Encoding,
        whole: impl FnOnce() -> S,
    ) -> Option<Vec<Bytes>> {
        if let Some(pieces) = self.in_memory(engine, id) {
            return Some(pieces);
        }
        let made = self.compressor.compressed(id, whole, encoding).await?;
        let bytes = made.len() as u64;
        let step = usize::try_from(CHUNK_BYTES).ok()?;
        let pieces = (0..made.len()).step_by(step).zip(0u32..).map(|(start, number)| {
            let piece = made.slice(start..made.len().min(start + step));
            engine.keep(Key { body: id, number }, piece)
        });
        let pieces = pieces.collect();
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner).put(id, bytes);
        Some(pieces)
    }

    fn in_memory(&self, engine: &Engine, id: [u8; 16]) -> Option<Vec<Bytes>> {
        let bytes = *self.lengths.lock().unwrap_or_else(PoisonError::into_inner).get(&id)?;
        let count = u32::try_from(bytes.div_ceil(CHUNK_BYTES)).ok()?;
        (0..count).map(|number| engine.chunks.in_memory(&Key { body: id, number })).collect()
    }
}
