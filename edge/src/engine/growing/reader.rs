//! One reader of an answer that is read while it arrives.

use super::{COPIED_BYTES_MAX, Fault, Growing, Grown, Pin};
use bytes::Bytes;
use chunks::Key;
use model::chunk::CHUNK_BYTES;
use std::sync::Arc;
use tokio::sync::watch;

/// One reader of it.
pub struct GrowingReader {
    pub(super) growing: Arc<Growing>,
    pub(super) name: u64,
    pub(super) at: u64,
    pub(super) progress: watch::Receiver<Grown>,
    /// From this chunk on, it is counted when it begins one.
    pub(super) counts_from: u64,
    /// The chunks of which pieces were handed over last: the connection may hold them still.
    pub(super) pins: [Option<Pin>; 2],
}

/// What a reader finds.
pub enum Step {
    /// The next bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Wait,
    /// The end: it was whole.
    End,
    /// It will not be whole.
    Failed(Fault),
}

impl GrowingReader {
    /// The next bytes, `bytes_max` at most.
    pub fn step(&mut self, bytes_max: u64) -> Step {
        let grown = self.progress.borrow_and_update().clone();
        if self.at < grown.filled {
            return match self.cut(grown.filled, bytes_max) {
                Some(bytes) => Step::Bytes(bytes),
                None => Step::Failed(Fault::Behind),
            };
        }
        match grown.end {
            None => Step::Wait,
            Some(Ok(())) => Step::End,
            Some(Err(fault)) => Step::Failed(fault),
        }
    }

    /// Reads for nobody, so that the answer is kept once it is whole; ends with it, or once it is
    /// not.
    pub async fn drain(mut self) {
        self.counts_from = u64::MAX;
        self.growing.lock().keeps(self.name);
        self.growing.moved.notify_one();
        loop {
            match self.step(u64::MAX) {
                Step::Bytes(_) => {}
                Step::Wait => self.changed().await,
                Step::End | Step::Failed(_) => return,
            }
        }
    }

    /// Waits for another step.
    pub async fn changed(&mut self) {
        // The sender ends with the answer's `end` told: nothing more will change then.
        let _ = self.progress.changed().await;
    }

    /// None for one that was left behind.
    fn cut(&mut self, filled: u64, bytes_max: u64) -> Option<Bytes> {
        let growing = Arc::clone(&self.growing);
        let pressed = growing.engine.under_pressure();
        let most = if pressed { COPIED_BYTES_MAX as u64 } else { CHUNK_BYTES };
        let mut held = growing.lock();
        if !held.readers.contains_key(&self.name) {
            return None;
        }
        let number = self.at / CHUNK_BYTES;
        let place = usize::try_from(number.checked_sub(held.first)?).ok()?;
        let start = number * CHUNK_BYTES;
        let end = filled.min(start + CHUNK_BYTES);
        let until = end.min(self.at.saturating_add(bytes_max)).min(self.at + most);
        let range = usize::try_from(self.at - start).ok()?..usize::try_from(until - start).ok()?;
        let bytes = held.chunks.get(place)?.bytes(range)?;
        let begins = self.at == start && number >= self.counts_from;
        self.at = until;
        held.readers.insert(self.name, self.at);
        let is_kept = held.is_kept;
        if begins && !is_kept {
            held.begins(number);
        }
        drop(held);
        if begins && is_kept {
            self.is_asked_for(number, usize::try_from(end - start).ok()?);
        }
        growing.moved.notify_one();
        if pressed {
            return Some(Bytes::copy_from_slice(&bytes));
        }
        self.pin(number);
        Some(bytes)
    }

    /// It begins a chunk of so many bytes that is kept.
    fn is_asked_for(&self, number: u64, bytes: usize) {
        if let Ok(number) = u32::try_from(number) {
            let key = Key { body: self.growing.body, number };
            self.growing.engine.chunks.requested(&key, bytes);
        }
    }

    /// A piece of the chunk is handed over as it is.
    fn pin(&mut self, number: u64) {
        let Ok(number) = u32::try_from(number) else { return };
        let key = Key { body: self.growing.body, number };
        if self.pins[0].as_ref().map(|pin| *pin.key()) != Some(key) {
            self.pins.swap(0, 1);
            self.pins[0] = Some(self.growing.engine.pins.pin(key, CHUNK_BYTES));
        }
    }
}

impl Drop for GrowingReader {
    fn drop(&mut self) {
        let mut held = self.growing.lock();
        held.readers.remove(&self.name);
        held.keepers.remove(&self.name);
        drop(held);
        self.growing.moved.notify_one();
    }
}
