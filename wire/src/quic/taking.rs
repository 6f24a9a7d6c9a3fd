//! What is written to a stream, as long as its peer takes it.
//!
//! Invariant: a stream is given up whose peer takes less than [`SEND_BYTES_MIN`] of it within the
//! limit, and none that takes more, however much is written at a time; nor one that waits while
//! those of its connection leave that come before it, or for what its connection may have under way,
//! while others leave by that.

use super::order::Place;
use crate::patience::Wait;
use crate::{SEND_BYTES_MIN, Shared};
use bytes::Bytes;
use quinn::WriteError;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

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

/// Writes all of these, for an answer that has this place.
///
/// # Errors
/// When the stream or its connection has ended, or the peer takes too little of it.
pub async fn write<S>(
    shared: &Shared<S>,
    place: &Place<'_>,
    stream: &mut quinn::SendStream,
    mut pieces: &mut [Bytes],
) -> Result<(), Lost> {
    let begin = || Term::begin(shared.patience.send, place);
    let (mut term, mut taken, mut begun) = (begin(), 0, false);
    while pieces.iter().any(|piece| !piece.is_empty()) {
        // Ends once a part of them is written.
        let Ok(written) = term.spend(stream.write_chunks(pieces)).await else {
            if term.others_left(place) {
                term = begin();
                continue;
            }
            shared.metrics.given_up.count(Wait::Send);
            return Err(Lost::Untaken);
        };
        let written = written?;
        if !std::mem::replace(&mut begun, true) {
            // It may have been its first packet. Closed already is as good.
            let _ = stream.set_priority(place.order().rest());
        }
        place.add(written.bytes);
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
    /// What answers had handed over when it began: those that come before, and all.
    before: u64,
    all: u64,
    /// There was room for the connection's streams, which others took.
    passed: bool,
}

impl Term {
    fn begin(limit: Duration, place: &Place<'_>) -> Self {
        let (before, all) = (place.before(), place.tally().all());
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
    fn others_left(&self, place: &Place<'_>) -> bool {
        place.before() - self.before >= SEND_BYTES_MIN
            || self.passed && place.tally().all() - self.all >= SEND_BYTES_MIN
    }
}

#[cfg(test)]
mod tests;
