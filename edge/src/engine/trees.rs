//! What parts of titles' chunks are verified by, where memory has no room for whole ones: the hashes
//! of their leaves, out of the title's tree files, or of chunks that were here whole.
//!
//! Invariant: all leaves in here are those of a digest of the title's index, whoever sent them.

use super::asking::{answer_by, source};
use super::{Engine, OWNED_RUN_BYTES, TITLES_HOST};
use crate::error::Fault;
use crate::object::{Kind, Object};
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::{Bytes, BytesMut};
use chunks::Key;
use http::{HeaderValue, StatusCode, header};
use lru::LruCache;
use model::tree::{self, Leaves};
use model::{ByteRange, store_key};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use upstream::{Ask, HopId, Place, Urgency};

/// Chunks whose leaves are known, some 6 MB.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// Files whose trees could not be had.
const ABSENT_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// They are not asked for again for so long: titles of before there were tree files have none.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// The leaves of so many chunks are asked for at a time: 16 KiB, of which one chunk is worth 1.6 %.
const CHUNKS: u64 = 32;
/// What another node may ask for at a time.
pub const TREE_BYTES_MAX: u64 = tree::bytes(CHUNKS * model::chunk::CHUNK_BYTES);
/// How long they are waited for: without them the chunk is fetched as a whole.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Leaves that are known, and files of which none can be had.
pub(super) struct Trees {
    known: Mutex<LruCache<Key, Arc<Leaves>>>,
    absent: Mutex<LruCache<[u8; 16], Instant>>,
}

impl Default for Trees {
    fn default() -> Self {
        let known = Mutex::new(LruCache::new(KNOWN_MAX));
        Self { known, absent: Mutex::new(LruCache::new(ABSENT_MAX)) }
    }
}

impl Trees {
    fn known(&self) -> MutexGuard<'_, LruCache<Key, Arc<Leaves>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(&self) -> MutexGuard<'_, LruCache<[u8; 16], Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the leaves of a chunk.
    pub(super) fn keep(&self, key: Key, leaves: Leaves) {
        self.known().put(key, Arc::new(leaves));
    }

    fn is_absent(&self, body: &[u8; 16]) -> bool {
        self.absent().get(body).is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }

    /// Whether the leaves of a chunk are known, or may be had.
    pub(super) fn may_tell(&self, key: &Key) -> bool {
        self.known().contains(key) || !self.is_absent(&key.body)
    }
}

impl Engine {
    /// The leaves of a title's chunk; none if they can't be had. `place` is that of an answer which
    /// waits for them.
    pub(super) async fn leaves(
        &self,
        object: &Object,
        number: u64,
        place: Option<Place>,
        urgency: &Urgency,
    ) -> Option<Arc<Leaves>> {
        let key = object.key(number)?;
        let known = self.trees.known().get(&key).cloned();
        if known.is_some() || self.trees.is_absent(&object.body) {
            return known;
        }
        let learning = self.learn(object, number - number % CHUNKS, place, urgency);
        if let Err(fault) = timeout(WAIT_MAX, learning).await.unwrap_or(Err(Fault::Lost)) {
            tracing::debug!(%fault, "chunks of a title are fetched whole");
            self.trees.absent().put(object.body, Instant::now());
        }
        self.trees.known().get(&key).cloned()
    }

    /// Fetches the leaves of the chunks from `first` on.
    async fn learn(
        &self,
        object: &Object,
        first: u64,
        place: Option<Place>,
        urgency: &Urgency,
    ) -> Result<(), Fault> {
        let Kind::Track { title, track, .. } = &object.kind else { return Err(Fault::NotFound) };
        let track = title.index.tracks.get(*track).ok_or(Fault::NotFound)?;
        let chunks = first..object.chunks().min(first + CHUNKS);
        let part = tree::range(chunks.clone(), object.bytes);
        let (bytes, _, hop) = self.tree_part(object, part, place, urgency).await?;
        for number in chunks {
            let own = tree::range(number..number + 1, object.bytes);
            let place = |at: u64| usize::try_from(at - part.start).unwrap_or(usize::MAX);
            let own = bytes.get(place(own.start)..place(own.end())).unwrap_or_default();
            match (track.leaves(number, own), object.key(number)) {
                (Some(leaves), Some(key)) => self.trees.keep(key, leaves),
                _ => {
                    self.metrics.corrupt("origin");
                    self.blame(object, &hop, &Fault::Corrupt);
                    return Err(Fault::Corrupt);
                }
            }
        }
        Ok(())
    }

    /// A part of a track's tree file, of [`TREE_BYTES_MAX`] at most, as somebody sends it: whoever
    /// makes something of it verifies it.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if there is none, or how it can't be had.
    pub async fn tree_part(
        &self,
        object: &Object,
        part: ByteRange,
        place: Option<Place>,
        urgency: &Urgency,
    ) -> Result<(Bytes, Verdict, HopId), Fault> {
        let Kind::Track { title, track, passed } = &object.kind else {
            return Err(Fault::NotFound);
        };
        let upstream = self.titles.as_ref().ok_or(Fault::NotFound)?;
        let mut ask = Ask::get(TITLES_HOST, path(title, *track)?, object.body);
        passed.tell(&mut ask);
        let range = format!("bytes={}-{}", part.start, part.end().saturating_sub(1));
        ask.fields.insert(header::RANGE, HeaderValue::try_from(range).map_err(Fault::unavailable)?);
        // Who owns the chunks has the leaves, too.
        ask.run = part.start / tree::bytes(OWNED_RUN_BYTES);
        (ask.place, ask.urgency) = (place, urgency.clone());
        ask.answer_by = answer_by(object, upstream);
        let answer = upstream.send(ask).await?;
        let (hop, source) = (answer.hop, source(answer.kind));
        let status = answer.head.status;
        if status == StatusCode::NOT_FOUND {
            return Err(Fault::NotFound);
        }
        let given = caching::content_range(&answer.head.headers).map(|given| given.range);
        if status != StatusCode::PARTIAL_CONTENT || given != Some(part) {
            return Err(Fault::unavailable(format!("{hop} answered {status} for leaves")));
        }
        let (mut bytes, mut body) = (BytesMut::new(), answer.body);
        body.leave_if_silent();
        while let Some(data) = body.next().await.transpose()? {
            self.metrics.fetched(source, data.len());
            bytes.extend_from_slice(&data);
            if bytes.len() as u64 > part.bytes {
                return Err(Fault::unavailable(format!("{hop} sent too much")));
            }
        }
        if (bytes.len() as u64) < part.bytes {
            return Err(Fault::unavailable(format!("{hop} cut its answer")));
        }
        Ok((bytes.freeze(), source, hop))
    }
}

fn path(title: &Title, track: usize) -> Result<String, Fault> {
    let track = title.index.tracks.get(track).ok_or(Fault::NotFound)?;
    Ok(format!("/{}", store_key::tree(&title.title, &title.version, &track.facts.id)))
}
