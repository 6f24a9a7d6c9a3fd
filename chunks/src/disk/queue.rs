//! Chunks on their way to a disk. They hold slots of memory meanwhile, so their bytes are
//! bounded; what does not fit is dropped, which its caller counts.

use super::store::{BATCH_BYTES_MAX, stored_bytes};
use crate::value::Key;
use bytes::Bytes;
use prometheus::IntGauge;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// First in, first out; each key once.
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    /// Something was put in, or taken out.
    changed: Notify,
    /// Follows the bytes, of all disks.
    gauge: IntGauge,
}

#[derive(Default)]
struct State {
    order: VecDeque<Key>,
    waiting: HashMap<Key, Bytes>,
    bytes: usize,
    /// Taken, not yet done.
    writing: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, gauge: IntGauge) -> Self {
        Self { bytes_max, state: Mutex::default(), changed: Notify::new(), gauge }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a chunk in; `false` when it is full.
    pub(super) fn put(&self, key: Key, bytes: Bytes) -> bool {
        let mut state = self.lock();
        if state.waiting.contains_key(&key) {
            return true;
        }
        let stored = stored_bytes(bytes.len());
        if state.bytes + stored > self.bytes_max {
            return false;
        }
        state.bytes += stored;
        self.gauge.add(stored as i64);
        state.order.push_back(key);
        state.waiting.insert(key, bytes);
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Whether it is less than half full.
    pub(super) fn is_short(&self) -> bool {
        self.lock().bytes < self.bytes_max / 2
    }

    /// A chunk that waits.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.lock().waiting.get(key).cloned()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.lock().waiting.contains_key(key)
    }

    /// The oldest chunks, as many as a batch holds; waits for one, and `linger` longer for a
    /// batch to fill. They count as waiting until [`Queue::done`].
    pub(super) async fn batch(&self, linger: Duration) -> Vec<(Key, Bytes)> {
        self.until(|state| !state.waiting.is_empty()).await;
        let full = self.until(|state| state.bytes >= BATCH_BYTES_MAX.min(self.bytes_max / 2));
        // Full or not.
        let _ = timeout(linger, full).await;
        self.lock().batch()
    }

    /// A batch is written, or given up.
    pub(super) fn done(&self, batch: &[(Key, Bytes)]) {
        let mut state = self.lock();
        for (key, bytes) in batch {
            if state.waiting.remove(key).is_some() {
                state.bytes -= stored_bytes(bytes.len());
                self.gauge.sub(stored_bytes(bytes.len()) as i64);
            }
        }
        state.writing = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Gives up all that waits, and says how much that was.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.lock();
        let count = state.waiting.len();
        self.gauge.sub(state.bytes as i64);
        *state = State::default();
        drop(state);
        self.changed.notify_waiters();
        count
    }

    /// Waits until there is room for a chunk, at least.
    pub(super) async fn room(&self) {
        self.until(|state| state.bytes == 0 || state.bytes + BATCH_BYTES_MAX <= self.bytes_max)
            .await;
    }

    /// Waits until nothing waits.
    pub(super) async fn empty(&self) {
        self.until(|state| state.bytes == 0 && !state.writing).await;
    }

    async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    fn batch(&mut self) -> Vec<(Key, Bytes)> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(key) = self.order.front() {
            if let Some(chunk) = self.waiting.get(key) {
                bytes += stored_bytes(chunk.len());
                if bytes > BATCH_BYTES_MAX {
                    break;
                }
                batch.push((*key, chunk.clone()));
            }
            self.order.pop_front();
        }
        self.writing = !batch.is_empty();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key { body: [0; 16], number }
    }

    impl Queue {
        fn room_for(&self, chunk: &Bytes) -> bool {
            self.lock().bytes + stored_bytes(chunk.len()) <= self.bytes_max
        }
    }

    #[tokio::test]
    async fn batches_keep_the_order_and_bytes_are_bounded_until_they_are_written() {
        let queue = Queue::new(20 << 20, IntGauge::new("queue", "bytes").unwrap());
        let chunk = Bytes::from(vec![0; 1 << 20]);
        let put = (0..30).filter(|number| queue.put(key(*number), chunk.clone())).count();
        assert_eq!(put, 19);
        assert!(queue.put(key(3), chunk.clone()), "it waits already");
        let mut numbers = Vec::new();
        for expected in [7, 7, 5] {
            let batch = queue.batch(Duration::ZERO).await;
            assert_eq!(batch.len(), expected);
            let full = numbers.is_empty();
            assert_eq!(queue.room_for(&chunk), !full, "what is being written counts");
            assert_eq!(queue.get(&batch[0].0).as_ref(), Some(&chunk));
            numbers.extend(batch.iter().map(|(key, _)| key.number));
            queue.done(&batch);
        }
        assert_eq!(numbers, (0..19).collect::<Vec<_>>());
        queue.empty().await;
        assert_eq!(queue.gauge.get(), 0);
        assert!(!queue.contains(&key(0)));
    }

    #[tokio::test]
    async fn a_cleared_queue_is_empty_even_in_the_middle_of_a_batch() {
        let queue = Queue::new(20 << 20, IntGauge::new("queue", "bytes").unwrap());
        let chunk = Bytes::from_static(b"media");
        for number in 0..3 {
            assert!(queue.put(key(number), chunk.clone()));
        }
        let batch = queue.batch(Duration::ZERO).await;
        assert!(queue.put(key(3), chunk.clone()));
        assert_eq!(queue.clear(), 4);
        queue.empty().await;
        queue.done(&batch);
        queue.room().await;
        assert_eq!(queue.gauge.get(), 0);
        assert!(queue.put(key(0), chunk));
        assert_eq!(queue.batch(Duration::ZERO).await.len(), 1);
    }
}
