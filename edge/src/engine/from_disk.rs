//! Chunks from the tiers on disk: the fill plan's files, and the reactive SSD.

use super::{Engine, SLOT_WAIT_STEP};
use crate::object::{Kind, Object};
use crate::verdict::Verdict;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long a chunk on a slow disk is waited for that can't be had elsewhere.
const LATE_MAX: Duration = Duration::from_secs(1);

impl Engine {
    /// A chunk from one of the tiers on disk.
    pub(super) async fn on_disk(&self, object: &Object, number: u64) -> Option<(Bytes, Verdict)> {
        let key = object.key(number)?;
        if let Some(bytes) = self.unwritten.get(&key) {
            return Some((self.keep(key, bytes), Verdict::HitPlan));
        }
        if let Kind::Track { title, track, .. } = &object.kind
            && let Some(bytes) = self.planned.read(title, *track, number).await
        {
            return Some((self.keep(key, bytes), Verdict::HitPlan));
        }
        let bytes = self.read_disk(object, &key).await?;
        if bytes.len() as u64 == object.chunk(number).bytes {
            return Some((bytes, Verdict::HitSsd));
        }
        self.metrics.corrupt("ssd");
        None
    }

    /// A chunk from the reactive tier. A disk that is slow is passed by where there is another
    /// source; what came whole without a strong validator has none, nor has what is superseded, and
    /// both are waited for.
    async fn read_disk(&self, object: &Object, key: &chunks::Key) -> Option<Bytes> {
        let read = self.chunks.read_disk(key).await;
        let has_source = || object.can_be_fetched() && !self.is_superseded(object);
        if read.is_some() || has_source() {
            return read;
        }
        let until = Instant::now() + LATE_MAX;
        while self.chunks.may_be_on_disk(key) && Instant::now() < until {
            // A read that is late comes to memory.
            if let Some(bytes) = self.chunks.in_memory(key) {
                return Some(bytes);
            }
            tokio::time::sleep(SLOT_WAIT_STEP).await;
        }
        match self.chunks.in_memory(key) {
            Some(bytes) => Some(bytes),
            None => self.chunks.read_disk(key).await,
        }
    }
}
