//! What is written to a stream, as long as its peer takes it.
//!
//! Invariant: a stream is given up whose peer takes less than [`SEND_BYTES_MIN`] of it within the
//! limit, and none that takes more, however much is written at a time; nor one that waits while
//! more urgent ones of its connection leave, or for what its connection may have under way, while
//! others leave by that.

use crate::patience::Wait;
use crate::{SEND_BYTES_MIN, Shared};
use bytes::Bytes;
use quinn::WriteError;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// Urgencies of RFC 9218 section 4.1.
const URGENCIES: usize = 8;

/// Bytes that answers of each urgency have handed over, of one connection.
#[derive(Default)]
pub struct Tally([AtomicU64; URGENCIES]);

impl Tally {
    /// One of this urgency has handed over so many.
    pub fn add(&self, urgency: u8, bytes: usize) {
        if let Some(all) = self.0.get(usize::from(urgency)) {
            all.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// What all of them have.
    fn all(&self) -> u64 {
        self.before(u8::MAX)
    }

    /// What those have that leave before one of this urgency.
    fn before(&self, urgency: u8) -> u64 {
        self.0.iter().take(urgency.into()).map(|all| all.load(Relaxed)).sum()
    }
}

/// Why the rest of an answer can't leave.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The stream or its connection has ended.
    #[error(transparent)]
    Ended(#[from] WriteError),
    /// The peer takes too little of it.
    #[error("the peer takes no bytes")]
    Untaken,
}

/// Writes all of these, for an answer of this urgency.
///
/// # Errors
/// When the stream or its connection has ended, or the peer takes too little of it.
pub async fn write<S>(
    shared: &Shared<S>,
    (tally, urgency): (&Tally, u8),
    stream: &mut quinn::SendStream,
    mut pieces: &mut [Bytes],
) -> Result<(), Lost> {
    let begin = || Term::begin(shared.patience.send, tally, urgency);
    let (mut term, mut taken) = (begin(), 0);
    while pieces.iter().any(|piece| !piece.is_empty()) {
        // Ends once a part of them is written.
        let Ok(written) = term.spend(stream.write_chunks(pieces)).await else {
            if term.others_left(tally, urgency) {
                term = begin();
                continue;
            }
            shared.metrics.given_up.count(Wait::Send);
            return Err(Lost::Untaken);
        };
        let written = written?;
        tally.add(urgency, written.bytes);
        taken += written.bytes as u64;
        if taken >= SEND_BYTES_MIN {
            (term, taken) = (begin(), 0);
        }
        pieces = &mut pieces[written.chunks..];
    }
    Ok(())
}

/// The time in which enough is to be taken.
struct Term {
    by: Instant,
    /// What answers had handed over when it began: the more urgent ones, and all.
    before: u64,
    all: u64,
    /// There was room for the connection's streams, which others took.
    passed: bool,
}

impl Term {
    fn begin(limit: Duration, tally: &Tally, urgency: u8) -> Self {
        let (before, all) = (tally.before(urgency), tally.all());
        Self { by: Instant::now() + limit, before, all, passed: false }
    }

    /// What a write comes to, if it does in time.
    async fn spend<T>(&mut self, write: impl Future<Output = T>) -> Result<T, Elapsed> {
        let (mut write, mut waits) = (pin!(write), false);
        let writing = poll_fn(|cx| {
            let written = write.as_mut().poll(cx);
            if written.is_pending() {
                // Woken in time, and still without room: others had it, and the stream's own
                // window is open. quinn wakes nobody else.
                self.passed |= waits && Instant::now() < self.by;
                waits = true;
            }
            written
        });
        timeout_at(self.by, writing).await
    }

    /// Whether it was the turn of others, and they had enough.
    fn others_left(&self, tally: &Tally, urgency: u8) -> bool {
        tally.before(urgency) - self.before >= SEND_BYTES_MIN
            || self.passed && tally.all() - self.all >= SEND_BYTES_MIN
    }
}

#[cfg(test)]
mod tests;
