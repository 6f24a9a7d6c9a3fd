//! Bodies compressed off the connections' threads, a few at a time, each once.
//!
//! Invariant: a place among those that are compressed is taken by a body that is whole: one that
//! its origin sends slowly keeps no other one from being compressed.

use super::{BODY_BYTES_MAX, Encoding};
use crate::error::Fault;
use crate::flights::Flights;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use lru::LruCache;
use prometheus::{IntCounterVec, Registry};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies compressed at a time: what runs beside serving must leave it most cores.
const RUNNING_MAX: usize = 2;
/// Bodies compressed or waiting for it; each holds up to [`BODY_BYTES_MAX`].
const JOBS_MAX: usize = 8;
/// Bytes of bodies that are collected, wait or are being compressed: what as many of the largest
/// hold as may be waiting. They count as they come, so that what comes slowly takes little of it.
const HELD_BYTES_MAX: usize = JOBS_MAX * BODY_BYTES_MAX as usize;
/// A body is collected for so long: a player leaves an edge that gives it no first byte within 2 s.
const COLLECTED_WITHIN: Duration = Duration::from_secs(1);
/// What took longer goes out as it is for so long: who asks meanwhile need not wait, too.
const SLOW_FOR: Duration = Duration::from_secs(10);
/// Bodies remembered as not worth it, and as many as slow.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

// Levels, by a media playlist of 700 kB on one core: a body is compressed once and sent often,
// but a live playlist changes each second, so that what halves the speed must be worth it.

/// 20 MB/s; 9 saves another tenth at a seventh of the speed.
const GZIP_LEVEL: u32 = 6;
/// 21 MB/s, a quarter smaller than gzip; 7 saves another twentieth at half the speed.
const BROTLI_QUALITY: u32 = 6;
/// 4 MiB: beyond it few playlists repeat themselves, and each encoder takes that memory.
const BROTLI_WINDOW_BITS: u32 = 22;
/// 46 MB/s, a sixth smaller than gzip; 12 saves another fiftieth at half the speed.
const ZSTD_LEVEL: i32 = 9;

/// Compresses bodies off the connections' threads, a few at a time, each once.
pub struct Compressor {
    flights: Flights<[u8; 16], Option<Bytes>>,
    jobs: Arc<Semaphore>,
    running: Arc<Semaphore>,
    held: Arc<Semaphore>,
    useless: Arc<Mutex<LruCache<[u8; 16], ()>>>,
    slow: Mutex<LruCache<[u8; 16], Instant>>,
    outcomes: IntCounterVec,
    bytes: IntCounterVec,
}

/// A body that is here, and its share of what may be held.
struct Collected {
    pieces: Vec<Bytes>,
    held: Option<OwnedSemaphorePermit>,
}

impl Compressor {
    /// One for an edge.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = counting::counters(
            registry,
            "compressions_total",
            "Bodies compressed, by coding and outcome",
            &["encoding", "outcome"],
        )?;
        let bytes = counting::counters(
            registry,
            "compression_bytes_total",
            "Bytes compressed, before and after",
            &["encoding", "side"],
        )?;
        for encoding in Encoding::ALL {
            for outcome in ["done", "useless", "busy", "slow", "failed"] {
                outcomes.with_label_values(&[encoding.token(), outcome]);
            }
            for side in ["before", "after"] {
                bytes.with_label_values(&[encoding.token(), side]);
            }
        }
        Ok(Self {
            flights: Flights::new(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            held: Arc::new(Semaphore::new(HELD_BYTES_MAX)),
            useless: Arc::new(Mutex::new(LruCache::new(REMEMBERED_MAX))),
            slow: Mutex::new(LruCache::new(REMEMBERED_MAX)),
            outcomes,
            bytes,
        })
    }

    /// The encoded form of a `whole` body, named `id` (see [`super::body_id`]); the caller keeps it.
    /// However many ask at a time, it is made once, and collected once. None if it does not come
    /// within [`COLLECTED_WITHIN`], if too many others are being made, or if it is no smaller: send
    /// the body as it is.
    pub async fn compressed<S: Stream<Item = Result<Bytes, Fault>>>(
        &self,
        id: [u8; 16],
        whole: impl FnOnce() -> S,
        encoding: Encoding,
    ) -> Option<Bytes> {
        if self.is_useless(&id) || self.is_slow(&id) {
            return None;
        }
        let (wait, ticket) = self.flights.join(id, &upstream::Urgency::default());
        let Some(ticket) = ticket else { return wait.landed().await? };
        let (body, job) = match self.collected(whole()).await {
            Ok(body) => (body, Arc::clone(&self.jobs).try_acquire_owned().ok()),
            Err(Left::Slow) => {
                self.slow.lock().unwrap_or_else(PoisonError::into_inner).put(id, Instant::now());
                self.count(encoding, "slow");
                return None;
            }
            Err(Left::Busy) => {
                self.count(encoding, "busy");
                return None;
            }
            Err(Left::Failed) => return None,
        };
        let Some(job) = job else {
            self.count(encoding, "busy");
            return None;
        };
        let place = Arc::clone(&self.running).acquire_owned().await.ok()?;
        let useless = Arc::clone(&self.useless);
        let (outcomes, bytes) = (self.outcomes.clone(), self.bytes.clone());
        // Ends by itself: its input is bounded. Who asked may have gone; others may wait.
        tokio::task::spawn_blocking(move || {
            let _held = (job, place);
            let before: usize = body.pieces.iter().map(Bytes::len).sum();
            let made = encode(&body.pieces, encoding);
            let outcome = match &made {
                Ok(made) if made.len() < before => "done",
                Ok(_) => "useless",
                Err(_) => "failed",
            };
            outcomes.with_label_values(&[encoding.token(), outcome]).inc();
            let made = made.ok().filter(|made| made.len() < before).map(Bytes::from);
            match &made {
                Some(made) => {
                    let count = |side, length: usize| {
                        bytes.with_label_values(&[encoding.token(), side]).inc_by(length as u64);
                    };
                    count("before", before);
                    count("after", made.len());
                }
                None => {
                    useless.lock().unwrap_or_else(PoisonError::into_inner).put(id, ());
                }
            }
            ticket.land(made);
        });
        wait.landed().await?
    }

    fn is_useless(&self, id: &[u8; 16]) -> bool {
        self.useless.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn is_slow(&self, id: &[u8; 16]) -> bool {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.peek(id).is_some_and(|since| since.elapsed() < SLOW_FOR)
    }

    /// All of a body, if it comes in time and has room.
    async fn collected(
        &self,
        whole: impl Stream<Item = Result<Bytes, Fault>>,
    ) -> Result<Collected, Left> {
        let collect = async {
            let mut whole = pin!(whole);
            let mut body = Collected { pieces: Vec::new(), held: None };
            while let Some(piece) = whole.next().await {
                // Who asked learns why from the body itself.
                let piece = piece.map_err(|_| Left::Failed)?;
                body.hold(&self.held, piece)?;
            }
            Ok(body)
        };
        tokio::time::timeout(COLLECTED_WITHIN, collect).await.unwrap_or(Err(Left::Slow))
    }

    fn count(&self, encoding: Encoding, outcome: &str) {
        self.outcomes.with_label_values(&[encoding.token(), outcome]).inc();
    }
}

/// Why a body was not collected.
enum Left {
    Slow,
    Busy,
    Failed,
}

impl Collected {
    fn hold(&mut self, room: &Arc<Semaphore>, piece: Bytes) -> Result<(), Left> {
        let length = u32::try_from(piece.len()).map_err(|_| Left::Busy)?;
        let more = Arc::clone(room).try_acquire_many_owned(length).map_err(|_| Left::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        self.pieces.push(piece);
        Ok(())
    }
}

fn encode(body: &[Bytes], encoding: Encoding) -> io::Result<Vec<u8>> {
    let all = |to: &mut dyn Write| body.iter().try_for_each(|piece| to.write_all(piece));
    let out = Vec::new();
    match encoding {
        Encoding::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            all(&mut encoder)?;
            encoder.finish()
        }
        Encoding::Brotli => {
            let buffer = 4096;
            let mut encoder =
                brotli::CompressorWriter::new(out, buffer, BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            all(&mut encoder)?;
            encoder.flush()?;
            Ok(encoder.into_inner())
        }
        Encoding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
            all(&mut encoder)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests;
