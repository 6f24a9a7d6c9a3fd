//! Fetches a run of chunks from the origin: each chunk is verified as it arrives, and whoever
//! waits for it has it at once.

use crate::chunks::Key;
use crate::error::Fault;
use crate::flights::Ticket;
use crate::metrics::{FillEnd, Metrics};
use crate::origin::{Origin, Pieces};
use crate::tiers::{Got, Landed, Tiers};
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::Bytes;
use model::{ByteRange, Track, chunk};
use std::sync::Arc;

/// Chunks wanted of a track: `first`, and up to `until` what is missing.
pub struct Run {
    /// Of this title.
    pub title: Arc<Title>,
    /// The track's place in the index.
    pub track: usize,
    /// First chunk.
    pub first: u64,
    /// First chunk that is not wanted.
    pub until: u64,
}

/// Fetches the chunks of `tickets`, which are neighbours in order, and lands each.
pub async fn run(tiers: &Tiers, run: &Run, tickets: Vec<Ticket<Key, Landed>>) {
    let mut tickets = tickets.into_iter();
    let wanted = run.first..run.first + tickets.len() as u64;
    let until = wanted.end;
    let fetched = fetch(&tiers.origin, &tiers.metrics, run, wanted, |_, bytes| {
        if let Some(ticket) = tickets.next() {
            tiers.chunks.insert(*ticket.key(), bytes.clone());
            ticket.land(Ok(Got { bytes, verdict: Verdict::Origin, until }));
        }
    });
    if let Err(fault) = fetched.await {
        let (title, version) = (&run.title.title, &run.title.version);
        tracing::warn!(%title, %version, track = run.track, chunk = run.first, %fault, "fill failed");
        tickets.for_each(|ticket| ticket.land(Err(fault.clone())));
    }
}

/// Fetches the chunks `wanted` of a run's track in order, verifies each and hands it to `keep`.
/// A chunk that fails is tried again, where there are several at another origin.
///
/// # Errors
/// How the last try for the first missing chunk failed.
pub async fn fetch(
    origin: &Origin,
    metrics: &Metrics,
    run: &Run,
    wanted: std::ops::Range<u64>,
    mut keep: impl FnMut(u64, Bytes),
) -> Result<(), Fault> {
    let Some(track) = run.title.index.tracks.get(run.track) else { return Err(Fault::NotFound) };
    let path = run.title.file_path(track);
    let mut next = wanted.start;
    let mut tries = 0;
    while next < wanted.end {
        let before = next;
        let ended = one_try(origin, metrics, &path, track, &mut next, wanted.end, &mut keep).await;
        let Err(fault) = ended else { break };
        // A try that got on counts as the first for the chunk that it failed at.
        tries = if next > before { 1 } else { tries + 1 };
        if tries >= origin.tries_max() {
            metrics.fill(FillEnd::Failed);
            return Err(fault);
        }
        metrics.fill(FillEnd::Retried);
        tracing::debug!(path, chunk = next, %fault, "fetching again");
    }
    metrics.fill(FillEnd::Done);
    Ok(())
}

async fn one_try(
    origin: &Origin,
    metrics: &Metrics,
    path: &str,
    track: &Track,
    next: &mut u64,
    end: u64,
    keep: &mut impl FnMut(u64, Bytes),
) -> Result<(), Fault> {
    let bytes = track.facts.file_bytes;
    let start = chunk::range(*next, bytes).start;
    let range = ByteRange::new(start, chunk::range(end - 1, bytes).end() - start);
    // The index names this file: an origin without it is broken, the title is not unknown.
    let mut pieces = origin.range(path, range).await.map_err(|fault| match fault {
        Fault::NotFound => Fault::unavailable(format!("it has no {path}, which the index names")),
        other => other,
    })?;
    while *next < end {
        let taken = take_chunk(&mut pieces, metrics, track, *next).await;
        let taken = taken.inspect_err(|_| origin.avoid(&pieces))?;
        keep(*next, taken);
        *next += 1;
    }
    Ok(())
}

async fn take_chunk(
    pieces: &mut Pieces,
    metrics: &Metrics,
    track: &Track,
    number: u64,
) -> Result<Bytes, Fault> {
    let length = chunk::range(number, track.facts.file_bytes).bytes;
    let length = usize::try_from(length).map_err(Fault::unavailable)?;
    let bytes = pieces.take(length).await?;
    if track.chunk_is_whole(number, &bytes) {
        return Ok(bytes);
    }
    metrics.corrupt("origin");
    Err(Fault::Corrupt)
}
